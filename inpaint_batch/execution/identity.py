"""The identity of a row's result: two runs with the same key give the same bytes, so the second one need not happen.

A second run over a million rows does little else than compute keys, so this avoids `pathlib`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import lru_cache
from typing import Literal, NamedTuple

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import describe
from inpaint_batch.storage.paths import location
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row

VERSIONS_KEPT = 8192
ALGORITHM_VERSION = 7
"""Raise it with every change to the package that gives other pixels for the same input: all rows are then redone."""

KEY_DIGITS = 58
"""Hexadecimal digits of a key: two for the kind, 16 for the image, 16 for the mask, 8 each for options, model and
output name. Parts of their own, so that of two keys one can tell what has changed."""
Change = Literal["image", "mask", "options", "model", "output", "version"]
"""What differs between two keys; `version`: they were made by different versions of this package."""
_OUTPUT = slice(50, 58)
_PARTS: tuple[tuple[Change, slice], ...] = (
    ("image", slice(2, 18)),
    ("mask", slice(18, 34)),
    ("options", slice(34, 42)),
    ("model", slice(42, 50)),
    ("output", _OUTPUT),
)
_BY_TIME, _BY_CONTENT = b"\x01", b"\x02"

_untold: dict[str, ObjectError] = {}  # objects that were asked after ahead of their turn, in vain

Look = tuple[int, int]
"""Size in bytes and time of modification in nanoseconds."""


class Identity(NamedTuple):
    """Who a row is, and what was seen of its files."""

    key: str
    image: tuple[str, Look | None]
    """Where it lies (`location`), and what it looks like: None where it is not there, or an object."""
    mask: tuple[str, Look | None]


def identify(row: Row, config: RowConfig, tiling: TilingConfig, engine: str, *, by_content: bool = False) -> Identity:
    """The key changes when the result would, or when a source file was touched.

    Files count by path, size and time of modification; `by_content` by their bytes alone, wherever they lie, for the
    price of reading them. Objects count by what their store says in both cases. `engine` names what computes the fill:
    engine, precision and the hash of the model. A file that is not there gives a key too, another once it appears.

    Raises RowError(READ) where a store does not say it now, and StorageError where it refuses to answer at all.
    """
    image = _fingerprint(row.image, "image", by_content)
    mask = image if row.mask == row.image else _fingerprint(row.mask, "mask", by_content)
    key = b"".join(
        (
            _BY_CONTENT if by_content else _BY_TIME,
            image[0],
            mask[0],
            _settings(config, tiling),
            _short(engine),
            _digest(row.output, 4),
        )
    )
    return Identity(key.hex(), image[1], mask[1])


def row_key(row: Row, config: RowConfig, tiling: TilingConfig, engine: str, *, by_content: bool = False) -> str:
    """The key alone; see `identify`, also for what it raises."""
    return identify(row, config, tiling, engine, by_content=by_content).key


def is_by_content(key: str) -> bool:
    """Whether the files of this key count by content."""
    return key.startswith(_BY_CONTENT.hex())


def what_changed(before: str, now: str) -> Change | None:
    """The first part in which two keys differ, those of the row's own files first; None where they are the same."""
    if before == now:
        return None
    if len(before) != len(now) or before[:2] != now[:2]:
        return "version"
    return next(change for change, part in _PARTS if before[part] != now[part])


def as_called_now(before: str, identity: Identity, were: Callable[[str], Iterable[str]]) -> str:
    """The key `before`, with the files of `identity` as they are called now where they look as they did and it knew
    them as something that `were` says: those of a folder that was moved. Others stay as they are.
    """
    if not before.startswith(_BY_TIME.hex()):
        return before
    for (_, part), (name, seen) in zip(_PARTS, (identity.image, identity.mask), strict=False):
        if seen is None or before[part] == identity.key[part]:
            continue
        if any(_by_time(called, seen).hex() == before[part] for called in were(name)):
            before = before[: part.start] + identity.key[part] + before[part.stop :]
    return before


def names_same_output(before: str, now: str) -> bool:
    """Whether the rows of two keys ask for the same output; of keys from other versions that is taken for granted."""
    return len(before) != len(now) or before[_OUTPUT] == now[_OUTPUT]


def look(path: str) -> Look | None:
    """What a file looks like from outside; None where it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):  # not there; ValueError: a NUL in the name
        return None
    return status.st_size, status.st_mtime_ns


def fingerprint(path: str, role: str) -> str:
    """What changes when a file does, or a URI's object: its name, size and time, or the version that the store tells.

    `role` is what it is to its row: image, mask. Raises as `identify` does.
    """
    return _fingerprint(path, role, False)[0].hex()


def _fingerprint(path: str, role: str, by_content: bool) -> tuple[bytes, tuple[str, Look | None]]:
    name = location(path)
    if is_uri(name):
        try:
            if (untold := _untold.get(name)) is not None:
                raise untold
            version = object_version(name)
        except ObjectError as error:
            raise error.for_row(name, role) from error
        return _digest(f"{name}\0{version}"), (name, None)
    seen = look(name)
    if seen is None:
        return _digest(f"{name}\0\0"), (name, None)
    if by_content:
        return content_digest(name, seen), (name, seen)
    return _by_time(name, seen), (name, seen)


def _by_time(name: str, seen: Look) -> bytes:
    return _digest(f"{name}\0{seen[0]}\0{seen[1]}")


@lru_cache(maxsize=VERSIONS_KEPT)
def content_digest(name: str, seen: Look) -> bytes:
    """Of the bytes of a file that looks like that, 8 bytes; of its name and look where they cannot be read.

    Kept for a while: a mask may serve many rows, and files are read ahead of their turn (see `pipeline.ahead`).
    """
    try:
        if stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116  (a pipe would be read for ever)
            with open(name, "rb") as file:  # noqa: PTH123
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).digest()
    except OSError:
        pass  # the row will fail, and say why
    return _digest(f"{name}\0{seen}")


@lru_cache(maxsize=VERSIONS_KEPT)
def object_version(uri: str) -> str:
    """What tells an object from the one that was there before; empty where it is not there.

    Kept for a while: rows are looked at from several threads, ahead of their turn (see `pipeline.ahead`).
    Raises ObjectError where the store does not tell; the next time it is asked again.
    """
    return describe(uri)


def ask_version(uri: str) -> None:
    """Ask after an object ahead of the turn of its row. `identify` then knows also what the store did not tell, after
    all attempts: it would wait for as many again, for one row after the other.
    """
    try:
        object_version(uri)
        _untold.pop(uri, None)
    except ObjectError as error:
        if len(_untold) >= VERSIONS_KEPT:
            _untold.clear()
        _untold[uri] = error


def forget_looks() -> None:
    """Forget what was seen of files and objects, as a run does that begins."""
    object_version.cache_clear()
    content_digest.cache_clear()
    _untold.clear()


@lru_cache(maxsize=256)
def _settings(config: RowConfig, tiling: TilingConfig) -> bytes:
    options = asdict(config)
    del options["empty_mask"]  # it says whether there is a result, not which
    settings = {"algorithm": ALGORITHM_VERSION, "options": options, "tiling": asdict(tiling)}
    return _digest(json.dumps(settings, sort_keys=True), 4)


@lru_cache(maxsize=16)
def _short(text: str) -> bytes:
    return _digest(text, 4)


def _digest(text: str, num_bytes: int = 8) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=num_bytes).digest()
