"""Mask files as `mask` writes them, and how they are told from those that a person edited or added.

A mask as it was found carries a seal: a digest of itself and of its name among the masks. So it needs nobody's memory:
it holds where a call was killed, where the folder was copied, and where the notes on what was seen are lost.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.png import encode
from inpaint_batch.imaging.png_chunks import SIGNATURE, make_chunk, write_chunks
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.types import BoolArray

_WHITE = np.uint8(255)
_HEAD_BYTES = len(SIGNATURE) + 25
"""Up to the end of the chunk IHDR."""
_KEYWORD = b"inpaint-batch mask\0"
_SEAL_BYTES = 12 + len(_KEYWORD) + 32


def write_mask(path: Path, name: str, hole: BoolArray, orientation: int) -> None:
    """Write what was found (h, w), in the stored layout and with the orientation tag of the image; `name` is that of
    the mask among all. Raises what `atomic_write` raises.
    """
    chunks = encode((hole.view(np.uint8) * _WHITE)[..., None])
    if orientation != 1:  # a mask without a tag counts as drawn on the upright view
        exif = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        chunks.insert(1, make_chunk(b"eXIf", exif))
    digest = _new_digest(name)
    for content in (SIGNATURE, *(chunk.whole for chunk in chunks)):
        digest.update(content)
    chunks.insert(1, make_chunk(b"tEXt", _KEYWORD + digest.hexdigest().encode()))
    with atomic_write(path) as temporary:
        write_chunks(temporary, chunks)


def is_as_found(path: Path, name: str) -> bool:
    """Whether the file is a mask of that name as `write_mask` left it. Raises RowError(READ)."""
    try:
        with path.open("rb") as file:
            return _has_seal(file, name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error


def digest_of(path: Path) -> str:
    """Of the bytes of a mask file, by which a change is told; empty where there is none. Raises RowError(READ)."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise _unreadable(path, error) from error


def _has_seal(file: BinaryIO, name: str) -> bool:
    head, seal = file.read(_HEAD_BYTES), file.read(_SEAL_BYTES)
    if _KEYWORD not in seal:
        return False
    digest = _new_digest(name)
    digest.update(head)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return seal == make_chunk(b"tEXt", _KEYWORD + digest.hexdigest().encode()).whole


def _new_digest(name: str) -> hashlib.blake2b:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass") + b"\0", digest_size=16)


def _unreadable(path: Path, error: OSError) -> RowError:
    return RowError(FailureCode.READ, f"the mask {path} cannot be read: {error.strerror}")
