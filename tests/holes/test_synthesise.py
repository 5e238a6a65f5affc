"""Synthetic holes: shares within range, seeded, never trivial."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes.shapes import polygon_hole, silhouette_hole, text_hole
from inpaint_batch.holes.synthesise import DamageLibrary, _placed, box_hole, stroke_hole
from inpaint_batch.training.holes import hidden_cells


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> DamageLibrary:
    folder = tmp_path_factory.mktemp("elements")
    element = np.zeros((100, 100, 4), np.uint8)
    element[40:44, 10:90, 3] = 255
    cv2.imwrite(str(folder / "scratch.png"), element)
    spot = np.zeros((60, 60, 4), np.uint8)
    cv2.circle(spot, (30, 30), 9, (0, 0, 0, 255), -1)
    cv2.imwrite(str(folder / "spot.png"), spot)
    return DamageLibrary(folder)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(48, 200), st.integers(48, 200))
def test_strokes_stay_within_their_range(seed: int, height: int, width: int) -> None:
    hole = stroke_hole(np.random.default_rng(seed), height, width, (0.05, 0.25))
    assert hole.shape == (height, width)
    assert hole.dtype == np.bool_
    assert 0.04 <= hole.mean() <= 0.25


@pytest.mark.parametrize("area", [(0.005, 0.01), (0.02, 0.05), (0.05, 0.10)])
def test_the_first_stroke_stays_within_a_small_range_too(area: tuple[float, float]) -> None:
    shares = [stroke_hole(np.random.default_rng(seed), 64, 64, area).mean() for seed in range(40)]
    assert area[0] <= min(shares)
    assert max(shares) <= area[1]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_boxes_reach_their_share(seed: int) -> None:
    hole = box_hole(np.random.default_rng(seed), 128, 96, (0.05, 0.20))
    assert 0.05 <= hole.mean() <= 0.26


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_damage_stays_within_its_range(library: DamageLibrary, seed: int) -> None:
    hole = library.hole(np.random.default_rng(seed), 128, 128, (0.01, 0.08))
    assert 0.01 <= hole.mean() <= 0.08  # every element of these is smaller than that


@pytest.mark.parametrize("draw", [stroke_hole, box_hole, polygon_hole, text_hole, silhouette_hole, "damage", "hidden"])
def test_holes_come_everywhere(library: DamageLibrary, draw) -> None:
    """In each eighth of the picture as often as in the others, more or less."""
    height, width = (64, 64) if draw == "hidden" else (64, 128)
    places = np.zeros((height, width))
    for seed in range(200):
        rng = np.random.default_rng(seed)
        if draw == "hidden":
            places += hidden_cells(rng, height, (0.5, 0.75))
        else:
            places += (library.hole if draw == "damage" else draw)(rng, height, width, (0.05, 0.15))
    eighths = places.reshape(2, height // 2, 4, width // 4).mean(axis=(1, 3))
    assert eighths.min() > 0.55 * eighths.mean()
    assert eighths.max() < 1.6 * eighths.mean()


def test_strokes_are_as_wide_as_a_share_of_the_picture() -> None:
    """1.5 % to 10 % of its side; the widest of the few in a hole is looked at."""

    def widths(side: int, area: tuple[float, float]) -> np.ndarray:
        holes = [stroke_hole(np.random.default_rng(seed), side, side, area).astype(np.uint8) for seed in range(60)]
        return np.array([2 * cv2.distanceTransform(hole, cv2.DIST_L2, 0).max() / side for hole in holes])

    for side in (64, 256):
        wide = widths(side, (0.03, 0.05))
        assert 0.05 < np.median(wide) < 0.11
        assert 0.1 < wide.max() < 0.17  # strokes may cross
    assert widths(256, (0.003, 0.005)).min() < 0.025


def test_boxes_are_one_to_four_and_at_most_twice_as_long_as_wide() -> None:
    numbers, ratios = [], []
    for seed in range(80):
        hole = box_hole(np.random.default_rng(seed), 256, 256, (0.05, 0.06)).astype(np.uint8)
        num, _, boxes, _ = cv2.connectedComponentsWithStats(hole, connectivity=4)
        numbers.append(num - 1)
        alone = [box for box in boxes[1:] if box[cv2.CC_STAT_AREA] == box[cv2.CC_STAT_WIDTH] * box[cv2.CC_STAT_HEIGHT]]
        ratios += [b[cv2.CC_STAT_WIDTH] / b[cv2.CC_STAT_HEIGHT] for b in alone if b[cv2.CC_STAT_AREA] > 400]
    assert min(numbers) == 1
    assert 3 <= max(numbers) <= 8  # what overlaps is made up for by another one
    assert 0.45 < min(ratios) < 0.6
    assert 1.7 < max(ratios) < 2.2


def test_damage_is_turned_mirrored_and_scaled(tmp_path: Path) -> None:
    """A letter L of 24 × 16 px: its empty corner and whether it stands or lies tell the eight ways to lay it."""
    letter = np.zeros((24, 16), np.uint8)
    letter[:, :4] = letter[-4:] = 255
    cv2.imwrite(str(tmp_path / "letter.png"), letter)
    library = DamageLibrary(tmp_path)
    ways, longer = set(), []
    for seed in range(300):
        hole = library.hole(np.random.default_rng(seed), 200, 200, (0.0005, 0.01)).astype(np.uint8)
        num, labels, boxes, _ = cv2.connectedComponentsWithStats(hole, connectivity=8)
        for label, (left, top, width, height, _) in enumerate(boxes[1:].tolist(), 1):
            corners = labels[np.ix_((top, top + height - 1), (left, left + width - 1))] == label
            is_whole = left > 0 and top > 0 and left + width < 200 and top + height < 200
            if is_whole and num == 2 and min(width, height) > 3 and corners.sum() == 3:
                ways.add((height > width, int(np.flatnonzero(~corners.ravel())[0])))
                longer.append(max(width, height))
    assert len(ways) == 8
    assert min(longer) < 12
    assert max(longer) > 30


def test_an_element_lies_where_it_was_put_and_may_hang_over() -> None:
    element = np.arange(24).reshape(4, 6) % 7 > 2
    placed = _placed(element, 1.0, 0, False, (20, 30), (0.5, 0.5))
    expected = np.zeros((20, 30), bool)
    expected[8:12, 12:18] = element
    np.testing.assert_array_equal(placed, expected)
    for place, inside in (((0.0, 0.0), element[2:, 3:]), ((1.0, 1.0), element[:2, :3])):
        placed = _placed(element, 1.0, 0, False, (20, 30), place)
        part = placed[:2, :3] if place[0] == 0 else placed[-2:, -3:]
        np.testing.assert_array_equal(part, inside)
        assert placed.sum() == inside.sum()
    hair = _placed(np.ones((1, 80), bool), 0.4, 0, False, (64, 64), (0.5, 0.5))
    assert hair.sum() == 32  # thinner than a pixel, and still there


def test_of_an_element_that_is_larger_than_wished_a_part_is_kept(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "stain.png"), np.full((300, 300), 255, np.uint8))
    library = DamageLibrary(tmp_path)
    for seed in range(20):
        assert library.hole(np.random.default_rng(seed), 128, 128, (0.01, 0.08)).mean() <= 0.12
        whole = library.hole(np.random.default_rng(seed), 64, 64, (0.98, 0.99))
        assert whole.any()
        assert not whole.all()


def test_damage_ends_at_its_target_and_not_at_the_limit(library: DamageLibrary) -> None:
    """Shares between 0.02 and 0.2 are 0.11 on average, and the element that reaches its target goes a little beyond."""
    shares = [library.hole(np.random.default_rng(seed), 128, 128, (0.02, 0.2)).mean() for seed in range(40)]
    assert 0.10 < np.mean(shares) < 0.14


def test_an_element_is_what_is_opaque_in_its_file(tmp_path: Path) -> None:
    rgba = np.full((20, 30, 4), 255, np.uint8)
    rgba[..., 3] = 0
    rgba[5:9, 7, 3] = rgba[8, 7:12, 3] = 255  # an L: no row and no column of its box is full but one
    rgba[0, 0, 3] = 127
    cv2.imwrite(str(tmp_path / "a.png"), rgba)
    cv2.imwrite(str(tmp_path / "b.png"), rgba[..., 3])
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((6, 5, 4), np.uint8))
    drawn = np.zeros((4, 5), bool)
    drawn[:, 0] = drawn[3] = True
    library = DamageLibrary(tmp_path)
    np.testing.assert_array_equal(library._element(0), drawn)
    np.testing.assert_array_equal(library._element(1), drawn)
    np.testing.assert_array_equal(library._element(2), np.zeros((6, 5), bool))


def test_an_element_is_its_alpha_where_that_has_a_shape_and_else_what_is_bright(tmp_path: Path) -> None:
    shape = np.zeros((20, 20), np.uint8)
    shape[5:15, 8:12] = 255
    black, opaque = np.zeros((20, 20), np.uint8), np.full((20, 20), 255, np.uint8)
    for place, bands in enumerate(((shape, shape, shape, opaque), (black, black, black, shape), (shape,))):
        cv2.imwrite(str(tmp_path / f"{place}.png"), np.stack(bands, axis=2))
    for index in range(3):
        assert DamageLibrary(tmp_path)._element(index).shape == (10, 4)


def test_an_element_of_sixteen_bits_is_the_same_as_of_eight(tmp_path: Path) -> None:
    faint = np.full((20, 20, 4), 0x2000, np.uint16)  # an eighth of white, and as transparent: no damage
    faint[5:15, 8:12] = 0xFFFF
    for index, samples in enumerate((faint, faint[..., 0], (faint >> 8).astype(np.uint8))):
        cv2.imwrite(str(tmp_path / f"{index}.png"), samples)
        assert DamageLibrary(tmp_path)._element(index).shape == (10, 4)


def test_an_element_may_be_named_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "DUST.PNG").write_bytes(cv2.imencode(".png", np.full((4, 6), 255, np.uint8))[1].tobytes())
    assert DamageLibrary(tmp_path)._element(0).shape == (4, 6)


def test_same_seed_same_hole(library: DamageLibrary) -> None:
    for draw in (stroke_hole, box_hole, library.hole):
        assert np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(5), 64, 64))
        assert not np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(6), 64, 64))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for area in ((0.5, 0.2), (0.0, 0.2), (0.2, 1.0)):
        with pytest.raises(ConfigError, match="two fractions"):
            stroke_hole(np.random.default_rng(0), 64, 64, area)
    with pytest.raises(ConfigError, match="no PNG files"):
        DamageLibrary(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    cv2.imwrite(str(tmp_path / "dark.png"), np.full((9, 9), 100, np.uint8))
    with pytest.raises(ConfigError, match=r"2 damage elements were drawn, such as .*broken\.png, and not one"):
        DamageLibrary(tmp_path).hole(np.random.default_rng(0), 64, 64)


def test_an_element_that_cannot_be_read_is_told_once_and_another_one_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cut", "gone", "sound"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((9, 9), 255, np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "sound.png").read_bytes()[:40])
    library = DamageLibrary(tmp_path)
    (tmp_path / "gone.png").unlink()
    for seed in range(8):
        assert 0.01 <= library.hole(np.random.default_rng(seed), 128, 128, (0.01, 0.08)).mean() <= 0.08
    assert {record.message for record in caplog.records} == {
        f"skipping the damage element {tmp_path / 'cut.png'}: it is damaged, or no PNG file",
        f"skipping the damage element {tmp_path / 'gone.png'}: No such file or directory",
    }
    assert len(caplog.records) == 2
