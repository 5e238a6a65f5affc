"""The XMP of a TIFF page: tag 700. A packet, and a directory that must grow for it, go to the end of the file.

No byte of the old file changes but the address of a directory, or of the tag's value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from tifffile import TIFF, TiffFormat

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.file_errors import spoiled, verifying
from inpaint_batch.imaging.tiff_layout import CLASSIC_LIMIT_BYTES, append_even

XMP_TAG = 700
_BYTE = 1
_BYTE_WIDE_TYPES = (1, 2, 6, 7)
_FORMATS = {
    b"II*\x00": TIFF.CLASSIC_LE,
    b"MM\x00*": TIFF.CLASSIC_BE,
    b"II+\x00": TIFF.BIG_LE,
    b"MM\x00+": TIFF.BIG_BE,
}
"""By how a file begins."""
_MAX_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class _Directory:
    format: TiffFormat
    """How numbers stand in it."""
    pointer: int
    """Offset of the address that leads here."""
    offset: int
    entries: tuple[bytes, ...]
    following: bytes
    """The address of the next directory, as it stands."""

    def xmp_entries(self) -> list[bytes]:
        return [entry for entry in self.entries if _tag(self.format, entry) == XMP_TAG]


def packets(path: Path, page: int) -> list[bytes]:
    """The XMP of a page (from 1; 0: the first), none or one. Raises ValueError for a directory that is no such."""
    with path.open("rb") as file:
        directory = _directory(file, page)
        return [_value(file, directory.format, entry) for entry in directory.xmp_entries()]


def put(path: Path, packet: bytes, page: int) -> None:
    """Give a page this packet. Raises RowError(WRITE) where a classic TIFF would grow past 4 GB."""
    with path.open("r+b") as file:
        before = _directory(file, page)
        form, size = before.format, file.seek(0, 2)
        room = len(packet) + (len(before.entries) + 2) * form.tagsize
        if not form.is_bigtiff and size + room > CLASSIC_LIMIT_BYTES:
            message = f"{path} is a classic TIFF that would grow past 4 GB by its XMP; convert it to BigTIFF"
            raise RowError(FailureCode.WRITE, message)
        value = append_even(file, packet)
        fresh = struct.pack(form.tagformat1 + form.offsetformat[1] * 2, XMP_TAG, _BYTE, len(packet), value)
        own = before.xmp_entries()
        if own:
            place = before.offset + form.tagnosize + before.entries.index(own[0]) * form.tagsize
            changed, content = place, fresh
            entries = tuple(fresh if entry is own[0] else entry for entry in before.entries)
        else:
            entries = tuple(sorted((*before.entries, fresh), key=partial(_tag, form)))
            directory = struct.pack(form.tagnoformat, len(entries)) + b"".join(entries) + before.following
            changed, content = before.pointer, struct.pack(form.offsetformat, append_even(file, directory))
        file.seek(changed)
        file.write(content)
    with verifying(path), path.open("rb") as file:
        after = _directory(file, page)
        if after.entries != entries or after.following != before.following:
            raise spoiled(path, "more than its XMP changed")


def _tag(form: TiffFormat, entry: bytes) -> int:
    return int(struct.unpack_from(form.byteorder + "H", entry)[0])


def _value(file: BinaryIO, form: TiffFormat, entry: bytes) -> bytes:
    kind, count = struct.unpack_from(form.byteorder + "H" + form.offsetformat[1], entry, 2)
    if kind not in _BYTE_WIDE_TYPES:
        raise ValueError(f"its XMP has the type {kind}, not bytes")
    inside = entry[-form.offsetsize :]
    if count <= len(inside):
        return inside[:count]
    (offset,) = struct.unpack(form.offsetformat, inside)
    file.seek(offset)
    return _exactly(file, count)


def _directory(file: BinaryIO, page: int) -> _Directory:
    form = _FORMATS[_exactly(file, 4)]
    pointer = 8 if form.is_bigtiff else 4
    for _ in range(min(max(page, 1), _MAX_PAGES)):
        file.seek(pointer)
        (offset,) = struct.unpack(form.offsetformat, _exactly(file, form.offsetsize))
        if not offset:
            raise ValueError(f"it has no page {page}")
        file.seek(offset)
        (num_entries,) = struct.unpack(form.tagnoformat, _exactly(file, form.tagnosize))
        if num_entries > 1 << 16:
            raise ValueError("a directory is too long")
        entries = tuple(_exactly(file, form.tagsize) for _ in range(num_entries))
        following = _exactly(file, form.offsetsize)
        directory = _Directory(form, pointer, offset, entries, following)
        pointer = offset + form.tagnosize + num_entries * form.tagsize
    return directory


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    start, end = file.tell(), file.seek(0, 2)
    if num_bytes > end - start:  # before memory is asked for
        raise ValueError("it is truncated")
    file.seek(start)
    return file.read(num_bytes)
