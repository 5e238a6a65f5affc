"""Image resources of Photoshop, which JPEGs keep in an APP13 segment and TIFFs in a tag: where their preview stands.

Layout after Adobe Photoshop File Formats Specification, sections Image Resource Blocks and Thumbnail Resource Format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_SIGNATURE = b"8BIM"
_PREVIEW, _OLD_PREVIEW = 1036, 1033
"""The second is of Photoshop 4: red and blue have changed places."""
_JPEG_FORMAT, _HEAD_BYTES = 1, 28


class _Resource(NamedTuple):
    """One image resource."""

    number: int
    whole: range
    """Where it stands, its head and what pads it included."""
    body: range


def find_preview(resources: bytes) -> range:
    """Where in a run of image resources the JPEG of the preview stands, or all of a preview of another kind; empty
    where there is none.
    """
    for number, _, body in _split(resources):
        head = resources[body.start : body.start + _HEAD_BYTES]
        is_jpeg = len(head) == _HEAD_BYTES and struct.unpack_from(">I", head) == (_JPEG_FORMAT,)
        if number == _PREVIEW and is_jpeg:
            return body[_HEAD_BYTES:]
        if number in (_PREVIEW, _OLD_PREVIEW):
            return body
    return range(0)


def without_previews(resources: bytes) -> bytes:
    """The same run of image resources without those that are previews."""
    kept, start = [], 0
    for number, whole, _ in _split(resources):
        if number in (_PREVIEW, _OLD_PREVIEW):
            kept.append(resources[start : whole.start])
            start = whole.stop
    return b"".join([*kept, resources[start:]])


def _split(resources: bytes) -> Iterator[_Resource]:
    """The resources of a run in their order, as far as they hold together."""
    start = 0
    while resources[start : start + 4] == _SIGNATURE:
        try:
            (number,) = struct.unpack_from(">H", resources, start + 4)
            name_bytes = resources[start + 6] + 1
            position = start + 6 + name_bytes + name_bytes % 2
            (length,) = struct.unpack_from(">I", resources, position)
        except (struct.error, IndexError):
            return
        body = range(position + 4, position + 4 + length)
        if body.stop > len(resources):
            return
        end = min(body.stop + length % 2, len(resources))
        yield _Resource(number, range(start, end), body)
        start = end
