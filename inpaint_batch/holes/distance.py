"""Distances on the pixel grid, the same to the last bit however an image is cut and whatever machine computes them."""

from __future__ import annotations

import cv2
import numpy as np

from inpaint_batch.holes.sparse import SparseMap, empty_map, mark, may_hold
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

# The package runs one row per thread already: OpenCV's own threads would fight over the same cores. And OpenCV takes
# another code path where it has one thread and Intel's IPP, which is off by up to 0.0006 px from 885 px on.
cv2.setNumThreads(1)
cv2.ipp.setUseIPP(False)

TILE_PX = 512
"""Side of the squares in which a whole image is grown: float maps are needed where something is marked, and small."""


def distance_px(inside: BoolArray) -> FloatArray:
    """(h, w) float32: from each true pixel to the centre of the nearest false one; 0 at false pixels.

    What lies beyond the border is neither true nor false. Where nothing is false, every distance is infinite.
    """
    if inside.all():
        return np.full(inside.shape, np.inf, np.float32)
    distance = np.asarray(cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
    np.square(distance, out=distance)
    np.rint(distance, out=distance)  # a whole number in truth: this takes wrong last bits off
    np.sqrt(distance, out=distance)
    return distance


def grow(marked: BoolArray | SparseMap, radius_px: int) -> BoolArray | SparseMap:
    """`marked` grown by a disc: every pixel whose distance to a true one is at most `radius_px`; of the same kind."""
    if radius_px == 0:
        return marked
    image = Box(0, 0, *marked.shape)
    grown = empty_map((image.height, image.width), 0 if isinstance(marked, SparseMap) else image.area_px)
    side_px = max(TILE_PX, 2 * radius_px)
    for top in range(0, image.height, side_px):
        for left in range(0, image.width, side_px):
            tile = Box(top, left, side_px, side_px).intersect(image)
            around = tile.expand(radius_px).intersect(image)
            if may_hold(marked, around) and (there := marked[around.slices]).any():
                near = distance_px(~there) <= radius_px
                mark(grown, tile, near[tile.shift(-around.top, -around.left).slices])
    return grown


def ramp(marked: BoolMap, box: Box, full_px: int, rim_px: int) -> FloatArray:
    """(box.height, box.width) float32: 1 up to `full_px` from a true pixel, 0 from `full_px + rim_px + 1` on.

    Linear between the two. `box` must lie inside the map. Depends on pixels only, not on how boxes are cut.
    """
    reach_px = full_px + rim_px + 1
    around = box.expand(reach_px).intersect(Box(0, 0, *marked.shape))
    away_px = distance_px(~marked[around.slices])[box.shift(-around.top, -around.left).slices]
    weight: FloatArray = ((reach_px - away_px) / (rim_px + 1)).astype(np.float32)
    return weight.clip(0, 1, out=weight)
