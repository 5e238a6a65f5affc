"""Areas painted into a mask: polygons and runs of pixels.

**The rule.** Coordinates count pixels from the top left corner of the image, x to the right and y down; the first pixel
spans 0 to 1. A pixel belongs to an area if its centre lies inside; a centre right on an edge belongs to the area on its
right or below. So areas that share an edge share no pixel and leave none out, and the square from 0,0 to 3,3 has nine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError

Points = NDArray[np.float64]
"""(n, 2) x and y in pixels, n >= 3, closed or not; within +-2**31."""
Runs = NDArray[np.int64]
"""(n, 2) first pixel and the one after the last, counted from 0 down the columns, one column after the other."""

MARKED = 255
MAX_CROSSINGS = 1_000_000_000
"""Edges times the rows that each of them crosses. A million vertices around one blot make a few millions; a file that
zigzags over a whole scan a million times would keep a reader busy for hours."""
_BAND_PIXELS = 1 << 22
_CROSSINGS_AT_ONCE = 1 << 20


class Canvas:
    """A mask that begins empty, and the areas that are painted into it."""

    def __init__(self, height_px: int, width_px: int) -> None:
        self.mask = np.zeros((height_px, width_px), np.uint8)
        """(h, w) uint8: 255 where an area was painted."""
        self.num_polygons = 0
        self.num_without_px = 0
        """Polygons that hold the centre of no pixel of the image."""
        self.low, self.high = np.full(2, np.inf), np.full(2, -np.inf)
        """Corners (x, y) of the box around all outlines that were painted."""
        self._num_crossings = 0

    def polygon(self, exterior: Points, interiors: Sequence[Points] = ()) -> None:
        """Paint a polygon less its holes, even-odd within each ring; what leaves the image is cut off.

        Raises RowError(MASK) once all polygons together cross more than `MAX_CROSSINGS` rows.
        """
        for ring in (exterior, *interiors):
            self._count(ring)
        low, high = exterior.min(axis=0), exterior.max(axis=0)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        self.num_polygons += 1
        self.num_without_px += not self._fill(exterior, interiors, low, high)

    def runs(self, runs: Runs) -> None:
        """Paint runs of pixels, in any order and overlapping or not. They must lie within the image."""
        runs = _joined(runs)
        if not len(runs):
            return
        lengths = np.diff(runs.ravel(), prepend=0, append=self.mask.size)
        values = np.zeros(len(lengths), np.uint8)
        values[1::2] = MARKED
        self.mask |= np.repeat(values, lengths).reshape(self.mask.shape[::-1]).T

    def _fill(
        self, exterior: Points, interiors: Sequence[Points], low: NDArray[np.float64], high: NDArray[np.float64]
    ) -> bool:
        """Mark the pixels of one polygon, which lies between `low` and `high`; returns whether it has any."""
        height_px, width_px = self.mask.shape
        left, top = (max(0, int(first)) for first in np.ceil(low - 0.5))
        right, bottom = np.ceil(high - 0.5).astype(np.int64)
        right, bottom = min(int(right), width_px), min(int(bottom), height_px)
        if left >= right:
            return False
        has_any = False
        step_px = max(1, _BAND_PIXELS // (right - left))
        for first in range(top, bottom, step_px):
            last = min(first + step_px, bottom)
            inside = _inside(exterior, first, last, left, right)
            for ring in interiors:
                inside &= ~_inside(ring, first, last, left, right)
            self.mask[first:last, left:right][inside] = MARKED
            has_any = has_any or bool(inside.any())
        return has_any

    def _count(self, ring: Points) -> None:
        y = np.clip(ring[:, 1], 0, self.mask.shape[0])
        self._num_crossings += int(np.abs(np.diff(y, append=y[0])).sum())
        if self._num_crossings > MAX_CROSSINGS:
            raise RowError(
                FailureCode.MASK,
                f"the polygons of the mask go up and down over {self._num_crossings:,} rows of pixels, more than "
                f"{MAX_CROSSINGS:,}; simplify them, or save the mask as a grey PNG",
            )


def _inside(ring: Points, top: int, bottom: int, left: int, right: int) -> NDArray[np.bool_]:
    """(bottom - top, right - left): whether each pixel's centre is inside the ring."""
    width_px = right - left
    toggles = np.zeros((bottom - top, width_px + 1), np.uint8)  # the last column takes what lies beyond
    at_once = max(1, _CROSSINGS_AT_ONCE // (bottom - top))
    ends = np.roll(ring, -1, axis=0)
    down = ring[:, 1] <= ends[:, 1]
    upper, lower = np.where(down[:, None], ring, ends), np.where(down[:, None], ends, ring)
    # The rows whose centre an edge crosses, its upper end included and its lower one not.
    first = np.clip(np.ceil(upper[:, 1] - 0.5), top, bottom).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), top, bottom).astype(np.int64)
    crossing = np.flatnonzero(first < last)
    for start in range(0, len(crossing), at_once):
        edges = crossing[start : start + at_once]
        counts = last[edges] - first[edges]
        edge = np.repeat(edges, counts)
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
        (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
        x = x0 + (row + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        column = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64)
        np.bitwise_xor.at(toggles, (row - top, column - left), np.uint8(1))
    return np.bitwise_xor.accumulate(toggles, axis=1)[:, :width_px].view(np.bool_)


def _joined(runs: Runs) -> Runs:
    """The same pixels as ascending runs with a gap between any two; empty ones left out."""
    runs = runs[runs[:, 0] < runs[:, 1]]
    if not len(runs):
        return runs
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(runs[:, 1])
    begins = np.append(True, runs[1:, 0] > reach[:-1])
    ends = np.append(begins[1:], True)
    return np.stack([runs[begins, 0], reach[ends]], axis=1)
