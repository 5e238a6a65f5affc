"""What a plan is made of, and the arithmetic of one tile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.holes.sparse import SparseMap
from inpaint_batch.types import BoolMap, Box


class Tile(NamedTuple):
    """One square that the engine fills, in pixels of the image at its level."""

    core: Box
    """The pixels this tile answers for; cores of a level are disjoint."""
    box: Box
    """What the engine sees: a square that holds the core, its margin and more context where there is room.
    It leaves the image only where the image is smaller than the square."""
    side_px: int
    """Side of `box`, one of the buckets."""


@dataclass(frozen=True, slots=True)
class Level:
    """All tiles of one window at one resolution."""

    scale_log2: int
    """The image is reduced by 2**scale_log2 here."""
    tiles: tuple[Tile, ...]
    """In the order in which they are blended; may be empty at a coarse level where the hole has vanished."""
    prior_weight: float
    """Share of the passes that start from the coarser level: 0 at the coarsest, 0.5 where the hole can be bridged and
    has a second start, else 1."""


@dataclass(frozen=True, slots=True)
class Window:
    """Holes that are filled together, independent of every other window."""

    box: Box
    """Tight box of the holes at full resolution; boxes of windows are disjoint."""
    levels: tuple[Level, ...]
    """From the coarsest to full resolution (scale_log2 = 0)."""


def tight_box(hole: BoolMap, box: Box) -> Box | None:
    """The smallest box that holds all hole pixels inside `box`; None where there are none."""
    if isinstance(hole, SparseMap):
        return hole.tight(box)
    region = hole[box.slices]
    rows = np.flatnonzero(region.any(axis=1))
    if not len(rows):
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(region[top:bottom].any(axis=0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    return Box(box.top + top, box.left + left, bottom - top, right - left)


def needed_box(core: Box, image_box: Box, config: TilingConfig) -> Box:
    """The core with its margin, as far as the image has pixels there."""
    return core.expand(config.margin_px).intersect(image_box)


def bucket_side(core: Box, image_box: Box, config: TilingConfig) -> int | None:
    """Side of the smallest bucket that holds the core with its margin; None where none does."""
    needed = needed_box(core, image_box, config)
    longest = max(needed.height, needed.width)
    return next((side for side in config.buckets_px if side >= longest), None)


def place_tile(core: Box, image_box: Box, config: TilingConfig) -> Tile:
    """The tile of a core: centred on it, then shifted so as to lie inside the image and to hold the whole margin."""
    side = bucket_side(core, image_box, config)
    assert side is not None, "a core was left that fits no bucket"
    needed = needed_box(core, image_box, config)
    top = _place(core.top, core.height, needed.top, needed.bottom, image_box.top, image_box.bottom, side)
    left = _place(core.left, core.width, needed.left, needed.right, image_box.left, image_box.right, side)
    return Tile(core, Box(top, left, side, side), side)


def _place(start: int, length: int, needed_start: int, needed_stop: int, low: int, high: int, side: int) -> int:
    """First row (or column) of a tile."""
    if high - low <= side:
        return low  # the image is smaller than the tile, which then sticks out at the bottom (right) only
    centred = start + (length - side) // 2
    inside = min(max(centred, low), high - side)
    return min(max(inside, needed_stop - side), needed_start)
