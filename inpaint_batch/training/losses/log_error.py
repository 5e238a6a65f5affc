"""Logarithm of the squared error inside the hole: descending it raises the PSNR itself.

(Chen et al., "Simple Baselines for Image Restoration", ECCV 2022, train with it under the name PSNR loss.) Where a hole
can be filled in several ways it asks for their mean, Charbonnier for something near their median; the mean has the
higher PSNR.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4
"""Added to the mean squared error: below it, 40 dB, a better fill earns little more."""


def log_error(filled: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean over images of ln(mean squared error of their missing samples + EPSILON) / 2, less its least value.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W). Zero for a perfect fill; 1 dB of PSNR is 0.115.
    """
    squared = ((filled - truth) ** 2 * hole).sum(dim=(1, 2, 3))
    mean = squared / (hole.sum(dim=(1, 2, 3)) * filled.shape[1]).clamp(min=1.0)
    return 0.5 * torch.log1p(mean / EPSILON).mean()
