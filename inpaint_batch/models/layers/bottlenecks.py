"""Blocks for the deepest features, at 1/16 of the tile's resolution: convolutions, self-attention, or wavelets.

All take and return (B, C, h, w), h and w even, never negative; a fresh block is the identity on that, so that blocks
can be added to a trained network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_batch.models.layers.blocks import ResidualBlock
from inpaint_batch.models.spec import DcfSpec

HEAD_CHANNELS = 32
"""Channels of one attention head, at most."""


class TransformerBlock(nn.Module):
    """Self-attention among all cells of the tile, then two 1×1 convolutions, each on normalised features.

    (Vaswani et al., "Attention is all you need", NeurIPS 2017; normalisation first, as in Xiong et al., ICML 2020.)
    Where a cell lies is told by a depthwise 3×3 convolution, which knows any tile size (Chu et al., "Conditional
    positional encodings", ICLR 2023).
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // HEAD_CHANNELS)
        if channels % self.num_heads:
            self.num_heads = 1
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm_in = nn.GroupNorm(1, channels)
        self.mix = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)
        self.norm_out = nn.GroupNorm(1, channels)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.shrink = nn.Conv2d(hidden, channels, 1)
        self.relu = nn.ReLU()
        for layer in (self.position, self.project, self.shrink):
            _start_at_zero(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> same shape."""
        x = x + self.position(x)
        x = x + self.project(self._attend(self.norm_in(x)))
        out: Tensor = self.relu(x + self.shrink(self.relu(self.expand(self.norm_out(x)))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        size = channels // self.num_heads
        query, key, value = self.mix(x).reshape(batch, 3 * self.num_heads, size, height * width).chunk(3, dim=1)
        weights = torch.softmax(torch.matmul(query.transpose(2, 3) * size**-0.5, key), dim=-1)
        return torch.matmul(value, weights.transpose(2, 3)).reshape(batch, channels, height, width)


class WaveletBlock(nn.Module):
    """A convolution on each Haar sub-band, and back: a wide reach for few multiplications; then two 1×1 convolutions.

    (Finder et al., "Wavelet convolutions for large receptive fields", ECCV 2024, with one level.)
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.channels = channels
        self.bands = nn.Conv2d(4 * channels, 4 * channels, 3, padding=1, groups=4 * channels)
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.shrink = nn.Conv2d(hidden, channels, 1)
        self.relu = nn.ReLU()
        self.register_buffer("haar", haar_filters().repeat(channels, 1, 1, 1), persistent=False)
        for layer in (self.bands, self.shrink):
            _start_at_zero(layer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) -> same shape."""
        haar = self.get_buffer("haar")
        bands = self.bands(F.conv2d(x, haar, stride=2, groups=self.channels))
        x = x + F.conv_transpose2d(bands, haar, stride=2, groups=self.channels)
        out: Tensor = self.relu(x + self.shrink(self.relu(self.expand(x))))
        return out


def haar_filters() -> Tensor:
    """(4, 1, 2, 2): mean, and the differences across, down and diagonally; orthonormal, so the transpose inverts."""
    low, high = torch.tensor([1.0, 1.0]), torch.tensor([1.0, -1.0])
    return torch.stack([torch.outer(a, b) for a in (low, high) for b in (low, high)]).unsqueeze(1) / 2


def bottleneck(spec: DcfSpec) -> nn.Sequential:
    """The blocks at 1/16 that the sizes ask for."""
    channels, num = spec.widths[3], spec.encoder_blocks[3]
    if spec.bottleneck == "transformer":
        return nn.Sequential(*(TransformerBlock(channels, spec.bottleneck_hidden) for _ in range(num)))
    if spec.bottleneck == "wavelet":
        return nn.Sequential(*(WaveletBlock(channels, spec.bottleneck_hidden) for _ in range(num)))
    return nn.Sequential(
        *(ResidualBlock(channels, spec.bottleneck_hidden, dilation=1 + index % 2) for index in range(num))
    )


def _start_at_zero(layer: nn.Conv2d) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
