"""Dither: greys of black and white dots. A fill is grey there, and cut at one half it would be a solid patch.

Dots of error diffusion and of ordered dither lie alone, in letters and drawings black and white hold together: that
tells the two apart. Where the surroundings are dots the fill becomes dots as well, by the error diffusion of Floyd and
Steinberg within the hole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inpaint_batch.sampling import evenly
from inpaint_batch.tiling.pyramid import ReadRGB
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

RING_PX = 24
"""How far around a piece of the fill its surroundings reach."""
MAX_PIECES = 8
"""Pieces of one window that are looked at."""
_BLOCK_PX = 8
_MIN_SHARE = 0.05
"""Of the rarer of black and white in a block that tells something."""
_MIN_BLOCKS = 8
_ALONE = 0.65
"""Dots lie alone where pixels differ from their neighbours in rows and in columns so often as their number allows: the
median of blocks is 0.77 to 0.97 in dithered photographs, 0.13 to 0.57 in letters of 40 to 7 px."""
_SPREAD = ((0, 1, 7.0), (1, -1, 3.0), (1, 0, 5.0), (1, 1, 1.0))
"""Rows down, columns to the right, and how much of the error goes there."""


def is_dithered(read_rgb: ReadRGB, hole: BoolMap, pieces: Sequence[tuple[Box, FloatArray, BoolArray]]) -> bool:
    """Whether what surrounds the fill of a window in an image of black and white is dots; `pieces` as for grain."""
    image = Box(0, 0, hole.shape[0], hole.shape[1])
    num_blocks, found = 0, [np.empty(0, np.float32)]
    for box, _, _ in evenly(pieces, MAX_PIECES):
        around = box.expand(RING_PX).intersect(image)
        count, alone = _blocks(read_rgb(around)[..., 0] > 0.5, ~np.asarray(hole[around.slices]))
        num_blocks += count
        found.append(alone)
    alone = np.concatenate(found)
    return len(alone) >= max(_MIN_BLOCKS, num_blocks // 2) and float(np.median(alone)) >= _ALONE


def diffused(rgb: FloatArray, hole: BoolArray) -> FloatArray:
    """`rgb` (h, w, 3) with dots in the place of greys in `hole` (h, w). No part of an error goes to known pixels."""
    height, width = hole.shape
    wanted = rgb.mean(axis=2).tolist()
    inside = np.pad(hole, 1).tolist()
    for row, column in np.argwhere(hole).tolist():
        grey = wanted[row][column]
        wanted[row][column] = white = float(grey >= 0.5)
        takers = [each for each in _SPREAD if inside[row + each[0] + 1][column + each[1] + 1]]
        share = (grey - white) / sum((weight for _, _, weight in takers), 0.0) if takers else 0.0
        for down, right, weight in takers:
            wanted[row + down][column + right] += share * weight
    dots = np.asarray(wanted, np.float32).reshape(height, width, 1)
    return np.where(hole[..., None], dots, rgb)


def _blocks(white: BoolArray, known: BoolArray) -> tuple[int, FloatArray]:
    """How many blocks are known, and of those with black and white how often pixels differ from their neighbours, of
    what their number allows: the lesser of rows and columns, about 0..1.
    """
    rows, columns = (side // _BLOCK_PX for side in white.shape)

    def cut(pixels: BoolArray) -> BoolArray:
        part = pixels[: rows * _BLOCK_PX, : columns * _BLOCK_PX].reshape(rows, _BLOCK_PX, columns, _BLOCK_PX)
        return np.asarray(part.swapaxes(1, 2).reshape(-1, _BLOCK_PX, _BLOCK_PX))

    blocks = cut(white)[cut(known).all(axis=(1, 2))]
    share = blocks.mean(axis=(1, 2))
    rarer = np.minimum(share, 1 - share)
    tells = rarer >= _MIN_SHARE
    blocks, rarer = blocks[tells], rarer[tells]
    changes = np.minimum(*(np.diff(blocks, axis=axis).mean(axis=(1, 2)) for axis in (1, 2)))
    return len(share), np.asarray(changes / (2 * rarer), np.float32)
