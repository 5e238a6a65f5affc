"""Damage is found where it was drawn, and almost nothing where nothing was drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes import detect as module
from inpaint_batch.holes.detect import KINDS, DetectConfig, detect, detect_in, noise_sigma

NOISE = 0.02
CONTRAST = 0.15
SIDE_PX = 200


def ground(seed: int = 0, side_px: int = SIDE_PX, noise: float = NOISE) -> np.ndarray:
    """A soft gradient with noise."""
    ramp = np.linspace(0.35, 0.6, side_px, dtype=np.float32)
    return ramp[:, None] + noise * np.random.default_rng(seed).standard_normal((side_px, side_px), np.float32)


def line(width_px: int = 3, side_px: int = SIDE_PX) -> np.ndarray:
    drawn = np.zeros((side_px, side_px), np.uint8)
    cv2.line(drawn, (30, 40), (side_px - 30, side_px - 70), 1, width_px)
    return drawn.astype(bool)


def disc(diameter_px: int, side_px: int = SIDE_PX) -> np.ndarray:
    y, x = np.mgrid[:side_px, :side_px] - side_px / 2 + 0.5
    return np.hypot(x, y) <= diameter_px / 2


def config(**values: object) -> DetectConfig:
    return DetectConfig(**{"dilate_px": 0, **values})  # type: ignore[arg-type]


def test_every_kind_has_a_finder():
    assert tuple(module._FINDERS) == KINDS


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("width_px", [1, 3])
def test_a_line_in_noise_is_found(sign, width_px):
    truth = line(width_px)
    hole = detect(ground() + np.float32(sign * CONTRAST) * truth, config(kinds=("scratches",))).hole
    assert (hole & truth).sum() > 0.9 * truth.sum()
    if width_px == 3:
        assert (hole & truth).sum() > 0.8 * hole.sum()


def test_noise_gradients_and_patterns_are_not_damage():
    square = np.kron(np.indices((10, 10)).sum(0) % 2, np.ones((20, 20))).astype(np.float32)
    stripes = np.tile(np.repeat(np.float32([0.3, 0.6]), 3), (SIDE_PX, SIDE_PX // 6 + 1))[:, :SIDE_PX]
    for clean in (ground(), ground(noise=0), np.full((SIDE_PX, SIDE_PX), 0.5, np.float32), square, stripes):
        assert detect(np.ascontiguousarray(clean), DetectConfig(kinds=KINDS)).coverage < 0.002


def test_clean_photographs_give_almost_nothing(real_data: Path):
    photos = sorted((real_data / "test_natural").glob("*.png"))[::12]
    coverages = []
    for photo in photos:
        samples = cv2.imdecode(np.frombuffer(photo.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        coverages.append(detect(samples.astype(np.float32) / 255, DetectConfig()).coverage)
    assert np.mean(coverages) < 0.015
    assert max(coverages) < 0.06


def test_an_edge_is_not_a_line():
    step = ground()
    step[:, 90:] += 0.3
    assert detect(step, config(kinds=("scratches",))).coverage < 0.002


def test_dust_is_found_and_larger_discs_are_not():
    for diameter_px, is_dust in ((5, True), (9, True), (40, False), (70, False)):
        truth = disc(diameter_px)
        hole = detect(ground() + np.float32(0.3) * truth, config(kinds=("dust",))).hole
        if is_dust:
            assert (hole & truth).sum() > 0.8 * truth.sum(), diameter_px
            assert hole.sum() < 1.5 * truth.sum(), diameter_px
        else:
            assert hole.sum() < 10, diameter_px


def test_max_size_decides_what_dust_is():
    speckled = ground() + np.float32(0.3) * disc(16)
    assert not detect(speckled, config(kinds=("dust",), max_size_px=8)).hole.any()
    assert detect(speckled, config(kinds=("dust",), max_size_px=24)).hole.any()


def test_stains_are_larger_than_dust():
    for diameter_px, is_stain in ((5, False), (24, True), (90, False)):
        truth = disc(diameter_px)
        hole = detect(ground() + np.float32(0.3) * truth, config(kinds=("stains",))).hole
        assert hole.any() == is_stain, diameter_px
        if is_stain:
            assert (hole & truth).sum() > 0.75 * truth.sum()
            assert (hole & truth).sum() > 0.75 * hole.sum()


def test_polarity():
    bright, dark = line(), line()[:, ::-1]
    both = ground() + np.float32(CONTRAST) * bright
    for polarity, found in (("bright", True), ("dark", False), ("both", True)):
        assert detect(both, config(kinds=("scratches",), polarity=polarity)).hole.any() == found
    assert detect(ground() - np.float32(CONTRAST) * dark, config(polarity="dark")).hole.any()
    speck = ground() - np.float32(0.3) * disc(7)
    assert not detect(speck, config(polarity="bright")).hole.any()


def test_lengths_below_the_minimum_are_left():
    drawn = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.line(drawn, (60, 100), (100, 100), 1, 2)
    scratched = ground() + np.float32(0.3) * drawn
    assert detect(scratched, config(kinds=("scratches",), min_length_px=24)).hole.any()
    assert not detect(scratched, config(kinds=("scratches",), min_length_px=80)).hole.any()


def test_lines_of_both_kinds_explain_each_other():
    scratched = ground()
    scratched[60:62, 20:180] += np.float32(CONTRAST)
    assert detect(scratched, config()).hole[60:62].mean() > 0.8
    scratched[120:122, 20:180] -= np.float32(2 * CONTRAST)
    hole = detect(scratched, config()).hole
    assert not hole[50:70].any()
    assert hole[120:122].mean() > 0.8  # nothing explains the stronger one


def test_threshold_and_dilation_do_what_they_say():
    scratched = ground() + np.float32(CONTRAST) * line()
    areas = [detect(scratched, config(threshold=value)).hole.sum() for value in (4, 9, 60)]
    assert areas[0] >= areas[1] > areas[2] == 0
    found = detect(scratched, config())
    assert detect(scratched, config(dilate_px=3)).hole.sum() > 2 * found.hole.sum()
    assert found.coverage == pytest.approx(found.hole.mean())


def test_more_than_the_largest_area_is_no_damage():
    scratched = ground() + np.float32(CONTRAST) * line()
    all_of_it = detect(scratched, config())
    assert all_of_it.hole.any()
    none_of_it = detect(scratched, config(max_area=all_of_it.coverage - 0.001))
    assert not none_of_it.hole.any()
    assert none_of_it.coverage == all_of_it.coverage


@pytest.mark.parametrize("side_px", [600, 640])
def test_tiles_change_nothing_away_from_their_seams(monkeypatch, side_px):
    scratched = ground(side_px=side_px) + np.float32(CONTRAST) * line(side_px=side_px)
    scratched += np.float32(0.3) * disc(7, side_px)
    whole = detect(scratched, DetectConfig(kinds=KINDS)).hole
    monkeypatch.setattr(module, "TILE_PX", 512)
    boxes = []

    def read(box):
        boxes.append(box)
        return scratched[box.slices]

    tiled = detect_in(read, side_px, side_px, DetectConfig(kinds=KINDS)).hole
    assert len(boxes) == 16
    assert max(box.height for box in boxes) == 512
    assert (tiled != whole).mean() < 1e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (5, 7), (40, 2)])
def test_tiny_images(shape):
    assert detect(np.full(shape, 0.5, np.float32), DetectConfig(kinds=KINDS)).hole.shape == shape


@pytest.mark.parametrize("sigma", [0.005, 0.05])
def test_noise_is_measured_also_on_a_gradient(sigma):
    assert noise_sigma(ground(noise=sigma)) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize(
    "values",
    [{"kinds": ()}, {"kinds": ("tears",)}, {"threshold": 0.5}, {"max_size_px": 2}, {"min_length_px": 1},
     {"polarity": "grey"}, {"dilate_px": -1}, {"max_area": 0}],
)  # fmt: skip
def test_settings_that_cannot_be(values):
    with pytest.raises(ConfigError):
        DetectConfig(**values)
