"""Networks so small that they export, and learn, in no time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec

Network = TypeVar("Network", bound=nn.Module)

SMALL = DcfSpec(width=8, bottleneck_hidden=8, stage_widths=(8, 8, 8), key_channels=8, value_channels=(8, 4, 4))
SMALLEST = replace(SMALL, encoder_blocks=(1, 1, 1, 1), decoder_blocks=(0, 0, 0))


def small(encoder_blocks: tuple[int, ...], **changes: Any) -> DcfSpec:
    """One of as many levels as `encoder_blocks` has numbers."""
    stages = slice(-min(3, len(encoder_blocks)), None)
    sizes = {name: getattr(SMALL, name)[stages] for name in ("decoder_blocks", "stage_widths", "value_channels")}
    return replace(SMALL, encoder_blocks=encoder_blocks, **(sizes | changes))


def woken(network: Network, seed: int = 1) -> Network:
    """Random values for the weights that start at zero, so that everything counts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
    return network.eval()


def random_generator(spec: DcfSpec = SMALL, seed: int = 1) -> DcfGenerator:
    """Random weights throughout."""
    torch.manual_seed(seed)
    return woken(DcfGenerator(spec), seed)
