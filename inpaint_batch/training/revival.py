"""Dead channels of a network begin anew, and change nothing at first.

A ReLU that is never above zero has no gradient, so its channel stays as it is for ever. Where that channel is hidden in
a residual block, what leads to it can be drawn again and what leads on from it set to zero: the network then computes
what it did before, and the channel learns (Sokar et al., "The Dormant Neuron Phenomenon in Deep Reinforcement
Learning", ICML 2023, section 4; here of channels that are quite dead).
"""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.layers.blocks import ResidualBlock
from inpaint_batch.training.activity import DEAD_BELOW, Activity
from inpaint_batch.training.validation import ValidationSet, mean_hole_psnr


@torch.no_grad()
def revive(generator: DcfGenerator, validation: ValidationSet, seed: int) -> int:
    """Draw the hidden channels of residual blocks anew that are zero on all of `validation`; returns how many.

    Each gets weights as large as those of the block's living channels usually are, by their norm, and no bias. Blocks
    that the network does not use, as a masked autoencoder those of its stages, stay as they are.
    """
    generator.eval()
    with Activity(generator) as activity:
        mean_hole_psnr(generator, validation)
    generator.train()
    random = torch.Generator().manual_seed(seed)
    num_revived = 0
    for name, block in generator.named_modules():
        greatest = activity.greatest.get(f"{name}.relu 1")
        if isinstance(block, ResidualBlock) and greatest is not None:
            is_dead = greatest < DEAD_BELOW
            if is_dead.any():
                _begin_anew(block, is_dead, random)
                num_revived += int(is_dead.sum())
    return num_revived


def _begin_anew(block: ResidualBlock, is_dead: Tensor, random: torch.Generator) -> None:
    weight = block.conv_in.weight
    norms = weight.flatten(1).norm(dim=1).cpu()
    living = norms[~is_dead] if not is_dead.all() else norms
    drawn = torch.randn(int(is_dead.sum()), *weight.shape[1:], generator=random)
    drawn *= (living.median() / drawn.flatten(1).norm(dim=1))[:, None, None, None]
    weight[is_dead] = drawn.to(weight)
    block.conv_in.bias[is_dead] = 0.0  # type: ignore[index]
    block.conv_out.weight[:, is_dead] = 0.0
