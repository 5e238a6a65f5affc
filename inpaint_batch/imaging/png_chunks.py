"""The chunks of a PNG file: taken apart, made, and put together again."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LENGTH_BYTES, CHUNK_HEAD_BYTES, CHECKSUM_BYTES = 4, 8, 4
"""Of a chunk: its length; length and type, in front of the body; what stands behind the body."""


class Chunk(NamedTuple):
    """One chunk as it stands in the file."""

    kind: bytes
    """Its type, four letters."""
    whole: bytes
    """Length, type, body and checksum."""

    @property
    def body(self) -> bytes:
        """What it holds."""
        return self.whole[CHUNK_HEAD_BYTES:-CHECKSUM_BYTES]

    @property
    def is_sound(self) -> bool:
        """Whether the checksum is that of type and body."""
        return checksum(self.whole[LENGTH_BYTES:-CHECKSUM_BYTES]) == self.whole[-CHECKSUM_BYTES:]


def checksum(content: bytes) -> bytes:
    """As it stands behind a chunk whose type and body are `content`."""
    return zlib.crc32(content).to_bytes(CHECKSUM_BYTES, "big")


def make_chunk(kind: bytes, body: bytes) -> Chunk:
    """One chunk with its length and checksum."""
    return Chunk(kind, struct.pack(">I", len(body)) + kind + body + checksum(kind + body))


def split_chunks(data: bytes) -> list[Chunk]:
    """Every chunk of a file up to and including IEND. Raises `ValueError` where the file ends before that."""
    chunks: list[Chunk] = []
    position = len(SIGNATURE)
    while position + CHUNK_HEAD_BYTES + CHECKSUM_BYTES <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + CHUNK_HEAD_BYTES + length + CHECKSUM_BYTES
        if end > len(data):
            break
        chunks.append(Chunk(kind, data[position:end]))
        position = end
        if kind == b"IEND":
            return chunks
    raise ValueError("it is truncated")


def read_chunks(path: Path) -> tuple[list[Chunk], bytes]:
    """Every chunk of a file up to and including IEND, and what stands behind it. Raises as `split_chunks` does."""
    data = path.read_bytes()
    chunks = split_chunks(data)
    return chunks, data[len(SIGNATURE) + sum(len(chunk.whole) for chunk in chunks) :]


def write_chunks(path: Path, chunks: Iterable[Chunk], trailer: bytes = b"") -> None:
    """A file of these chunks, with `trailer` behind them."""
    with path.open("wb") as file:
        file.writelines([SIGNATURE, *(chunk.whole for chunk in chunks), trailer])
