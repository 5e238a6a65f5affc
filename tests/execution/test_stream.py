"""Chunks that overlap in one run of the local executor: each caller gets its own rows back, errors reach all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest
from execution_cases import row_task

from inpaint_batch.errors import EngineError
from inpaint_batch.execution.stream import Stream
from inpaint_batch.execution.tasks import RowOutcome, RowTask


class Executor:
    """Takes rows as the local executor does, a few at a time, and ends those that `may_end` lets."""

    def __init__(self, may_end: Callable[[str], bool] = lambda name: True) -> None:
        self.may_end = may_end
        self.in_flight: set[str] = set()
        self.most_in_flight = 0
        self.num_runs = self.num_rows_taken = 0

    def run(self, tasks: Iterable[RowTask | None], stopping: Callable[[], bool]) -> Generator[RowOutcome]:
        self.num_runs += 1
        waiting: list[RowTask] = []
        for task in tasks:
            if stopping():
                return
            if task is not None:
                waiting.append(task)
                self.num_rows_taken += 1
                self.in_flight.add(task.row.id)
                self.most_in_flight = max(self.most_in_flight, len(self.in_flight))
            for done in [one for one in waiting if self.may_end(one.row.id)]:
                waiting.remove(done)
                self.in_flight.discard(done.row.id)
                yield RowOutcome(done)


def chunk(name: str, num_rows: int = 4) -> list[RowTask]:
    return [row_task(f"{name}{number}") for number in range(num_rows)]


def ids(outcomes: list[RowOutcome]) -> list[str]:
    return sorted(outcome.task.row.id for outcome in outcomes)


def test_chunks_overlap_and_each_gets_its_own_rows():
    executor = Executor(lambda name: name.startswith("b") or second_is_done.is_set())
    second_is_done = threading.Event()
    stream = Stream(executor)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(stream.do, 1, chunk("a"))
        assert ids(stream.do(1, chunk("b"))) == ["b0", "b1", "b2", "b3"]  # while none of the first could end
        assert not first.done()
        second_is_done.set()
        assert ids(first.result(60)) == ["a0", "a1", "a2", "a3"]
    for number in range(20):
        assert ids(stream.do(1, chunk(f"{number}-"))) == ids([RowOutcome(task) for task in chunk(f"{number}-")])
    assert executor.num_runs == 1
    assert stream.num_rows == 88


def test_told_to_leave_it_begins_no_row_of_that_round_and_goes_on_with_the_next():
    executor = Executor(lambda name: not name.startswith("stuck"))
    stream = Stream(executor)
    with ThreadPoolExecutor(1) as callers:
        stuck = callers.submit(stream.do, 1, chunk("stuck"))
        while not executor.in_flight:
            pass
        stream.leave(1)
        assert stuck.result(60) == []
    assert stream.do(1, chunk("late")) == []
    executor.in_flight.clear()
    assert len(stream.do(2, chunk("next"))) == 4


def test_what_ends_a_run_reaches_whoever_waits_and_the_next_is_done():
    def fails(name: str) -> bool:
        if name == "b3":
            raise EngineError("the device is gone")
        return not name.startswith("a")

    executor = Executor(fails)
    stream = Stream(executor)
    with ThreadPoolExecutor(1) as callers:
        first = callers.submit(stream.do, 1, chunk("a"))
        while not executor.in_flight:
            pass
        with pytest.raises(EngineError, match="device is gone"):
            stream.do(1, chunk("b"))
        with pytest.raises(EngineError, match="device is gone"):
            first.result(60)
    assert len(stream.do(1, chunk("c"))) == 4
    assert executor.num_runs == 2


def test_a_row_that_comes_again_while_it_is_worked_on_ends_for_both():
    """A driver that was cut off for a moment takes the worker for lost, and may send it the same rows once more."""
    may_end = threading.Event()
    executor = Executor(lambda name: may_end.is_set())
    stream = Stream(executor)
    with ThreadPoolExecutor(2) as callers:
        first = callers.submit(stream.do, 1, chunk("a"))
        second = callers.submit(stream.do, 1, chunk("a", 1))
        while executor.num_rows_taken < 5:
            pass
        may_end.set()
        assert sorted(map(ids, (first.result(9), second.result(9)))) == [["a0"], ["a0", "a1", "a2", "a3"]]
    assert ids(stream.do(1, chunk("b"))) == ["b0", "b1", "b2", "b3"]
