"""From holes to windows, levels and tiles: the quadtree plan.

A window is a group of neighbouring holes. A hole that the network can bridge at full resolution has one level. A deeper
one starts at the first halving where it can be bridged and is refined level by level, each tile given the enlarged fill
of the coarser level as its prior. At every level only the hole pixels are covered, so the cost of a plan grows with the
area of the holes, not of the image.
"""

from __future__ import annotations

from collections.abc import Sequence

from inpaint_batch.config import TilingConfig
from inpaint_batch.holes.components import Hole
from inpaint_batch.tiling.boxes import Level, Window
from inpaint_batch.tiling.grouping import Group, group_holes
from inpaint_batch.tiling.pyramid import coarse_box, level_size, reduce_hole
from inpaint_batch.tiling.quadtree import cover
from inpaint_batch.types import BoolMap, Box


def plan_windows(hole: BoolMap, holes: Sequence[Hole], config: TilingConfig) -> list[Window]:
    """Plan the tiles of one image.

    `hole` is the hole map (H, W) of the image; `holes` are its connected holes, which together hold every
    hole pixel. Returns windows with disjoint boxes, sorted by position; the same input gives the same plan.
    """
    image_box = Box(0, 0, hole.shape[0], hole.shape[1])
    return [_plan_window(hole, group, config) for group in group_holes(holes, image_box, config)]


def _plan_window(hole: BoolMap, group: Group, config: TilingConfig) -> Window:
    levels = []
    first, coarsest = _starts(group.depth_px, hole.shape, config)
    for scale_log2 in range(coarsest, -1, -1):
        box = coarse_box(group.box, scale_log2)
        image_box = Box(0, 0, *level_size(hole.shape[0], hole.shape[1], scale_log2))
        if scale_log2 == 0:  # not cut out: the window of a long scratch can be as large as the image
            tiles = cover(hole, (0, 0), image_box, config, within=box)
        else:
            tiles = cover(reduce_hole(hole, box, scale_log2), (box.top, box.left), image_box, config)
        prior_weight = 0.0 if scale_log2 == coarsest else 0.5 if scale_log2 == first else 1.0
        levels.append(Level(scale_log2, tuple(tiles), prior_weight))
    return Window(group.box, tuple(levels))


def _starts(depth_px: float, shape: tuple[int, ...], config: TilingConfig) -> tuple[int, int]:
    """The first level at which the hole can be bridged, and the one of a second start or the same; at most the one
    where the image fits the smallest bucket."""

    def is_deeper(limit_px: float, scale_log2: int) -> bool:
        return depth_px / 2**scale_log2 > limit_px and max(shape) > config.buckets_px[0] << scale_log2

    first = 0
    while is_deeper(config.bridge_depth_px, first):
        first += 1
    return first, first + bool(config.second_start_px and is_deeper(config.second_start_px, first))
