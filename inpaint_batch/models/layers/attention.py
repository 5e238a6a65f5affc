"""Contextual attention: holes look at known places of the same tile and borrow their features.

(Yu et al., "Generative Image Inpainting with Contextual Attention", CVPR 2018.) The match is computed once, at 1/8
of the tile's resolution, and used at every refinement stage: a stage at 1/4 gathers cells of 2×2 features, one at
1/2 cells of 4×4 ("attention transfer", Yi et al., CVPR 2020). Matrix products and one softmax only: exports
everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1.0e4
"""Added to the score of a key that lies in the hole; finite in half precision, and e**MASKED is 0."""


class ContextualMatch(nn.Module):
    """Scores every 1/8 cell of the tile against every known one."""

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, key_channels, 1)
        self.key = nn.Conv2d(channels, key_channels, 1)
        self.scale = key_channels**-0.5

    def forward(self, features: Tensor, known: Tensor) -> Tensor:
        """Return the attention (B, N, N), rows summing to one, N = cells of `features`.

        `features`: (B, C, h, w). `known`: (B, 1, h, w), the share of known pixels in each cell, 0..1.
        """
        query = self.query(features).flatten(2).transpose(1, 2)
        key = self.key(features).flatten(2)
        bias = (1.0 - known).flatten(2) * MASKED
        return torch.softmax(torch.matmul(query, key) * self.scale + bias, dim=-1)


class ContextualGather(nn.Module):
    """Borrows features at one refinement stage with the shared match; adds them through a 1×1 convolution."""

    def __init__(self, channels: int, value_channels: int, cell: int) -> None:
        """`cell`: side of the square of features that one attention cell covers at this stage (1, 2, 4)."""
        super().__init__()
        self.value = nn.Conv2d(channels, value_channels, 1)
        self.project = nn.Conv2d(value_channels, channels, 1)
        self.cell = cell
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor, attention: Tensor) -> Tensor:
        """(B, C, h·cell, w·cell) and (B, h·w, h·w) -> (B, C, h·cell, w·cell)."""
        value = self.value(features)
        if self.cell > 1:
            value = F.pixel_unshuffle(value, self.cell)
        gathered = torch.matmul(value.flatten(2), attention.transpose(1, 2)).view_as(value)
        if self.cell > 1:
            gathered = F.pixel_shuffle(gathered, self.cell)
        out: Tensor = features + self.project(gathered)
        return out
