"""Multi-picture JPEGs: cameras append further pictures (previews, gain maps) behind the first and note where they
begin.

When the first picture changes length, those notes (the MPF segment of CIPA DC-007) must follow, or the others are
lost to every reader.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress

from inpaint_batch.imaging.jpeg_segments import APP2, SEGMENT_HEAD_BYTES, is_segment, placed

_PREFIX = b"MPF\x00"
_HEAD_BYTES = SEGMENT_HEAD_BYTES + len(_PREFIX)
"""In front of what offsets count from."""
_ENTRIES_TAG = 0xB002
_ENTRY_BYTES = 16
_CLASS, _PREVIEW = 0xFF0000, 0x010000
"""Of the attributes of a picture: what it is, and the value for previews, whatever their size (VGA, full HD, 4K)."""


def relocate(metadata: Sequence[bytes], source: bytes, source_end: int, end: int) -> tuple[bytes, ...]:
    """`metadata` of `source`, its notes rewritten for an output in which the first picture ends at `end`.

    Positions count from the head of the file; in the output all of `metadata` directly follows the start marker.
    """
    moved = []
    for place, segment in placed(metadata):
        if is_segment(segment, APP2, _PREFIX) and end != source_end:
            segment = _rewrite(segment, source.index(segment), place, source_end, end)
        moved.append(segment)
    return tuple(moved)


def find_previews(metadata: Sequence[bytes]) -> list[range]:
    """Where in a file, in which all of `metadata` directly follows the start marker, the notes say that large previews
    of the first picture stand.
    """
    found = []
    for place, segment in placed(metadata):
        if is_segment(segment, APP2, _PREFIX):
            order = _byte_order(segment)
            for entry in _entries(segment, order):
                kind, length, offset = struct.unpack_from(order + "III", segment, entry)
                if kind & _CLASS == _PREVIEW and offset:
                    start = place + _HEAD_BYTES + offset
                    found.append(range(start, start + length))
    return found


def _byte_order(segment: bytes) -> str:
    """`<` or `>`; empty for a segment that makes no sense."""
    return {b"II": "<", b"MM": ">"}.get(segment[_HEAD_BYTES : _HEAD_BYTES + 2], "")


def _entries(segment: bytes, order: str) -> list[int]:
    """Where in one MPF segment the entry of each picture stands; none where it makes no sense."""
    if not order:
        return []
    head = _HEAD_BYTES
    found: list[int] = []
    with suppress(struct.error):
        (directory,) = struct.unpack_from(order + "I", segment, head + 4)
        (num_tags,) = struct.unpack_from(order + "H", segment, head + directory)
        for index in range(num_tags):
            tag, _, num_bytes, place = struct.unpack_from(order + "HHII", segment, head + directory + 2 + 12 * index)
            if tag == _ENTRIES_TAG and head + place + num_bytes <= len(segment):
                found += range(head + place, head + place + num_bytes - _ENTRY_BYTES + 1, _ENTRY_BYTES)
    return found


def _rewrite(segment: bytes, old_place: int, new_place: int, old_end: int, new_end: int) -> bytes:
    """One MPF segment with lengths and offsets moved; a segment that makes no sense stays as it is."""
    result = bytearray(segment)
    order = _byte_order(segment)
    for entry in _entries(segment, order):
        length, offset = struct.unpack_from(order + "II", segment, entry + 4)
        if not offset and length >= old_end:  # some cameras count what pads the first picture
            length += new_end - old_end
        elif offset and old_place + _HEAD_BYTES + offset >= old_end:
            offset += (new_end - old_end) - (new_place - old_place)
        with suppress(struct.error):  # they do not lie in any file
            struct.pack_into(order + "II", result, entry + 4, length, offset)
    return bytes(result)
