"""DCF, the dynamic coarse-to-fine generator: fills the hole of one tile.

    image, hole ──> push-pull fill (8×8 … 256×256), or the prior where the level above gave one
                 ──> encoder  1/2 · 1/4 · 1/8 · 1/16 (width 48 · 96 · 192 · 384; a smaller one ends at 1/8 or 1/4)
                 ──> three refinement stages at 1/8 · 1/4 · 1/2, each with a residual block and, if wished, attention
                 ──> residual, added to the fill inside the hole; known pixels pass through exactly

Under 7 M parameters and 10 GMAC for a 256×256 tile (pinned by a test). Sides: any multiples of 32.
Shape letters: B batch, C channels, H and W the sides of the tile in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_batch.models.layers.attention import ContextualGather, ContextualMatch
from inpaint_batch.models.layers.blocks import ResidualBlock, conv
from inpaint_batch.models.layers.bottlenecks import bottleneck
from inpaint_batch.models.layers.pushpull import PushPull
from inpaint_batch.models.spec import DcfSpec

INPUT_CHANNELS = 5
"""The start image (3), the hole (1), and whether the start is a prior (1)."""
CENTRE = 0.5
"""Subtracted from colours on the way in, so that the input is about zero-mean."""


class RefinementStage(nn.Module):
    """One step up: enlarge, add the skip, refine, borrow from known places, refine in the stage's own width."""

    def __init__(self, below: int | None, channels: int, hidden: int, values: int, cell: int, num_blocks: int) -> None:
        """`below`: channels of the coarser features; None where the skip is the coarsest there is. `values`: channels
        to borrow in squares of `cell`; 0 for none.
        """
        super().__init__()
        if below is not None:
            self.reduce = conv(below, channels, kernel=1)
        self.skip = conv(channels, channels, kernel=1)
        self.relu = nn.ReLU()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(num_blocks)))
        self.gather = ContextualGather(channels, values, cell) if values else None
        self.refine = ResidualBlock(channels, hidden)

    def join(self, below: Tensor | None, skip: Tensor) -> Tensor:
        """(B, below, H/2, W/2) and (B, C, H, W) -> (B, C, H, W), before any attention."""
        joined = self.skip(skip)
        if below is not None:
            # Reduce first, then enlarge: the 1×1 convolution costs a quarter there and commutes with the copy.
            joined = F.interpolate(self.reduce(below), scale_factor=2.0, mode="nearest") + joined
        out: Tensor = self.blocks(self.relu(joined))
        return out

    def forward(self, joined: Tensor, attention: Tensor | None) -> Tensor:
        """(B, C, H, W), and (B, N, N) where the network has attention -> (B, C, H, W)."""
        out: Tensor = self.refine(joined if self.gather is None else self.gather(joined, attention))
        return out


class DcfGenerator(nn.Module):
    """See the module's docstring."""

    def __init__(self, spec: DcfSpec | None = None) -> None:
        super().__init__()
        self.spec = spec = spec or DcfSpec()
        widths = spec.widths
        hidden = spec.encoder_hidden or widths
        self.push_pull = PushPull()
        self.relu = nn.ReLU()
        self.stem = conv(INPUT_CHANNELS * 4, widths[0])
        self.downs = nn.ModuleList(conv(widths[i], widths[i + 1], stride=2) for i in range(len(widths) - 1))
        self.encoder = nn.ModuleList(
            nn.Sequential(
                *(
                    ResidualBlock(widths[level], hidden[level], dilation=_dilation(spec, level, index))
                    for index in range(num_blocks)
                )
            )
            for level, num_blocks in enumerate(spec.encoder_blocks[:3])
        )
        if len(widths) == 4:
            self.encoder.append(bottleneck(spec))
        coarsest = spec.num_stages - 1
        self.match = ContextualMatch(widths[coarsest], spec.key_channels) if spec.key_channels else None
        self.stages = nn.ModuleList(
            RefinementStage(
                below=widths[level + 1] if level + 1 < len(widths) else None,
                channels=widths[level],
                hidden=spec.stage_widths[stage],
                values=spec.value_channels[stage] if spec.key_channels else 0,
                cell=2 ** (2 - level),
                num_blocks=spec.decoder_blocks[stage],
            )
            for stage, level in enumerate(range(coarsest, -1, -1))
        )
        self.head = nn.Conv2d(widths[0], 3 * 4, 3, padding=1)
        # A fresh network returns the start image: training begins at the quality of the push-pull fill.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, hole: Tensor, prior: Tensor, prior_weight: Tensor) -> Tensor:
        """Return the filled tile (B, 3, H, W) in [0, 1]; where `hole` is 0 it is `image` itself.

        `image`: (B, 3, H, W), zero in the hole. `hole`: (B, 1, H, W), 1 where missing. `prior`: (B, 3, H, W), the
        enlarged coarse fill of the level above. `prior_weight`: (B, 1, 1, 1), 1 where there is such a prior, else 0.
        """
        known = 1.0 - hole
        image = image * known
        start = prior_weight * prior + (1.0 - prior_weight) * self.push_pull(image, known)
        start = image + hole * start
        return torch.clamp(start + self.residual(start, hole, prior_weight), 0.0, 1.0) * hole + image

    def encode(self, start: Tensor, hole: Tensor, prior_weight: Tensor) -> list[Tensor]:
        """Features at 1/2, 1/4 and so on of the start (B, 3, H, W) with its hole (B, 1, H, W), the finest first."""
        stacked = torch.cat([start - CENTRE, hole, hole * prior_weight], dim=1)
        finest, *coarser = self.encoder
        features = [finest(self.relu(self.stem(F.pixel_unshuffle(stacked, 2))))]
        for down, blocks in zip(self.downs, coarser, strict=True):
            features.append(blocks(self.relu(down(features[-1]))))
        return features

    def residual(self, start: Tensor, hole: Tensor, prior_weight: Tensor) -> Tensor:
        """The learned part: (B, 3, H, W) start image, (B, 1, H, W) hole -> (B, 3, H, W) to add inside the hole."""
        skips = self.encode(start, hole, prior_weight)
        features = skips.pop() if len(skips) == 4 else None
        attention: Tensor | None = None
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            assert isinstance(stage, RefinementStage)
            joined = stage.join(features, skip)
            if self.match is not None and attention is None:
                assert stage.gather is not None
                cell = stage.gather.cell  # the match is made at 1/8, whatever the first stage's resolution
                known = 1.0 - F.max_pool2d(hole, 8)  # a cell with a single missing pixel is not worth copying from
                attention = self.match(F.avg_pool2d(joined, cell) if cell > 1 else joined, known)
            features = stage(joined, attention)
        return F.pixel_shuffle(self.head(features), 2)


def _dilation(spec: DcfSpec, level: int, index: int) -> int:
    """Of an encoder's block. Where nothing lies below 1/4, the blocks there make up for its reach."""
    if level == 0:
        return 1
    return 2 ** (index % 3) if spec.num_levels == 2 else 1 + index % 2
