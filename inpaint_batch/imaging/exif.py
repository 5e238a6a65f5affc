"""What is read out of EXIF: the orientation tag, and where the preview stands.

A block that is torn is kept as it is; it only tells less, or nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

EXIF_PREFIX = b"Exif\x00\x00"
_ORIENTATION_TAG = 0x0112
_PREVIEW_TAGS = ((0x0201, 0x0202), (0x0111, 0x0117))
"""Start and length of a JPEG, or of plain samples."""
_FORMATS = {3: "H", 4: "I"}
"""SHORT and LONG, the types of all of them."""


def orientation(exif: bytes) -> int:
    """EXIF orientation 1..8 of a TIFF-structured EXIF block, with or without its `Exif` prefix; 1 where it says
    nothing sensible.
    """
    first = next(_directories(exif.removeprefix(EXIF_PREFIX)), {})
    return sensible(first.get(_ORIENTATION_TAG, 1))


def sensible(orientation: int) -> int:
    """The value of an orientation tag if there is such an orientation (1..8), else 1."""
    return orientation if 1 <= orientation <= 8 else 1


def find_preview(exif: bytes) -> range:
    """Where in an EXIF block, with or without its prefix, the preview of its second directory stands, most likely a
    JPEG; empty where there is none. It ends with the block, whatever length is noted, as it does for readers.
    """
    block = exif.removeprefix(EXIF_PREFIX)
    head = len(exif) - len(block)
    second = next(islice(_directories(block), 1, None), {})
    for tags in _PREVIEW_TAGS:
        start, length = (second.get(tag, 0) for tag in tags)
        if 0 < start < len(block) and length:
            return range(head + start, head + min(start + length, len(block)))
    return range(0)


def _directories(block: bytes) -> Iterator[dict[int, int]]:
    """The directories of a block in their order, two at most: of each the tags that hold a number, the first of two
    alike.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return
    pointer = 4
    for _ in range(2):
        tags: dict[int, int] = {}
        with suppress(struct.error):
            (start,) = struct.unpack_from(order + "I", block, pointer)
            if not start:
                return
            (num_entries,) = struct.unpack_from(order + "H", block, start)
            pointer = start + 2 + 12 * num_entries
            for entry in range(start + 2, pointer, 12):
                tag, kind = struct.unpack_from(order + "HH", block, entry)
                if kind in _FORMATS:
                    (value,) = struct.unpack_from(order + _FORMATS[kind], block, entry + 8)
                    tags.setdefault(tag, value)
        yield tags
