"""Push-pull fill: a smooth first guess for the hole, made of pooling and bilinear steps only.

Pull: average the known pixels in ever coarser halves. Push: go back up, and where a pixel is unknown take the enlarged
coarser value. (Gortler et al., "The Lumigraph", SIGGRAPH 1996, section 3.4.) The number of levels is fixed, so that one
exported graph serves every tile size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_LEVELS = 5
"""Halvings: 5 takes a 256-pixel tile to 8×8 and asks for sides that are multiples of 32."""
ONE_OF_FOUR = 0.25
"""Known pixels of a cell of 2×2 that fix its colour; more of them add little."""
EPSILON = 1e-4
"""Keeps the mean colour finite where nothing is known; large enough for half precision."""


class PushPull(nn.Module):
    """Fills the hole of an image smoothly; differentiable, without parameters."""

    def forward(self, image: Tensor, known: Tensor) -> Tensor:
        """Return (B, 3, H, W): `image` where `known` is 1, a smooth fill where it is 0.

        `image`: (B, 3, H, W), zero in the hole. `known`: (B, 1, H, W), 0 or 1. H and W: multiples of 32.
        """
        weighted = image * known
        return weighted + self.behind(weighted, known) * (1.0 - known)

    def behind(self, weighted: Tensor, weight: Tensor) -> Tensor:
        """Return (B, 3, H, W): what coarser levels say of every pixel, the known ones too.

        `weighted`: (B, 3, H, W), the image times `weight`, (B, 1, H, W).
        """
        pyramid = [(weighted, weight)]
        for _ in range(NUM_LEVELS):
            pooled = F.avg_pool2d(weight, 2)
            share = torch.clamp(pooled, min=ONE_OF_FOUR)  # what is divided by it: empty cells stay zero, others weigh 1
            weighted, weight = F.avg_pool2d(weighted, 2) / share, pooled / share
            pyramid.append((weighted, weight))
        # The coarsest cells may still be empty in part: fall back on the mean of all that is known.
        total = weight.mean(dim=(2, 3), keepdim=True)
        mean = weighted.mean(dim=(2, 3), keepdim=True) / torch.clamp(total, min=EPSILON)
        filled = weighted + mean * (1.0 - weight)
        for weighted, weight in reversed(pyramid[1:-1]):
            filled = weighted + _enlarge(filled) * (1.0 - weight)
        return _enlarge(filled)


def _enlarge(image: Tensor) -> Tensor:
    return F.interpolate(image, scale_factor=2.0, mode="bilinear", align_corners=False)
