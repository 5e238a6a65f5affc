"""From a user's mask to the hole map of an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes.distance import grow, ramp
from inpaint_batch.holes.orientation import lay_over
from inpaint_batch.types import BoolArray, Box, FloatArray, Header

INVERSION_COVERAGE = 0.6
"""A mask that marks more than this share of the image is probably of the other polarity."""


@dataclass(frozen=True, slots=True, eq=False)
class HoleMap:
    """Which samples of one image may change, in the layout in which the file stores them."""

    hole: BoolArray
    """(h, w): every sample that may change: marked, dilated, and the rim in which fill and source are mixed."""
    marked: BoolArray
    """(h, w): what the mask marks, before dilation."""
    dilate_px: int
    feather_px: int
    num_hole_px: int
    """Number of true pixels in `hole`."""
    num_marked_px: int
    """Number of true pixels in `marked`."""
    orientation_by_rule: bool
    """The mask's size fits both the stored and the upright layout of an image with an orientation tag; it was taken as
    drawn on the upright view (see `holes/orientation.py`). Worth a warning in a check."""

    @property
    def coverage(self) -> float:
        """Share of the image in `hole`, 0..1."""
        return self.num_hole_px / self.hole.size

    @property
    def suspected_inversion(self) -> bool:
        """Whether the mask marks so much that its polarity is probably the other one. A warning, not an error."""
        return self.num_marked_px > INVERSION_COVERAGE * self.marked.size

    def weight(self, box: Box) -> FloatArray:
        """(box.height, box.width) float32 in [0, 1]: the share of the fill in each pixel; the rest is the source.

        1 in the dilated hole; across the feather rim it falls linearly with the distance, so that it would reach 0 one
        pixel beyond the rim; 0 outside `hole` and outside the image. One pixel has one weight, whatever the box.
        """
        weight = np.zeros((box.height, box.width), np.float32)
        inside = box.intersect(Box(0, 0, *self.hole.shape))
        if inside.area_px == 0:
            return weight
        hole = self.hole[inside.slices]
        if self.feather_px and hole.any():
            values = np.where(hole, ramp(self.marked, inside, self.dilate_px, self.feather_px), np.float32(0))
        else:
            values = hole.astype(np.float32)
        weight[inside.shift(-box.top, -box.left).slices] = values
        return weight


def hole_map(mask: NDArray[np.uint8], mask_orientation: int, header: Header, config: RowConfig) -> HoleMap:
    """The hole map that `mask` (h, w), 0..255, means for the image of `header`.

    White polarity: values above `mask_threshold` are marked; black polarity: all others are. The marked area is dilated
    by `dilate_px` and gets a rim of `feather_px`; a disc decides, so a pixel belongs to the hole if a marked one lies
    within `dilate_px + feather_px` of it. Orientation is settled by the rule in `holes/orientation.py`.

    Raises RowError(SIZE) where the mask does not fit the image, and RowError(MASK) where nothing or all is hole.
    """
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise TypeError(f"a mask is (h, w) uint8, not {mask.shape} {mask.dtype}")
    laid = lay_over(mask, mask_orientation, header)
    above = laid.mask > config.mask_threshold
    marked = np.ascontiguousarray(above if config.mask_polarity == "white" else ~above)
    num_marked_px = int(np.count_nonzero(marked))
    if num_marked_px == 0:
        raise RowError(FailureCode.MASK, _explain_empty(laid.mask, config))
    hole = grow(marked, config.dilate_px + config.feather_px)
    num_hole_px = int(np.count_nonzero(hole))
    if num_hole_px == hole.size:
        raise RowError(FailureCode.MASK, _explain_full(num_marked_px == marked.size, config))
    return HoleMap(
        hole=hole,
        marked=marked,
        dilate_px=config.dilate_px,
        feather_px=config.feather_px,
        num_hole_px=num_hole_px,
        num_marked_px=num_marked_px,
        orientation_by_rule=laid.by_rule,
    )


def _explain_empty(mask: NDArray[np.uint8], config: RowConfig) -> str:
    values = f"its values are {mask.min()}..{mask.max()}, the threshold is {config.mask_threshold}"
    return (
        f"the mask marks no hole ({config.mask_polarity} is hole; {values}); "
        "draw one, lower or raise --mask-threshold, or turn --mask-polarity around"
    )


def _explain_full(by_mask_alone: bool, config: RowConfig) -> str:
    if by_mask_alone:
        return (
            f"the mask marks the whole image as hole ({config.mask_polarity} is hole); "
            "nothing known is left to fill it from: turn --mask-polarity around or draw another mask"
        )
    return (
        f"grown by dilate {config.dilate_px} px and feather {config.feather_px} px the hole covers the whole image; "
        "choose smaller values"
    )
