"""What a result changed of its source: found by comparing the two, and shown as small pictures.

It knows nothing of masks, so that what it shows is what happened and not what was meant.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.report.pictures import Overview, upright_jpeg
from inpaint_batch.types import BoolArray, Box, SampleArray

OVERVIEW_PX = 480
"""Longer side of the picture of the whole."""
MAX_CLOSE_UPS = 3
CLOSE_UP_PX = (160, 480)
"""Least and greatest side of a close-up, which shows pixels as they are."""
MARGIN_PX = 40
"""What a close-up shows around what has changed."""
JOIN_PX = 48
"""Changes that are nearer to each other than this are one."""


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
    """Of what is most in doubt, where that is known, and of the largest changes, the largest first."""


def compare(before: ImageSource, after: ImageSource, doubtful: Box | None = None) -> Comparison:
    """Compare samples part by part, in memory of a few megabytes beside what the sources keep; changes in `doubtful`
    are shown first.

    Raises RowError (read) where a file is damaged or the two have no common shape.
    """
    shape = _shape(before)
    if _shape(after) != shape:
        raise RowError(
            FailureCode.READ, f"{before.path} and {after.path} differ in size or bands: not one of the other"
        )
    before.learn_levels(np.broadcast_to(np.False_, shape[:2]))
    header = before.header
    overview = Overview(header, OVERVIEW_PX)
    num_changed = 0
    for box in before.parts():
        ours = after.read(box)
        changed = _differ(before.read(box), ours)
        num_changed += int(changed.sum())
        overview.add(box, ours, changed)
    return Comparison(
        num_pixels=header.num_pixels,
        num_changed=num_changed,
        overview=overview.picture(),
        marks=overview.marks(),
        close_ups=tuple(
            CloseUp(
                *(upright_jpeg(samples_to_rgb(one.read(box), header), header.orientation) for one in (before, after))
            )
            for box in close_up_boxes(overview.marked, overview.factor, header.box, doubtful)
        ),
    )


def close_up_boxes(changed: BoolArray, factor: int, image: Box, first: Box | None = None) -> list[Box]:
    """Boxes, in pixels of `image`, around what has changed in `first`, then around the largest changes; a cell of
    `changed` is `factor` × `factor` pixels.
    """
    reach = 2 * round(JOIN_PX / factor / 2) + 1
    joined = cv2.dilate(changed.astype(np.uint8), np.ones((reach, reach), np.uint8))
    _, labels = cv2.connectedComponents(joined)
    labels = np.where(changed, labels, 0)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    largest = [label for label in np.argsort(-sizes, kind="stable")[:MAX_CLOSE_UPS] if sizes[label]]
    boxes = [_close_up(labels == label, factor, image) for label in largest]
    doubtful = changed & _cells_of(first or Box(0, 0, 0, 0), factor, changed.shape)
    if doubtful.any():
        box = _close_up(doubtful, factor, image)
        boxes = [box, *(each for each in boxes if 2 * each.intersect(box).area_px < each.area_px)]
    return boxes[:MAX_CLOSE_UPS]


def _cells_of(box: Box, factor: int, shape: tuple[int, ...]) -> BoolArray:
    cells = np.zeros(shape, np.bool_)
    cells[box.top // factor : -(-box.bottom // factor), box.left // factor : -(-box.right // factor)] = True
    return cells


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


def _shape(source: ImageSource) -> tuple[int, int, int]:
    header = source.header
    return header.height_px, header.width_px, header.num_bands


def _differ(first: SampleArray, second: SampleArray) -> BoolArray:
    """(h, w): where any band differs; NaN is like NaN."""
    different = first != second
    if first.dtype.kind == "f":
        different &= ~(np.isnan(first) & np.isnan(second))
    return np.asarray(different.any(axis=2))
