"""Which pixels a loss looks at, worked out from the hole."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def grown(hole: Tensor, radius_px: int) -> Tensor:
    """(B, 1, H, W) in 0 or 1, grown by a square of `radius_px` on each side."""
    return F.max_pool2d(hole, 2 * radius_px + 1, stride=1, padding=radius_px)


def rim_band(hole: Tensor, radius_px: int) -> Tensor:
    """(B, 1, H, W): 1 on both sides of the rim, up to `radius_px` (in a square) from a pixel of the other side."""
    return grown(hole, radius_px) * grown(1.0 - hole, radius_px)


def mean_where(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of (B, C, h, w) `values` under the (B, 1, h, w) `weight`; zero where there is no weight at all."""
    return (values * weight).sum() / (weight.sum() * values.shape[1]).clamp(min=1e-6)
