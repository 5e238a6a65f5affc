"""Samples to RGB and back: exact for every value, clipped, rounded, alpha left alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.colour import rgb_to_samples, robust_levels, samples_to_rgb
from inpaint_batch.imaging.ink import Black, inks_of, light_of
from inpaint_batch.types import Header


def header_for(dtype: str, num_bands: int) -> Header:
    return Header("png", 1, 1, num_bands, dtype, num_bands in (2, 4))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("num_bands", [1, 2, 3, 4])
def test_every_value_survives(dtype: str, num_bands: int) -> None:
    values = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    samples = np.stack([np.roll(values, 77 * band) for band in range(num_bands)], axis=-1).reshape(256, -1, num_bands)
    header = header_for(dtype, num_bands)
    rgb = samples_to_rgb(samples, header)
    assert rgb.dtype == np.float32
    assert rgb.shape == (*samples.shape[:2], 3)
    assert rgb.min() == 0.0
    assert rgb.max() == 1.0
    np.testing.assert_array_equal(rgb_to_samples(rgb, samples, header), samples)


@pytest.mark.parametrize("num_bands", [2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_light_that_is_multiplied_by_alpha_is_never_more_than_that(dtype: str, num_bands: int) -> None:
    header = replace(header_for(dtype, num_bands), is_premultiplied=True)
    white = np.iinfo(dtype).max
    samples = np.zeros((1, 3, num_bands), dtype)
    samples[0, :, -1] = (white, white // 5, 0)
    samples[0, :, :-1] = (white // 5 * 2,), (white // 25,), (0,)
    rgb = samples_to_rgb(samples, header)
    np.testing.assert_allclose(rgb[0, :, 0], (0.4, 0.2, 0), atol=0.01)
    np.testing.assert_array_equal(rgb_to_samples(rgb, samples, header), samples)
    bright = rgb_to_samples(np.ones((1, 3, 3), np.float32), samples, header)
    np.testing.assert_array_equal(bright, np.repeat(samples[..., -1:], num_bands, axis=2))
    samples[..., -1] = 101
    rounded = rgb_to_samples(np.full((1, 3, 3), 0.6, np.float32), samples, header)  # 60.6
    assert (rounded[..., :-1] == 61).all()


@pytest.mark.parametrize(("num_bands", "alpha"), [(2, 100), (4, 100), (4, 1)])
def test_light_that_is_more_than_its_alpha_is_white(num_bands: int, alpha: int) -> None:
    header = replace(header_for("uint8", num_bands), is_premultiplied=True)
    samples = np.full((1, 1, num_bands), 200, np.uint8)
    samples[..., -1] = alpha
    np.testing.assert_array_equal(samples_to_rgb(samples, header), np.ones((1, 1, 3), np.float32))


@given(
    st.sampled_from(["uint8", "uint16"]),
    arrays.arrays(np.float32, (3, 4, 3), elements=st.floats(-1, 2, width=32)),
    st.integers(1, 4),
)
def test_any_rgb_lands_on_the_nearest_step(dtype: str, rgb: np.ndarray, num_bands: int) -> None:
    header = header_for(dtype, num_bands)
    original = np.full((3, 4, num_bands), 9, dtype)
    samples = rgb_to_samples(rgb, original, header)
    assert samples.dtype == original.dtype
    white = np.iinfo(dtype).max
    exact = rgb.astype(np.float64) if header.num_colours == 3 else rgb.astype(np.float64).mean(axis=2, keepdims=True)
    distance = np.abs(samples[..., : header.num_colours] - np.clip(exact, 0, 1) * white)
    assert distance.max() <= 0.5 + white * 2e-7
    assert (samples[..., header.num_colours :] == 9).all()
    assert (original == 9).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_nan_ever_becomes_a_sample(bad: float) -> None:
    rgb = np.zeros((2, 2, 3), np.float32)
    rgb[1, 1, 2] = bad
    with pytest.raises(RowError) as caught:
        rgb_to_samples(rgb, np.zeros((2, 2, 3), np.uint8), header_for("uint8", 3))
    assert caught.value.code == FailureCode.NONFINITE


@given(arrays.arrays(np.float32, (3, 4, 3), elements=st.floats(-1, 2, width=32)), st.sampled_from(["uint8", "uint16"]))
def test_ink_without_a_profile_comes_back_to_the_colour(rgb: np.ndarray, dtype: str) -> None:
    header = Header("tiff", 4, 3, 5, dtype, True, model="ink")
    original = np.full((3, 4, 5), 9, dtype)
    samples = rgb_to_samples(rgb, original, header)
    assert samples.dtype == original.dtype
    assert (samples[..., 4] == 9).all()
    assert (samples[..., :3].min(axis=2) == 0).all()  # what all three inks have in common is printed black
    step = 1 / np.iinfo(dtype).max
    np.testing.assert_allclose(samples_to_rgb(samples, header), np.clip(rgb, 0, 1), atol=1.01 * step)


@given(arrays.arrays(np.float32, (5, 3), elements=st.floats(0, 1, width=32)), st.lists(st.floats(0, 1), min_size=2))
def test_any_share_of_black_gives_the_same_light(rgb: np.ndarray, shares: list[float]) -> None:
    black = Black(np.linspace(0, 1, len(shares)), np.array(shares))
    inks = inks_of(rgb, black)
    assert ((inks >= 0) & (inks <= 1)).all()
    np.testing.assert_allclose(light_of(inks), rgb, atol=2e-6)
    darkness = 1 - rgb.max(axis=1)
    np.testing.assert_allclose(inks[:, 3], darkness * np.interp(darkness, black.darkness, black.share), atol=1e-6)


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(1, 256), st.just(4))),
    arrays.arrays(np.uint8, (3, 4, 3)),
)
def test_the_nearest_opaque_entry_is_chosen(palette: np.ndarray, wanted: np.ndarray) -> None:
    header = Header("png", 4, 3, 1, "uint8", False, model="palette", palette=palette.tobytes())
    chosen = rgb_to_samples(wanted / np.float32(255), np.zeros((3, 4, 1), np.uint8), header)[..., 0]
    opaque = palette[:, 3] == 255
    usable = opaque if len(np.unique(palette[opaque], axis=0)) > 1 else np.ones(len(palette), np.bool_)
    assert usable[chosen].all()
    distance = ((wanted[:, :, None].astype(int) - palette[:, :3].astype(int)) ** 2).sum(axis=3)
    np.testing.assert_array_equal(
        np.take_along_axis(distance, chosen[..., None].astype(int), 2)[..., 0], distance[..., usable].min(axis=2)
    )


def test_every_index_of_a_palette_has_its_colour_and_those_beyond_are_black() -> None:
    palette = np.random.default_rng(5).integers(0, 256, (256, 4), np.uint8)
    indices = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    for num_entries in (256, 200):
        used = palette[:num_entries].tobytes()
        header = Header("png", 16, 16, 1, "uint8", False, model="palette", palette=used)
        expected = palette[:, :3] / np.float32(255)
        expected[num_entries:] = 0
        np.testing.assert_array_equal(samples_to_rgb(indices, header).reshape(256, 3), expected)


@pytest.mark.parametrize("model", ["palette", "ink"])
def test_known_samples_are_not_translated(model: str) -> None:
    rng = np.random.default_rng(3)
    palette = np.full((64, 4), 255, np.uint8)
    palette[:, :3] = rng.integers(0, 256, (64, 3))
    num_bands = 1 if model == "palette" else 4
    header = Header("tiff", 7, 5, num_bands, "uint8", False, model=model, palette=palette.tobytes())
    rgb, hole = rng.random((5, 7, 3), np.float32), rng.random((5, 7)) < 0.4
    original = np.full((5, 7, num_bands), 77, np.uint8)
    samples = rgb_to_samples(rgb, original, header, hole)
    np.testing.assert_array_equal(samples[hole], rgb_to_samples(rgb, original, header)[hole])
    assert (samples[~hole] == 77).all()


@given(arrays.arrays(np.float32, (5, 4, 3), elements=st.floats(width=32)))
def test_levels_suit_any_floats(samples: np.ndarray) -> None:
    black, white = robust_levels(samples)
    assert np.isfinite([black, white]).all()
    assert black < white
    assert np.isfinite(np.array([black, white], np.float32)).all()
    header = Header("tiff", 4, 5, 3, "float32", False, levels=(black, white))
    rgb = samples_to_rgb(samples, header)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    back = rgb_to_samples(rgb, samples, header)
    assert np.isfinite(back).all()
    inside = (samples >= black) & (samples <= white)
    np.testing.assert_allclose(back[inside], samples[inside], atol=max(1e-45, (white - black) * 1e-6), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint32", "int32"])
@pytest.mark.parametrize("levels", [(0, 2**31 - 1), (100, 200)])
def test_levels_of_integers_are_exact(dtype: str, levels: tuple[float, float]) -> None:
    header = Header("tiff", 2, 1, 1, dtype, False, levels=levels)
    samples = np.array(levels, dtype).reshape(1, 2, 1)
    np.testing.assert_array_equal(samples_to_rgb(samples, header)[..., 0], [[0, 1]])
    np.testing.assert_array_equal(rgb_to_samples(samples_to_rgb(samples, header), samples, header), samples)


def test_levels_look_at_known_samples_only_and_past_outliers() -> None:
    samples = np.linspace(10, 20, 10000, dtype=np.float32).reshape(100, 100, 1)
    known = np.ones((100, 100), np.bool_)
    samples[:20], known[:20] = -9999, False
    samples[50, 50] = 1e30
    black, white = robust_levels(samples[known])
    assert black == pytest.approx(12, abs=0.05)
    assert white == pytest.approx(20, abs=0.05)


def test_levels_leave_out_a_thousandth_on_each_side_and_are_values_of_the_file() -> None:
    assert robust_levels(np.arange(26000)) == (26, 25973)


@pytest.mark.parametrize(
    ("value", "levels"), [(0, (0, 1)), (5, (0, 5)), (0.5, (-0.5, 0.5)), (-0.5, (-0.5, 0.5)), (-5, (-5, 0))]
)
def test_levels_of_a_single_value_reach_towards_zero(value: float, levels: tuple[float, float]) -> None:
    assert robust_levels(np.full((2, 3, 1), value, np.float32)) == levels
