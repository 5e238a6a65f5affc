"""Batches that memory does not suffice for are halved, and that is remembered; a tile that never fits is not that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inpaint_batch.execution.careful import CarefulRunner
from inpaint_batch.types import FloatArray


class Engine:
    """Fills a tile with its number; has memory for `room` at a time, and never for those of `too_large`."""

    def __init__(self, room: int = 100, too_large: frozenset[int] = frozenset()) -> None:
        self.room, self.too_large = room, too_large
        self.sizes: list[int] = []

    def __call__(self, tiles: Sequence[int]) -> Sequence[FloatArray]:
        self.sizes.append(len(tiles))
        if len(tiles) > self.room or self.too_large.intersection(tiles):
            raise MemoryError
        return [np.full((3, 2, 2), tile, np.float32) for tile in tiles]


def told(found: Sequence[FloatArray | Exception]) -> list[int | str]:
    return [type(each).__name__ if isinstance(each, Exception) else int(each[0, 0, 0]) for each in found]


def test_what_fitted_is_remembered_for_its_side() -> None:
    engine = Engine(room=2)
    runner = CarefulRunner[int](engine, lambda side_px: 8)
    assert told(runner.run(256, [1, 2, 3, 4, 5])) == [1, 2, 3, 4, 5]
    assert engine.sizes == [5, 3, 2, 1, 2]
    assert (runner.batch_size(256), runner.batch_size(64)) == (2, 8)


def test_a_tile_that_never_fits_makes_no_batch_smaller() -> None:
    engine = Engine(too_large=frozenset({2}))
    runner = CarefulRunner[int](engine, lambda side_px: 8)
    assert told(runner.run(64, [1, 2, 3, 4])) == [1, "MemoryError", 3, 4]
    assert engine.sizes == [4, 2, 1, 1, 2]
    assert runner.batch_size(64) == 8
