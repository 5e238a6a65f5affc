"""Halved views of an image and its hole map, and the way back up.

Level `l` of an image of H×W pixels has ceil(H / 2**l) × ceil(W / 2**l) pixels; its grid is anchored at the
top-left corner of the *image*, so that a coarse pixel is the same whoever asks for it. A coarse pixel is the average of
its known pixels, and a hole where fewer than half of its (existing) pixels are known. Every level is computed from full
resolution, in strips of whole coarse rows: no float copy of a large region is ever made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from inpaint_batch.holes.sparse import SparseMap, empty_map, mark, may_hold
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

ReadRGB = Callable[[Box], FloatArray]
"""Reads one box of the image at full resolution: (height, width, 3) float32 RGB in [0, 1]; NaN in all three where the
image has no value, as in a part of an elevation model."""

STRIP_PX = 1 << 19
"""Full-resolution pixels held as floats at one time (6 MiB of RGB)."""


def level_size(height_px: int, width_px: int, scale_log2: int) -> tuple[int, int]:
    """Height and width of an image at a level."""
    return -(-height_px >> scale_log2), -(-width_px >> scale_log2)


def coarse_box(box: Box, scale_log2: int) -> Box:
    """The pixels of a level that touch `box` (given at full resolution)."""
    top, left = box.top >> scale_log2, box.left >> scale_log2
    return Box(top, left, -(-box.bottom >> scale_log2) - top, -(-box.right >> scale_log2) - left)


def reduce_hole(hole: BoolMap, box: Box, scale_log2: int) -> BoolArray | SparseMap:
    """The hole map of one box of a level.

    `hole` is the map of the whole image, (H, W); `box` lies inside the image of that level. Returns
    (box.height, box.width), an array unless it would be a very large one; at level 0 a view, not a copy.
    """
    if scale_log2 == 0:
        return hole[box.slices]
    reduced = empty_map((box.height, box.width))
    for rows, full in _strips(box, scale_log2, hole.shape):
        if may_hold(hole, full):
            missing = _block_sums(hole[full.slices], scale_log2, np.dtype(np.uint32))
            strip = Box(rows.start, 0, rows.stop - rows.start, box.width)
            mark(reduced, strip, 2 * missing > _num_existing(full, scale_log2))
    return reduced


def reduce_image(read_rgb: ReadRGB, hole: BoolMap, box: Box, scale_log2: int) -> tuple[FloatArray, BoolArray]:
    """Image and hole map of one box of a level.

    Returns the known-normalised average, (box.height, box.width, 3) float32, zero in holes, and the hole map
    (box.height, box.width); what has no value counts as hole here, though nobody fills it. `box` lies inside the image
    of that level; `hole` is the map of the whole image.
    """
    image = np.zeros((box.height, box.width, 3), dtype=np.float32)
    reduced = np.empty((box.height, box.width), dtype=np.bool_)
    for rows, full in _strips(box, scale_log2, hole.shape):
        rgb = read_rgb(full)
        missing = hole[full.slices] | np.isnan(rgb[..., 0])
        if scale_log2 == 0:
            image[rows], reduced[rows] = rgb, missing
        else:
            num_missing = _block_sums(missing, scale_log2, np.dtype(np.uint32))
            num_existing = _num_existing(full, scale_log2)
            known_sum = _block_sums(np.where(missing[..., None], np.float32(0), rgb), scale_log2, np.dtype(np.float32))
            num_known = np.maximum(num_existing - num_missing, 1).astype(np.float32)
            image[rows] = known_sum / num_known[..., None]
            reduced[rows] = 2 * num_missing > num_existing
    image[reduced] = 0
    return image, reduced


def enlarge(coarse: FloatArray, origin: tuple[int, int], box: Box) -> FloatArray:
    """Bilinear enlargement by two, of the part under `box`.

    `coarse` is (h, w, 3), its first pixel stands at (row, column) `origin` of the coarser level; `box` is given at the
    finer level. Pixel centres are aligned; beyond the edge of `coarse` its outermost pixels go on.
    """
    rows = _taps(box.top, box.height, origin[0], coarse.shape[0])
    columns = _taps(box.left, box.width, origin[1], coarse.shape[1])
    tall = coarse[rows[0]] * (1 - rows[2])[:, None, None] + coarse[rows[1]] * rows[2][:, None, None]
    wide: FloatArray = tall[:, columns[0]] * (1 - columns[2])[:, None] + tall[:, columns[1]] * columns[2][:, None]
    return wide


def fill_smoothly(image: FloatArray, unknown: BoolArray) -> FloatArray:
    """`image` (h, w, 3) with its `unknown` pixels (h, w) filled from the known ones by a push-pull pyramid.

    Known pixels stay as they are; where nothing is known at all the result is zero.
    """
    if not unknown.any():
        return image
    if unknown.all():
        return np.zeros_like(image)
    height, width = unknown.shape
    known = (~unknown).astype(np.float32)
    weight = _block_sums(known, 1, np.dtype(np.float32))
    total = _block_sums(image * known[..., None], 1, np.dtype(np.float32))
    coarse = total / np.maximum(weight, 1)[..., None]
    coarse = fill_smoothly(coarse, weight == 0)
    smooth = enlarge(coarse, (0, 0), Box(0, 0, height, width))
    return np.where(unknown[..., None], smooth, image)


def _taps(start: int, count: int, origin: int, size: int) -> tuple[np.ndarray, np.ndarray, FloatArray]:
    """Indices of the two coarse neighbours of `count` fine pixels from `start`, and the weight of the second."""
    position = np.arange(start, start + count)
    first = (position - 1) // 2  # fine centre (i + 0.5) / 2 - 0.5 lies at first + 0.25 (odd i) or + 0.75 (even i)
    weight = np.where(position % 2, 0.25, 0.75).astype(np.float32)
    return (
        np.clip(first - origin, 0, size - 1),
        np.clip(first + 1 - origin, 0, size - 1),
        weight,
    )


def _strips(box: Box, scale_log2: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, Box]]:
    """Cut `box` of a level in strips: rows within the box, and the pixels under them at full resolution."""
    height, width = shape[0], shape[1]
    full_left = box.left << scale_log2
    full_width = min(box.right << scale_log2, width) - full_left
    num_rows = max(1, STRIP_PX // max(1, full_width << scale_log2))
    for start in range(0, box.height, num_rows):
        stop = min(box.height, start + num_rows)
        full_top = (box.top + start) << scale_log2
        full_bottom = min((box.top + stop) << scale_log2, height)
        yield slice(start, stop), Box(full_top, full_left, full_bottom - full_top, full_width)


def _num_existing(full: Box, scale_log2: int) -> np.ndarray:
    """How many pixels of the image stand behind each coarse pixel of a strip (fewer at the far edges)."""
    scale = 1 << scale_log2
    rows = np.diff(np.append(np.arange(0, full.height, scale), full.height))
    columns = np.diff(np.append(np.arange(0, full.width, scale), full.width))
    return np.outer(rows, columns)


def _block_sums(samples: np.ndarray, scale_log2: int, dtype: np.dtype) -> np.ndarray:
    """Sums over blocks of 2**scale_log2 pixels a side, anchored at the first pixel; ragged at the far edges."""
    scale = 1 << scale_log2
    # Sums of strided slices: whole rows are added at once, many times faster than `np.add.reduceat`.
    rows = samples[::scale].astype(dtype)
    for offset in range(1, scale):
        part = samples[offset::scale]
        rows[: len(part)] += part
    sums = rows[:, ::scale].copy()
    for offset in range(1, scale):
        part = rows[:, offset::scale]
        sums[:, : part.shape[1]] += part
    return sums
