"""Weights of one generator in another of other sizes: fewer or more levels, blocks, channels."""

from __future__ import annotations

import re

from torch import Tensor

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec

DEEPEST = "encoder.3."
"""Beginning of the names of the blocks at 1/16."""
_STAGE = re.compile(r"stages\.(\d+)\.")


def fitting_weights(source: DcfGenerator, target: DcfGenerator) -> dict[str, Tensor]:
    """What `target` can take over from `source`: weights that stand at the same place, of no larger shape.

    Refinement stages stand at the same place where they work at the same resolution; they are numbered from the
    coarsest on, so their numbers may differ. New residual blocks begin as the identity, and what was there does not
    listen to new channels at first, so a network that was only given more of either computes what `source` does
    (Chen et al., "Net2Net", ICLR 2016, with zeros in the place of copies).
    """
    ahead = source.spec.num_stages - target.spec.num_stages
    theirs, fitting = source.state_dict(), {}
    for name, value in target.state_dict().items():
        place = _STAGE.sub(lambda found: f"stages.{int(found[1]) + ahead}.", name, count=1)
        if place not in theirs or (name.startswith(DEEPEST) and source.spec.bottleneck != target.spec.bottleneck):
            continue  # other kinds of blocks have layers of the same name
        old = theirs[place]
        if old.shape == value.shape:
            fitting[name] = old
        elif _can_widen(name, source.spec, target.spec) and all(
            a <= b for a, b in zip(old.shape, value.shape, strict=True)
        ):
            fitting[name] = _widened(old, value)
    return fitting


def _can_widen(name: str, source: DcfSpec, target: DcfSpec) -> bool:
    """Whether a layer may have more channels and the network compute the same. Attention divides by its keys' number,
    and blocks of the other bottlenecks normalise over all channels or hold several matrices in one tensor.
    """
    if name.startswith("match."):
        return source.key_channels == target.key_channels
    return target.bottleneck == "conv" or not name.startswith(DEEPEST)


def _widened(old: Tensor, fresh: Tensor) -> Tensor:
    """`old`, weights (out, in, ...) or biases (out), in the corner of `fresh`. Old outputs do not hear new inputs."""
    wide = fresh.clone()
    wide[: len(old)] = 0
    wide[tuple(slice(size) for size in old.shape)] = old.to(fresh)
    return wide
