"""Total variation of the fill (Rudin, Osher and Fatemi, Physica D 1992, in its anisotropic form): against noise."""

from __future__ import annotations

import torch
from torch import Tensor


def total_variation(filled: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of which at least one is missing.

    `filled`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W). It knows no truth: a flat fill has none of it.
    """
    down = (filled[:, :, 1:] - filled[:, :, :-1]).abs()
    across = (filled[:, :, :, 1:] - filled[:, :, :, :-1]).abs()
    weight_down = torch.maximum(hole[:, :, 1:], hole[:, :, :-1])
    weight_across = torch.maximum(hole[:, :, :, 1:], hole[:, :, :, :-1])
    num = (weight_down.sum() + weight_across.sum()) * filled.shape[1]
    return ((down * weight_down).sum() + (across * weight_across).sum()) / num.clamp(min=1.0)
