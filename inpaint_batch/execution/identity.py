"""The identity of a row's result: two runs with the same key give the same bytes, so the second one need not happen.

A second run over a million rows does little else than compute keys, so this avoids `pathlib`.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import lru_cache

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.storage.objects import describe
from inpaint_batch.types import Row

VERSIONS_KEPT = 8192
ALGORITHM_VERSION = 1
"""Raise it with every change to the package that gives other pixels for the same input: all rows are then redone."""


def row_key(row: Row, config: RowConfig, tiling: TilingConfig, engine: str) -> str:
    """32 hexadecimal digits that change when the result would, or when a source file was touched.

    Files count by path, size and time of modification, not by content: reading every byte again would make a
    second run as slow as the first. `engine` names what computes the fill: engine, precision and the hash of the model.
    A file that is not there gives a key too, and another one once it appears.
    """
    parts = (_settings(config, tiling, engine), fingerprint(row.image), fingerprint(row.mask), row.output)
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def location(path: str) -> str:
    """One name for one file: absolute, and without `..`, which `failures.csv` is full of. URIs stay as they are."""
    if "://" in path:
        return path
    if not path.startswith("/"):
        path = os.path.abspath(path)  # noqa: PTH100
    if "/../" in path or "/./" in path or "//" in path:
        folder, name = os.path.split(path)
        return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
    return path


def fingerprint(path: str) -> str:
    """What changes when a file does, or a URI's object: its name, size and time, or the version that the store tells.

    Raises StorageError where the store refuses to answer at all.
    """
    name = location(path)
    if "://" in name:
        return f"{name}\0{object_version(name)}"
    try:
        status = os.stat(name)  # noqa: PTH116
    except (OSError, ValueError):  # not there; ValueError: a NUL in the name
        return f"{name}\0\0"
    return f"{name}\0{status.st_size}\0{status.st_mtime_ns}"


@lru_cache(maxsize=VERSIONS_KEPT)
def object_version(uri: str) -> str:
    """What tells an object from the one that was there before; empty where it is not there.

    Kept for a while: rows are looked at from several threads, ahead of their turn (see `pipeline.ahead`).
    Raises StorageError where the store refuses to answer at all.
    """
    return describe(uri)


@lru_cache(maxsize=256)
def _settings(config: RowConfig, tiling: TilingConfig, engine: str) -> str:
    settings = {"algorithm": ALGORITHM_VERSION, "options": asdict(config), "tiling": asdict(tiling), "engine": engine}
    return json.dumps(settings, sort_keys=True)
