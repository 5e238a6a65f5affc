"""Is what was found damage? It is filled on trial, and taken where two fills agree.

Damage lies over a scene that goes on beneath it, so both fills of a mirrored pair come to much the same. A line of the
scene itself, such as a window bar, a horizon, a leg, mostly parts two things that differ; what is to be there instead
nobody can tell, and the fills differ. What they differ about had better not be filled, whatever it is.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import cv2
import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.execution.batcher import Batcher
from inpaint_batch.holes.components import find_holes
from inpaint_batch.holes.distance import grow
from inpaint_batch.runtime.engine import Engine, stack_tiles
from inpaint_batch.runtime.mirrors import fill_each, mean, variance_of
from inpaint_batch.tiling.fill import TileRequest, fill_window
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.tiling.pyramid import ReadRGB
from inpaint_batch.types import BoolArray, FloatArray

MARGIN_PX = 2
"""Marks are filled with so much around them, lest the soft rim of damage beside a mark lead its fill astray."""


class TrialFill:
    """Fills marks to see whether the fills agree; any thread may ask, one at a time is served."""

    def __init__(self, engine: Engine, tiling: TilingConfig, max_doubt: float) -> None:
        """`engine` fills each tile at least twice; marks of more doubt than `max_doubt`, in steps of 255, are left."""
        self._engine = engine
        self._tiling = tiling
        self._max_variance = (max_doubt / 255) ** 2
        self._lock = threading.Lock()

    def credible(self, read_rgb: ReadRGB, marks: BoolArray) -> BoolArray:
        """The marks, connected pixels of `marks` (h, w), whose fills agree; the variances of all levels are added up,
        as for the doubt of a row. Raises what reading and the engine raise.
        """
        with self._lock:
            apart = self._variances(read_rgb, np.asarray(grow(marks, MARGIN_PX)))
        num, labels = cv2.connectedComponents(marks.view(np.uint8), connectivity=8)
        inside = labels.ravel()
        means = np.bincount(inside, apart.ravel(), num) / np.bincount(inside, minlength=num)
        wanted = means <= self._max_variance
        wanted[0] = False
        return np.asarray(wanted[labels], np.bool_)

    def _variances(self, read_rgb: ReadRGB, hole: BoolArray) -> FloatArray:
        """(h, w): of each pixel of the hole."""
        apart = np.zeros(hole.shape, np.float32)

        def fill(requests: Sequence[TileRequest]) -> Sequence[FloatArray]:
            fills = fill_each(self._engine, stack_tiles([request.load() for request in requests]))
            for index, request in enumerate(requests):
                _add(apart, variance_of(fills, index, request.own_slices), request)
            return list(mean(fills))

        windows = plan_windows(hole, find_holes(hole), self._tiling)
        steps = (fill_window(read_rgb, hole, window, self._tiling) for window in windows)
        batcher: Batcher[TileRequest, object] = Batcher(fill, self._engine.batch_size, lambda _: None)
        batcher.add("marks", steps)
        while batcher.num_jobs:
            for filled in batcher.step():
                if filled.error is not None:
                    raise filled.error from filled.cause
        return apart


def _add(apart: FloatArray, own: FloatArray, request: TileRequest) -> None:
    """Add the variances of what a tile answers for to those of the pixels that its own stand for."""
    step, core = 1 << request.scale_log2, request.tile.core
    under = apart[core.top * step : core.bottom * step, core.left * step : core.right * step]
    enlarged = own.repeat(step, axis=0).repeat(step, axis=1) if step > 1 else own
    under += enlarged[: under.shape[0], : under.shape[1]]
