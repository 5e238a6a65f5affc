"""What is learned from: where photographs lie, wear and colour, what changes over a run. All of it by seed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_training import CONFIG

from inpaint_batch.training.augment import augmented, jitter_hsv, jitter_lab, through_jpeg, with_grain
from inpaint_batch.training.curriculum import hole_area, part_of_run, side_shares
from inpaint_batch.training.data import Crops, random_crop
from inpaint_batch.training.holes import HoleMaker
from inpaint_batch.training.photographs import list_photographs, split_photographs


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.2, 0.8, (32, 32, 3)).astype(np.float32)


def test_the_last_photographs_are_held_out(photographs: Path) -> None:
    paths = list_photographs(photographs)
    learned, held_out = split_photographs(photographs, CONFIG)
    assert (learned, held_out) == (paths[:-4], paths[-4:])
    learned, held_out = split_photographs(photographs, replace(CONFIG, max_samples=3))
    assert (learned, held_out) == (paths[:3], paths[-4:])


def test_train_and_val_folders(photographs: Path, tmp_path: Path) -> None:
    found = list_photographs(photographs)
    for name, some in (("train", found[:5]), ("val", found[5:11])):
        (tmp_path / name).mkdir()
        for photograph in some:
            shutil.copy(photograph.path, tmp_path / name)
    learned, held_out = split_photographs(tmp_path, CONFIG)
    assert {p.path.parent.name for p in learned} == {"train"}
    assert (len(learned), len(held_out)) == (5, CONFIG.num_validation)
    assert {p.path.parent.name for p in held_out} == {"val"}


def test_parts_of_a_run_are_equal() -> None:
    config = replace(CONFIG, steps=9)
    assert [part_of_run(step, config, 3) for step in range(10)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_progressive_sides_begin_small() -> None:
    config = replace(CONFIG, steps=9, sides_px=(64, 256, 128), side_shares=(0.2, 0.3, 0.5), progressive=True)
    assert side_shares(0, config).tolist() == [1, 0, 0]
    assert side_shares(3, config) == pytest.approx(np.array([2 / 7, 0, 5 / 7]))
    assert side_shares(8, config) == pytest.approx(np.array([0.2, 0.3, 0.5]))
    assert side_shares(0, replace(config, progressive=False)) == pytest.approx(np.array([0.2, 0.3, 0.5]))
    assert side_shares(0, replace(config, side_shares=(0.0, 0.5, 0.5))).tolist() == [1, 0, 0]


def test_a_native_crop_has_the_samples_of_the_photograph() -> None:
    photograph = np.arange(70 * 80 * 3, dtype=np.float32).reshape(70, 80, 3) / (70 * 80 * 3)
    places = {photograph[y, x].tobytes(): (y, x) for y in range(70) for x in range(80)}
    native, grey = replace(CONFIG, native_share=1.0), 0
    for seed in range(20):
        crop = random_crop(np.random.default_rng(seed), photograph, 64, native)
        if crop[0, 0, 0] == crop[0, 0, 1]:  # some are made grey
            grey += 1
            continue
        (y, x), (_, right) = (places[crop[0, column].tobytes()] for column in (0, 63))
        assert np.array_equal(
            crop, photograph[y : y + 64, min(x, right) : max(x, right) + 1][:, :: 1 if x < right else -1]
        )
    assert grey < 5
    shrunk = random_crop(np.random.default_rng(0), photograph, 64, replace(native, native_share=0.0))
    assert not any(sample.tobytes() in places for sample in shrunk.reshape(-1, 3))
    small = random_crop(np.random.default_rng(0), photograph[:48, :48], 64, native)
    assert small.shape == (64, 64, 3)


@pytest.mark.parametrize("shape", [(1, 3000, 3), (3000, 2, 3)])
def test_a_strip_is_cut_before_it_is_enlarged(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    real = cv2.resize

    def resize(image: np.ndarray, size: tuple[int, int], **options: Any) -> np.ndarray:
        sizes.append(size)
        return real(image[:64, :64], size, **options) if max(size) > 1000 else real(image, size, **options)

    monkeypatch.setattr(cv2, "resize", resize)
    photograph = np.random.default_rng(0).random(shape, np.float32)
    crops = [random_crop(np.random.default_rng(seed), photograph, 64, CONFIG) for seed in range(3)]
    assert {crop.shape for crop in crops} == {(64, 64, 3)}
    assert max(map(max, sizes)) <= 8 * 64
    assert not np.array_equal(crops[0], crops[1])


def test_a_curriculum_makes_holes_grow(photographs: Path) -> None:
    areas = ((0.05, 0.10), (0.30, 0.40))
    config = replace(CONFIG, steps=8, curriculum=areas, hole_shares=(0.5, 0.0, 0.0, 0.0, 0.5))
    assert [hole_area(step, config) for step in (0, 3, 4, 7)] == [areas[0], areas[0], areas[1], areas[1]]
    assert hole_area(0, CONFIG) is None
    crops = Crops(list_photographs(photographs), config, None)
    assert max(crops.batch(step).hole.mean() for step in range(4)) < 0.11
    assert min(crops.batch(step).hole.mean() for step in range(4, 8)) > 0.25


def test_a_curriculum_speaks_of_both_kinds_of_a_mixture_together() -> None:
    maker = HoleMaker(replace(CONFIG, hole_shares=(0.0, 0.0, 0.0, 1.0)), None)
    covered = [maker.draw(np.random.default_rng(seed), 128, (0.10, 0.20)).mean() for seed in range(40)]
    assert max(covered) <= 0.20
    assert 0.10 < np.mean(covered) < 0.20
    assert np.mean([maker.draw(np.random.default_rng(seed), 128).mean() for seed in range(40)]) > 0.20


@pytest.mark.parametrize(("area", "covered"), [((0.001, 0.002), 1 / 16), ((0.998, 0.999), 15 / 16)])
def test_something_is_hidden_and_something_is_not(area: tuple[float, float], covered: float) -> None:
    maker = HoleMaker(replace(CONFIG, pretrain=True, pretrain_area=area), None)
    assert maker.draw(np.random.default_rng(0), 64).mean() == covered


AREAS: dict[str, tuple[float, float]] = {
    "stroke_area": (0.02, 0.03),
    "box_area": (0.06, 0.07),
    "damage_area": (0.10, 0.11),
    "shape_area": (0.15, 0.16),
}
"""Of each kind another one, and so of each two."""


@pytest.fixture
def specks(tmp_path: Path) -> Path:
    """One element of damage, a speck."""
    cv2.imwrite(str(tmp_path / "speck.png"), np.full((6, 7), 255, np.uint8))
    return tmp_path


def covered(shares: tuple[float, ...], damage: Path | None, num: int = 60) -> np.ndarray:
    """What holes of those shares cover."""
    holes = HoleMaker(replace(CONFIG, hole_shares=shares, **AREAS), damage)  # type: ignore[arg-type]
    return np.array([holes.draw(np.random.default_rng(seed), 128).mean() for seed in range(num)])


def test_each_kind_of_hole_has_its_own_area(specks: Path) -> None:
    for kind, name in enumerate(
        ("stroke_area", "box_area", "damage_area", "", "shape_area", "shape_area", "shape_area")
    ):
        if name:
            shares = covered((0.0,) * kind + (1.0,), specks, 20)
            assert AREAS[name][0] - 1e-3 <= shares.min() <= shares.max() <= AREAS[name][1] + 2e-3
    without = covered((0.0, 0.0, 1.0), None, 20)  # damage that is not there: strokes
    assert without.max() <= AREAS["stroke_area"][1]


def test_mixtures_are_of_all_kinds_that_there_are(specks: Path) -> None:
    """Strokes, boxes, damage: 0.025, 0.065 and 0.105 in any two, less where they overlap."""
    only = (0.0, 0.0, 0.0, 1.0)
    mixed = covered(only, specks, 200)
    for low, high in ((0.03, 0.055), (0.08, 0.1), (0.115, 0.14), (0.155, 0.18), (0.185, 0.22)):
        assert ((low <= mixed) & (mixed <= high)).mean() > 0.05
    assert covered(only, None, 100).max() <= 0.14  # of two boxes
    with_polygons = covered((0.0, 0.0, 0.0, 0.5, 0.5), None, 100)
    assert with_polygons.max() > 0.25  # of two polygons; one alone has 0.16


@pytest.mark.parametrize("kind", range(7))
def test_each_kind_of_hole_can_be_drawn_alone(kind: int) -> None:
    shares = tuple(float(index == kind) for index in range(kind + 1))
    maker = HoleMaker(replace(CONFIG, hole_shares=shares), None)
    holes = [maker.draw(np.random.default_rng(seed), 64) for seed in range(4)]
    assert all(0 < hole.mean() < 0.6 for hole in holes)
    assert not np.array_equal(holes[0], holes[1])


@pytest.mark.parametrize(
    "options", [{"jpeg_share": 1.0}, {"grain_share": 1.0}, {"jpeg_share": 1.0, "grain_share": 1.0}]
)
def test_wear_stays_outside_the_hole(options: dict[str, Any]) -> None:
    hole = np.zeros((32, 32), bool)
    hole[8:20, 8:20] = True
    crop = picture()
    worn = augmented(np.random.default_rng(1), crop, hole, replace(CONFIG, **options))
    assert worn.dtype == np.float32
    assert np.array_equal(worn[hole], crop[hole])
    assert np.abs(worn - crop)[~hole].mean() > 1e-4
    assert np.array_equal(augmented(np.random.default_rng(1), crop, hole, CONFIG), crop)


@pytest.mark.parametrize("space", ["lab", "hsv"])
def test_colours_shift_everywhere_alike(space: Any) -> None:
    hole = np.zeros((32, 32), bool)
    hole[8:20, 8:20] = True
    flat = np.full((32, 32, 3), (0.3, 0.5, 0.6), np.float32)
    shifted = augmented(np.random.default_rng(2), flat, hole, replace(CONFIG, colour_jitter=space))
    assert np.ptp(shifted, axis=(0, 1)).max() < 1e-5
    assert 0.005 < np.abs(shifted - flat).max() < 0.5
    assert shifted.min() >= 0
    assert shifted.max() <= 1


def test_strength_zero_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    assert np.abs(jitter_lab(rng, picture(), 0.0) - picture()).max() < 1 / 255  # OpenCV looks L*a*b* up in tables
    assert np.abs(jitter_hsv(rng, picture(), 0.0) - picture()).max() < 1e-3
    assert np.array_equal(with_grain(rng, picture(), 0.0), picture())


def test_grain_is_as_strong_as_asked_and_grey() -> None:
    middle = np.full((128, 128, 3), 0.5, np.float32)
    grain = with_grain(np.random.default_rng(0), middle, 0.04) - middle
    assert grain.std() == pytest.approx(0.04, rel=0.02)
    assert np.ptp(grain, axis=2).max() < 1e-6
    black = np.zeros((16, 16, 3), np.float32)
    assert np.array_equal(with_grain(np.random.default_rng(0), black, 0.04), black)


def test_jpeg_keeps_the_order_of_channels_and_loses_more_at_low_quality() -> None:
    red = np.zeros((16, 16, 3), np.float32)
    red[..., 0] = 0.9
    assert np.abs(through_jpeg(red, 95) - red).max() < 0.02
    losses = [np.abs(through_jpeg(picture(), quality) - picture()).mean() for quality in (30, 60, 95)]
    assert losses[0] > losses[1] > losses[2] > 0


def test_what_is_switched_on_leaves_crops_and_holes_as_they_were(photographs: Path) -> None:
    paths = list_photographs(photographs)
    plain = Crops(paths, CONFIG, None).batch(2)
    worn = Crops(paths, replace(CONFIG, jpeg_share=1.0), None).batch(2)
    assert np.array_equal(plain.hole, worn.hole)
    missing = np.broadcast_to(plain.hole == 1, plain.image.shape)
    assert np.array_equal(plain.image[missing], worn.image[missing])
    assert not np.array_equal(plain.image, worn.image)
