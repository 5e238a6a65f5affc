"""Multi-picture JPEGs: cameras append further pictures (previews, gain maps) behind the first and note where they
begin.

When the first picture changes length, those notes (the MPF segment of CIPA DC-007) must follow, or the others are
lost to every reader. They are the only metadata that patching ever changes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_APP2_MPF, _MARKER_AND_LENGTH, _PREFIX = 0xE2, 4, b"MPF\x00"
_ENTRIES_TAG = 0xB002
_ENTRY_BYTES = 16


def relocate(metadata: Sequence[bytes], source: bytes, source_end: int, end: int) -> tuple[bytes, ...]:
    """`metadata` of `source`, its notes rewritten for an output in which the first picture ends at `end`.

    Positions count from the head of the file; in the output all of `metadata` directly follows the start marker.
    """
    moved = []
    position = 2
    for segment in metadata:
        is_notes = segment[1] == _APP2_MPF and segment[_MARKER_AND_LENGTH:].startswith(_PREFIX)
        if is_notes and end != source_end:
            head = _MARKER_AND_LENGTH + len(_PREFIX)  # offsets count from here
            segment = _rewrite(segment, head, source.index(segment) + head, position + head, source_end, end)
        moved.append(segment)
        position += len(segment)
    return tuple(moved)


def _rewrite(segment: bytes, head: int, old_base: int, new_base: int, old_end: int, new_end: int) -> bytes:
    """One MPF segment with lengths and offsets moved; a segment that makes no sense stays as it is."""
    result = bytearray(segment)
    order = {b"II": "<", b"MM": ">"}.get(segment[head : head + 2])
    if order is None:
        return segment
    try:
        (directory,) = struct.unpack_from(order + "I", segment, head + 4)
        (num_tags,) = struct.unpack_from(order + "H", segment, head + directory)
        for index in range(num_tags):
            tag, _, num_bytes, place = struct.unpack_from(order + "HHII", segment, head + directory + 2 + 12 * index)
            if tag != _ENTRIES_TAG:
                continue
            for entry in range(head + place, head + place + num_bytes, _ENTRY_BYTES):
                length, offset = struct.unpack_from(order + "II", segment, entry + 4)
                if not offset and length >= old_end:  # some cameras count what pads the first picture
                    length += new_end - old_end
                elif offset and old_base + offset >= old_end:
                    offset += (new_end - old_end) - (new_base - old_base)
                struct.pack_into(order + "II", result, entry + 4, length, offset)
    except struct.error:
        return segment
    return bytes(result)
