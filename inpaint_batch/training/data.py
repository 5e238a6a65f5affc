"""Crops and holes to learn from. A batch is a function of the settings and the step: nothing else, no hidden state.

So a resumed run sees what an unbroken one would have seen, whatever the number of threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.errors import ConfigError, RowError
from inpaint_batch.threads import in_turn
from inpaint_batch.training.augment import augmented
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.curriculum import hole_area, side_shares
from inpaint_batch.training.holes import HoleMaker
from inpaint_batch.training.photographs import Photograph, read_rgb
from inpaint_batch.types import FloatArray

REFERENCE_SIDE_PX = 128
"""`batch_size` counts crops of this side; other sides hold as many pixels."""
PREFETCH_STEPS = 4
"""Batches that are ready or under way while one is learned from; as many as there are threads, where these are more."""
MAX_REPLACEMENTS = 256
"""Unusable photographs in a row before a batch gives up: chance alone must not end a run, however few can be used."""
MAX_ELONGATION = 8
"""Of a photograph that is enlarged, longer side over shorter: a strip of 1 × 5000 px would take 4 GB at 256 px."""
MAX_TRIES = 8
"""Crops of one damaged photograph before it is given up for this sample."""

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


class Crops:
    """Batches of random crops with random holes."""

    def __init__(
        self,
        photographs: Sequence[Photograph],
        config: TrainConfig,
        damage: Path | None,
        share: Callable[[int], range] = range,
    ) -> None:
        """`share` tells, for the number of samples in a batch, which of them this process prepares."""
        self.photographs = photographs
        self.config = config
        self.holes = HoleMaker(config, damage)
        self.share = share
        self._told: set[Path] = set()

    def batch(self, step: int) -> Batch:
        """This process's share of the batch of `step`.

        Photographs that cannot be decoded are replaced by other ones, and each is logged once.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, step])
        side = int(rng.choice(config.sides_px, p=side_shares(step, config)))
        with_prior = bool(rng.random() < config.prior_share) and side > min(config.sides_px) and not config.pretrain
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
            photograph = self.photographs[int(rng.integers(len(self.photographs)))]
            try:
                crop = undamaged_crop(rng, read_rgb(photograph), side, self.config)
            except RowError as error:
                if photograph.path not in self._told:
                    self._told.add(photograph.path)
                    log.warning("skipping a photograph: %s", error.message)
                continue
            if crop is not None:
                return crop
        raise ConfigError(
            f"{MAX_REPLACEMENTS} photographs in a row could not be decoded, or have no {side} × {side} px without "
            f"damage; the last was {photograph.path}. Smaller sides_px in --config fit between damage"
        )

    def prefetch(self, first_step: int, last_step: int, num_threads: int = 2) -> Iterator[Batch]:
        """Batches of steps [first, last), prepared ahead in threads, in order."""
        with ThreadPoolExecutor(num_threads, thread_name_prefix="crops") as pool:
            yield from in_turn(pool, self.batch, range(first_step, last_step), max(PREFETCH_STEPS, num_threads) + 1)


def undamaged_crop(rng: np.random.Generator, pixels: FloatArray, side: int, config: TrainConfig) -> FloatArray | None:
    """A `random_crop` without damage (NaN); None where none was found."""
    for _ in range(MAX_TRIES):
        crop = random_crop(rng, pixels, side, config)
        if not np.isnan(crop).any():
            return crop
    return None


def random_crop(rng: np.random.Generator, photograph: FloatArray, side: int, config: TrainConfig) -> FloatArray:
    """(side, side, 3): cut from the photograph as it is or shrunk a little, perhaps mirrored, perhaps grey. Smaller
    photographs are enlarged to fit."""
    height, width = photograph.shape[:2]
    scale = _scale(rng, side / min(height, width), config)
    if scale > 1:
        photograph = _shortened(rng, photograph)
        height, width = photograph.shape[:2]
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


def _shortened(rng: np.random.Generator, photograph: FloatArray) -> FloatArray:
    """A random part of it that is at most MAX_ELONGATION times as long as wide."""
    height, width = photograph.shape[:2]
    longest = MAX_ELONGATION * min(height, width)
    if max(height, width) <= longest:
        return photograph
    first = int(rng.integers(max(height, width) - longest + 1))
    return photograph[first : first + longest] if height > width else photograph[:, first : first + longest]


def _scale(rng: np.random.Generator, fit: float, config: TrainConfig) -> float:
    """By how much a photograph is resized that must be resized by `fit` at least."""
    if fit > 1:
        return fit
    if rng.random() < config.native_share:
        return 1.0
    return float(rng.uniform(max(fit, config.smallest_scale), 1.0))
