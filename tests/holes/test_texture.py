"""Texture: the strength of a filter's response around each pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from inpaint_batch.holes.texture import texture


@pytest.mark.parametrize("shape", [(64, 96), (61, 83), (5, 7), (1, 4)])
def test_of_an_even_response_it_is_that_response(shape: tuple[int, int]) -> None:
    found = texture(np.full(shape, 0.25, np.float32), 12.0)
    assert (found.shape, found.dtype) == (shape, np.float32)
    np.testing.assert_allclose(found, 0.25, rtol=1e-6)


@pytest.mark.parametrize("sigma_px", [12.0, 20.0])
@pytest.mark.parametrize("shape", [(300, 410), (299, 413)])
def test_it_is_the_root_of_the_gaussian_mean_of_squares(shape: tuple[int, int], sigma_px: float) -> None:
    rng = np.random.default_rng(0)
    response = (rng.random(shape) ** 8).astype(np.float32)
    response[100:110, 200:203] = 3
    exact = np.sqrt(cv2.GaussianBlur(response * response, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101))
    found = texture(response, sigma_px)
    np.testing.assert_allclose(found, exact, rtol=0.05)
    inside = (slice(60, -60), slice(60, -60))
    assert abs(found / exact - 1)[inside].mean() < 0.005


def test_parts_of_an_image_have_the_texture_of_the_whole() -> None:
    response = np.random.default_rng(1).random((640, 640)).astype(np.float32)
    whole = texture(response, 12.0)
    part = texture(response[160:, 160:], 12.0)
    np.testing.assert_allclose(part[160:, 160:], whole[320:, 320:], rtol=1e-5)
