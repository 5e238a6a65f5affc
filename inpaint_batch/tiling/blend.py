"""Overlapping tiles become one fill.

A tile weighs 1 in its own core and falls smoothly to a small positive weight across its margin, except where that
reaches an edge of the image: nothing needs to be faded there. The weights of all tiles that reach a pixel are
normalised to one.

Values are kept for hole pixels only, core by core: memory grows with the hole, not with the window. The weighted mean
is updated tile by tile, `mean += w / sum(w) * (value - mean)`, which returns a value exactly where all tiles agree on
it. Tiles are added in the plan's order, so the result does not depend on the order in which an engine finishes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from inpaint_batch.tiling.boxes import Tile
from inpaint_batch.tiling.pyramid import reduce_hole
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

MIN_WEIGHT = np.float32(1e-3)
"""Weight of a tile at the far end of its margin."""


def reach(tile: Tile, margin_px: int) -> Box:
    """The pixels to which a tile contributes: its core and margin, as far as the tile box goes."""
    return tile.core.expand(margin_px).intersect(tile.box)


def tile_weights(tile: Tile, box: Box, image_box: Box, margin_px: int) -> FloatArray:
    """Weights of a tile at the pixels of `box`, which lies within its reach; (box.height, box.width), in (0, 1]."""
    core, near = tile.core, reach(tile, margin_px)
    at_top, at_bottom = near.top <= image_box.top, near.bottom >= image_box.bottom
    at_left, at_right = near.left <= image_box.left, near.right >= image_box.right
    rows = _ramp(box.top, box.bottom, core.top, core.bottom, margin_px, at_top, at_bottom)
    columns = _ramp(box.left, box.right, core.left, core.right, margin_px, at_left, at_right)
    return np.outer(rows, columns)


def _ramp(
    start: int, stop: int, core_start: int, core_stop: int, margin_px: int, edge_before: bool, edge_after: bool
) -> FloatArray:
    """Weights along one axis for pixels [start, stop)."""
    position = np.arange(start, stop)
    before = np.zeros_like(position) if edge_before else np.maximum(core_start - position, 0)
    after = np.zeros_like(position) if edge_after else np.maximum(position - (core_stop - 1), 0)
    distance = (np.maximum(before, after) / np.float32(margin_px + 1)).astype(np.float32)
    smooth = distance * distance * (3 - 2 * distance)  # a polynomial: the same bits on every machine
    weights: FloatArray = (1 - (1 - MIN_WEIGHT) * smooth).astype(np.float32)
    return weights


class LevelFill:
    """The fill of one window at one level, growing tile by tile.

    `tiles` is the whole level in plan order; `hole` the hole map (H, W) of the image at full resolution; `image_box`
    the extent of the image at this level. Twenty bytes a hole pixel are held.
    """

    def __init__(self, tiles: Sequence[Tile], hole: BoolMap, scale_log2: int, image_box: Box, margin_px: int) -> None:
        self._tiles = tiles
        self._image_box = image_box
        self._margin_px = margin_px
        self._cores = np.array([tile.core for tile in tiles], dtype=np.int64).reshape(-1, 4)
        self._pixels = [
            np.flatnonzero(reduce_hole(hole, tile.core, scale_log2)[:, :]).astype(np.uint32) for tile in tiles
        ]
        self._values = [np.zeros((len(pixels), 3), dtype=np.float32) for pixels in self._pixels]
        self._weights = [np.zeros(len(pixels), dtype=np.float32) for pixels in self._pixels]

    def add(self, index: int, filled: FloatArray) -> None:
        """Blend in tile `index` of the plan: `filled` is (3, side, side). Tiles must be added in plan order."""
        tile = self._tiles[index]
        near = reach(tile, self._margin_px)
        for core_index in self._touching(near):
            self._blend(core_index, tile, filled, near.intersect(self._tiles[core_index].core))

    def _blend(self, core_index: int, tile: Tile, filled: FloatArray, common: Box) -> None:
        core = self._tiles[core_index].core
        rows, columns = np.divmod(self._pixels[core_index], np.uint32(core.width))
        rows, columns = rows.astype(np.intp) + core.top, columns.astype(np.intp) + core.left
        if common == core:
            chosen: slice | np.ndarray = slice(None)
        else:
            inside = (rows >= common.top) & (rows < common.bottom) & (columns >= common.left) & (columns < common.right)
            chosen = np.flatnonzero(inside)
            rows, columns = rows[chosen], columns[chosen]
        weights = tile_weights(tile, common, self._image_box, self._margin_px)
        weight = weights[rows - common.top, columns - common.left]
        value = filled[:, rows - tile.box.top, columns - tile.box.left].T
        total = self._weights[core_index][chosen] + weight
        mean = self._values[core_index][chosen]
        self._weights[core_index][chosen] = total
        self._values[core_index][chosen] = mean + (weight / total)[:, None] * (value - mean)

    def paste_into(self, image: FloatArray, box: Box) -> BoolArray:
        """Write the fill under `box` into `image` (box.height, box.width, 3); return where, (box.height, box.width)."""
        written = np.zeros(image.shape[:2], dtype=np.bool_)
        for index in self._touching(box):
            core, rgb, hole = self.piece(index)
            common = core.intersect(box)
            inner = common.shift(-core.top, -core.left).slices
            outer = common.shift(-box.top, -box.left).slices
            image[outer][hole[inner]] = rgb[inner][hole[inner]]
            written[outer] |= hole[inner]
        return written

    def piece(self, index: int) -> tuple[Box, FloatArray, BoolArray]:
        """The core of tile `index`: its box, the fill (h, w, 3) with zeros outside the hole, and the hole (h, w)."""
        core = self._tiles[index].core
        rgb = np.zeros((core.area_px, 3), dtype=np.float32)
        hole = np.zeros(core.area_px, dtype=np.bool_)
        rgb[self._pixels[index]], hole[self._pixels[index]] = self._values[index], True
        return core, rgb.reshape(core.height, core.width, 3), hole.reshape(core.height, core.width)

    def __len__(self) -> int:
        return len(self._tiles)

    def pieces(self) -> Iterator[tuple[Box, FloatArray, BoolArray]]:
        """All cores, one at a time."""
        return (self.piece(index) for index in range(len(self)))

    def _touching(self, box: Box) -> list[int]:
        """Indices of the cores that share pixels with `box`."""
        top, left, height, width = self._cores.T
        hits = (top < box.bottom) & (top + height > box.top) & (left < box.right) & (left + width > box.left)
        return np.flatnonzero(hits).tolist()
