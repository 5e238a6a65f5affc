"""JPEG 2000 (JP2): its boxes, its samples, and a lossless writer that carries every other box over.

Only files that were compressed without loss (the reversible 5-3 wavelet) are taken: a lossy one would come back many
times its size. OpenJPEG, within imagecodecs, writes one tile, whatever the source had.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import exif
from inpaint_batch.imaging.file_errors import check_budget, check_file_size, damaged, reading, refuse, spoiled
from inpaint_batch.imaging.source import WholeRasterSource, filled_samples, verify_samples
from inpaint_batch.types import Header, Patch, SampleArray, SampleType

SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
RAW_SIGNATURE = b"\xff\x4f\xff\x51"
PIXELS = b"jp2c"
"""Type of the box that holds the code stream."""
_EXIF_UUID = b"JpgTiffExif->JP2"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_SIZ, _COD, _COC, _COMMENT, _START_OF_TILE = 0x51, 0x52, 0x53, 0x64, 0x90
_REVERSIBLE = 1
_COLOURS = {16: 3, 17: 1}
"""Bands by enumerated colour space: sRGB and grey."""
_ICC_COLOURS = {b"RGB ": 3, b"GRAY": 1}
_DTYPES: dict[int, SampleType] = {8: "uint8", 16: "uint16"}
_OPACITY = 1
_BYTES_PER_SAMPLE = 4
"""In OpenJPEG, whatever the depth."""


@dataclass(frozen=True, slots=True)
class _Code:
    """What the head of the code stream says."""

    width_px: int
    height_px: int
    num_bands: int
    depth: int
    num_levels: int
    mixes_bands: bool
    """Whether the first three bands are packed as a luminance and two differences."""


class Jp2Source(WholeRasterSource):
    """A JP2 of grey or RGB, with or without alpha, of 8 or 16 bits."""

    def _decode(self) -> SampleArray:
        header = self.header
        samples: SampleArray = imagecodecs.jpeg2k_decode(self.path.read_bytes())
        return samples.reshape(header.height_px, header.width_px, header.num_bands)


def read_boxes(path: Path, data: bytes | None = None) -> list[tuple[bytes, bytes]]:
    """(type, body) of every box of the file, or of a superbox's body. Raises `RowError` (read)."""
    data = path.read_bytes() if data is None else data
    boxes = []
    position = 0
    while position < len(data):
        if position + 8 > len(data):
            raise damaged(path, "it is truncated")
        length, kind = struct.unpack_from(">I4s", data, position)
        start = position + 8
        if length == 1:
            if position + 16 > len(data):
                raise damaged(path, "it is truncated")
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = position + length if length else len(data)
        if not start <= end <= len(data):
            raise damaged(path, f"its {kind!r} box leaves the file")
        boxes.append((kind, data[start:end]))
        position = end
    return boxes


def open_jp2(path: Path, max_bytes: int) -> Jp2Source:
    """Open a JP2 by its header; raises `RowError` (read, memory)."""
    if not imagecodecs.JPEG2K.available:
        advice = "pip install 'imagecodecs[all]', which brings OpenJPEG"
        message = f"the image {path} is a JPEG 2000, which this imagecodecs cannot read; {advice}"
        raise RowError(FailureCode.READ, message)
    check_file_size(path, path.stat().st_size, max_bytes)
    boxes = read_boxes(path)
    first = dict(reversed(boxes))
    if b"jp2 " not in _fours(first.get(b"ftyp", b"")) or [kind for kind, _ in boxes].count(PIXELS) != 1:
        raise refuse(path, "a JPX, an extended JPEG 2000", "save it as a JP2 of one picture")
    code = _read_code(path, first[PIXELS])
    check_budget(path, code.width_px, code.height_px, code.num_bands * _BYTES_PER_SAMPLE, max_bytes)
    if code.depth not in _DTYPES:
        raise refuse(path, f"a JPEG 2000 of {code.depth} bits per sample", "convert it to a TIFF of 8 or 16 bits")
    orientation = 1
    for kind, body in boxes:
        if kind == b"uuid" and body.startswith(_EXIF_UUID):
            orientation = exif.orientation(body[len(_EXIF_UUID) :])
    header = Header(
        format="jp2",
        width_px=code.width_px,
        height_px=code.height_px,
        num_bands=code.num_bands,
        dtype=_DTYPES[code.depth],
        has_alpha=_has_alpha(path, read_boxes(path, first.get(b"jp2h", b"")), code),
        orientation=orientation,
    )
    return Jp2Source(path, header)


def _fours(body: bytes) -> list[bytes]:
    """The brands in the body of a file type box: its own, behind a version the compatible ones."""
    return [body[:4], *(body[start : start + 4] for start in range(8, len(body), 4))]


def _read_code(path: Path, code: bytes) -> _Code:
    sizes: tuple[int, ...] = ()
    bands = set()
    style = b""
    is_reversible = True
    for marker, body in _main_header(path, code):
        if marker == _SIZ:
            sizes = struct.unpack_from(">8IH", body, 2)
            bands = {tuple(body[at : at + 3]) for at in range(36, 36 + 3 * sizes[8], 3)}
        elif marker == _COD:
            style = body
            is_reversible &= body[9] == _REVERSIBLE
        elif marker == _COC:
            is_reversible &= body[-1 if len(body) < 8 else 6] == _REVERSIBLE
    if not sizes or not style or not bands:
        raise damaged(path, "it does not say how it is coded")
    if not is_reversible:
        raise refuse(path, "a JPEG 2000 compressed with loss", "convert it to TIFF")
    right, bottom, left, top = sizes[:4]
    if len(bands) > 1 or left or top or not all(band[1:] == (1, 1) for band in bands):
        raise refuse(path, "a JPEG 2000 whose bands differ in size or depth, or with an offset", "convert it to TIFF")
    (precision, _, _), *_ = bands
    if precision & 0x80:
        raise refuse(path, "a JPEG 2000 of signed samples", "convert it to a TIFF of 8 or 16 bits")
    return _Code(right, bottom, sizes[8], precision + 1, style[5], bool(style[4]))


def _main_header(path: Path, code: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, body) of the segments before the first tile."""
    position = 2
    while position + 4 <= len(code):
        lead, marker, length = struct.unpack_from(">BBH", code, position)
        if marker == _START_OF_TILE:
            return
        if lead != 0xFF or length < 2 or position + 2 + length > len(code):
            break
        yield marker, code[position + 4 : position + 2 + length]
        position += 2 + length
    raise damaged(path, "the head of its code stream does not hold together")


def _has_alpha(path: Path, boxes: list[tuple[bytes, bytes]], code: _Code) -> bool:
    """Whether the last band is opacity; raises `RowError` (read) for other meanings than grey and RGB."""
    first = dict(reversed(boxes))
    if b"pclr" in first or b"cmap" in first:
        raise refuse(path, "a JPEG 2000 with a palette", "convert it to RGB")
    if struct.pack(">IIH", code.height_px, code.width_px, code.num_bands) != first.get(b"ihdr", b"")[:10]:
        raise damaged(path, "its header and its code stream differ in size")
    colour = first.get(b"colr", b"")
    if colour[:1] == b"\x01":
        num_colours = _COLOURS.get(int.from_bytes(colour[3:7], "big"), 0)
    else:
        num_colours = _ICC_COLOURS.get(colour[3:][16:20], 0)
    defined = first.get(b"cdef", b"\x00\x00")
    meanings = [struct.unpack_from(">3H", defined, 2 + 6 * band) for band in range(int.from_bytes(defined[:2], "big"))]
    colours = [(band, 0, band + 1) for band in range(num_colours)]
    plain = sorted(meanings) in ([], colours) and code.num_bands == num_colours
    with_alpha = sorted(meanings) == [*colours, (num_colours, _OPACITY, 0)] and code.num_bands == num_colours + 1
    if not num_colours or not (plain or with_alpha):
        raise refuse(path, "a JPEG 2000 of other bands than grey or RGB and one alpha", "convert it to TIFF")
    return with_alpha


def write_jp2(source: Jp2Source, patches: Sequence[Patch], destination: Path) -> None:
    """Write the patched samples lossless; every other box stays byte for byte, and comments in the code stream."""
    header = source.header
    samples = filled_samples(source, header.box, patches)
    with reading(source.path):
        boxes = read_boxes(source.path)
    code = _read_code(source.path, dict(boxes)[PIXELS])
    packed = imagecodecs.jpeg2k_encode(
        np.ascontiguousarray(samples.squeeze(axis=2) if header.num_bands == 1 else samples),
        level=0,
        codecformat="j2k",
        reversible=True,
        resolutions=code.num_levels + 1,
        mct=code.mixes_bands,
    )
    pixels = _with_comments(source.path, bytes(packed), dict(boxes)[PIXELS])
    write_boxes([(kind, pixels if kind == PIXELS else body) for kind, body in boxes], destination)


def _with_comments(path: Path, code: bytes, before: bytes) -> bytes:
    """A code stream with the comments of the one before it in place of its own."""
    own = list(_main_header(path, code))
    kept = [one for one in own if one[0] != _COMMENT]
    kept += [one for one in _main_header(path, before) if one[0] == _COMMENT]
    tiles = code[2 + sum(4 + len(body) for _, body in own) :]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body for marker, body in kept)
    return code[:2] + head + tiles


def write_boxes(boxes: Sequence[tuple[bytes, bytes]], destination: Path) -> None:
    """A file of (type, body) pairs."""
    with destination.open("wb") as file:
        for kind, body in boxes:
            length = 8 + len(body)
            is_long = length >= 1 << 32
            file.write(struct.pack(">I4s", 1 if is_long else length, kind))
            file.write(struct.pack(">Q", length + 8) if is_long else b"")
            file.write(body)


def verify_jp2(source: Jp2Source, patches: Sequence[Patch], destination: Path, max_bytes: int) -> None:
    """Read `destination` back and raise `RowError` (write) unless samples and metadata are what was meant."""
    written = open_jp2(destination, max_bytes)
    before, after = ([_metadata(path, *box) for box in read_boxes(path)] for path in (source.path, destination))
    if before != after:
        raise spoiled(destination, "its metadata changed on the way")
    verify_samples(source, patches, written)


def _metadata(path: Path, kind: bytes, body: bytes) -> tuple[bytes, object]:
    """A box, of the code stream its comments."""
    return kind, [one for one in _main_header(path, body) if one[0] == _COMMENT] if kind == PIXELS else body
