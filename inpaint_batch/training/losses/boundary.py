"""Boundary loss: gradients of fill and truth must agree, most of all near the rim of the hole.

A colour step across the rim is what an eye sees first, and it is a gradient that the truth does not have.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

RIM_PX = 4
"""The weight falls from about 1 at the rim to 0 this far into the hole."""


def rim_weight(hole: Tensor) -> Tensor:
    """(B, 1, H, W) hole -> (B, 1, H, W): in the hole, the share of known pixels nearby (box of 2·RIM_PX + 1),
    scaled to 0..1."""
    known = 1.0 - hole
    near = F.avg_pool2d(known, 2 * RIM_PX + 1, stride=1, padding=RIM_PX, count_include_pad=False)
    return torch.clamp(2.0 * near, max=1.0) * hole


def boundary(filled: Tensor, truth: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical gradients, weighted by `rim_weight`.

    `filled`, `truth`: (B, 3, H, W) in [0, 1]; `hole`: (B, 1, H, W). A gradient belongs to the pixel on its right or
    below it, and counts with the larger weight of its two pixels, so that the step from the known side into the
    hole is included.
    """
    weight = rim_weight(hole)
    error = filled - truth
    down = (error[:, :, 1:] - error[:, :, :-1]).abs()
    across = (error[:, :, :, 1:] - error[:, :, :, :-1]).abs()
    weight_down = torch.maximum(weight[:, :, 1:], weight[:, :, :-1])
    weight_across = torch.maximum(weight[:, :, :, 1:], weight[:, :, :, :-1])
    total = (down * weight_down).sum() + (across * weight_across).sum()
    num = (weight_down.sum() + weight_across.sum()) * filled.shape[1]
    return total / num.clamp(min=1.0)
