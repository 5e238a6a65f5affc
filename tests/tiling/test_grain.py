"""The noise of the surroundings comes back inside the hole: how much, in which channels, how coarse."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.tiling.grain import _kernel, add_grain, surrounding_grain
from inpaint_batch.types import Box

SIDE = 320
Y, X = np.mgrid[0:SIDE, 0:SIDE]
SMOOTH = np.stack([0.5 + 0.2 * np.sin(X / 40 + band) + 0.1 * np.cos(Y / 31) for band in range(3)], axis=-1)
HOLE = np.zeros((SIDE, SIDE), np.bool_)
HOLE[120:200, 110:190] = True
BOX = Box(110, 100, 100, 100)
STEP = 1 / 255


def noise(sigma: float, bands: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, sigma, (SIDE, SIDE, bands))


def grained(scan: np.ndarray, step: float = STEP, fill: np.ndarray = SMOOTH) -> np.ndarray | None:
    """What is added to a smooth fill in the hole of a scan (h, w, 3): (n, 3), or None."""
    samples = np.rint(np.clip(scan, 0, 1) / step) * step if step else scan
    samples = np.where(HOLE[..., None], 0, samples).astype(np.float32)
    inside = HOLE[BOX.slices]
    rgb = np.where(inside[..., None], fill[BOX.slices], 0).astype(np.float32)
    grain = surrounding_grain(lambda box: samples[box.slices], HOLE, [(BOX, rgb, inside)], step)
    if grain is None:
        return None
    added = add_grain(rgb, BOX, grain, "row 7", inside.astype(np.float32)) - rgb
    assert not added[~inside].any()  # known samples stay
    return added[inside]


@pytest.mark.parametrize("sigma", [1.0, 2.0, 4.0, 8.0, 16.0])
def test_the_noise_that_is_there_comes_back(sigma: float) -> None:
    added = grained(SMOOTH + noise(sigma * STEP))
    assert added is not None
    np.testing.assert_allclose(added.std(axis=0), sigma * STEP, rtol=0.06)
    np.testing.assert_allclose(added.mean(axis=0), 0, atol=0.06 * sigma * STEP)
    assert np.abs(np.corrcoef(added.T) - np.eye(3)).max() < 0.08


def test_sixteen_bits_and_floats() -> None:
    for step in (1 / 65535, 0.0):
        added = grained(SMOOTH + noise(100 / 65535), step)
        assert added is not None
        np.testing.assert_allclose(added.std(axis=0), 100 / 65535, rtol=0.06)


def test_what_has_no_value_has_no_noise() -> None:
    scan = SMOOTH + noise(4 * STEP)
    scan[:, 180:] = np.nan
    added = grained(scan)
    assert added is not None
    np.testing.assert_allclose(added.std(axis=0), 4 * STEP, rtol=0.08)


@pytest.mark.parametrize("step", [STEP, 1 / 65535])
def test_where_there_is_no_noise_nothing_is_added(step: float) -> None:
    assert grained(SMOOTH, step) is None
    assert grained(np.full((SIDE, SIDE, 3), 0.4), step) is None
    assert grained(np.repeat(np.repeat(noise(0.1)[::40, ::40], 40, axis=0), 40, axis=1) + 0.5, step) is None  # edges


def test_channels_go_together_as_they_do_around() -> None:
    wanted = np.array([[1, 0.6, 0.3], [0.6, 1, 0.5], [0.3, 0.5, 1]])
    added = grained(SMOOTH + noise(4 * STEP) @ np.linalg.cholesky(wanted).T)
    assert added is not None
    assert np.abs(np.corrcoef(added.T) - wanted).max() < 0.06
    grey = grained(
        SMOOTH[..., :1].repeat(3, axis=2) + noise(4 * STEP, 1).repeat(3, axis=2), fill=SMOOTH[..., :1] * np.ones(3)
    )
    assert grey is not None
    np.testing.assert_allclose(grey[:, 0], grey[:, 1], atol=1e-6)
    np.testing.assert_allclose(grey.std(axis=0), 4 * STEP, rtol=0.06)


@pytest.mark.parametrize("spread_px", [0.5, 0.8, 1.2])
def test_coarse_grain_is_coarse(spread_px: float) -> None:
    kernel = _kernel(spread_px)
    coarse = cv2.sepFilter2D(noise(5 * STEP), -1, kernel, kernel)
    added = grained(SMOOTH + coarse)
    assert added is not None
    np.testing.assert_allclose(added.std(axis=0), 5 * STEP, rtol=0.1)
    field = added.reshape(80, 80, 3)

    def neighbours(values: np.ndarray) -> float:
        return float((values[:, 1:] * values[:, :-1]).mean() / np.square(values).mean())

    assert abs(neighbours(field) - neighbours(coarse)) < 0.08


@pytest.mark.parametrize("spread_px", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("bands", [1, 3])
def test_the_noise_of_small_flat_ground_is_not_made_weaker(bands: int, spread_px: float) -> None:
    kernel = _kernel(spread_px)
    hole = np.zeros((160, 160), np.bool_)
    hole[60:100, 60:100] = True
    strengths = []
    for seed in range(12):
        drawn = cv2.sepFilter2D(noise(1, bands, seed)[:160, :160], -1, kernel, kernel).reshape(160, 160, bands)
        scan = (np.rint(128 + 6 * drawn) / 255 * np.ones(3)).astype(np.float32)
        fill = np.full((40, 40, 3), 0.5, np.float32)
        pieces = [(Box(60, 60, 40, 40), fill, np.ones((40, 40), np.bool_))]
        grain = surrounding_grain(lambda box, scan=scan: scan[box.slices], hole, pieces, STEP)
        assert grain is not None
        strengths.append(np.sqrt(np.trace(grain.mixing @ grain.mixing.T) / 3) / (6 * STEP))
    assert (
        abs(np.mean(strengths) - 1) < 0.05
    )  # in grey 0.87 to 0.93 where a block of it was thought as even as in colour


def test_what_the_fill_has_already_is_not_added_again() -> None:
    scan = SMOOTH + noise(4 * STEP)
    half = grained(scan, fill=SMOOTH + noise(2 * STEP, seed=9))
    assert half is not None
    np.testing.assert_allclose(half.std(axis=0), np.sqrt(4**2 - 2**2) * STEP, rtol=0.1)
    full = grained(scan, fill=SMOOTH + noise(4 * STEP, seed=9))
    assert full is None or full.std() < 1.2 * STEP


def test_structure_is_not_taken_for_noise() -> None:
    stripes = SMOOTH + 0.2 * ((X // 24 + Y // 40) % 2)[..., None]
    added = grained(stripes + noise(3 * STEP))
    assert added is not None
    np.testing.assert_allclose(added.std(axis=0), 3 * STEP, rtol=0.25)


def test_too_little_to_tell_from_means_no_grain() -> None:
    scan = (SMOOTH + noise(4 * STEP)).astype(np.float32)
    almost_all = np.ones((SIDE, SIDE), np.bool_)
    almost_all[:, :3] = False
    grain = surrounding_grain(
        lambda box: scan[box.slices], almost_all, [(BOX, scan[BOX.slices], HOLE[BOX.slices])], STEP
    )
    assert grain is None


@given(
    st.integers(-150, 400), st.integers(-150, 400), st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.0, 0.7])
)
def test_a_pixel_has_one_noise_however_the_work_is_cut(
    top: int, left: int, height: int, width: int, spread: float
) -> None:
    from inpaint_batch.tiling.grain import _blurred

    whole = Box(top - 20, left - 20, height + 40, width + 40)
    box = Box(top, left, height, width)
    np.testing.assert_array_equal(
        _blurred("a", box, spread), _blurred("a", whole, spread)[box.shift(-whole.top, -whole.left).slices]
    )
    assert not np.array_equal(_blurred("a", box, spread), _blurred("b", box, spread))


def test_a_mixed_rim_keeps_the_level_of_noise() -> None:
    """Where the source brings a part of its own noise, so much less is added that the whole is as strong."""
    scan = (SMOOTH + noise(4 * STEP)).astype(np.float32)
    inside = HOLE[BOX.slices]
    fill = np.where(inside[..., None], SMOOTH[BOX.slices], 0).astype(np.float32)
    grain = surrounding_grain(lambda box: scan[box.slices], HOLE, [(BOX, fill, inside)], 0.0)
    assert grain is not None
    big = Box(0, 0, SIDE, SIDE)
    for share in (0.25, 0.5, 0.9):
        weight = np.full((SIDE, SIDE), share, np.float32)
        mixed = (share * SMOOTH + (1 - share) * scan).astype(np.float32)
        total = add_grain(mixed, big, grain, "row", weight) - SMOOTH
        np.testing.assert_allclose(total.std(axis=(0, 1)), 4 * STEP, rtol=0.06)
