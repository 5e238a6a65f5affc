"""What becomes of rows whose worker was lost: who is blamed, what is tried again, and what is given up.

A worker does not live to say which of its rows it died of, so all that it had are suspects. A suspect is tried again
*alone*: its worker has nothing else then, and if it is lost once more there is no doubt. A row that is innocent is
done at its first try alone; a deadly one is given up at the MAX_DEATHS-th death, a hanging one as soon as it has hung
alone. Where a worker was lost with its whole machine, taken back by whoever lent it as a rule, no row is blamed, until
it happens so often with one that it must be the row. Knows neither workers nor clocks.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from inpaint_batch.errors import FailureCode
from inpaint_batch.execution.tasks import Failure, RowOutcome, RowTask

MAX_DEATHS = 3
"""Deaths of a worker after which a row is given up: once in company, then alone."""
MAX_MACHINES = 10
"""Machines lost with a row after which it is given up."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Rows that travel together."""

    tasks: list[RowTask]
    alone: bool = False
    """Whether the worker shall have no other rows meanwhile."""


class Requeue:
    """Rows to be tried again."""

    def __init__(self, row_timeout_s: float = 0.0) -> None:
        """`row_timeout_s` is told to people whose row hung."""
        self._row_timeout_s = row_timeout_s
        self._deaths: Counter[str] = Counter()
        self._machines: Counter[str] = Counter()
        self._chunks: deque[Chunk] = deque()

    def __len__(self) -> int:
        """Chunks that wait."""
        return len(self._chunks)

    def next(self) -> Chunk | None:
        """The chunk that has waited longest, or None."""
        return self._chunks.popleft() if self._chunks else None

    def clear(self) -> None:
        """Forget them: the next run does them."""
        self._chunks.clear()

    def died(self, chunks: Iterable[Chunk], *, of_memory: bool = False, with_machine: bool = False) -> list[RowOutcome]:
        """A worker died with these; returns the end of rows that are given up.

        `of_memory`: the system ended it because memory ran out. `with_machine`: its machine was lost.
        """
        given_up = []
        for task in _tasks(chunks):
            if with_machine:
                self._machines[task.row.id] += 1
                if self._machines[task.row.id] < MAX_MACHINES:
                    self._alone(task)
                else:
                    given_up.append(RowOutcome(task, _MACHINES_LOST))
                continue
            self._deaths[task.row.id] += 1
            if self._deaths[task.row.id] < MAX_DEATHS:
                self._alone(task)
            else:
                given_up.append(RowOutcome(task, _OUT_OF_MEMORY if of_memory else _CRASHED))
        return given_up

    def hung(self, chunks: Iterable[Chunk]) -> list[RowOutcome]:
        """A worker was taken away from these since none came to its end; returns the end of rows that are given up."""
        tasks = _tasks(chunks)
        if len(tasks) == 1:
            return [RowOutcome(tasks[0], _timed_out(self._row_timeout_s))]
        for task in tasks:
            self._alone(task)
        return []

    def unblamed(self, chunks: Iterable[Chunk]) -> None:
        """These were never begun."""
        self._chunks.extend(chunks)

    def _alone(self, task: RowTask) -> None:
        self._chunks.append(Chunk([msgspec.structs.replace(task, attempt=task.attempt + 1)], alone=True))


def _tasks(chunks: Iterable[Chunk]) -> list[RowTask]:
    return [task for chunk in chunks for task in chunk.tasks]


_CRASHED = Failure(
    FailureCode.CRASH,
    f"the worker died {MAX_DEATHS} times with this row, at last alone; look at the image and at the memory of the "
    "workers, then run with --retry-failed",
    retryable=True,
)
_MACHINES_LOST = Failure(
    FailureCode.CRASH,
    f"{MAX_MACHINES} machines were lost while a worker there had this row; if they were taken away each time, run with "
    "--retry-failed on others, or with smaller rows; else look at the image",
    retryable=True,
)
_OUT_OF_MEMORY = Failure(
    FailureCode.MEMORY,
    f"the system ended the worker {MAX_DEATHS} times for want of memory with this row, at last alone; give the workers "
    "more memory, then run with --retry-failed",
    retryable=True,
)


def _timed_out(limit_s: float) -> Failure:
    return Failure(
        FailureCode.TIMEOUT,
        f"the row took longer than {limit_s:g} s; look at it, or raise --row-timeout and run with --retry-failed",
        retryable=True,
    )
