"""The local executor: rows are done by threads of this process.

Rows in flight are limited in number, which bounds every queue of the stages that they pass (`stages`), and in bytes.
The caller's thread feeds tasks and receives outcomes; it alone touches the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

from inpaint_batch.config import TilingConfig
from inpaint_batch.execution.budget import return_large_blocks
from inpaint_batch.execution.row_memory import row_limit_bytes
from inpaint_batch.execution.shortage import Shortage
from inpaint_batch.execution.stages import Stages, TileRunner
from inpaint_batch.execution.tasks import RowOutcome, RowTask, never
from inpaint_batch.report.row_tiles import RowTiles

MAX_ROWS_IN_FLIGHT = 64
"""Enough small images to fill a batch; large ones are limited by memory long before."""
MEMORY_BUDGET_BYTES = 512 << 20
"""For the samples of all rows in flight (see `row_memory.needed_bytes`); one larger row is let in when it is alone."""
POLL_S = 0.1
"""How soon a request to stop is noticed while nothing else happens."""

_END = object()


class LocalExecutor:
    """Does rows in this process. One `run` at a time."""

    def __init__(
        self,
        runner: TileRunner,
        tiling: TilingConfig,
        *,
        workers: int,
        max_image_bytes: int,
        max_memory_bytes: int = 0,
        num_processes: int = 1,
        budget_bytes: int = MEMORY_BUDGET_BYTES,
        max_rows: int = MAX_ROWS_IN_FLIGHT,
    ) -> None:
        """`workers` threads read, and as many write; `runner` fills tiles, from one thread only.

        `max_memory_bytes` is what this process may take at most, `num_processes` how many like it share the machine
        (see `row_memory.row_limit_bytes`).
        """
        return_large_blocks()
        self._runner = runner
        self._tiling = tiling
        self._workers = workers
        self._max_image_bytes = max_image_bytes
        self._max_rows = max_rows
        self._limit_bytes = row_limit_bytes(max_memory_bytes, num_processes)
        self._budget_bytes = min(budget_bytes, self._limit_bytes)
        self._stages = self._new_stages()
        self.isolates_rows = False
        self.abandoned = False

    def _new_stages(self) -> Stages:
        return Stages(
            self._runner,
            self._tiling,
            max_image_bytes=self._max_image_bytes,
            limit_bytes=self._limit_bytes,
            budget_bytes=self._budget_bytes,
        )

    @property
    def num_batches(self) -> int:
        """Batches that the engine has run, in all runs."""
        return self._stages.num_batches

    def queues(self) -> Mapping[str, int]:
        """Rows that wait for a reader, for the engine and for a writer (see `tasks.Executor`)."""
        return self._stages.queues()

    def filling(self) -> Sequence[RowTiles]:
        """Rows between their plan and their end (see `tasks.Executor`)."""
        return [prepared.progress() for prepared in list(self._stages.filling.values())]

    def run(
        self, tasks: Iterable[RowTask | None], stopping: Callable[[], bool], overdue: Callable[[], bool] = never
    ) -> Generator[RowOutcome]:
        """Yield outcomes as they come (see `tasks.Executor`). A task of None means that there is none just now.

        Once `stopping()` is true, rows that no engine has seen yet are dropped without an outcome, so that the end
        comes soon; all others are brought to theirs. Once `overdue()` is true too, the threads are left to themselves.
        """
        stages = self._new_stages()
        stages.num_batches = self.num_batches
        self._stages = stages
        self.abandoned = False
        shortage = Shortage(self._tiling, self._max_rows)
        source = iter(tasks)
        num_in_flight = 0
        exhausted = False
        with stages.running(self._workers):
            while True:
                if stages.error is not None:
                    yield from (outcome for outcome in stages.arrived(0.0) if outcome is not None)
                    raise stages.error
                if not stages.leaving.is_set() and stopping():
                    exhausted = True
                    stages.leaving.set()
                if stages.leaving.is_set():
                    shortage.clear()  # the next run does them
                    if num_in_flight and overdue():
                        self.abandoned = True
                        stages.abandon()
                        return
                task = None
                if len(shortage):
                    task = shortage.next() if not num_in_flight else None
                elif not exhausted and num_in_flight < shortage.max_rows:
                    drawn = next(source, _END)
                    exhausted = drawn is _END
                    task = drawn if isinstance(drawn, RowTask) else None
                if task is not None:
                    num_in_flight += 1
                    stages.put(task)
                elif exhausted and not num_in_flight:
                    return
                for outcome in stages.arrived(POLL_S if task is None else 0.0):
                    num_in_flight -= 1
                    if outcome is None or shortage.takes(outcome):
                        continue
                    shortage.learn(outcome)
                    yield outcome
