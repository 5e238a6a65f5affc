"""A generator whose learned part computes in half precision.

Push-pull, blending and the sum with the start image stay in FP32, as in the FP16 form of an exported graph: they are
cheap, and their errors would be seen.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from inpaint_batch.models.dcf import DcfGenerator


class HalfInside(DcfGenerator):
    """A copy of a generator, for inference; inputs and output stay float32."""

    def __init__(self, generator: DcfGenerator) -> None:
        nn.Module.__init__(self)
        self.spec = generator.spec
        for name, module in copy.deepcopy(generator).named_children():
            self.add_module(name, module.half())
        self.eval()

    def residual(self, start: Tensor, hole: Tensor, prior_weight: Tensor) -> Tensor:
        """See `DcfGenerator.residual`."""
        return super().residual(start.half(), hole.half(), prior_weight.half()).float()
