"""Focal frequency loss (Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021)."""

from __future__ import annotations

import torch
from torch import Tensor


def focal_frequency(filled: Tensor, truth: Tensor, alpha: float = 1.0) -> Tensor:
    """Mean squared difference of the spectra, each frequency weighted by its own difference to the power `alpha`.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]. The transform is orthonormal; the weights are scaled to a largest value
    of 1 for each image and channel and carry no gradient. What is hard to get right, mostly fine texture, so counts
    more; a plain squared error counts all frequencies alike.
    """
    difference = torch.fft.fft2(filled - truth, norm="ortho")
    squared = difference.real**2 + difference.imag**2
    with torch.no_grad():
        weight = squared.sqrt() ** alpha
        weight = weight / weight.amax(dim=(2, 3), keepdim=True).clamp(min=1e-12)
    loss: Tensor = (weight * squared).mean()
    return loss
