import cv2
import numpy as np
import pytest

from inpaint_batch.holes import margin
from inpaint_batch.holes.distance import grow
from inpaint_batch.holes.margin import lacks_margin
from inpaint_batch.types import Box

SIDE_PX = 240
WHOLE = [Box(0, 0, SIDE_PX, SIDE_PX)]


def line() -> np.ndarray:
    """(h, w): where a line of 5 px crosses the picture."""
    drawn = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.line(drawn, (-10, 30), (SIDE_PX + 10, SIDE_PX - 60), 1, 5)
    return drawn.astype(bool)


def scene() -> np.ndarray:
    """Dark, with soft waves and the noise of a scan."""
    noise = np.random.default_rng(3).normal(0, 0.01, (SIDE_PX, SIDE_PX, 3))
    waves = 0.25 + 0.1 * np.sin(np.arange(SIDE_PX) / 17)
    return (waves[:, None, None] + noise).astype(np.float32)


def scratched(blur_px: float) -> np.ndarray:
    """The scene with that line on it in white, as a lens shows it."""
    cover = line().astype(np.float32)
    if blur_px:
        cover = cv2.GaussianBlur(cover, (0, 0), blur_px)
    return scene() * (1 - cover[..., None]) + cover[..., None] * np.float32(0.95)


def lacks(image: np.ndarray, hole: np.ndarray, boxes: list[Box] = WHOLE) -> bool:
    return lacks_margin(lambda box: image[box.slices], hole, boxes)


@pytest.mark.parametrize("blur_px", [0.5, 0.8, 1.0])
def test_a_soft_scratch_that_sticks_out_of_its_mask_is_told(blur_px: float) -> None:
    assert lacks(scratched(blur_px), line())


@pytest.mark.parametrize("blur_px", [0.5, 0.8, 1.0])
def test_two_pixels_of_margin_are_enough(blur_px: float) -> None:
    assert not lacks(scratched(blur_px), grow(line(), 2))


def test_damage_without_a_rim_needs_no_margin() -> None:
    assert not lacks(scratched(0), line())


def test_a_hole_over_what_is_sound_lacks_nothing() -> None:
    assert not lacks(scene(), line())


def test_an_edge_of_the_scene_along_the_mask_is_no_rim() -> None:
    """One side of the mask lies on the outline of something dark, the other within it."""
    cover = cv2.GaussianBlur((np.arange(SIDE_PX) >= 100).astype(np.float32)[:, None], (0, 0), 0.8, borderType=1)
    hole = np.zeros((SIDE_PX, SIDE_PX), bool)
    hole[100:110] = True
    assert not lacks(scene() * (1 - 0.9 * cover[..., None]), hole)


def test_too_short_an_edge_tells_nothing() -> None:
    assert lacks(scratched(0.8), line())
    short = line()
    short[:, 40:] = False
    assert not lacks(scratched(0.8), short)


def test_noise_is_no_damage() -> None:
    """Next to nothing is like what lies 4 px farther, and its neighbour is like neither of them."""
    noise = np.random.default_rng(5).uniform(0, 1, (SIDE_PX, SIDE_PX, 3)).astype(np.float32)
    assert not lacks(noise, line())
    assert not lacks(cv2.GaussianBlur(noise, (0, 0), 0.8), line())


def test_differences_are_those_of_the_definition() -> None:
    """A hole at 1 and 2: beside it 3, outside 6, beyond 10. In the second row another hole is too near."""
    rgb = np.zeros((2, 12, 3), np.float32)
    rgb[0, :, 0] = [0, 0.9, 0.8, 0.5, 0.4, 0.3, 0.1, 0, 0, 0, 0.25, 0]
    hole = np.zeros((2, 12), bool)
    hole[:, 1:3] = True
    hole[1, 10] = True
    differences = margin._differences(rgb, hole)
    np.testing.assert_allclose(differences, [[[0.7, 0, 0]], [[0.4, 0, 0]], [[-0.15, 0, 0]]], atol=1e-6)
    assert margin._differences(rgb[:, :7], hole[:, :7]).shape == (3, 0, 3)


def test_no_more_boxes_are_read_than_are_looked_at_and_each_only_around_its_hole() -> None:
    read: list[Box] = []
    image, hole = scratched(0.8), line()

    def read_rgb(box: Box) -> np.ndarray:
        read.append(box)
        return image[box.slices]

    boxes = [Box(top, left, 24, 24) for top in range(0, SIDE_PX, 24) for left in range(0, SIDE_PX, 24)]
    lacks_margin(read_rgb, hole, [box for box in boxes if hole[box.slices].any()])
    assert len(read) == margin.MAX_BOXES
    for box in read:
        rows, columns = np.nonzero(hole[box.slices])
        assert rows.size
        assert rows.min() <= 2 * margin.OUTSIDE_PX
        assert columns.min() <= 2 * margin.OUTSIDE_PX


@pytest.mark.parametrize("boxes", [[], [Box(0, 0, 5, 5)], [Box(0, 0, SIDE_PX, 3)]])
def test_where_there_is_next_to_nothing_to_see_nothing_is_said(boxes: list[Box]) -> None:
    hole = np.zeros((SIDE_PX, SIDE_PX), bool)
    hole[:, :2] = True
    assert not lacks(scratched(0.8), hole, boxes)
