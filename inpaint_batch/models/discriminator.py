"""The judge of adversarial training: says of each patch whether it looks like a photograph. Never exported.

A PatchGAN (Isola et al., CVPR 2017) whose every convolution has spectral norm 1 (Miyato et al., ICLR 2018).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

NUM_HALVINGS = 3
INPUT_CHANNELS = 4
"""An image (3) and its hole (1)."""


class PatchDiscriminator(nn.Module):
    """Three halvings, then one score for each 8×8 cell, which sees 54×54 pixels around it."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = [INPUT_CHANNELS, *(width * 2**level for level in range(NUM_HALVINGS + 1))]
        self.layers = nn.ModuleList(
            spectral_norm(nn.Conv2d(below, above, 4, stride=2, padding=1)) for below, above in pairwise(widths[:-1])
        )
        self.layers.append(spectral_norm(nn.Conv2d(widths[-2], widths[-1], 3, padding=1)))
        self.score = spectral_norm(nn.Conv2d(widths[-1], 1, 3, padding=1))
        self.act = nn.LeakyReLU(0.2)

    def forward(self, image: Tensor, hole: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) in [0, 1] and (B, 1, H, W) -> scores (B, 1, H/8, W/8) and the features of every layer."""
        x = torch.cat([2.0 * image - 1.0, hole], dim=1)
        features = []
        for layer in self.layers:
            x = self.act(layer(x))
            features.append(x)
        return self.score(x), features
