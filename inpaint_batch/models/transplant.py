"""Weights of one generator in another of other sizes: fewer or more levels, blocks, hidden channels."""

from __future__ import annotations

import re

from torch import Tensor

from inpaint_batch.models.dcf import DcfGenerator

_STAGE = re.compile(r"stages\.(\d+)\.")


def fitting_weights(source: DcfGenerator, target: DcfGenerator) -> dict[str, Tensor]:
    """What `target` can take over from `source`: weights that stand at the same place, of the same shape.

    Refinement stages stand at the same place where they work at the same resolution; they are numbered from the
    coarsest on, so their numbers may differ. New residual blocks begin as the identity, so a network that was only
    given more of them computes what `source` does.
    """
    ahead = source.spec.num_stages - target.spec.num_stages
    theirs, fitting = source.state_dict(), {}
    for name, value in target.state_dict().items():
        place = _STAGE.sub(lambda found: f"stages.{int(found[1]) + ahead}.", name, count=1)
        if place in theirs and theirs[place].shape == value.shape:
            fitting[name] = theirs[place]
    return fitting
