"""Hinge losses of generator and discriminator, and feature matching.

(Lim and Ye, "Geometric GAN", 2017; for holes: Yu et al., ICCV 2019; feature matching: Wang et al., "pix2pixHD", CVPR
2018.) Scores are (B, 1, h, w), one for each patch. Only patches that hold missing pixels count: the others are the
same in fill and truth, and nothing is to be learned from them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_batch.training.losses.regions import mean_where


def patches_with_holes(hole: Tensor, scores: Tensor) -> Tensor:
    """(B, 1, H, W) hole -> (B, 1, h, w): 1 for the patches of `scores` in whose place a pixel is missing."""
    return F.adaptive_max_pool2d(hole, scores.shape[-2:])


def hinge_discriminator(real: Tensor, fake: Tensor, hole: Tensor) -> Tensor:
    """Mean of max(0, 1 - real) + max(0, 1 + fake): truth shall score above 1, fills below -1."""
    return mean_where(F.relu(1.0 - real) + F.relu(1.0 + fake), patches_with_holes(hole, fake))


def hinge_generator(fake: Tensor, hole: Tensor) -> Tensor:
    """Minus the mean score of the fills."""
    return -mean_where(fake, patches_with_holes(hole, fake))


def feature_matching(fake: list[Tensor], real: list[Tensor]) -> Tensor:
    """Mean over layers of the mean absolute difference of the discriminator's features, each (B, C, h, w)."""
    return torch.stack([(a - b.detach()).abs().mean() for a, b in zip(fake, real, strict=True)]).mean()
