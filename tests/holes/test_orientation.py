from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageOps

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes import orientation as rules
from inpaint_batch.holes.orientation import turn, turn_back
from inpaint_batch.types import Box, Header

ORIENTATIONS = range(1, 9)


def header(stored: np.ndarray, orientation: int) -> Header:
    return Header("jpeg", stored.shape[1], stored.shape[0], 3, "uint8", False, orientation)


@dataclass
class Laid:
    mask: np.ndarray
    by_rule: bool


def lay_over(mask: np.ndarray, mask_orientation: int, over: Header) -> Laid:
    """The whole mask laid over the image, and again line by line, which must give the same."""
    laying = rules.lay_over(mask.shape, mask_orientation, over)
    laid = np.full((over.height_px, over.width_px), 255, np.uint8)
    for top in range(mask.shape[0]):
        box = Box(top, 0, 1, mask.shape[1])
        laid[laying.box(box).slices] = laying.array(mask[box.slices])
    np.testing.assert_array_equal(laying.array(mask), laid)
    return Laid(laid, laying.by_rule)


@pytest.fixture
def stored() -> np.ndarray:
    """3 × 5, every sample different: no turn looks like another."""
    return np.arange(15, dtype=np.uint8).reshape(3, 5)


def shown_by_pillow(stored: np.ndarray, orientation: int) -> np.ndarray:
    image = Image.fromarray(stored)
    image.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(image))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_turn_is_what_a_viewer_does(stored: np.ndarray, orientation: int) -> None:
    upright = shown_by_pillow(stored, orientation)
    np.testing.assert_array_equal(turn(stored, orientation), upright)
    np.testing.assert_array_equal(turn_back(upright, orientation), stored)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_mask_drawn_on_the_upright_view_is_turned_back(stored: np.ndarray, orientation: int) -> None:
    laid = lay_over(shown_by_pillow(stored, orientation), 1, header(stored, orientation))
    np.testing.assert_array_equal(laid.mask, stored)
    assert laid.by_rule is (orientation in (2, 3, 4))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mask_orientation", ORIENTATIONS)
def test_tags_of_both_files_count(stored: np.ndarray, orientation: int, mask_orientation: int) -> None:
    """However the mask file stores its samples, it is laid where a viewer shows it."""
    mask = turn_back(shown_by_pillow(stored, orientation), mask_orientation)
    np.testing.assert_array_equal(lay_over(mask, mask_orientation, header(stored, orientation)).mask, stored)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_equal_tags_mean_the_stored_layout(stored: np.ndarray, orientation: int) -> None:
    laid = lay_over(stored, orientation, header(stored, orientation))
    np.testing.assert_array_equal(laid.mask, stored)
    assert not laid.by_rule


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_size_decides_where_the_tag_swaps_the_sides(stored: np.ndarray, orientation: int) -> None:
    laid = lay_over(stored, 1, header(stored, orientation))
    np.testing.assert_array_equal(laid.mask, stored)
    assert not laid.by_rule


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_square_mask_without_a_tag_is_upright(orientation: int) -> None:
    square = np.arange(16, dtype=np.uint8).reshape(4, 4)
    laid = lay_over(shown_by_pillow(square, orientation), 1, header(square, orientation))
    np.testing.assert_array_equal(laid.mask, square)
    assert laid.by_rule is (orientation > 1)


@pytest.mark.parametrize(
    ("mask_shape", "mask_orientation", "orientation", "said"),
    [
        ((3, 4), 1, 1, "the image is 5 × 3 px, the mask 4 × 3 px;"),
        ((5, 3), 1, 1, "the image is 5 × 3 px, the mask 3 × 5 px;"),
        ((5, 3), 1, 3, "the image is 5 × 3 px, the mask 3 × 5 px as a viewer shows them"),
        ((4, 4), 1, 6, "the image is 3 × 5 px, the mask 4 × 4 px as a viewer shows them"),
        ((3, 5), 6, 1, "the image is 5 × 3 px, the mask 3 × 5 px as a viewer shows them"),
        ((5, 3), 6, 6, "the image is 3 × 5 px, the mask 5 × 3 px as a viewer shows them"),
    ],
)
def test_another_size_is_an_error_that_tells_both(
    stored: np.ndarray, mask_shape: tuple[int, int], mask_orientation: int, orientation: int, said: str
) -> None:
    with pytest.raises(RowError) as caught:
        lay_over(np.zeros(mask_shape, np.uint8), mask_orientation, header(stored, orientation))
    assert caught.value.code is FailureCode.SIZE
    assert said in caught.value.message
