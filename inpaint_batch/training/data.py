"""Crops and holes to learn from. A batch is a function of the settings and the step: nothing else, no hidden state.

So a resumed run sees what an unbroken one would have seen, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes.synthesise import DamageLibrary, box_hole, stroke_hole
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.types import BoolArray, FloatArray

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
REFERENCE_SIDE_PX = 128
"""`batch_size` counts crops of this side; other sides hold as many pixels."""
PREFETCH_STEPS = 4
MAX_REPLACEMENTS = 16
"""Unreadable photographs in a row before a batch gives up."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from."""

    step: int
    image: FloatArray
    """(B, 3, side, side) in [0, 1]: the truth."""
    hole: FloatArray
    """(B, 1, side, side), 1 where missing."""
    with_prior: bool
    """Whether this step starts from the network's own fill at half resolution."""


def list_photographs(folder: Path) -> list[Path]:
    """All image files under `folder`, ordered by a hash of their relative names, so that sources are mixed."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of photographs")
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not paths:
        raise ConfigError(f"no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}) under {folder}")
    return sorted(paths, key=lambda p: hashlib.sha256(p.relative_to(folder).as_posix().encode()).digest())


def read_rgb(path: Path) -> FloatArray | None:
    """(height, width, 3) float32 in [0, 1], or None where the file cannot be decoded."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        return None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / np.float32(255.0)


class HoleMaker:
    """Draws a hole of a random kind, by the shares of the settings."""

    def __init__(self, config: TrainConfig, damage: Path | None) -> None:
        self.config = config
        self.damage = DamageLibrary(damage) if damage else None
        strokes, boxes, elements, mixtures = config.hole_shares
        if self.damage is None:  # without elements their share goes to strokes
            strokes, elements = strokes + elements, 0.0
        self.shares = np.array([strokes, boxes, elements, mixtures])

    def draw(self, rng: np.random.Generator, side: int) -> BoolArray:
        """(side, side), true where missing."""
        kind = int(rng.choice(4, p=self.shares / self.shares.sum()))
        if kind < 3:
            return self._one(rng, side, kind)
        simple = [0, 1, 2] if self.damage else [0, 1]
        first, second = rng.choice(simple, 2)
        mixed = self._one(rng, side, int(first)) | self._one(rng, side, int(second))
        return mixed if not mixed.all() else self._one(rng, side, 0)

    def _one(self, rng: np.random.Generator, side: int, kind: int) -> BoolArray:
        if kind == 0:
            return stroke_hole(rng, side, side, self.config.stroke_area)
        if kind == 1 or self.damage is None:
            return box_hole(rng, side, side, self.config.box_area)
        return self.damage.hole(rng, side, side, self.config.damage_area)


class Crops:
    """Batches of random crops with random holes."""

    def __init__(self, photographs: list[Path], config: TrainConfig, damage: Path | None) -> None:
        self.photographs = photographs
        self.config = config
        self.holes = HoleMaker(config, damage)

    def batch(self, step: int) -> Batch:
        """The batch of `step`. Unreadable photographs are replaced by the next readable ones and logged."""
        config = self.config
        rng = np.random.default_rng([config.seed, step])
        side = int(rng.choice(config.sides_px, p=config.side_shares))
        with_prior = bool(rng.random() < config.prior_share) and side > min(config.sides_px)
        num = max(1, round(config.batch_size * (REFERENCE_SIDE_PX / side) ** 2))
        crops, holes = [], []
        for index in range(num):
            sample_rng = np.random.default_rng([config.seed, step, index])
            crops.append(self._crop(sample_rng, side))
            holes.append(self.holes.draw(sample_rng, side))
        image = np.ascontiguousarray(np.stack(crops).transpose(0, 3, 1, 2))
        return Batch(step, image, np.stack(holes)[:, None].astype(np.float32), with_prior)

    def _crop(self, rng: np.random.Generator, side: int) -> FloatArray:
        for _ in range(MAX_REPLACEMENTS):
            path = self.photographs[int(rng.integers(len(self.photographs)))]
            photograph = read_rgb(path)
            if photograph is not None:
                return random_crop(rng, photograph, side, self.config)
            log.warning("skipping %s: it cannot be decoded", path)
        raise ConfigError(f"{MAX_REPLACEMENTS} photographs in a row could not be decoded; the last was {path}")

    def prefetch(self, first_step: int, last_step: int, num_threads: int = 2) -> Iterator[Batch]:
        """Batches of steps [first, last), prepared ahead in threads, in order."""
        with ThreadPoolExecutor(num_threads, thread_name_prefix="crops") as pool:
            steps = iter(range(first_step, last_step))
            pending = [pool.submit(self.batch, step) for step in islice(steps, PREFETCH_STEPS)]
            while pending:
                batch = pending.pop(0).result()
                pending.extend(pool.submit(self.batch, step) for step in islice(steps, 1))
                yield batch


def random_crop(rng: np.random.Generator, photograph: FloatArray, side: int, config: TrainConfig) -> FloatArray:
    """(side, side, 3): shrunk a little, cut, perhaps mirrored, perhaps grey. Smaller photographs are enlarged to
    fit."""
    height, width = photograph.shape[:2]
    fit = side / min(height, width)
    scale = fit if fit >= 1 else float(rng.uniform(max(fit, config.smallest_scale), 1.0))
    if scale != 1:
        size = (max(side, round(width * scale)), max(side, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        photograph = np.asarray(cv2.resize(photograph, size, interpolation=how), np.float32)
    height, width = photograph.shape[:2]
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    crop = photograph[top : top + side, left : left + side]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if rng.random() < 0.05:  # archives are full of grey photographs
        crop = np.repeat(crop.mean(axis=2, keepdims=True), 3, axis=2)
    return np.clip(crop, 0.0, 1.0).astype(np.float32)
