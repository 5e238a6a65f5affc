"""Smooth transition: around the rim, fill and truth have the same local brightness and the same local contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_batch.training.losses.regions import mean_where, rim_band

BAND_PX = 4
"""The band reaches this far to both sides of the rim."""
WINDOW_PX = 7
"""Side of the window whose statistics are compared."""
VARIANCE_FLOOR = 1e-4
"""Added to variances before the root, whose slope is infinite at zero."""


def smooth_transition(filled: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean over the band of |difference of local means| + |difference of local standard deviations|.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W). Both stand for the whole image, known pixels too.
    """
    mean_filled, deviation_filled = _statistics(filled)
    mean_truth, deviation_truth = _statistics(truth)
    error = (mean_filled - mean_truth).abs() + (deviation_filled - deviation_truth).abs()
    return mean_where(error, rim_band(hole, BAND_PX))


def _statistics(image: Tensor) -> tuple[Tensor, Tensor]:
    mean, square = (
        F.avg_pool2d(values, WINDOW_PX, stride=1, padding=WINDOW_PX // 2, count_include_pad=False)
        for values in (image, image**2)
    )
    return mean, torch.sqrt((square - mean**2).clamp(min=0.0) + VARIANCE_FLOOR)
