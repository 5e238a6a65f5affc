"""The one thing that is read out of EXIF: the orientation tag."""

from __future__ import annotations

import struct

_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4
EXIF_PREFIX = b"Exif\x00\x00"


def orientation(exif: bytes) -> int:
    """EXIF orientation 1..8 of a TIFF-structured EXIF block, with or without its `Exif` prefix; 1 where it says
    nothing sensible.
    """
    block = exif.removeprefix(EXIF_PREFIX)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    try:
        if order is None:
            return 1
        (offset,) = struct.unpack_from(order + "I", block, 4)
        (num_entries,) = struct.unpack_from(order + "H", block, offset)
        for index in range(num_entries):
            entry = offset + 2 + 12 * index
            tag, kind = struct.unpack_from(order + "HH", block, entry)
            if tag == _ORIENTATION_TAG and kind in (_SHORT, _LONG):
                (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, entry + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass  # a torn EXIF block is kept as it is; it only tells us nothing
    return 1
