"""Sizes of a generator that exports quickly."""

from inpaint_batch.models.spec import DcfSpec

SPEC = DcfSpec(width=8, bottleneck_hidden=8, stage_widths=(8, 8, 8), key_channels=8, value_channels=(8, 4, 4))
