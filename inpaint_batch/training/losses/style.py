"""Style loss: the same features occur together, wherever they are (Gatys et al., CVPR 2016; Liu et al., ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor


def gram(features: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, C): products of channels summed over places, divided by C·h·w."""
    flat = features.flatten(2)
    return flat @ flat.mT / (flat.shape[1] * flat.shape[2])


def style(filled: list[Tensor], truth: list[Tensor]) -> Tensor:
    """Mean over layers of the mean absolute difference of their Gram matrices."""
    return torch.stack([(gram(a) - gram(b)).abs().mean() for a, b in zip(filled, truth, strict=True)]).mean()
