"""How a mask and an image that carry orientation tags are laid over each other.

The package keeps an image's samples as the file stores them; a viewer shows them turned by the tag. The rule:

1. Image and mask are laid over each other **as a viewer shows them**. The mask is turned by its own tag, if it has one,
   and then turned back by the image's tag. Equal tags therefore cancel, and a mask without a tag is taken as drawn on
   the upright view.
2. One exception: the tag of the image swaps width and height (5 to 8), the mask has no tag, and its size fits only the
   stored layout. Then it was made from the stored samples, and is used as it is.

What no size can decide: for tags 2, 3 and 4, and for square images with any tag, a mask without a tag that was made
from the *stored* samples looks just like one drawn on the upright view. Rule 1 holds, and `Laying.by_rule` says that it
was needed. Whoever made such a mask gives it the image's orientation tag, or removes the tag from both.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.types import Box, Header

ScalarT = TypeVar("ScalarT", bound=np.generic)
_INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


class Laying(NamedTuple):
    """How a mask is laid over an image, as a whole or piece by piece."""

    shape: tuple[int, int]
    """(h, w) of the mask as its file stores it."""
    mask_orientation: int
    """It is turned by this,"""
    image_orientation: int
    """and then back by this."""
    by_rule: bool
    """Both readings of the mask had the right size; it was taken as drawn on the upright view."""

    def array(self, piece: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A piece of the mask (h, w) as it lies in the layout in which the image file stores its samples; a view."""
        return turn_back(turn(piece, self.mask_orientation), self.image_orientation)

    def box(self, box: Box) -> Box:
        """Where a piece of the mask lies in that layout."""
        upright = _turn_box(box, self.shape, self.mask_orientation)
        shape = self.shape if self.mask_orientation < 5 else self.shape[::-1]
        return _turn_box(upright, shape, _INVERSE.get(self.image_orientation, 1))


def turn(samples: NDArray[ScalarT], orientation: int) -> NDArray[ScalarT]:
    """`samples` (h, w) or (h, w, bands) as a viewer shows them under EXIF `orientation` 1..8; a view, no copy."""
    match orientation:
        case 2:
            return samples[:, ::-1]
        case 3:
            return samples[::-1, ::-1]
        case 4:
            return samples[::-1, :]
        case 5:
            return samples.swapaxes(0, 1)
        case 6:
            return np.rot90(samples, -1)
        case 7:
            return samples.swapaxes(0, 1)[::-1, ::-1]
        case 8:
            return np.rot90(samples)
        case _:
            return samples


def turn_back(upright: NDArray[ScalarT], orientation: int) -> NDArray[ScalarT]:
    """The inverse of `turn`."""
    return turn(upright, _INVERSE.get(orientation, 1))


def lay_over(shape: tuple[int, int], mask_orientation: int, header: Header) -> Laying:
    """How a mask of `shape` (h, w) is laid over the image; raises RowError(SIZE) where it does not fit."""
    stored = (header.height_px, header.width_px)
    whole = Box(0, 0, *shape)
    laying = Laying(shape, mask_orientation, header.orientation, False)
    if laying.box(whole)[2:] == stored:
        return laying._replace(by_rule=mask_orientation == 1 and header.orientation > 1 and shape == stored)
    if mask_orientation == 1 and shape == stored:
        return Laying(shape, 1, 1, False)
    raise RowError(FailureCode.SIZE, _explain(shape, mask_orientation, header))


def _turn_box(box: Box, shape: tuple[int, int], orientation: int) -> Box:
    """Where `box` of an image of `shape` (h, w) lies once that is turned."""
    from_right, from_bottom = shape[1] - box.right, shape[0] - box.bottom
    match orientation:
        case 2:
            return Box(box.top, from_right, box.height, box.width)
        case 3:
            return Box(from_bottom, from_right, box.height, box.width)
        case 4:
            return Box(from_bottom, box.left, box.height, box.width)
        case 5:
            return Box(box.left, box.top, box.width, box.height)
        case 6:
            return Box(box.left, from_bottom, box.width, box.height)
        case 7:
            return Box(from_right, from_bottom, box.width, box.height)
        case 8:
            return Box(from_right, box.top, box.width, box.height)
        case _:
            return box


def _explain(shape: tuple[int, int], mask_orientation: int, header: Header) -> str:
    swapped = header.orientation >= 5
    image_px = (header.height_px, header.width_px) if swapped else (header.width_px, header.height_px)
    height_px, width_px = shape if mask_orientation < 5 else shape[::-1]
    seen = ""
    if header.orientation > 1 or mask_orientation > 1:
        seen = f" as a viewer shows them (orientation tags {header.orientation} and {mask_orientation})"
    advice = "make the mask again at the size of the image"
    if (height_px, width_px) == image_px:
        tag = ", or correct its orientation tag" if mask_orientation > 1 else ""
        advice = f"its sides are swapped: turn it by a quarter{tag}"
    return f"the image is {image_px[0]} × {image_px[1]} px, the mask {width_px} × {height_px} px{seen}; {advice}"
