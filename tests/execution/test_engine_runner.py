"""Between plan and engine: tiles are loaded while the engine fills others."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.engine_runner import EngineRunner
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.mirrors import MirroredEngine
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.tiling.fill import TileInput
from inpaint_batch.types import FloatArray

SIDE_PX = 64
PATIENCE_S = 20.0


class Request:
    """Loads a tile of one grey."""

    side_px = SIDE_PX

    def __init__(self, grey: float, before: Callable[[], object] = lambda: None) -> None:
        self.grey, self.before = grey, before
        self.num_loads = 0

    def load(self) -> TileInput:
        self.before()
        self.num_loads += 1
        image = np.full((3, SIDE_PX, SIDE_PX), self.grey, np.float32)
        return TileInput(image, np.zeros((1, SIDE_PX, SIDE_PX), np.float32), np.zeros_like(image), 0.0)


class Engine(IdentityEngine):
    """Returns known pixels as they are, after `before` was called."""

    before: Callable[[], object] = staticmethod(lambda: None)

    def fill(self, batch: TileBatch) -> FloatArray:
        self.before()
        return super().fill(batch)


def greys(filled: list[FloatArray]) -> list[float]:
    return [float(tile[0, 0, 0]) for tile in filled]


def test_tiles_come_back_in_order_and_are_loaded_once() -> None:
    runner = EngineRunner(Engine())
    tiles = [Request(number / 16) for number in range(12)]
    runner.anticipate(tiles[4:9])
    assert greys(runner.fill(tiles[:6])) == [number / 16 for number in range(6)]
    assert greys(runner.fill(tiles[6:])) == [number / 16 for number in range(6, 12)]
    assert [tile.num_loads for tile in tiles] == [1] * 12


def test_the_next_tiles_are_loaded_while_the_engine_works() -> None:
    loaded = threading.Event()
    engine = Engine()
    runner = EngineRunner(engine)
    now, later = Request(0.25), Request(0.5, loaded.set)
    engine.before = lambda: loaded.wait(PATIENCE_S) or pytest.fail("nothing was loaded while the engine was at work")
    runner.anticipate([later])
    assert greys(runner.fill([now])) == [0.25]
    assert greys(runner.fill([later])) == [0.5]
    assert later.num_loads == 1


def test_what_reading_raises_is_raised_by_the_tile_alone() -> None:
    def damaged() -> None:
        raise RowError(FailureCode.READ, "strip 3 is damaged")

    runner = EngineRunner(Engine())
    sound, broken = Request(0.25), Request(0.5, damaged)
    runner.anticipate([sound, broken])
    with pytest.raises(RowError, match="strip 3"):
        runner.fill([sound, broken])
    assert greys(runner.fill([sound])) == [0.25]
    with pytest.raises(RowError, match="strip 3"):
        runner.fill([broken])


def test_tiles_that_nobody_wants_any_more_are_forgotten() -> None:
    runner = EngineRunner(Engine())
    tiles = [Request(0.25), Request(0.5)]
    runner.anticipate(tiles)
    kept = tiles.pop()
    assert greys(runner.fill([kept])) == [0.5]
    runner._loaders.shutdown()  # the other one is loaded, too
    tiles.clear()
    gc.collect()
    assert not runner._loading


class Leftmost(IdentityEngine):
    """Fills the left half with 1, whichever way the tile is turned."""

    def fill(self, batch: TileBatch) -> FloatArray:
        filled = super().fill(batch)
        half = np.zeros_like(batch.hole)
        half[..., : SIDE_PX // 2] = 1
        return np.where(batch.hole * half > 0, np.float32(1), filled)


class Half(Request):
    """Its upper half is hole, of which it answers for 10 rows of 8 columns."""

    own_slices = (slice(20, 40), slice(4, 12))
    spread: float | None = None

    def load(self) -> TileInput:
        tile = super().load()
        tile.hole[:, :30] = 1
        return tile


def test_tiles_are_told_how_far_passes_over_their_own_holes_are_apart() -> None:
    """One pass fills with 1 where the other leaves 0: a variance of 1/4 for each of 80 pixels."""
    tile = Half(0.5)
    EngineRunner(MirroredEngine(Leftmost(), 2)).fill([tile])
    assert tile.spread == pytest.approx(80 / 4)
    once = Half(0.5)
    EngineRunner(Leftmost()).fill([once])
    assert once.spread is None
