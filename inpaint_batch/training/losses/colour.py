"""Colour consistency: the fill has the right colour at large, whatever its texture does."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from inpaint_batch.training.losses.regions import mean_where

CELL_PX = 16


def colour_consistency(filled: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute difference of the mean colours of the missing pixels of each 16×16 cell.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W); sides: multiples of 16. A cell counts as much as
    it has missing pixels. Errors that cancel out within a cell, such as texture out of place, cost nothing.
    """
    share = F.avg_pool2d(hole, CELL_PX)
    error = F.avg_pool2d((filled - truth) * hole, CELL_PX) / share.clamp(min=1e-6)
    return mean_where(error.abs(), share)
