"""The XMP of a TIFF page: tag 700. A packet, and a directory that must grow for it, go to the end of the file.

No byte of the old file changes but the address of a directory, or of the tag's value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.file_errors import spoiled, verifying

XMP_TAG = 700
_BYTE = 1
_BYTE_WIDE_TYPES = (1, 2, 6, 7)
_CLASSIC_LIMIT_BYTES = 1 << 32
_MAX_PAGES = 1_000_000


@dataclass(frozen=True, slots=True)
class _Shape:
    """How numbers stand in this file."""

    order: str
    is_big: bool

    @property
    def address(self) -> str:
        return self.order + ("Q" if self.is_big else "I")

    @property
    def count(self) -> str:
        return self.order + ("Q" if self.is_big else "H")

    @property
    def entry_bytes(self) -> int:
        return 20 if self.is_big else 12

    @property
    def inline_bytes(self) -> int:
        return 8 if self.is_big else 4

    def tag(self, entry: bytes) -> int:
        return int(struct.unpack_from(self.order + "H", entry)[0])


@dataclass(frozen=True, slots=True)
class _Directory:
    shape: _Shape
    pointer: int
    """Offset of the address that leads here."""
    offset: int
    entries: tuple[bytes, ...]
    following: bytes
    """The address of the next directory, as it stands."""

    def xmp_entries(self) -> list[bytes]:
        return [entry for entry in self.entries if self.shape.tag(entry) == XMP_TAG]


def packets(path: Path, page: int) -> list[bytes]:
    """The XMP of a page (from 1; 0: the first), none or one. Raises ValueError for a directory that is no such."""
    with path.open("rb") as file:
        directory = _directory(file, page)
        return [_value(file, directory.shape, entry) for entry in directory.xmp_entries()]


def put(path: Path, packet: bytes, page: int) -> None:
    """Give a page this packet. Raises RowError(WRITE) where a classic TIFF would grow past 4 GB."""
    with path.open("r+b") as file:
        before = _directory(file, page)
        shape, size = before.shape, file.seek(0, 2)
        room = len(packet) + (len(before.entries) + 2) * shape.entry_bytes
        if not shape.is_big and size + room > _CLASSIC_LIMIT_BYTES:
            message = f"{path} is a classic TIFF that would grow past 4 GB by its XMP; convert it to BigTIFF"
            raise RowError(FailureCode.WRITE, message)
        value = _append(file, packet)
        fresh = struct.pack(shape.order + "HH" + shape.address[1] * 2, XMP_TAG, _BYTE, len(packet), value)
        own = before.xmp_entries()
        if own:
            place = before.offset + struct.calcsize(shape.count) + before.entries.index(own[0]) * shape.entry_bytes
            changed, content = place, fresh
            entries = tuple(fresh if entry is own[0] else entry for entry in before.entries)
        else:
            entries = tuple(sorted((*before.entries, fresh), key=shape.tag))
            directory = struct.pack(shape.count, len(entries)) + b"".join(entries) + before.following
            changed, content = before.pointer, struct.pack(shape.address, _append(file, directory))
        file.seek(changed)
        file.write(content)
    with verifying(path), path.open("rb") as file:
        after = _directory(file, page)
        if after.entries != entries or after.following != before.following:
            raise spoiled(path, "more than its XMP changed")


def _append(file: BinaryIO, data: bytes) -> int:
    offset = file.seek(0, 2)
    if offset & 1:  # addresses are even
        file.write(b"\x00")
        offset += 1
    file.write(data)
    return offset


def _value(file: BinaryIO, shape: _Shape, entry: bytes) -> bytes:
    kind, count = struct.unpack_from(shape.order + "H" + shape.address[1], entry, 2)
    if kind not in _BYTE_WIDE_TYPES:
        raise ValueError(f"its XMP has the type {kind}, not bytes")
    if count <= shape.inline_bytes:
        return entry[-shape.inline_bytes :][:count]
    (offset,) = struct.unpack(shape.address, entry[-shape.inline_bytes :])
    file.seek(offset)
    return _exactly(file, count)


def _directory(file: BinaryIO, page: int) -> _Directory:
    head = _exactly(file, 4)
    order = {b"II": "<", b"MM": ">"}[head[:2]]
    shape = _Shape(order, struct.unpack(order + "H", head[2:])[0] == 43)
    pointer = 8 if shape.is_big else 4
    for _ in range(min(max(page, 1), _MAX_PAGES)):
        file.seek(pointer)
        (offset,) = struct.unpack(shape.address, _exactly(file, struct.calcsize(shape.address)))
        if not offset:
            raise ValueError(f"it has no page {page}")
        file.seek(offset)
        (num_entries,) = struct.unpack(shape.count, _exactly(file, struct.calcsize(shape.count)))
        if num_entries > 1 << 16:
            raise ValueError("a directory is too long")
        entries = tuple(_exactly(file, shape.entry_bytes) for _ in range(num_entries))
        following = _exactly(file, struct.calcsize(shape.address))
        directory = _Directory(shape, pointer, offset, entries, following)
        pointer = offset + struct.calcsize(shape.count) + num_entries * shape.entry_bytes
    return directory


def _exactly(file: BinaryIO, num_bytes: int) -> bytes:
    start, end = file.tell(), file.seek(0, 2)
    if num_bytes > end - start:  # before memory is asked for
        raise ValueError("it is truncated")
    file.seek(start)
    return file.read(num_bytes)
