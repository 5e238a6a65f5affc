"""Fill each tile several times, mirrored differently, and average: a little better, for as many times the work.

Some tiles may start from their prior or without one (`TileBatch.prior_weight` 0.5): half of the passes do the one, half
the other. The engine inside sees 0 and 1 only.

A network does not fill a mirrored tile quite as the mirror of its fill. The mean of both is nearer to the truth, as the
mean of any two estimates with errors of their own is (Timofte et al., "Seven Ways to Improve Example-Based Single Image
Super Resolution", CVPR 2016, section 3.7). How far they are from each other tells how far from the truth they may be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from inpaint_batch.errors import UsageError
from inpaint_batch.runtime.engine import Engine, TileBatch
from inpaint_batch.types import FloatArray

MIRRORS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (-1,)),
    4: ((), (-1,), (-2,), (-2, -1)),
}
"""Axes of (B, C, s, s) to turn around in each pass, by the number of passes. Powers of two, so that means are exact."""


class MirroredEngine:
    """An engine around another one. See `Engine` for the contract."""

    def __init__(self, engine: Engine, passes: int) -> None:
        """Raises UsageError where `passes` is not 1, 2 or 4."""
        if passes not in MIRRORS:
            raise UsageError(f"--passes must be 1, 2 or 4, not {passes}")
        self._engine = engine
        self._passes = passes
        self.name = engine.name
        self.model = engine.model
        self.model_hash = engine.model_hash
        self.precision = engine.precision
        self.buckets_px = engine.buckets_px
        self.notes = engine.notes
        self.identity = f"{engine.identity}:passes={passes}"

    def batch_size(self, side_px: int) -> int:
        """As the inner engine's."""
        return self._engine.batch_size(side_px)

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`. Known pixels pass through exactly: the mean of equal values is that value."""
        return mean(self.fill_each(batch))

    def fill_each(self, batch: TileBatch) -> list[FloatArray]:
        """The fills of all passes, each as `Engine.fill` returns it."""
        return [
            self._fill_mirrored(self._started(batch, index), axes) for index, axes in enumerate(MIRRORS[self._passes])
        ]

    def close(self) -> None:
        """Close the inner engine."""
        self._engine.close()

    def _started(self, batch: TileBatch, index: int) -> TileBatch:
        """The batch as the pass of this number starts it: with each prior, or without."""
        weight = (batch.prior_weight * self._passes > index).astype(np.float32)
        if np.array_equal(weight, batch.prior_weight):  # nearly always: no tile may do without
            return batch
        return replace(batch, prior=batch.prior * weight, prior_weight=weight)

    def _fill_mirrored(self, batch: TileBatch, axes: tuple[int, ...]) -> FloatArray:
        def turn(values: FloatArray) -> FloatArray:
            return np.ascontiguousarray(np.flip(values, axes)) if axes else values

        mirrored = TileBatch(turn(batch.image), turn(batch.hole), turn(batch.prior), batch.prior_weight)
        return turn(self._engine.fill(mirrored))


def fill_each(engine: Engine, batch: TileBatch) -> list[FloatArray]:
    """The fills of all passes of any engine: 1, 2 or 4."""
    return engine.fill_each(batch) if isinstance(engine, MirroredEngine) else [engine.fill(batch)]


def mean(fills: Sequence[FloatArray]) -> FloatArray:
    """Of 1, 2 or 4 arrays, in pairs, so that equal values never need more digits than they have."""
    num_fills = len(fills)
    while len(fills) > 1:
        fills = [fills[i] + fills[i + 1] for i in range(0, len(fills), 2)]
    average: FloatArray = fills[0] / np.float32(num_fills)
    return average


def variance_of(fills: Sequence[FloatArray], index: int, part: tuple[slice, slice]) -> FloatArray:
    """(h, w): `variance` in a part of one tile of a batch; `fills` as `fill_each` gives them."""
    return variance([fill[index][:, *part] for fill in fills])


def variance(fills: Sequence[FloatArray]) -> FloatArray:
    """(h, w): of the fills (3, h, w) of one tile from pass to pass, mean of the bands."""
    total = np.zeros(fills[0].shape[1:], np.float32)
    for one, other in combinations(fills, 2):  # the variance of n values is the sum of their squared differences / n²
        apart = one - other
        total += np.einsum("chw,chw->hw", apart, apart)
    return total / np.float32(len(fills) ** 2 * len(fills[0]))
