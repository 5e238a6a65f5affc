"""Charbonnier loss inside the hole (Charbonnier et al., ICIP 1994; Lai et al., LapSRN, CVPR 2017, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(filled: Tensor, truth: Tensor, hole: Tensor, epsilon: float) -> Tensor:
    """Mean over images of the mean over their missing samples of sqrt(d² + epsilon²) - epsilon.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W). Averaging per image first gives an image with a
    small hole the same say as one with a large hole, as the PSNR inside the hole does. Zero for a perfect fill.
    """
    distance = torch.sqrt((filled - truth) ** 2 + epsilon**2) - epsilon
    per_image = (distance * hole).sum(dim=(1, 2, 3)) / (hole.sum(dim=(1, 2, 3)) * filled.shape[1]).clamp(min=1.0)
    return per_image.mean()
