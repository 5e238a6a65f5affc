"""What a result changed of its source: found by comparing the two, and shown as small pictures.

It knows nothing of masks, so that what it shows is what happened and not what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes.orientation import turn
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.types import BoolArray, Box, SampleArray

IndexArray = NDArray[np.intp]

OVERVIEW_PX = 480
"""Longer side of the picture of the whole."""
MAX_CLOSE_UPS = 3
CLOSE_UP_PX = (160, 480)
"""Least and greatest side of a close-up, which shows pixels as they are."""
MARGIN_PX = 40
"""What a close-up shows around what has changed."""
JOIN_PX = 48
"""Changes that are nearer to each other than this are one."""
JPEG_QUALITY = 90
MARK_BGRA = (120, 40, 235, 255)


@dataclass(frozen=True, slots=True)
class CloseUp:
    """A part of both images at full size, upright, as JPEG files."""

    before: bytes
    after: bytes


@dataclass(frozen=True, slots=True)
class Comparison:
    """Source and result, side by side."""

    num_pixels: int
    num_changed: int
    """Pixels of which any sample differs."""
    overview: bytes
    """The whole result, made small and upright, as a JPEG file."""
    marks: bytes
    """What has changed, as a PNG file of the same size that is transparent elsewhere."""
    close_ups: tuple[CloseUp, ...]
    """Of the largest changes, the largest first."""


def compare(before: ImageSource, after: ImageSource) -> Comparison:
    """Compare samples part by part, in memory of a few megabytes beside what the sources keep.

    Raises RowError (read) where a file is damaged or the two have no common shape.
    """
    header = before.header
    shape = (header.height_px, header.width_px, header.num_bands)
    if (after.header.height_px, after.header.width_px, after.header.num_bands) != shape:
        raise RowError(
            FailureCode.READ, f"{before.path} and {after.path} differ in size or bands: not one of the other"
        )
    for source in (before, after):
        source.learn_levels(np.broadcast_to(np.False_, shape[:2]))
    factor = max(1, -(-max(shape[:2]) // OVERVIEW_PX))
    marked = np.zeros([-(-length // factor) for length in shape[:2]], np.bool_)
    picture = np.zeros((*marked.shape, 3), np.float32)
    num_changed = 0
    for box in before.parts():
        ours = after.read(box)
        changed = _differ(before.read(box), ours)
        num_changed += int(changed.sum())
        cells, starts = _cells(box, factor)
        # Any, not most: a change of one pixel must not vanish.
        marked[cells] |= _reduce(np.logical_or, changed, starts)
        picture[cells] += _reduce(np.add, samples_to_rgb(ours, header), starts)
    heights, widths = (
        np.diff(np.minimum(np.arange(count + 1) * factor, length))
        for count, length in zip(marked.shape, shape, strict=False)
    )
    picture /= np.outer(heights, widths)[..., None].astype(np.float32)
    return Comparison(
        num_pixels=header.num_pixels,
        num_changed=num_changed,
        overview=_jpeg(picture, header.orientation),
        marks=_png(turn(marked.astype(np.uint8), header.orientation)),
        close_ups=tuple(
            CloseUp(*(_jpeg(samples_to_rgb(each.read(box), header), header.orientation) for each in (before, after)))
            for box in close_up_boxes(marked, factor, header.box)
        ),
    )


def close_up_boxes(changed: BoolArray, factor: int, image: Box) -> list[Box]:
    """Boxes, in pixels of `image`, around the largest changes; a cell of `changed` is `factor` × `factor` pixels."""
    reach = 2 * round(JOIN_PX / factor / 2) + 1
    joined = cv2.dilate(changed.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, labels = cv2.connectedComponents(joined)
    labels = np.where(changed, labels, 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = [label for label in np.argsort(-sizes, kind="stable")[:MAX_CLOSE_UPS] if sizes[label]]
    return [_close_up(labels == label, factor, image) for label in largest]


def _close_up(change: BoolArray, factor: int, image: Box) -> Box:
    rows, columns = np.nonzero(change)
    height, width = (int(np.ptp(at) + 1) * factor for at in (rows, columns))
    least, greatest = CLOSE_UP_PX
    side = min(max(height, width) + 2 * MARGIN_PX, greatest)
    if max(height, width) <= greatest:
        row, column = (int(at.min() + at.max() + 1) * factor // 2 for at in (rows, columns))
    else:  # where there is most of it
        reach = max(1, greatest // factor)
        amount = cv2.boxFilter(change.astype(np.float32), -1, (reach, reach), normalize=False)
        row, column = (
            int(at) * factor for at in np.unravel_index(np.argmax(np.where(change, amount, -1)), change.shape)
        )
    height, width = (min(max(side, least), whole) for whole in (image.height, image.width))
    top = min(max(row - height // 2, 0), image.height - height)
    left = min(max(column - width // 2, 0), image.width - width)
    return Box(top, left, height, width)


def _cells(box: Box, factor: int) -> tuple[tuple[slice, slice], list[IndexArray]]:
    """The cells that `box` touches, and where in it each row and each column of them begins."""
    cells, starts = [], []
    for first, length in ((box.top, box.height), (box.left, box.width)):
        touched = range(first // factor, -(-(first + length) // factor))
        cells.append(slice(touched.start, touched.stop))
        starts.append(np.maximum(np.array(touched) * factor - first, 0))
    return (cells[0], cells[1]), starts


def _differ(first: SampleArray, second: SampleArray) -> BoolArray:
    """(h, w): where any band differs; NaN is like NaN."""
    different = first != second
    if first.dtype.kind == "f":
        different &= ~(np.isnan(first) & np.isnan(second))
    return np.asarray(different.any(axis=2))


def _reduce(operation: np.ufunc, pixels: NDArray[Any], starts: list[IndexArray]) -> NDArray[Any]:
    """The pixels of each cell taken together; `starts` as `_cells` gives them."""
    return np.asarray(operation.reduceat(operation.reduceat(pixels, starts[0], axis=0), starts[1], axis=1))


def _jpeg(rgb: NDArray[np.float32], orientation: int) -> bytes:
    eight = np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    upright = np.dstack([turn(np.ascontiguousarray(eight[..., band]), orientation) for band in (2, 1, 0)])
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    return cv2.imencode(".jpg", upright, settings)[1].tobytes()


def _png(marked: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", marked[..., None] * np.array(MARK_BGRA, np.uint8))[1].tobytes()
