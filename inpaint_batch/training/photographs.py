"""The photographs to learn from: where they are, which are held out, and their pixels."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.errors import ConfigError, FailureCode, RowError
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.opencv import read_picture
from inpaint_batch.manifest.read import read_examples
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.storage.paths import files_below
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.types import IMAGE_SUFFIXES, UNREAD_SUFFIXES, FloatArray, Row

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Photograph:
    """An image file, whole or with damage that is known."""

    path: Path
    rows: tuple[Row, ...] = ()
    """Of a manifest, each with a mask of what is damaged in the image and must not be learned; none: nothing is."""


def list_photographs(data: Path) -> list[Photograph]:
    """All photographs of a folder and its subfolders, or of a manifest, in the order of a hash of their names.

    So sources are mixed, and the order does not depend on where the data lies. Of a manifest's row the `truth` is
    taken, or else the image without what its mask covers; of several rows with one such file, without what any covers.
    """
    if data.is_dir():
        paths = list(files_below(data))
        found = {p.relative_to(data).as_posix(): Photograph(p) for p in paths if p.suffix.lower() in IMAGE_SUFFIXES}
        if unread := sorted(path for path in paths if path.suffix.lower() in UNREAD_SUFFIXES):
            log.warning(
                "%d image(s) of kinds that are not read are left out, such as %s; convert them to JPEG, PNG or TIFF",
                *(len(unread), unread[0]),
            )
    elif data.is_file():
        found = _in_manifest(data)
    else:
        raise ConfigError(f"{data} is neither a folder of photographs nor a manifest")
    if not found:
        raise ConfigError(f"no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}) in {data}")
    return [found[name] for name in sorted(found, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())]


def searched_folders(data: Path) -> list[Path]:
    """The folders in which photographs are looked for, which no run may write to: `data`, or its `train` and `val`."""
    both = [data / "train", data / "val"]
    if all(folder.is_dir() for folder in both):
        return both
    return [data] if data.is_dir() else []


def split_photographs(data: Path, config: TrainConfig) -> tuple[list[Photograph], list[Photograph]]:
    """Photographs to learn from, and those held out for validation.

    From `data/train` and `data/val` where both exist; else the last `num_validation` of all are held out.
    """
    folders = searched_folders(data)
    if len(folders) == 2:
        learned, held_out = list_photographs(folders[0]), list_photographs(folders[1])[: config.num_validation]
    else:
        photographs = list_photographs(data)
        num = min(config.num_validation, len(photographs) // 2)
        learned, held_out = photographs[: -num or None], photographs[len(photographs) - num :]
    return learned[: config.max_samples], held_out


def read_rgb(photograph: Photograph) -> FloatArray:
    """(height, width, 3) float32 in [0, 1] as a viewer shows it, NaN where damaged.

    Raises RowError where the image cannot be decoded, or its mask cannot be used.
    """
    if not photograph.rows:
        return _whole(photograph.path)
    from inpaint_batch.training.undamaged import undamaged  # reads as a run does, with all libraries that takes

    return undamaged(photograph.rows)


def _whole(path: Path) -> FloatArray:
    with reading(path):
        decoded = read_picture(path, cv2.IMREAD_COLOR)
        if decoded is None:
            raise RowError(FailureCode.READ, f"the image {path} is damaged, or none that training reads")
        rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32)
        rgb /= np.float32(255.0)  # in place: of 50 megapixels each further copy takes 600 MB
    return rgb


def _in_manifest(path: Path) -> dict[str, Photograph]:
    found: dict[str, Photograph] = {}
    names: dict[tuple[Path, str], str] = {}
    for row in read_examples(path):
        if isinstance(row, RowProblem):
            raise ConfigError(f"line {row.line} of {path} cannot be used: {row.error.message}")
        for location in [row.truth] if row.truth else [row.image, row.mask]:
            if is_uri(location):
                raise ConfigError(
                    f"line {row.line} of {path}: {location} lies in a store, and training reads every file many times; "
                    "copy them to this machine first"
                )
        photograph = Photograph(Path(row.truth)) if row.truth else Photograph(Path(row.image), (row,))
        picture = (photograph.path, row.options.get("page", "0") if photograph.rows else "")
        if picture in names:  # with another mask; twice, it could be learned and held out at once
            known = found[names[picture]]
            found[names[picture]] = replace(known, rows=known.rows + photograph.rows)
            continue
        names[picture] = name = row.id if row.id not in found else f"{row.id}\0{picture}"
        found[name] = photograph
    return found
