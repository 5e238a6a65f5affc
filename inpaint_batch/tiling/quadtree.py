"""Cover the hole pixels of one level of one window by tiles: a quadtree of quarter patches, shrunk to the holes.

A *core* is a box of pixels that one tile answers for: cores are disjoint and cover every hole pixel. The *tile box* is
the square that the engine sees: core, margin, and whatever more context the bucket has room for.
"""

from __future__ import annotations

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.tiling.boxes import Tile, bucket_side, needed_box, place_tile, tight_box
from inpaint_batch.types import BoolArray, BoolMap, Box

MIN_SAVING = 0.5
"""A core that fits one tile is split all the same where that at least halves its cost; else context is worth more."""


def cover(
    hole: BoolMap, origin: tuple[int, int], image_box: Box, config: TilingConfig, within: Box | None = None
) -> list[Tile]:
    """Tiles over all hole pixels of one window at one level.

    `hole` is a hole map (h, w), its first pixel at (row, column) `origin` of the level's image, whose extent is
    `image_box`; the window is the part `within` of that map, or all of it. Returns tiles in the coordinates of the
    level, in a fixed order; none where there is no hole.
    """
    local_image = image_box.shift(-origin[0], -origin[1])
    root = tight_box(hole, Box(0, 0, hole.shape[0], hole.shape[1]) if within is None else within)
    cores = [] if root is None else _merge_neighbours(_split(hole, root, local_image, config), local_image, config)
    return [place_tile(core.shift(*origin), image_box, config) for core in cores]


def _split(hole: BoolMap, core: Box, image_box: Box, config: TilingConfig) -> list[Box]:
    """Cut `core` down until every part fits a tile, and further where that is much cheaper."""
    side = bucket_side(core, image_box, config)
    quarters = _quarters(hole, core, image_box, config, fits=side is not None)
    if side is not None:
        sides = [bucket_side(quarter, image_box, config) for quarter in quarters]
        cost = sum(quarter_side**2 for quarter_side in sides if quarter_side is not None)
        if cost > MIN_SAVING * side**2:
            return [core]
    return [part for quarter in quarters for part in _split(hole, quarter, image_box, config)]


def _quarters(hole: BoolMap, core: Box, image_box: Box, config: TilingConfig, *, fits: bool) -> list[Box]:
    """The quarters of `core` (two, where only one axis is too long), shrunk to their holes; empty ones left out."""
    needed = needed_box(core, image_box, config)
    row_cut = _cut(core.height, needed.height, config, forced=fits)
    column_cut = _cut(core.width, needed.width, config, forced=fits)
    quarters = [
        Box(core.top + top, core.left + left, bottom - top, right - left)
        for top, bottom in _parts(core.height, row_cut)
        for left, right in _parts(core.width, column_cut)
    ]
    tight = [tight_box(hole, quarter) for quarter in quarters]
    return [quarter for quarter in tight if quarter is not None]


def _parts(length_px: int, cut: int) -> list[tuple[int, int]]:
    return [(0, cut), (cut, length_px)] if cut else [(0, length_px)]


def _cut(length_px: int, needed_px: int, config: TilingConfig, *, forced: bool) -> int:
    """Where to cut an axis: about the middle, so that the fewest tiles cover both sides; 0 where it need not be cut."""
    if forced:
        return length_px // 2
    if needed_px <= config.buckets_px[-1]:
        return 0
    largest_core_px = config.buckets_px[-1] - 2 * config.margin_px
    num_tiles = -(-length_px // largest_core_px)  # at least 2: what needs more than the largest bucket is longer
    return length_px * (num_tiles // 2) // num_tiles


def _merge_neighbours(cores: list[Box], image_box: Box, config: TilingConfig) -> list[Box]:
    """Join pairs of cores that cost no more as one: the slivers that the cuts leave on either side.

    A pair is joined only if its common box touches no third core, so that cores stay disjoint.
    """
    merged = True
    while merged and len(cores) > 1:
        merged = False
        boxes = np.array(cores, dtype=np.int64)
        alive = np.ones(len(cores), dtype=np.bool_)
        for index in sorted(range(len(cores)), key=lambda i: (cores[i].area_px, i)):
            if not alive[index]:
                continue
            partner = _best_partner(index, boxes, alive, image_box, config)
            if partner is not None:
                union = Box(*boxes[index].tolist()).union(Box(*boxes[partner].tolist()))
                keep, drop = min(index, partner), max(index, partner)
                boxes[keep], alive[drop] = union, False
                merged = True
        cores = [Box(*row) for row in boxes[alive].tolist()]
    return cores


def _best_partner(index: int, boxes: np.ndarray, alive: BoolArray, image_box: Box, config: TilingConfig) -> int | None:
    """The core whose union with core `index` saves most (and costs no more); None where there is none."""
    top, left, height, width = boxes.T
    bottom, right = top + height, left + width
    union_top, union_left = np.minimum(top, top[index]), np.minimum(left, left[index])
    union_bottom, union_right = np.maximum(bottom, bottom[index]), np.maximum(right, right[index])
    reach = config.buckets_px[-1]
    near = alive & (union_bottom - union_top <= reach) & (union_right - union_left <= reach)
    near[index] = False
    own = Box(*boxes[index].tolist())
    own_side = bucket_side(own, image_box, config)
    best: tuple[int, int] | None = None
    for other in np.flatnonzero(near).tolist():
        other_box = Box(*boxes[other].tolist())
        union = own.union(other_box)
        side, other_side = bucket_side(union, image_box, config), bucket_side(other_box, image_box, config)
        if side is None or own_side is None or other_side is None:
            continue
        saving = own_side**2 + other_side**2 - side**2
        if saving < 0 or (best is not None and saving <= best[0]):
            continue
        touched = alive & (top < union.bottom) & (bottom > union.top) & (left < union.right) & (right > union.left)
        if np.count_nonzero(touched) == 2:
            best = (saving, other)
    return None if best is None else best[1]
