"""The encoder of the DCF generator learns alone, as a masked autoencoder: guess what most of a tile hides.

(Xie et al., "SimMIM", CVPR 2022: hidden patches stay in the input as they look to the network later, one linear layer
predicts pixels from the deepest features, and only hidden ones count.) Without skips and attention, whatever fills
a hole must have come through the deepest level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec

CELL_PX = 16
"""Side of the squares that are hidden."""
GUESS = "guess."
"""Prefix of the weights that a generator has no use for."""


class MaskedAutoencoder(DcfGenerator):
    """A generator that fills holes from its deepest features alone. Stages and head are carried along unused."""

    def __init__(self, spec: DcfSpec | None = None) -> None:
        super().__init__(spec)
        levels = self.spec.num_levels
        self.enlarge = 2**levels
        self.guess = nn.Conv2d(self.spec.widths[-1], 3 * self.enlarge**2, 1)
        nn.init.zeros_(self.guess.weight)
        nn.init.zeros_(self.guess.bias)  # type: ignore[arg-type]

    def residual(self, start: Tensor, hole: Tensor, prior_weight: Tensor) -> Tensor:
        """(B, 3, H, W) start image, (B, 1, H, W) hole -> (B, 3, H, W) to add inside the hole."""
        deepest = self.encode(start, hole, prior_weight)[-1]
        return F.pixel_shuffle(self.guess(deepest), self.enlarge)


def without_guess(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of a generator, from those of either."""
    return {name: value for name, value in weights.items() if not name.startswith(GUESS)}
