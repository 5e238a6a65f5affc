"""Samples to RGB and back: exact for every value, clipped, rounded, alpha left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.colour import rgb_to_samples, samples_to_rgb
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
