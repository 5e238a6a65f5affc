"""Crops and holes to learn from. A batch is a function of the settings and the step: nothing else, no hidden state.

So a resumed run sees what an unbroken one would have seen, whatever the number of threads.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.errors import ConfigError
from inpaint_batch.training.augment import augmented
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.curriculum import hole_area, side_shares
from inpaint_batch.training.holes import HoleMaker
from inpaint_batch.types import FloatArray

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
    num_images: int
    """Images of the whole batch; `image` holds fewer where several processes share it."""


def list_photographs(folder: Path) -> list[Path]:
    """All image files under `folder`, ordered by a hash of their relative names, so that sources are mixed."""
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder of photographs")
    paths = [p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if not paths:
        raise ConfigError(f"no photographs ({', '.join(sorted(IMAGE_SUFFIXES))}) under {folder}")
    return sorted(paths, key=lambda p: hashlib.sha256(p.relative_to(folder).as_posix().encode()).digest())


def split_photographs(data: Path, config: TrainConfig) -> tuple[list[Path], list[Path]]:
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


def read_rgb(path: Path) -> FloatArray | None:
    """(height, width, 3) float32 in [0, 1], or None where the file cannot be decoded."""
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None:
        return None
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB).astype(np.float32) / np.float32(255.0)


class Crops:
    """Batches of random crops with random holes."""

    def __init__(
        self,
        photographs: list[Path],
        config: TrainConfig,
        damage: Path | None,
        share: Callable[[int], range] = range,
    ) -> None:
        """`share` tells, for the number of samples in a batch, which of them this process prepares."""
        self.photographs = photographs
        self.config = config
        self.holes = HoleMaker(config, damage)
        self.share = share

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of `step`.

        Unreadable photographs are replaced by other ones and logged.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, step])
        side = int(rng.choice(config.sides_px, p=side_shares(step, config)))
        with_prior = bool(rng.random() < config.prior_share) and side > min(config.sides_px)
        num = max(1, round(config.batch_size * (REFERENCE_SIDE_PX / side) ** 2))
        area = hole_area(step, config)
        image = np.empty((len(share := self.share(num)), 3, side, side), np.float32)
        holes = np.empty((len(share), 1, side, side), np.float32)
        for place, index in enumerate(share):
            sample_rng = np.random.default_rng([config.seed, step, index])
            crop = self._crop(sample_rng, side)
            hole = self.holes.draw(sample_rng, side, area)
            # A generator of its own: what is switched on here changes neither crops nor holes.
            crop = augmented(np.random.default_rng([config.seed, step, index, 1]), crop, hole, config)
            image[place], holes[place] = crop.transpose(2, 0, 1), hole
        return Batch(step, image, holes, with_prior, num)

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
