"""A map of holes as large as any image: only the blocks in which something is true are kept, one bit a pixel.

A map of a gigapixel with scratches takes a few megabytes, one that is true everywhere 128 MB. It is read like an array,
by two slices, which makes an array of that part alone; nothing else of arrays is offered.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.types import BoolArray, BoolMap, Box

SIDE_PX = 256
"""Of a block. A multiple of 64, the side on which holes are first sought."""
DENSE_MAP_PX = 1 << 25
"""Maps of up to so many pixels are plain arrays, one byte a pixel: they are quicker."""


class SparseMap:
    """Starts false everywhere. Not to be changed by one thread while another reads."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self._blocks: dict[tuple[int, int], NDArray[np.uint8]] = {}
        self._occupied = np.zeros((-(-shape[0] // SIDE_PX), -(-shape[1] // SIDE_PX)), np.bool_)

    def __getitem__(self, key: tuple[slice, slice]) -> BoolArray:
        """(h, w) bool, a copy. Slices have the rules of arrays but no step."""
        (top, bottom, _), (left, right, _) = (part.indices(size) for part, size in zip(key, self.shape, strict=True))
        box = Box(top, left, max(0, bottom - top), max(0, right - left))
        out = np.zeros((box.height, box.width), np.bool_)
        for row, column in self._touching(box):
            own, common = self._common(row, column, box)
            out[common.shift(-box.top, -box.left).slices] = self._unpacked(row, column)[own.slices]
        return out

    def add(self, box: Box, values: BoolArray) -> None:
        """Make true what is true in `values` (box.height, box.width); `box` must lie inside."""
        for row in range(box.top // SIDE_PX, -(-box.bottom // SIDE_PX)):
            for column in range(box.left // SIDE_PX, -(-box.right // SIDE_PX)):
                own, common = self._common(row, column, box)
                part = values[common.shift(-box.top, -box.left).slices]
                if not part.any():
                    continue
                block = self._unpacked(row, column)
                block[own.slices] |= part
                self._blocks[row, column] = np.packbits(block, axis=1)
                self._occupied[row, column] = True

    def blocks(self, within: Box | None = None) -> Iterator[Box]:
        """The parts of `within` (by default of the whole map) that lie in blocks in which something is true."""
        within = Box(0, 0, *self.shape) if within is None else within
        for row, column in self._touching(within):
            yield self._common(row, column, within)[1]

    def tight(self, within: Box) -> Box | None:
        """The smallest box that holds all that is true in `within`; None where nothing is."""
        found: Box | None = None
        for row, column in self._touching(within):
            own, common = self._common(row, column, within)
            if found is None or not found.contains(common):
                left, top, width, height = cv2.boundingRect(self._unpacked(row, column)[own.slices].view(np.uint8))
                if width:
                    tight = Box(common.top + top, common.left + left, height, width)
                    found = tight if found is None else found.union(tight)
        return found

    def num_true(self) -> int:
        """Number of true pixels."""
        return sum(int(np.count_nonzero(np.unpackbits(block))) for block in self._blocks.values())

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(block.nbytes + 200 for block in self._blocks.values()) + self._occupied.nbytes

    def _touching(self, box: Box) -> Iterator[tuple[int, int]]:
        if not box.area_px:
            return
        top, left = box.top // SIDE_PX, box.left // SIDE_PX
        part = self._occupied[top : -(-box.bottom // SIDE_PX), left : -(-box.right // SIDE_PX)]
        for row, column in np.argwhere(part).tolist():
            yield top + row, left + column

    def _common(self, row: int, column: int, box: Box) -> tuple[Box, Box]:
        """What a block shares with `box`: counted from the corner of the block, and of the map."""
        common = box.intersect(Box(row * SIDE_PX, column * SIDE_PX, SIDE_PX, SIDE_PX))
        return common.shift(-row * SIDE_PX, -column * SIDE_PX), common

    def _unpacked(self, row: int, column: int) -> BoolArray:
        packed = self._blocks.get((row, column))
        if packed is None:
            return np.zeros((SIDE_PX, SIDE_PX), np.bool_)
        return np.unpackbits(packed, axis=1).view(np.bool_)


def empty_map(shape: tuple[int, int], dense_px: int = DENSE_MAP_PX) -> BoolArray | SparseMap:
    """A map that is false everywhere: a plain array of up to `dense_px` pixels, else a sparse one."""
    return SparseMap(shape) if shape[0] * shape[1] > dense_px else np.zeros(shape, np.bool_)


def mark(map_: BoolArray | SparseMap, box: Box, values: BoolArray) -> None:
    """Make true what is true in `values` (box.height, box.width)."""
    if isinstance(map_, SparseMap):
        map_.add(box, values)
    else:
        map_[box.slices] |= values


def may_hold(map_: BoolMap, box: Box) -> bool:
    """False only where nothing in `box` is true; quick for sparse maps, which look at whole blocks."""
    if isinstance(map_, SparseMap):
        return next(map_.blocks(box), None) is not None
    return bool(map_[box.slices].any())


def num_true(map_: BoolMap) -> int:
    """Number of true pixels."""
    if isinstance(map_, SparseMap):
        return map_.num_true()
    return int(np.count_nonzero(map_[:, :]))
