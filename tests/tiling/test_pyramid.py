import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling_cases import hole_maps

from inpaint_batch.tiling import pyramid
from inpaint_batch.tiling.pyramid import (
    coarse_box,
    enlarge,
    fill_smoothly,
    level_size,
    reduce_hole,
    reduce_image,
)
from inpaint_batch.types import BoolArray, Box, FloatArray


def image_like(hole: BoolArray, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).random((*hole.shape, 3), dtype=np.float32)


def plain_reduction(image: FloatArray, hole: BoolArray, scale: int) -> tuple[FloatArray, BoolArray]:
    """The definition, pixel by pixel."""
    rows, columns = -(-hole.shape[0] // scale), -(-hole.shape[1] // scale)
    small = np.zeros((rows, columns, 3))
    missing = np.zeros((rows, columns), dtype=np.bool_)
    for row in range(rows):
        for column in range(columns):
            block = np.s_[row * scale : (row + 1) * scale, column * scale : (column + 1) * scale]
            known = ~hole[block]
            missing[row, column] = known.sum() < known.size / 2
            if not missing[row, column]:
                small[row, column] = image[block][known].mean(axis=0, dtype=np.float64)
    return small.astype(np.float32), missing


@settings(max_examples=30, deadline=None)
@given(hole=hole_maps(70), scale_log2=st.integers(0, 4), strip_px=st.sampled_from([1, 300, 1 << 19]), data=st.data())
def test_reduction_is_the_average_of_the_known_pixels(
    hole: BoolArray, scale_log2: int, strip_px: int, data: st.DataObject
) -> None:
    image = image_like(hole)
    expected, missing = plain_reduction(image, hole, 1 << scale_log2)
    height, width = level_size(*hole.shape, scale_log2)
    assert missing.shape == (height, width)
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(top, left, data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "STRIP_PX", strip_px)
        small, small_hole = reduce_image(lambda part: image[part.slices], hole, box, scale_log2)
        np.testing.assert_array_equal(reduce_hole(hole, box, scale_log2), missing[box.slices])
    np.testing.assert_array_equal(small_hole, missing[box.slices])
    np.testing.assert_allclose(small, expected[box.slices], atol=2e-6)


@pytest.mark.parametrize("scale_log2", [0, 1, 3])
def test_what_has_no_value_is_a_hole(scale_log2: int) -> None:
    hole, absent = np.zeros((2, 40, 50), np.bool_)
    hole[10:20, 5:30], absent[15:33, 20:50] = True, True
    image = image_like(hole)
    box = Box(0, 0, *level_size(*hole.shape, scale_log2))
    expected = reduce_image(lambda part: image[part.slices], hole | absent, box, scale_log2)
    image = np.where(absent[..., None], np.float32(np.nan), image)
    for one, other in zip(reduce_image(lambda part: image[part.slices], hole, box, scale_log2), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_half_known_is_known_and_less_is_a_hole() -> None:
    hole = np.array([[1, 0, 1, 1], [0, 1, 1, 0]], dtype=np.bool_)
    assert reduce_hole(hole, Box(0, 0, 1, 2), 1).tolist() == [[False, True]]
    ragged = np.array([[1, 1, 1], [0, 0, 0]], dtype=np.bool_)  # the last column of blocks has two pixels only
    assert reduce_hole(ragged, Box(0, 0, 1, 2), 1).tolist() == [[False, False]]


def test_reading_stays_within_the_strip_budget() -> None:
    hole = np.zeros((4000, 4100), dtype=np.bool_)
    asked: list[Box] = []

    def read(part: Box) -> FloatArray:
        asked.append(part)
        return np.full((part.height, part.width, 3), 0.25, dtype=np.float32)

    small, _ = reduce_image(read, hole, Box(0, 0, 250, 257), 4)
    assert max(part.area_px for part in asked) <= pyramid.STRIP_PX
    assert sum(part.area_px for part in asked) == hole.size
    assert (small == np.float32(0.25)).all()


@given(top=st.integers(0, 40), left=st.integers(0, 40), height=st.integers(1, 20), width=st.integers(1, 20))
def test_enlargement_of_a_ramp_is_a_ramp(top: int, left: int, height: int, width: int) -> None:
    rows, columns = np.mgrid[0:40, 0:40].astype(np.float32)
    coarse = np.stack([rows, columns, rows + columns], axis=-1)
    fine = enlarge(coarse, (0, 0), Box(top, left, height, width))
    row = np.clip((np.arange(top, top + height) + 0.5) / 2 - 0.5, 0, 39)
    column = np.clip((np.arange(left, left + width) + 0.5) / 2 - 0.5, 0, 39)
    np.testing.assert_allclose(fine[..., 0], np.broadcast_to(row[:, None], fine.shape[:2]), atol=1e-5)
    np.testing.assert_allclose(fine[..., 1], np.broadcast_to(column, fine.shape[:2]), atol=1e-5)


def test_enlargement_of_a_part_is_the_part_of_the_enlargement() -> None:
    coarse = image_like(np.zeros((30, 30), dtype=np.bool_))
    whole = enlarge(coarse, (0, 0), Box(0, 0, 60, 60))
    box = Box(13, 20, 17, 9)
    around = coarse_box(box, 1).expand(1)
    part = enlarge(coarse[around.slices], (around.top, around.left), box)
    np.testing.assert_array_equal(part, whole[box.slices])


@settings(deadline=None)
@given(hole=hole_maps(60))
def test_smooth_filling_keeps_known_pixels_and_stays_in_their_range(hole: BoolArray) -> None:
    image = image_like(hole) * 0.5 + 0.25
    filled = fill_smoothly(image, hole)
    np.testing.assert_array_equal(filled[~hole], image[~hole])
    if hole.all():
        assert (filled == 0).all()
    else:
        assert filled.min() >= image[~hole].min() - 1e-5
        assert filled.max() <= image[~hole].max() + 1e-5


def test_boxes_of_a_level_hold_every_pixel_of_the_original() -> None:
    assert coarse_box(Box(3, 8, 6, 1), 2) == Box(0, 2, 3, 1)
    assert level_size(5, 8, 2) == (2, 2)
