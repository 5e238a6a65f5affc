"""Perceptual loss: features of a network that knows photographs agree (Johnson et al., ECCV 2016)."""

from __future__ import annotations

import torch
from torch import Tensor


def perceptual(filled: list[Tensor], truth: list[Tensor]) -> Tensor:
    """Mean over layers of the mean absolute difference of their features, each (B, C, h, w)."""
    return torch.stack([(a - b).abs().mean() for a, b in zip(filled, truth, strict=True)]).mean()
