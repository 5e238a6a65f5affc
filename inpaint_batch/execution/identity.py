"""The identity of a row's result: two runs with the same key give the same bytes, so the second one need not happen."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.types import Row

ALGORITHM_VERSION = 1
"""Raise it with every change to the package that gives other pixels for the same input: all rows are then redone."""


def row_key(row: Row, config: RowConfig, tiling: TilingConfig, engine: str) -> str:
    """32 hexadecimal digits that change when the result would, or when a source file was touched.

    Files count by path, size and time of modification, not by content: reading every byte again would make a
    second run as slow as the first. `engine` names what computes the fill: engine, precision and the hash of the model.
    A file that is not there gives a key too, and another one once it appears.
    """
    identity = {
        "algorithm": ALGORITHM_VERSION,
        "image": _fingerprint(row.image),
        "mask": _fingerprint(row.mask),
        "output": row.output,
        "options": asdict(config),
        "tiling": asdict(tiling),
        "engine": engine,
    }
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def location(path: str) -> str:
    """One name for one file: absolute, and without `..`, which `failures.csv` is full of. URIs stay as they are."""
    if "://" in path:
        return path
    absolute = Path(path).absolute()
    if ".." in absolute.parts:
        absolute = absolute.parent.resolve() / absolute.name
    return str(absolute)


def _fingerprint(path: str) -> list[str | int | None]:
    name = location(path)
    try:
        status = Path(name).stat()
    except (OSError, ValueError):  # not there, or a store; ValueError: a NUL in the name
        return [name, None, None]
    return [name, status.st_size, status.st_mtime_ns]
