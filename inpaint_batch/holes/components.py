"""The connected holes of a hole map: where each one is, how large, how deep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.holes.distance import distance_px
from inpaint_batch.holes.joining import Ids, Joined, Part
from inpaint_batch.holes.sparse import SparseMap
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

BLOCK_PX = 64
"""Holes are first sought on blocks of this side, so that label and distance maps are needed around holes only."""
TILE_PX = 512
"""What is larger is labelled and measured tile by tile, so that those maps stay small; a multiple of `BLOCK_PX`."""
EXACT_DEPTH_PX = 512
"""In what is larger than a tile, depths beyond this are told in steps of `CELL_PX`."""
CELL_PX = 16
_MOST_SHORT_LABELS = 1 << 15
Labels = NDArray[np.uint16] | NDArray[np.int32]
"""The connected part of one tile that each of its pixels belongs to, counted from 1; 0 for none."""
THIN_PX = 8
"""Scratches are not deeper than that: they are measured in squares of `THIN_TILE_PX` and no more than that around."""
THIN_TILE_PX = 128


@dataclass(frozen=True, slots=True)
class Hole:
    """One 8-connected set of hole pixels."""

    box: Box
    """The smallest box that holds it. Boxes of different holes may overlap."""
    area_px: int
    """Number of its pixels."""
    depth_px: float
    """Greatest distance of one of its pixels to the nearest known pixel, centre to centre; 1.0 for a thin line. What
    lies beyond the border of the image does not count as known; infinite where no pixel is known at all. Beyond 512 px
    it may be off by up to 21 px."""


def find_holes(hole: BoolMap) -> list[Hole]:
    """The holes of `hole` (h, w), ordered by top, then left. Empty where nothing is true."""
    found: list[Hole] = []
    blocks, groups = _groups_of_blocks(hole)
    for label, group in enumerate(groups, start=1):
        found += _Search(hole, group, blocks[group.slices] == label).holes()
    return sorted(found, key=lambda each: (each.box, each.area_px, each.depth_px))


def _groups_of_blocks(hole: BoolMap) -> tuple[NDArray[np.int32], list[Box]]:
    """Label the blocks that hold hole pixels; touching blocks share a label, so no hole spans two labels.

    Returns the labels (one per block, 0 for none) and the box of each label 1, 2, ..., counted in blocks.
    """
    if isinstance(hole, SparseMap):
        occupied = np.zeros((-(-hole.shape[0] // BLOCK_PX), -(-hole.shape[1] // BLOCK_PX)), np.bool_)
        for box in hole.blocks():
            part = _any_in_cells(hole[box.slices], BLOCK_PX)
            occupied[box.top // BLOCK_PX :, box.left // BLOCK_PX :][: part.shape[0], : part.shape[1]] = part
    else:
        occupied = _any_in_cells(hole[:, :], BLOCK_PX)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(occupied.view(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32), [_box(each) for each in stats[1:]]


class _Search:
    """The search for the holes in one group of touching blocks."""

    def __init__(self, hole: BoolMap, group: Box, own_blocks: BoolArray) -> None:
        """`group` is counted in blocks; `own_blocks` (group.height, group.width) says which of them belong to it."""
        self._hole = hole
        self._own_blocks = own_blocks
        self._image = Box(0, 0, hole.shape[0], hole.shape[1])
        self._region = Box(*(side * BLOCK_PX for side in group)).intersect(self._image)
        self._is_small = max(self._region.height, self._region.width) <= TILE_PX
        self._joined = Joined()
        self._deep: list[tuple[Box, Ids]] = []
        """Tiles that are deeper than could be measured, with the part that each of their cells belongs to."""

    def holes(self) -> list[Hole]:
        if self._is_small:
            _, parts, _ = self._label(self._region, self._own(self._region))
        else:
            self._join_tiles()
            self._measure_deep()
            parts = self._joined.whole()
        return [Hole(part.box, part.area_px, part.depth_px) for part in parts]

    def _join_tiles(self) -> None:
        above = np.zeros(self._region.width, np.int32)  # the last line of the tiles above
        for tiles in self._rows_of_tiles():
            first, last = np.zeros_like(above), np.zeros_like(above)
            beside: Ids | None = None
            for tile in tiles:
                own = self._own(tile)
                if not own.any():
                    beside = None
                    continue
                ids, labels = self._add(tile, own)
                across = slice(tile.left - self._region.left, tile.right - self._region.left)
                first[across], last[across] = ids[labels[0]], ids[labels[-1]]
                if beside is not None:
                    self._joined.touch(beside, ids[labels[:, 0]])
                beside = ids[labels[:, -1]]
            self._joined.touch(above, first)
            above = last

    def _rows_of_tiles(self) -> Iterator[list[Box]]:
        region = self._region
        for top in range(region.top, region.bottom, TILE_PX):
            lefts = range(region.left, region.right, TILE_PX)
            yield [Box(top, left, TILE_PX, TILE_PX).intersect(region) for left in lefts]

    def _own(self, tile: Box) -> BoolArray:
        """The hole pixels (tile.height, tile.width) of the tile that belong to this group."""
        in_blocks = tile.shift(-self._region.top, -self._region.left)
        rows = slice(in_blocks.top // BLOCK_PX, -(-in_blocks.bottom // BLOCK_PX))
        columns = slice(in_blocks.left // BLOCK_PX, -(-in_blocks.right // BLOCK_PX))
        blocks = self._own_blocks[rows, columns]
        if not blocks.any():
            return np.zeros((tile.height, tile.width), np.bool_)
        own = blocks.repeat(BLOCK_PX, axis=0).repeat(BLOCK_PX, axis=1)[: tile.height, : tile.width]
        return own & self._hole[tile.slices]

    def _add(self, tile: Box, own: BoolArray) -> tuple[Ids, Labels]:
        """Label one tile of many; returns the part that each label stands for, and the labels of its pixels."""
        labels, parts, is_exact = self._label(tile, own)
        ids = self._joined.add(parts)
        if not is_exact:
            self._deep.append((tile, ids[labels[::CELL_PX, ::CELL_PX]]))
        return ids, labels

    def _label(self, tile: Box, own: BoolArray) -> tuple[Labels, list[Part], bool]:
        """The connected parts of `own`: their labels from 1, what they are, and whether their depth is exact."""
        # There are no more parts than pixels; with labels of 16 bits OpenCV takes a third of the time.
        kind = cv2.CV_16U if np.count_nonzero(own) < _MOST_SHORT_LABELS else cv2.CV_32S
        _, found, stats, _ = cv2.connectedComponentsWithStats(
            np.ascontiguousarray(own).view(np.uint8), connectivity=8, ltype=kind
        )
        labels = cast(Labels, found)
        depths, is_exact = self._depths(tile, own, labels, len(stats))
        parts = [
            Part(_box(each).shift(tile.top, tile.left), int(each[cv2.CC_STAT_AREA]), float(depth))
            for each, depth in zip(stats[1:], depths[1:], strict=True)
        ]
        return labels, parts, is_exact

    def _depths(self, tile: Box, own: BoolArray, labels: Labels, num_labels: int) -> tuple[NDArray[np.float32], bool]:
        """Depth by label, and whether it could be measured; at most `EXACT_DEPTH_PX` where it could not."""
        depths = np.zeros(num_labels, np.float32)
        if self._is_small:
            # A hole and the ring of pixels around it decide its depth: the way from a hole pixel to its nearest known
            # pixel leaves the hole through that ring, and no pixel there belongs to another hole.
            _deepest(depths, self._depth_map(tile, 1)[0], own, labels)
            return depths, True
        if self._measure_thin(depths, tile, own, labels):
            return depths, True
        halo_px = BLOCK_PX
        depth_px, is_exact = self._depth_map(tile, halo_px, own)
        while not is_exact and halo_px < EXACT_DEPTH_PX:
            halo_px = min(4 * halo_px, EXACT_DEPTH_PX)
            depth_px, is_exact = self._depth_map(tile, halo_px, own)
        _deepest(depths, depth_px if is_exact else np.minimum(depth_px, np.float32(EXACT_DEPTH_PX)), own, labels)
        return depths, is_exact

    def _depth_map(self, tile: Box, halo_px: int, own: BoolArray | None = None) -> tuple[FloatArray, bool]:
        """Distances in a tile to known pixels up to `halo_px` beyond it, and whether those of `own` are true."""
        around = tile.expand(halo_px).intersect(self._image)
        inside = tile.shift(-around.top, -around.left).slices
        depth_px = distance_px(np.ascontiguousarray(self._hole[around.slices]))[inside]
        is_exact = around == self._image or own is None or bool(depth_px[own].max() <= halo_px)
        return depth_px, is_exact

    def _measure_thin(self, depths: FloatArray, tile: Box, own: BoolArray, labels: Labels) -> bool:
        """Measure `depths` (by label) if nothing in the tile is deeper than `THIN_PX`; returns whether that is so."""
        own_bytes = own.view(np.uint8)
        for top in range(0, tile.height, THIN_TILE_PX):
            for left in range(0, tile.width, THIN_TILE_PX):
                square = own_bytes[top : top + THIN_TILE_PX, left : left + THIN_TILE_PX]
                from_left, from_top, width, height = cv2.boundingRect(square)
                if width:
                    part = Box(top + from_top, left + from_left, height, width)
                    inside = part.slices
                    depth_px, is_exact = self._depth_map(part.shift(tile.top, tile.left), THIN_PX, own[inside])
                    if not is_exact:
                        return False
                    _deepest(depths, depth_px, own[inside], labels[inside])
        return True

    def _measure_deep(self) -> None:
        """Measure the deepest tiles on a map of cells: known is a cell that holds a known pixel."""
        if not self._deep:
            return
        around = self._region.expand(CELL_PX).intersect(self._image)
        cells = Box(*(-(-side // CELL_PX) for side in around))
        missing = np.empty((cells.height, cells.width), np.bool_)
        for top in range(0, around.height, TILE_PX):
            band = Box(around.top + top, around.left, TILE_PX, around.width).intersect(around)
            part = ~_any_in_cells(~self._hole[band.slices], CELL_PX)
            missing[top // CELL_PX :][: len(part)] = part
        depth_px = distance_px(missing) * CELL_PX
        for tile, ids in self._deep:
            top, left = (tile.top - around.top) // CELL_PX, (tile.left - around.left) // CELL_PX
            depths = depth_px[top : top + ids.shape[0], left : left + ids.shape[1]]
            for part_id in np.unique(ids[ids > 0]).tolist():
                self._joined.deepen(part_id, float(depths[ids == part_id].max()))


def _deepest(depths: FloatArray, depth_px: FloatArray, own: BoolArray, labels: Labels) -> None:
    """Raise `depths` (by label) to the greatest of `depth_px` under each label."""
    for top in range(0, own.shape[0], BLOCK_PX):  # in bands: the lists of pixels would outweigh the maps
        band = slice(top, top + BLOCK_PX)
        np.maximum.at(depths, np.asarray(labels[band][own[band]], np.intp), depth_px[band][own[band]])


def _any_in_cells(values: BoolArray, side_px: int) -> BoolArray:
    """Whether anything is true in each square of `side_px`; ragged at the far edges."""
    rows = [values[top : top + side_px].any(axis=0) for top in range(0, values.shape[0], side_px)]
    return np.logical_or.reduceat(np.array(rows), np.arange(0, values.shape[1], side_px), axis=1)


def _box(stats: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> Box:
    return Box(
        int(stats[cv2.CC_STAT_TOP]),
        int(stats[cv2.CC_STAT_LEFT]),
        int(stats[cv2.CC_STAT_HEIGHT]),
        int(stats[cv2.CC_STAT_WIDTH]),
    )
