"""Polygons, text and silhouettes: shares within range, seeded, never trivial, and of the look they are named for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes.shapes import polygon_hole, silhouette_hole, text_hole

DRAWS = [polygon_hole, text_hole, silhouette_hole]


@pytest.mark.parametrize("draw", DRAWS)
@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), height=st.integers(48, 160), width=st.integers(48, 160))
def test_shares_stay_within_their_range(draw, seed: int, height: int, width: int) -> None:
    hole = draw(np.random.default_rng(seed), height, width, (0.05, 0.25))
    assert hole.shape == (height, width)
    assert hole.dtype == np.bool_
    assert 0.03 <= hole.mean() <= 0.251


@pytest.mark.parametrize("draw", DRAWS)
def test_same_seed_same_hole(draw) -> None:
    assert np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(5), 64, 64))
    assert not np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(6), 64, 64))
    with pytest.raises(ConfigError, match="two fractions"):
        draw(np.random.default_rng(0), 64, 64, (0.5, 0.2))


@pytest.mark.parametrize("draw", DRAWS)
def test_even_odd_ranges_give_holes(draw) -> None:
    tiny = draw(np.random.default_rng(0), 64, 64, (0.0001, 0.0002))
    huge = draw(np.random.default_rng(0), 64, 64, (0.9, 0.99))
    assert tiny.any()
    assert not huge.all()
    assert huge.mean() > 0.5


def test_text_is_thin_and_silhouettes_are_thick() -> None:
    def depth(hole: np.ndarray) -> float:
        return float(cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 5).max())

    depths = {
        draw: np.median([depth(draw(np.random.default_rng(seed), 128, 128, (0.1, 0.12))) for seed in range(20)])
        for draw in DRAWS
    }
    assert depths[text_hole] < depths[polygon_hole]
    assert depths[silhouette_hole] > 2 * depths[text_hole]
