"""Image resources of Photoshop, which JPEGs keep in an APP13 segment and TIFFs in a tag: where their preview stands.

Layout after Adobe Photoshop File Formats Specification, sections Image Resource Blocks and Thumbnail Resource Format.
"""

from __future__ import annotations

import struct

_SIGNATURE = b"8BIM"
_THUMBNAIL = 1036
_JPEG_FORMAT, _HEAD_BYTES = 1, 28


def find_preview(resources: bytes) -> range:
    """Where in a run of image resources the JPEG of the preview stands; empty where there is none."""
    position = 0
    while resources[position : position + 4] == _SIGNATURE:
        try:
            (number,) = struct.unpack_from(">H", resources, position + 4)
            name_bytes = resources[position + 6] + 1
            position += 6 + name_bytes + name_bytes % 2
            (length,) = struct.unpack_from(">I", resources, position)
        except (struct.error, IndexError):
            break
        position += 4
        end = position + length
        if number == _THUMBNAIL and length > _HEAD_BYTES and end <= len(resources):
            (kind,) = struct.unpack_from(">I", resources, position)
            return range(position + _HEAD_BYTES, end) if kind == _JPEG_FORMAT else range(0)
        position = end + length % 2
    return range(0)
