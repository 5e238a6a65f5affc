"""Generators that export quickly."""

import torch

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec

SPEC = DcfSpec(width=8, bottleneck_hidden=8, stage_widths=(8, 8, 8), key_channels=8, value_channels=(8, 4, 4))
SHALLOW = DcfSpec(
    width=8, encoder_blocks=(1, 2), decoder_blocks=(1, 0), stage_widths=(8, 8), key_channels=8, value_channels=(4, 4)
)
"""It ends at 1/4."""


def random_generator(spec: DcfSpec = SPEC) -> DcfGenerator:
    """Random weights, also where training starts at zero."""
    torch.manual_seed(1)
    generator = DcfGenerator(spec).eval()
    for parameter in generator.parameters():
        if parameter.ndim == 4 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return generator
