"""What happens where an output exists that this run did not write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from inpaint_batch.config import OnConflict
from inpaint_batch.errors import FailureCode, RowError


def resolve_conflict(path: Path, policy: OnConflict, *, taken: Callable[[Path], bool] = os.path.lexists) -> Path | None:
    """The path to write instead of `path`; None means leave what is there and skip the row.

    `error` raises RowError(WRITE), `overwrite` keeps `path`, `suffix` takes the first free of `name-1.jpg`,
    `name-2.jpg`, ... A caller that hands out several names before it writes them passes its own `taken`, which must
    then be true for existing files as well. A folder in the place of the output is an error under every policy.
    """
    if not taken(path):
        return path
    if path.is_dir() and not path.is_symlink():
        raise RowError(FailureCode.WRITE, f"a folder stands where the output {path} should go; rename one of them")
    match policy:
        case "overwrite":
            return path
        case "skip":
            return None
        case "suffix":
            number = 1
            while taken(candidate := path.with_name(f"{path.stem}-{number}{path.suffix}")):
                number += 1
            return candidate
        case "error":
            raise RowError(
                FailureCode.WRITE,
                f"{path} exists, and no run here made it of an image at this path; move it away, or choose "
                "--on-conflict overwrite (also where the images were moved since), skip or suffix",
            )
