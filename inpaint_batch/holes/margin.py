"""Does a mask end where the damage does, so that its soft rim stays beside the fill?

Damage has a rim of a pixel or two: optics and scanners blur, and codecs spread. Where a mask ends too early, the image
changes by much from its edge to a few pixels farther out, nearly everywhere along it, and the pixel next to it shows a
part of that change. Where a mask lies over what is sound, or leaves a margin, most of its edge is like what lies
outside; where it is not (edges of the scene), the pixel next to it is like the one inside, and where nothing is like
its neighbours (noise, texture), that goes on outside. Damage without any rim, as programs paint it, needs no margin:
the pixel next to it shows nothing of it.

Shares and limits: docs/decisions.md, "A mask without a margin is told".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from inpaint_batch.sampling import evenly
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

OUTSIDE_PX = 4
"""So far from the edge of a mask nothing of damage is seen that the mask ends at."""
MAX_BOXES = 16
"""Boxes of one image that are looked at; more would make the answer hardly better, but large images slow."""
MIN_EDGES = 200
CHANGE = 24 / 255
"""Euclidean distance of two RGB values of 0..1 that differ by much."""
MIN_CHANGED = 0.7
"""Share of the edge that differs by much from what lies outside."""
MIN_TIMES_USUAL = 3.0
"""Mean square of the difference over that of the scene itself at the same distance: texture is no damage."""
MIN_SHOWN, MAX_SHOWN = 0.1, 0.75
"""How much of that difference the pixel next to the edge has."""


def lacks_margin(read_rgb: Callable[[Box], FloatArray], hole: BoolMap, boxes: Sequence[Box]) -> bool:
    """Whether the image seems to show, right outside of `hole` (H, W), a part of what it covers.

    `read_rgb` gives any box of the image as (h, w, 3) float32 of 0..1. Looked at is the edge of the hole within some of
    `boxes`, evenly chosen. False where there is too little of it to tell.
    """
    image = Box(0, 0, *hole.shape)
    edges: list[FloatArray] = []
    for box in evenly(boxes, MAX_BOXES):
        around = _within(hole, box).expand(2 * OUTSIDE_PX).intersect(image)
        rgb, inside = read_rgb(around), np.asarray(hole[around.slices])
        edges += (_differences(np.rot90(rgb, turns), np.rot90(inside, turns)) for turns in range(4))
    change, shown, usual = np.concatenate(edges, axis=1) if edges else np.zeros((3, 0, 3), np.float32)
    if len(change) < MIN_EDGES:
        return False
    squares = np.square(change).sum(axis=1)
    changed = squares > CHANGE**2
    if changed.mean() < MIN_CHANGED or squares.mean() < MIN_TIMES_USUAL * np.square(usual).sum(axis=1).mean():
        return False
    part = (change * shown)[changed].sum() / squares[changed].sum()  # least squares through zero
    return bool(MIN_SHOWN <= part <= MAX_SHOWN)


def _within(hole: BoolMap, box: Box) -> Box:
    """The smallest box around what is hole in `box`; one of no size where nothing is."""
    left, top, width, height = cv2.boundingRect(np.asarray(hole[box.slices]).view(np.uint8))
    return Box(top, left, height, width).shift(box.top, box.left)


def _differences(rgb: FloatArray, hole: BoolArray) -> FloatArray:
    """(3, n, 3) for the n edges whose right side is free: how the last pixel in the hole, and how the one beside it,
    differs from the one OUTSIDE_PX to the right, and how that one does from the one as far to the right again.
    """
    width = max(0, hole.shape[1] - 2 * OUTSIDE_PX)
    free = ~np.logical_or.reduce([hole[:, step : step + width] for step in range(1, 2 * OUTSIDE_PX + 1)])
    rows, columns = np.nonzero(hole[:, :width] & free)
    last, beside, outside, beyond = (rgb[rows, columns + step] for step in (0, 1, OUTSIDE_PX, 2 * OUTSIDE_PX))
    return np.stack([last - outside, beside - outside, outside - beyond])
