"""Passes over mirrored tiles: averaged by hand, exact where nothing is filled."""

from __future__ import annotations

import numpy as np
import pytest

from inpaint_batch.errors import UsageError
from inpaint_batch.runtime.engine import Engine, TileBatch
from inpaint_batch.runtime.mirrors import MirroredEngine, fill_each, mean, variance
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.types import FloatArray


class Ramp(IdentityEngine):
    """Fills holes with numbers of column, row and channel, whatever lies there: it does not follow a mirrored tile."""

    def fill(self, batch: TileBatch) -> FloatArray:
        return batch.image * (1 - batch.hole) + batch.hole * ramp(batch.side_px)


def ramp(side_px: int) -> FloatArray:
    """(3, side, side): column, 64 × row, 4096 × channel."""
    channel, row, column = np.mgrid[0:3, 0:side_px, 0:side_px].astype(np.float32)
    return column + 64 * row + 4096 * channel


def batch_of(image: FloatArray, hole: FloatArray) -> TileBatch:
    num = len(image)
    return TileBatch(image * (1 - hole), hole, np.zeros_like(image), np.zeros((num, 1, 1, 1), np.float32))


@pytest.mark.parametrize(("passes", "averaged"), [(1, ()), (2, (2,)), (4, (1, 2))])
def test_fills_of_a_tile_and_its_mirrors_are_averaged(passes: int, averaged: tuple[int, ...]) -> None:
    """Column c is filled with c, and in the mirrored tile with 63 - c: the mean is 31.5 everywhere. So are rows with
    four passes; channels are never turned around."""
    hole = np.ones((2, 1, 64, 64), np.float32)
    filled = MirroredEngine(Ramp(), passes).fill(batch_of(np.zeros((2, 3, 64, 64), np.float32), hole))
    expected = ramp(64).mean(axis=averaged, keepdims=True) if averaged else ramp(64)
    np.testing.assert_array_equal(filled, np.broadcast_to(expected, (2, 3, 64, 64)))


@pytest.mark.parametrize("passes", [2, 4])
def test_half_of_the_passes_start_from_a_prior_that_may_be_left_out(passes: int) -> None:
    seen = []

    class Start(IdentityEngine):
        """Fills with what a network would start from, or with 0.75 without a prior."""

        def fill(self, batch: TileBatch) -> FloatArray:
            seen.append(batch.prior_weight.ravel().tolist())
            assert (batch.prior[batch.prior_weight.ravel() == 0] == 0).all()
            start = np.where(batch.prior_weight > 0, batch.prior, np.float32(0.75))
            return np.where(batch.hole > 0, start, batch.image)

    ones = np.ones((3, 1, 64, 64), np.float32)
    weight = np.array([0.0, 0.5, 1.0], np.float32).reshape(-1, 1, 1, 1)
    prior = np.float32(0.25) * np.ones((3, 3, 64, 64), np.float32) * (weight > 0)
    filled = MirroredEngine(Start(), passes).fill(TileBatch(np.zeros_like(prior), ones, prior, weight))
    assert seen == [[0.0, 1.0, 1.0]] * (passes // 2) + [[0.0, 0.0, 1.0]] * (passes // 2)
    assert [np.unique(each).tolist() for each in filled] == [[0.75], [0.5], [0.25]]


def test_the_inner_engine_says_how_much_it_takes_and_is_closed() -> None:
    closed = []

    class Inner(Ramp):
        def batch_size(self, side_px: int) -> int:
            return side_px // 32

        def close(self) -> None:
            closed.append(True)

    engine = MirroredEngine(Inner(), 2)
    assert [engine.batch_size(side_px) for side_px in (64, 256)] == [2, 8]
    engine.close()
    assert closed == [True]


@pytest.mark.parametrize("passes", [2, 4])
def test_known_pixels_come_back_bit_for_bit(passes: int) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((3, 3, 64, 64), np.float32)
    hole = (rng.random((3, 1, 64, 64)) < 0.3).astype(np.float32)
    filled = MirroredEngine(Ramp(), passes).fill(batch_of(image, hole))
    known = np.broadcast_to(hole == 0, image.shape)
    np.testing.assert_array_equal(filled[known], image[known])


def test_passes_are_part_of_the_identity() -> None:
    engine: Engine = MirroredEngine(IdentityEngine(), 2)
    assert engine.identity != IdentityEngine().identity
    with pytest.raises(UsageError, match="1, 2 or 4"):
        MirroredEngine(IdentityEngine(), 3)


def test_a_rehearsal_is_not_mirrored() -> None:
    assert select_engine("identity", passes=4).identity == IdentityEngine().identity


def test_how_far_passes_are_apart_is_their_variance() -> None:
    """Fills of 1 and 5 in one band: mean 3, variance 4; none in the others. 1, 5, 5, 5: mean 4, variance 3."""
    first, second = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    first[1], second[1] = 1, 5
    first[:, 0, 0] = second[:, 0, 0] = 7
    where = np.array([[0, 1], [1, 1]])
    np.testing.assert_allclose(variance([first, second]), 4 / 3 * where, rtol=1e-6)
    np.testing.assert_allclose(variance([first, second, second, second]), 3 / 3 * where, rtol=1e-6)
    assert not variance([second]).any()


@pytest.mark.parametrize("passes", [2, 4])
def test_each_pass_can_be_asked_for(passes: int) -> None:
    batch = batch_of(np.zeros((2, 3, 64, 64), np.float32), np.ones((2, 1, 64, 64), np.float32))
    engine = MirroredEngine(Ramp(), passes)
    fills = fill_each(engine, batch)
    assert len(fills) == passes
    np.testing.assert_array_equal(fills[0][0], ramp(64))
    np.testing.assert_array_equal(fills[1][1], ramp(64)[..., ::-1])
    np.testing.assert_array_equal(mean(fills), engine.fill(batch))
    assert len(fill_each(Ramp(), batch)) == 1
