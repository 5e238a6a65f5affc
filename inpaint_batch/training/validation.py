"""Validation while training: held-out photographs with fixed holes, and the one number that is watched."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from inpaint_batch.errors import ConfigError, RowError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import undamaged_crop
from inpaint_batch.training.holes import HoleMaker
from inpaint_batch.training.photographs import Photograph, read_rgb
from inpaint_batch.types import FloatArray

SIDE_PX = 128
SEED = 20_000_003
"""Holes and crops of validation never change, whatever the seed of the run."""
BATCH = 16

log = logging.getLogger(__name__)


class ValidationSet:
    """Crops of each held-out photograph, each with a hole."""

    def __init__(self, photographs: Sequence[Photograph], config: TrainConfig, damage: Path | None) -> None:
        """Raises ConfigError where not one photograph can be decoded."""
        holes = HoleMaker(config, damage)
        images: list[FloatArray] = []
        masks: list[FloatArray] = []
        for index, photograph in enumerate(photographs):
            rng = np.random.default_rng([SEED, index])
            try:
                pixels = read_rgb(photograph)
            except RowError as error:
                log.warning("skipping a photograph that is held out: %s", error.message)
                continue
            for _ in range(config.validation_crops):
                crop = undamaged_crop(rng, pixels, SIDE_PX, config)
                if crop is None:
                    log.warning("skipping %s: no crop of %d px is without damage", photograph.path, SIDE_PX)
                    break
                images.append(crop.transpose(2, 0, 1))
                masks.append(holes.draw(rng, SIDE_PX)[None].astype(np.float32))
        if not images:
            raise ConfigError("no photograph is left for validation; give at least two that can be decoded")
        self.images = torch.from_numpy(np.stack(images))
        self.holes = torch.from_numpy(np.stack(masks))


@torch.no_grad()
def fill(generator: DcfGenerator, image: Tensor, hole: Tensor) -> Tensor:
    """(B, 3, H, W) and (B, 1, H, W) -> the image with its hole filled, on the CPU."""
    device = next(generator.parameters()).device
    image, hole = image.to(device), hole.to(device)
    no_weight = torch.zeros(len(image), 1, 1, 1, device=device)
    filled: Tensor = generator(image * (1 - hole), hole, torch.zeros_like(image), no_weight)
    return filled.cpu()


def mean_hole_psnr(generator: DcfGenerator, validation: ValidationSet) -> float:
    """Mean over crops of the PSNR (dB) inside the hole."""
    values = []
    for start in range(0, len(validation.images), BATCH):
        image, hole = validation.images[start : start + BATCH], validation.holes[start : start + BATCH]
        filled = fill(generator, image, hole)
        squared = ((filled - image) ** 2 * hole).sum(dim=(1, 2, 3)) / (3 * hole.sum(dim=(1, 2, 3)))
        values.append(-10 * torch.log10(squared.clamp(min=1e-10)))
    return float(torch.cat(values).mean())
