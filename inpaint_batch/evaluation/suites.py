"""Evaluation suites: photographs whose truth is known, with synthetic holes, as a manifest that any run can take.

A suite is a folder: `images/` with the hole painted mid-grey (so that no truth can leak through it), `masks/` (white is
hole), and `manifest.csv` whose `truth` column names the photograph. A photograph gets the same hole from the same seed,
whichever others are in the suite.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.holes.synthesise import DamageLibrary, box_hole, stroke_hole
from inpaint_batch.imaging.opencv import read_picture
from inpaint_batch.storage.paths import files_below
from inpaint_batch.types import IMAGE_SUFFIXES, BoolArray, FloatArray

MID_GREY = 127

HoleMaker = Callable[[np.random.Generator, int, int], BoolArray]
"""(random numbers, height, width) -> hole (height, width)."""

STROKE_AREAS = {"strokes_5_15": (0.05, 0.15), "strokes_5_25": (0.05, 0.25), "strokes_15_30": (0.15, 0.30)}
"""Part of the image that is hole, from and to."""
BOX_AREA = (0.05, 0.20)
DAMAGE_AREA = (0.01, 0.08)

KINDS = ("strokes_5_15", "strokes_5_25", "strokes_15_30", "boxes", "damage")
"""Every kind of hole; `damage` needs a folder of damage elements."""


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """One photograph of a suite."""

    name: str
    """File name in `images/` and `masks/`, and of the output that the manifest asks for."""
    truth: Path
    hole: BoolArray
    """(height, width)."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite on disk."""

    manifest: Path
    items: tuple[SuiteItem, ...]


def find_photos(folder: Path, limit: int | None = None) -> list[Path]:
    """The photographs under `folder`, sorted; where there are more than `limit`, that many, evenly spread.

    Raises ValueError where there are none.
    """
    photos = sorted(path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
    if not photos:
        raise ValueError(f"no photograph ({', '.join(sorted(IMAGE_SUFFIXES))}) under {folder}")
    if limit is None or limit >= len(photos):
        return photos
    return [photos[index * len(photos) // limit] for index in range(limit)]


def hole_maker(kind: str, damage: Path | None = None) -> HoleMaker:
    """What draws the holes of one of `KINDS`.

    Raises ValueError for an unknown kind, and for `damage` without a folder of damage elements.
    """
    if kind in STROKE_AREAS:
        return lambda rng, height, width: stroke_hole(rng, height, width, area=STROKE_AREAS[kind])
    if kind == "boxes":
        return lambda rng, height, width: box_hole(rng, height, width, area=BOX_AREA)
    if kind != "damage":
        raise ValueError(f"unknown kind of hole {kind!r}; there are {', '.join(KINDS)}")
    if damage is None:
        raise ValueError("holes of kind damage need a folder of damage elements")
    library = DamageLibrary(damage)
    return lambda rng, height, width: library.hole(rng, height, width, area=DAMAGE_AREA)


def write_suite(kind: str, photos: Sequence[Path], folder: Path, make_hole: HoleMaker, *, seed: int = 0) -> Suite:
    """Draw a hole for every photograph and write the suite to `folder`, which is made where it is missing."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    items = []
    for index, photo in enumerate(photos):
        samples = read_rgb(photo)
        # Seeded by the photograph's own bytes: neither the other photographs nor the path to the folder matter.
        rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), zlib.crc32(photo.read_bytes())])
        hole = make_hole(rng, samples.shape[0], samples.shape[1])
        name = f"{index:05d}_{photo.stem}.png"
        samples[hole] = MID_GREY
        write_png(folder / "images" / name, samples)
        write_png(folder / "masks" / name, hole.astype(np.uint8) * 255)
        items.append(SuiteItem(name, photo.resolve(), hole))
    manifest = folder / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(("id", "image", "mask", "output", "truth"))
        for item in items:
            lines.writerow((Path(item.name).stem, f"images/{item.name}", f"masks/{item.name}", item.name, item.truth))
    return Suite(manifest, tuple(items))


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """The samples of an 8-bit photograph, RGB (height, width, 3), as stored: an orientation tag is not applied.

    Grey becomes RGB, alpha is dropped, 16 bits become 8: this reads truths and results to compare, nothing to restore.
    Raises ValueError where the file is not an image.
    """
    samples = read_picture(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if samples is None:
        raise ValueError(f"{path} is not an image that can be read")
    return np.ascontiguousarray(samples[..., ::-1])


def as_image(samples: NDArray[np.uint8]) -> FloatArray:
    """Samples 0..255 as float32 in [0, 1]."""
    return samples.astype(np.float32) / np.float32(255)


def write_png(path: Path, samples: NDArray[np.uint8]) -> None:
    """Write grey (height, width) or RGB (height, width, 3) samples."""
    bgr = samples if samples.ndim == 2 else cv2.cvtColor(samples, cv2.COLOR_RGB2BGR)
    path.write_bytes(cv2.imencode(".png", bgr)[1].tobytes())
