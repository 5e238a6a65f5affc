"""The batcher: results do not depend on packing, and a bad row falls alone."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import EngineError, FailureCode, RowError
from inpaint_batch.execution.batcher import Batcher, Filled
from inpaint_batch.types import FloatArray


@dataclass
class Tile:
    row: int
    value: float
    side_px: int


class Engine:
    """Fills a tile with twice its value; can be poisoned by row."""

    def __init__(self, poison: dict[int, Exception] | None = None, nan_rows: frozenset[int] = frozenset()) -> None:
        self.poison, self.nan_rows = poison or {}, nan_rows
        self.batches: list[tuple[int, int]] = []

    def __call__(self, tiles: Sequence[Tile]) -> Sequence[FloatArray]:
        sides = {tile.side_px for tile in tiles}
        assert len(sides) == 1
        self.batches.append((sides.pop(), len(tiles)))
        for tile in tiles:
            if tile.row in self.poison:
                raise self.poison[tile.row]
        values = [np.nan if tile.row in self.nan_rows else 2 * tile.value for tile in tiles]
        return [np.full((2, 2, 3), value, np.float32) for value in values]


def ready(tiles: Sequence[Tile]) -> None:
    """Nothing need be made ready."""


def window(row: int, levels: list[list[int]]) -> Generator[list[Tile], Sequence[FloatArray], float]:
    """Each level is a list of sides; the value of a tile depends on the sum of the level before."""
    total = float(row)
    for level in levels:
        filled = yield [Tile(row, total + index, side) for index, side in enumerate(level)]
        assert len(filled) == len(level)
        total = sum(float(pixels[0, 0, 0]) * (index + 1) for index, pixels in enumerate(filled)) % 1009
    return total


def fills(row: int, windows: list[list[list[int]]]):
    return (window(row, levels) for levels in windows)


def finish(batcher: Batcher[Tile, float]) -> dict[object, Filled[float]]:
    done = {}
    while batcher.num_jobs:
        for filled in batcher.step():
            assert filled.name not in done
            done[filled.name] = filled
    return done


sides = st.lists(st.sampled_from([64, 128, 256]), max_size=4)
rows = st.lists(st.lists(st.lists(sides, max_size=3), max_size=4), min_size=1, max_size=6)


@settings(max_examples=50)
@given(rows=rows, small=st.integers(1, 3), large=st.integers(4, 16))
def test_results_do_not_depend_on_the_size_of_batches(rows, small, large):
    outcomes = []
    for size in (small, large):
        batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side, size=size: size, ready)
        for row, windows in enumerate(rows):
            batcher.add(row, fills(row, windows))
        done = finish(batcher)
        assert set(done) == set(range(len(rows)))
        assert all(filled.error is None for filled in done.values())
        outcomes.append({name: (filled.results, filled.num_tiles) for name, filled in done.items()})
        assert batcher.num_jobs == 0
    assert outcomes[0] == outcomes[1]


@settings(max_examples=50)
@given(rows=rows, size=st.integers(1, 6), data=st.data())
def test_only_guilty_rows_fail(rows, size, data):
    poisoned = data.draw(st.sets(st.integers(0, len(rows) - 1)))
    guilty = {row for row in poisoned if any(side for levels in rows[row] for level in levels for side in level)}
    engine = Engine({row: RowError(FailureCode.INFER, f"row {row}") for row in poisoned})
    batcher: Batcher[Tile, float] = Batcher(engine, lambda side: size, ready)
    for row, windows in enumerate(rows):
        batcher.add(row, fills(row, windows))
    done = finish(batcher)
    assert {row for row, filled in done.items() if filled.error is not None} == guilty
    for row in guilty:
        assert done[row].error.message == f"row {row}"
    clean: Batcher[Tile, float] = Batcher(Engine(), lambda side: 4, ready)
    for row, windows in enumerate(rows):
        clean.add(row, fills(row, windows))
    for row, filled in finish(clean).items():
        if row not in guilty:
            assert done[row].results == filled.results


def test_batches_are_filled_across_rows():
    engine = Engine()
    batcher: Batcher[Tile, float] = Batcher(engine, lambda side: 8, ready)
    for row in range(4):
        batcher.add(row, [window(row, [[64, 64]]), window(row, [[64, 64]])])
    finish(batcher)
    assert engine.batches == [(64, 8), (64, 8)]


def test_results_stand_in_the_order_of_the_fills_and_not_of_their_ends():
    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 3, ready)
    batcher.add(0, [window(5, [[64], [64]]), window(7, [[64]]), window(9, [[]])])
    assert finish(batcher)[0].results == [20.0, 14.0, 0.0]


def test_nan_fails_one_row_as_nonfinite():
    batcher: Batcher[Tile, float] = Batcher(Engine(nan_rows=frozenset({1})), lambda side: 8, ready)
    for row in range(3):
        batcher.add(row, [window(row, [[64]])])
    done = finish(batcher)
    assert [row for row, filled in done.items() if filled.error] == [1]
    assert done[1].error.code is FailureCode.NONFINITE


def test_tiles_of_a_row_that_has_failed_are_run_no_more():
    batcher: Batcher[Tile, float] = Batcher(Engine(nan_rows=frozenset({0})), lambda side: 2, ready)
    batcher.add(0, [window(0, [[64] * 6])])
    batcher.add(1, [window(1, [[64] * 6])])
    done = finish(batcher)
    assert done[0].num_tiles == {64: 2}
    assert done[1].num_tiles == {64: 6}
    assert batcher._num_waiting == 0


def test_an_unexpected_exception_is_named_and_kept_for_the_log():
    batcher: Batcher[Tile, float] = Batcher(Engine({1: ZeroDivisionError("by zero")}), lambda side: 8, ready)
    for row in range(3):
        batcher.add(row, [window(row, [[64]])])
    done = finish(batcher)
    assert done[1].error.code is FailureCode.INFER
    assert "ZeroDivisionError: by zero" in done[1].error.message
    assert isinstance(done[1].cause, ZeroDivisionError)
    assert done[0].error is None
    assert done[2].error is None


def test_memory_error_is_retryable():
    batcher: Batcher[Tile, float] = Batcher(Engine({0: MemoryError()}), lambda side: 8, ready)
    batcher.add(0, [window(0, [[64]])])
    error = finish(batcher)[0].error
    assert (error.code, error.retryable) == (FailureCode.MEMORY, True)


def test_a_run_level_error_is_raised():
    batcher: Batcher[Tile, float] = Batcher(Engine({0: EngineError("gone")}), lambda side: 8, ready)
    batcher.add(0, [window(0, [[64]])])
    with pytest.raises(EngineError, match="gone"):
        batcher.step()


def test_a_fill_that_raises_while_it_prepares_fails_its_row_only():
    def broken() -> Generator[list[Tile], Sequence[FloatArray], float]:
        yield [Tile(1, 0.0, 64)]
        raise RowError(FailureCode.READ, "strip 3 is damaged")

    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 2, ready)
    batcher.add(0, [window(0, [[64]])])
    batcher.add(1, [broken(), window(1, [[64]])])
    batcher.add(2, [window(2, [[64]])])
    done = finish(batcher)
    assert done[1].error.message == "strip 3 is damaged"
    assert done[0].error is None
    assert done[2].error is None
    assert batcher._held_px == 0


def test_few_fills_are_open_at_once():
    opened = 0
    closed = 0

    def counted() -> Generator[list[Tile], Sequence[FloatArray], float]:
        nonlocal opened, closed
        opened += 1
        assert opened - closed <= 9
        yield [Tile(0, 0.0, 64)]
        closed += 1
        return 0.0

    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 4, ready)
    batcher.add(0, (counted() for _ in range(100)))
    assert not batcher.hungry
    assert finish(batcher)[0].num_tiles == {64: 100}


def test_fills_that_wait_for_a_seldom_side_are_few():
    num_open = most = 0

    def mixed() -> Generator[list[Tile], Sequence[FloatArray], float]:
        nonlocal num_open, most
        num_open += 1
        most = max(most, num_open)
        yield [Tile(0, 0.0, 256)] * 4 + [Tile(0, 0.0, 64)]
        num_open -= 1
        return 0.0

    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 4 if side == 256 else 1000, ready)
    batcher.add(0, (mixed() for _ in range(100)))
    assert finish(batcher)[0].num_tiles == {256: 400, 64: 100}
    assert 10 <= most <= 17  # 64 tiles of 256 px, and a fill more


def test_hungry_until_two_batches_are_full():
    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 2, ready)
    full = []
    for row in range(4):
        assert batcher.hungry
        full.append(batcher.has_full_batch)
        batcher.add(row, [window(row, [[64]])])
    assert not batcher.hungry
    assert full == [False, False, True, True]


def test_not_hungry_while_two_batches_of_a_later_level_wait():
    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 2, ready)
    batcher.add(0, [window(0, [[64], [64, 64, 64, 64]])])
    assert batcher.hungry
    batcher.step()
    assert not batcher.hungry


def test_not_hungry_while_open_fills_hold_as_much_as_they_may():
    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 1000, ready)
    batcher.add(0, (window(0, [[256]]) for _ in range(100)))
    assert not batcher.hungry  # another row could not be started either
    assert not batcher.has_full_batch


def test_fills_that_cannot_be_drawn_fail_their_row_only():
    def drawn(row: int) -> Generator[Generator[list[Tile], Sequence[FloatArray], float], None, None]:
        yield window(row, [[64, 64]])
        raise RowError(FailureCode.READ, "no second window")

    batcher: Batcher[Tile, float] = Batcher(Engine(), lambda side: 4, ready)
    batcher.add(0, drawn(0))
    batcher.add(1, [window(1, [[64]])])
    done = finish(batcher)
    assert (done[0].error.message, done[0].results) == ("no second window", [])
    assert (done[1].error, done[1].results) == (None, [2.0])
    assert (batcher._held_px, batcher._num_waiting) == (0, 0)


def test_the_next_batch_is_made_ready_while_one_is_run():
    told: list[list[float]] = []
    run: list[list[float]] = []

    class Watched(Engine):
        def __call__(self, tiles: Sequence[Tile]) -> Sequence[FloatArray]:
            run.append([tile.value for tile in tiles])
            assert len(told) == len(run)  # before it is run
            return super().__call__(tiles)

    batcher: Batcher[Tile, float] = Batcher(
        Watched(), lambda side: 2, lambda tiles: told.append([tile.value for tile in tiles])
    )
    batcher.add(0, [window(0, [[64]]) for _ in range(1)])
    batcher.add(10, [window(10, [[64, 64, 64, 64]])])
    while batcher.num_jobs > 1 or len(run) < 2:
        batcher.step()
    assert run[:2] == [[0.0, 10.0], [11.0, 12.0]]
    assert told[:2] == [[11.0, 12.0], [13.0]]


def test_nothing_is_made_ready_for_a_row_that_has_failed():
    """Its image is closed then; to load a tile of it would decode that again, beyond the memory that was counted."""
    anticipated: list[int] = []
    poison = {0: RowError(FailureCode.INFER, "no")}
    batcher: Batcher[Tile, float] = Batcher(
        Engine(poison), lambda side: 2, lambda tiles: anticipated.extend(tile.row for tile in tiles)
    )
    batcher.add(0, fills(0, [[[64, 64]], [[128]]]))
    batcher.add(1, fills(1, [[[64], [256, 256, 256]]]))
    assert [filled.name for filled in batcher.step()] == [0]
    anticipated.clear()
    assert list(finish(batcher)) == [1]
    assert set(anticipated) <= {1}
