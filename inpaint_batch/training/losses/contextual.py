"""Contextual loss: the same features are there, wherever they are (Mechrez, Talmi and Zelnik-Manor, ECCV 2018).

Where `style` compares how often features occur together over the whole image, this one looks for each feature of the
truth at the place of the fill that is nearest to it; neither asks for the same place.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BANDWIDTH = 0.5
"""h of equation (3)."""
EPSILON = 1e-5
"""Of equation (2)."""
MAX_PLACES = 1024
"""Places compared with each other; larger layers are pooled until they have no more (memory grows with the square)."""


def contextual(filled: list[Tensor], truth: list[Tensor]) -> Tensor:
    """Mean over layers and images of -ln(contextual similarity), equations (1) to (5); each layer (B, C, h, w)."""
    return torch.stack([_layer(a, b) for a, b in zip(filled, truth, strict=True)]).mean()


def _layer(filled: Tensor, truth: Tensor) -> Tensor:
    while filled.shape[2] * filled.shape[3] > MAX_PLACES:
        filled, truth = F.avg_pool2d(filled, 2), F.avg_pool2d(truth, 2)
    x, y = filled.flatten(2), truth.flatten(2)
    centre = y.mean(dim=2, keepdim=True)  # of the truth, for both
    x, y = F.normalize(x - centre, dim=1), F.normalize(y - centre, dim=1)
    distance = 1 - x.mT @ y  # (B, places of the fill, places of the truth)
    relative = distance / (distance.amin(dim=2, keepdim=True) + EPSILON)
    affinity = torch.softmax((1 - relative) / BANDWIDTH, dim=2)  # equations (3) and (4) in one
    similarity = affinity.amax(dim=1).mean(dim=1)
    return -similarity.clamp(min=EPSILON).log().mean()
