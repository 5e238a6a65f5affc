"""The photographs to learn from: where they are, which are held out, and their pixels."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import ConfigError
from inpaint_batch.imaging.opencv import read_picture
from inpaint_batch.manifest.folder import MASK_SUFFIXES
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, row_config
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.types import IMAGE_SUFFIXES, BoolArray, FloatArray

DAMAGE_RIM_PX = 2
"""Pixels around a hole of a manifest that are not learned from either: damage rarely ends where its mask does."""


@dataclass(frozen=True, slots=True)
class Photograph:
    """An image file, whole or with damage that is known."""

    path: Path
    mask: Path | None = None
    """What of it is damaged and must not be learned; None: nothing."""
    mask_config: RowConfig = field(default_factory=RowConfig)
    """How to read the mask."""


def list_photographs(data: Path) -> list[Photograph]:
    """All photographs of a folder and its subfolders, or of a manifest, in the order of a hash of their names.

    So sources are mixed, and the order does not depend on where the data lies. Of a manifest's row the `truth` is
    taken, or else the image without what its mask covers.
    """
    if data.is_dir():
        paths = (p for p in data.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        found = {p.relative_to(data).as_posix(): Photograph(p) for p in paths}
    elif data.is_file():
        found = _in_manifest(data)
    else:
        raise ConfigError(f"{data} is neither a folder of photographs nor a manifest")
    if not found:
        raise ConfigError(f"no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}) in {data}")
    return [found[name] for name in sorted(found, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())]


def split_photographs(data: Path, config: TrainConfig) -> tuple[list[Photograph], list[Photograph]]:
    """Photographs to learn from, and those held out for validation.

    From `data/train` and `data/val` where both exist; else the last `num_validation` of all are held out.
    """
    if (data / "train").is_dir() and (data / "val").is_dir():
        learned, held_out = list_photographs(data / "train"), list_photographs(data / "val")[: config.num_validation]
    else:
        photographs = list_photographs(data)
        num = min(config.num_validation, len(photographs) // 2)
        learned, held_out = photographs[: -num or None], photographs[len(photographs) - num :]
    return learned[: config.max_samples], held_out


def read_rgb(photograph: Photograph) -> FloatArray | None:
    """(height, width, 3) float32 in [0, 1], NaN where damaged; None where a file cannot be decoded or a mask does not
    fit."""
    decoded = _decoded(photograph.path, cv2.IMREAD_COLOR)
    if decoded is None:
        return None
    rgb = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / np.float32(255.0)
    if photograph.mask is not None:
        damaged = _damage(photograph)
        if damaged is None or damaged.shape != rgb.shape[:2]:
            return None
        rgb[damaged] = np.nan
    return rgb


def _decoded(path: Path, flags: int) -> NDArray[np.uint8] | None:
    """The samples of a file, None where there are none."""
    try:
        return read_picture(path, flags)
    except OSError:
        return None


def _in_manifest(path: Path) -> dict[str, Photograph]:
    found = {}
    for row in read_manifest(path):
        if isinstance(row, RowProblem):
            raise ConfigError(f"line {row.line} of {path} cannot be used: {row.error.message}")
        if row.truth:
            found[row.id] = Photograph(Path(row.truth))
            continue
        config = row_config(row, RowConfig())
        if config.mask_from != "file" or Path(row.mask).suffix.lower() in MASK_SUFFIXES - IMAGE_SUFFIXES:
            raise ConfigError(
                f"line {row.line} of {path}: masks in text, or drawn in the image, are not read here; save them as PNG"
            )
        found[row.id] = Photograph(Path(row.image), Path(row.mask), config)
    return found


def _damage(photograph: Photograph) -> BoolArray | None:
    config = photograph.mask_config
    assert photograph.mask is not None
    mask = _decoded(photograph.mask, cv2.IMREAD_GRAYSCALE)
    if mask is None:
        return None
    damaged = (mask > config.mask_threshold) == (config.mask_polarity == "white")
    reach = config.dilate_px + config.feather_px + DAMAGE_RIM_PX
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return cv2.dilate(damaged.astype(np.uint8), kernel).astype(bool)
