"""Maps that keep only what is true, against plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inpaint_batch.holes import components, sparse
from inpaint_batch.holes.components import Hole, find_holes
from inpaint_batch.holes.distance import grow
from inpaint_batch.holes.sparse import SparseMap, empty_map, may_hold, num_true
from inpaint_batch.types import Box

SIDES = st.integers(0, 700)


def sparse_twin(hole: np.ndarray, step: int = 100) -> SparseMap:
    """The same map, written in pieces that do not fit its blocks."""
    twin = SparseMap(hole.shape)
    image = Box(0, 0, *hole.shape)
    for top in range(0, hole.shape[0], step):
        for left in range(0, hole.shape[1], 3 * step):
            box = Box(top, left, step, 3 * step).intersect(image)
            twin.add(box, hole[box.slices])
    return twin


def drawn(shape: tuple[int, int], *boxes: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros(shape, np.bool_)
    for box in boxes:
        hole[Box(*box).slices] = True
    return hole


@settings(max_examples=50)
@given(hnp.arrays(np.bool_, (5, 7)), SIDES, SIDES, SIDES, SIDES)
def test_reads_like_an_array(coarse: np.ndarray, top: int, bottom: int, left: int, right: int) -> None:
    hole = coarse.repeat(113, axis=0).repeat(91, axis=1)
    twin = sparse_twin(hole)
    part = twin[top:bottom, left:right]
    assert part.dtype == np.bool_
    np.testing.assert_array_equal(part, hole[top:bottom, left:right])
    assert num_true(twin) == num_true(hole) == hole.sum()
    covered = np.zeros_like(hole)
    for box in twin.blocks():
        assert hole[box.slices].any()
        covered[box.slices] = True
    assert not (hole & ~covered).any()
    box = Box(top, left, 40, 40).intersect(Box(0, 0, *hole.shape))
    assert may_hold(twin, box) or not hole[box.slices].any()


def test_nothing_costs_nothing_and_all_a_bit_a_pixel() -> None:
    map_ = empty_map((40_000, 40_000))
    assert isinstance(map_, SparseMap)
    assert map_.nbytes < 50_000
    assert not may_hold(map_, Box(0, 0, 40_000, 40_000))
    map_.add(Box(39_990, 39_900, 10, 100), np.ones((10, 100), np.bool_))
    assert map_[39_999:40_000, 39_890:40_000].sum() == 100
    full = SparseMap((1024, 1024))
    full.add(Box(0, 0, 1024, 1024), np.ones((1024, 1024), np.bool_))
    assert full.nbytes < 1024 * 1024 / 8 * 1.05
    assert isinstance(empty_map((100, 100)), np.ndarray)


@settings(max_examples=20)
@given(st.integers(0, 30), st.integers(0, 300), st.integers(0, 300))
def test_grows_like_an_array(radius_px: int, top: int, left: int) -> None:
    hole = drawn((520, 530), (top, left, 3, 2), (200, 300, 40, 1))
    grown = grow(sparse_twin(hole), radius_px)
    assert isinstance(grown, SparseMap)
    np.testing.assert_array_equal(grown[:, :], grow(hole, radius_px))


@settings(max_examples=15)
@given(hnp.arrays(np.bool_, (5, 6)))
def test_holes_are_found_alike(coarse: np.ndarray) -> None:
    hole = coarse.repeat(60, axis=0).repeat(70, axis=1)
    hole[:, 300:303] = False
    with pytest.MonkeyPatch.context() as patch:
        want = find_holes(hole)
        patch.setattr(components, "TILE_PX", 128)
        assert find_holes(sparse_twin(hole)) == want


def test_the_depth_of_large_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is 795 px deep; of its cells of 16 px those from row 112 to row 1680 are all missing: 49 deep."""
    image = drawn((1800, 1900), (50, 50, 1200, 1201), (0, 900, 50, 2))
    (want,) = find_holes(image[:1024, :1024])
    assert want.depth_px == 974.0  # the border of the image does not count as known
    (large,) = find_holes(image[:1300, :1300])
    assert large == Hole(Box(0, 50, 1250, 1201), 1200 * 1201 + 100, 600.0)
    hole = drawn((1800, 1900), (100, 150, 1590, 1700))
    found = find_holes(hole)
    assert found == [Hole(Box(100, 150, 1590, 1700), 1590 * 1700, 49 * 16.0)]
    monkeypatch.setattr(sparse, "SIDE_PX", 64)
    assert find_holes(sparse_twin(image[:1300, :1300])) == [large]
    assert find_holes(sparse_twin(hole)) == found


def test_a_long_diagonal_is_one_hole() -> None:
    hole = np.eye(3000, dtype=np.bool_)
    hole[1500:, 1500] = True
    (found,) = find_holes(sparse_twin(hole))
    assert (found.box, found.area_px, found.depth_px) == (Box(0, 0, 3000, 3000), 4499, 1.0)
