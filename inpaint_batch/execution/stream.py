"""Chunks of rows that overlap: one run of the local executor goes on while chunks come and go.

Were each chunk a run of its own, the engine would stand still at the end of each: until its last rows are written and
the first of the next are read.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.execution.tasks import RowOutcome, RowTask


@dataclass(slots=True, eq=False)
class _Part:
    """A chunk on its way."""

    round_number: int
    tasks: list[RowTask]
    outcomes: list[RowOutcome] = field(default_factory=list)
    ended: Future[list[RowOutcome]] = field(default_factory=Future)


class Stream:
    """Takes chunks from several threads, and gives each its own outcomes back."""

    def __init__(self, executor: LocalExecutor) -> None:
        self._executor = executor
        self._inbox: queue.SimpleQueue[_Part] = queue.SimpleQueue()
        # By row; of the working thread alone. A row may come again while it is worked on: whoever sent it was cut off
        # from us for a moment, and took us for lost.
        self._open: dict[str, list[_Part]] = {}
        self._round = 0
        self._left = -1
        self.num_rows = 0
        """Rows brought to their end so far."""
        threading.Thread(target=self._work, name="stream", daemon=True).start()

    def do(self, round_number: int, tasks: list[RowTask]) -> list[RowOutcome]:
        """One outcome for each row, or fewer where it was told to leave. Raises what ends a run."""
        part = _Part(round_number, tasks)
        self._inbox.put(part)
        return part.ended.result()

    def leave(self, round_number: int) -> None:
        """Begin no row of that round any more."""
        self._left = round_number

    def _leaving(self) -> bool:
        return self._left >= self._round

    def _work(self) -> None:
        while True:
            part = self._inbox.get()
            self._round = part.round_number
            if self._leaving():
                part.ended.set_result([])
                continue
            self._take_on(part)
            error: BaseException | None = None
            try:
                for outcome in self._executor.run(self._fed(part.tasks), self._leaving):
                    self._deliver(outcome)
            except BaseException as raised:  # whoever waits shall hear of it, whatever it is
                error = raised
            for part in {part for parts in self._open.values() for part in parts}:
                if error is None:
                    part.ended.set_result(part.outcomes)
                else:
                    part.ended.set_exception(error)
            self._open.clear()

    def _fed(self, tasks: list[RowTask]) -> Iterator[RowTask | None]:
        """All rows of this chunk and of those that come meanwhile; None where there is none just now."""
        while True:
            yield from tasks
            while True:
                try:
                    part = self._inbox.get(block=not self._open)
                    break
                except queue.Empty:
                    yield None
            self._round = part.round_number
            self._take_on(part)
            tasks = part.tasks

    def _take_on(self, part: _Part) -> None:
        for task in part.tasks:
            self._open.setdefault(task.row.id, []).append(part)

    def _deliver(self, outcome: RowOutcome) -> None:
        self.num_rows += 1
        parts = self._open[outcome.task.row.id]
        part = parts.pop(0)
        if not parts:
            del self._open[outcome.task.row.id]
        part.outcomes.append(outcome)
        if len(part.outcomes) == len(part.tasks):
            part.ended.set_result(part.outcomes)
