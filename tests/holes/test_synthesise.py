"""Synthetic holes: shares within range, seeded, never trivial."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes.synthesise import DamageLibrary, box_hole, stroke_hole


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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_boxes_reach_their_share(seed: int) -> None:
    hole = box_hole(np.random.default_rng(seed), 128, 96, (0.05, 0.20))
    assert 0.05 <= hole.mean() <= 0.26


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_damage_stays_within_its_range(library: DamageLibrary, seed: int) -> None:
    hole = library.hole(np.random.default_rng(seed), 128, 128, (0.01, 0.08))
    assert 0.0005 < hole.mean() <= 0.13


def test_same_seed_same_hole(library: DamageLibrary) -> None:
    for draw in (stroke_hole, box_hole, library.hole):
        assert np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(5), 64, 64))
        assert not np.array_equal(draw(np.random.default_rng(5), 64, 64), draw(np.random.default_rng(6), 64, 64))


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two fractions"):
        stroke_hole(np.random.default_rng(0), 64, 64, (0.5, 0.2))
    with pytest.raises(ConfigError, match="no PNG files"):
        DamageLibrary(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(ConfigError, match=r"broken\.png"):
        DamageLibrary(tmp_path).hole(np.random.default_rng(0), 64, 64)
