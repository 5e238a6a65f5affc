"""Multi-picture JPEGs: cameras append further pictures (previews, gain maps) behind the first and note where they
begin.

When the first picture changes length, those notes (the MPF segment of CIPA DC-007) must follow, or the others are
lost to every reader.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress

_APP2_MPF, _MARKER_AND_LENGTH, _PREFIX = 0xE2, 4, b"MPF\x00"
_ENTRIES_TAG = 0xB002
_ENTRY_BYTES = 16
_CLASS, _PREVIEW = 0xFF0000, 0x010000
"""Of the attributes of a picture: what it is, and the value for previews, whatever their size (VGA, full HD, 4K)."""


def relocate(metadata: Sequence[bytes], source: bytes, source_end: int, end: int) -> tuple[bytes, ...]:
    """`metadata` of `source`, its notes rewritten for an output in which the first picture ends at `end`.

    Positions count from the head of the file; in the output all of `metadata` directly follows the start marker.
    """
    moved = []
    position = 2
    for segment in metadata:
        if _is_notes(segment) and end != source_end:
            head = _MARKER_AND_LENGTH + len(_PREFIX)  # offsets count from here
            segment = _rewrite(segment, head, source.index(segment) + head, position + head, source_end, end)
        moved.append(segment)
        position += len(segment)
    return tuple(moved)


def find_previews(metadata: Sequence[bytes]) -> list[range]:
    """Where in a file, in which all of `metadata` directly follows the start marker, the notes say that large previews
    of the first picture stand.
    """
    found = []
    position = 2
    for segment in metadata:
        if _is_notes(segment):
            head = _MARKER_AND_LENGTH + len(_PREFIX)
            order = _byte_order(segment, head)
            for entry in _entries(segment, head, order):
                kind, length, offset = struct.unpack_from(order + "III", segment, entry)
                if kind & _CLASS == _PREVIEW and offset:
                    start = position + head + offset
                    found.append(range(start, start + length))
        position += len(segment)
    return found


def _is_notes(segment: bytes) -> bool:
    return segment[1] == _APP2_MPF and segment.startswith(_PREFIX, _MARKER_AND_LENGTH)


def _byte_order(segment: bytes, head: int) -> str:
    """`<` or `>`; empty for a segment that makes no sense."""
    return {b"II": "<", b"MM": ">"}.get(segment[head : head + 2], "")


def _entries(segment: bytes, head: int, order: str) -> list[int]:
    """Where in one MPF segment the entry of each picture stands; none where it makes no sense."""
    if not order:
        return []
    found: list[int] = []
    with suppress(struct.error):
        (directory,) = struct.unpack_from(order + "I", segment, head + 4)
        (num_tags,) = struct.unpack_from(order + "H", segment, head + directory)
        for index in range(num_tags):
            tag, _, num_bytes, place = struct.unpack_from(order + "HHII", segment, head + directory + 2 + 12 * index)
            if tag == _ENTRIES_TAG and head + place + num_bytes <= len(segment):
                found += range(head + place, head + place + num_bytes - _ENTRY_BYTES + 1, _ENTRY_BYTES)
    return found


def _rewrite(segment: bytes, head: int, old_base: int, new_base: int, old_end: int, new_end: int) -> bytes:
    """One MPF segment with lengths and offsets moved; a segment that makes no sense stays as it is."""
    result = bytearray(segment)
    order = _byte_order(segment, head)
    for entry in _entries(segment, head, order):
        length, offset = struct.unpack_from(order + "II", segment, entry + 4)
        if not offset and length >= old_end:  # some cameras count what pads the first picture
            length += new_end - old_end
        elif offset and old_base + offset >= old_end:
            offset += (new_end - old_end) - (new_base - old_base)
        with suppress(struct.error):  # they do not lie in any file
            struct.pack_into(order + "II", result, entry + 4, length, offset)
    return bytes(result)
