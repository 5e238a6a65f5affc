"""The segments of a JPEG, each behind its marker: walked over, told apart, taken out. No entropy decoding."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

SOI = b"\xff\xd8"
DQT, DHT, DRI, DAC, DNL = 0xDB, 0xC4, 0xDD, 0xCC, 0xDC
SOS, EOI, COM = 0xDA, 0xD9, 0xFE
APP0, APP1, APP2, APP13, APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF
SEGMENT_HEAD_BYTES = 4
"""Marker and length, in front of the body of a segment."""
_RESTARTS = range(0xD0, 0xD8)
_TEM = 0x01
_MARKER_IN_SCAN = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
"""Among entropy-coded bytes a marker is none of: an escaped 0xFF, TEM, a restart, a fill byte."""


class TruncatedError(ValueError):
    """The bytes end before the structure does."""

    def __init__(self) -> None:
        super().__init__("it is truncated")


class Segment(NamedTuple):
    """A marker and what belongs to it."""

    marker: int
    span: slice
    """Where it stands, marker included."""
    body: bytes
    """What follows marker and length; empty for EOI."""


def segments(data: bytes, *, before: int | None = None) -> Iterator[Segment]:
    """The segments behind SOI up to EOI, that included, or those before the first of kind `before`; entropy-coded bytes
    are passed over.

    Raises `ValueError` with half a sentence about what is wrong when it comes there, and `TruncatedError` where the
    bytes end too early.
    """
    position, in_scan = len(SOI), False
    while True:
        marker, behind = _next_marker(data, position, in_scan=in_scan)
        if marker == EOI:
            yield Segment(marker, slice(behind - 2, behind), b"")
        if marker in (EOI, before):
            return
        body = _segment_body(data, behind)
        position = behind + 2 + len(body)
        yield Segment(marker, slice(behind - 2, position), body)
        in_scan |= marker == SOS


def is_metadata(marker: int) -> bool:
    """Whether segments of that kind are APPn or COM."""
    return APP0 <= marker <= _APP15 or marker == COM


def is_segment(segment: bytes, marker: int, prefix: bytes = b"") -> bool:
    """Whether a segment, marker included, is of that kind and its body begins with `prefix`."""
    return segment[1] == marker and segment.startswith(prefix, SEGMENT_HEAD_BYTES)


def placed(metadata: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each segment with its offset in a file in which all of them directly follow the start marker."""
    return zip(accumulate(map(len, metadata), initial=len(SOI)), metadata, strict=False)  # the last one is their end


def huffman_tables(data: bytes) -> dict[int, bytes]:
    """Class (16 for AC) and number of each Huffman table to its counts and symbols, as it was defined last.

    `data` may be a stream of tables alone; what follows its first scan is not looked at. Raises as `segments` does.
    """
    tables: dict[int, bytes] = {}
    for marker, _, body in segments(data, before=SOS):
        start = 0
        while marker == DHT and start < len(body):
            end = start + 17 + sum(body[start + 1 : start + 17])
            tables[body[start]] = body[start + 1 : end]
            start = end
    return tables


def common_tables(data: bytes) -> bytes:
    """The DQT and DHT segments of a stream of tables alone, without its SOI and EOI.

    All else in it (restart intervals, markers of programs) ends where a picture begins. Raises as `segments` does.
    """
    whole = SOI + data[len(SOI) :] + bytes((0xFF, EOI))  # which some writers leave out, and there may be no data
    return b"".join(whole[span] for marker, span, _ in segments(whole, before=SOS) if marker in (DQT, DHT))


def split_pixels(data: bytes, without: Collection[int] = ()) -> bytes:
    """The segments of a finished JPEG from behind SOI to behind EOI, but for APPn, COM and the markers `without`."""
    kept = []
    start = end = len(SOI)
    for marker, span, _ in segments(data):
        if is_metadata(marker) or marker in without:
            kept.append(data[start : span.start])
            start = span.stop
        end = span.stop
    return b"".join([*kept, data[start:end]])


def _next_marker(data: bytes, position: int, *, in_scan: bool) -> tuple[int, int]:
    """(marker, offset behind it) of the next marker that is not a restart, skipping entropy-coded bytes."""
    if in_scan:
        found = _MARKER_IN_SCAN.search(data, position)
        if found is None:
            raise TruncatedError
        return data[found.end() - 1], found.end()
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise TruncatedError
        code = data[position + 1]
        if code == 0xFF:  # fill byte
            position += 1
        elif code == 0:
            raise ValueError("its segments do not hold together")
        elif code == _TEM or code in _RESTARTS:
            position += 2
        else:
            return code, position + 2


def _segment_body(data: bytes, position: int) -> bytes:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2:
        raise ValueError("a segment has no length")
    if position + length > len(data):
        raise TruncatedError
    return data[position + 2 : position + length]
