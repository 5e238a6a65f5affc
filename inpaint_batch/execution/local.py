"""The local executor: readers, one inferring thread and writers in one process, joined by queues.

::

    tasks ─> readers (open, mask, plan) ─> inference (batcher, engine) ─> writers (write, verify, rename) ─> outcomes

Rows in flight are limited in number, which bounds every queue, and in bytes, which readers draw from a budget before
they load pixels. The caller's thread feeds tasks and receives outcomes; it alone touches the ledger.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from inpaint_batch.config import TilingConfig
from inpaint_batch.execution.batcher import Batcher, Filled
from inpaint_batch.execution.budget import MemoryBudget, return_large_blocks
from inpaint_batch.execution.failure import as_failure
from inpaint_batch.execution.fill import row_fills
from inpaint_batch.execution.needs import row_limit_bytes
from inpaint_batch.execution.prepare import prepare_row
from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.execution.shortage import Shortage, in_smaller_tiles
from inpaint_batch.execution.tasks import Failure, RowOutcome, RowTask, never
from inpaint_batch.execution.write import write_row
from inpaint_batch.logids import on_row, worker_id
from inpaint_batch.report.inside import RowTiles
from inpaint_batch.tiling.fill import TileRequest
from inpaint_batch.types import FloatArray

MAX_ROWS_IN_FLIGHT = 64
"""Enough small images to fill a batch; large ones are limited by memory long before."""
MEMORY_BUDGET_BYTES = 512 << 20
"""For the samples of all rows in flight (see `needs.needed_bytes`); one larger row is let in when it is alone."""
LINGER_S = 0.01
"""How long a batch that is not full waits for a row that is being read just now."""
POLL_S = 0.1
"""How soon a request to stop is noticed while nothing else happens."""


class TileRunner(Protocol):
    """Fills tiles; called from one thread only."""

    def batch_size(self, side_px: int) -> int:
        """How many tiles of that side to hand over at once, at most."""
        ...

    def anticipate(self, tiles: Sequence[TileRequest]) -> None:
        """These will be handed over next, or soon."""
        ...

    def fill(self, tiles: Sequence[TileRequest]) -> Sequence[FloatArray]:
        """One (3, side, side) float32 array in [0, 1] for each tile; all tiles have one side."""
        ...


_END = object()
_RowBatcher = Batcher[TileRequest, None]


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
        (see `needs.row_limit_bytes`).
        """
        return_large_blocks()
        self._runner = runner
        self._tiling = tiling
        self._workers = workers
        self._max_image_bytes = max_image_bytes
        self._max_rows = max_rows
        self._limit_bytes = row_limit_bytes(max_memory_bytes, num_processes)
        self._budget_bytes = min(budget_bytes, self._limit_bytes)
        self._begin()
        self.num_batches = 0
        """Batches that the engine has run."""
        self.isolates_rows = False

    def _begin(self) -> None:
        self._tasks: queue.SimpleQueue[RowTask | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[PreparedRow | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[Filled[None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[RowOutcome | None] = queue.SimpleQueue()  # None: dropped, not done
        self._filling: dict[int, PreparedRow] = {}  # by identity
        self._budget = MemoryBudget(self._budget_bytes)
        self._leaving = threading.Event()  # begin no row any more
        self._aborted = threading.Event()  # finish none either
        self._fatal: BaseException | None = None
        self._shortage = Shortage(self._tiling, self._max_rows)
        self.abandoned = False
        self._unread = threading.Semaphore(0)  # one for each row that no reader is through with

    def queues(self) -> Mapping[str, int]:
        """Rows that wait for a reader, for the engine and for a writer (see `tasks.Executor`)."""
        return {"read": self._tasks.qsize(), "infer": self._ready.qsize(), "write": self._filled.qsize()}

    def filling(self) -> Sequence[RowTiles]:
        """Rows between their plan and their end (see `tasks.Executor`)."""
        return [prepared.progress() for prepared in list(self._filling.values())]

    def run(
        self, tasks: Iterable[RowTask | None], stopping: Callable[[], bool], overdue: Callable[[], bool] = never
    ) -> Generator[RowOutcome]:
        """Yield outcomes as they come (see `tasks.Executor`). A task of None means that there is none just now.

        Once `stopping()` is true, rows that no engine has seen yet are dropped without an outcome, so that the end
        comes soon; all others are brought to theirs. Once `overdue()` is true too, the threads are left to themselves.
        """
        self._begin()
        source = iter(tasks)
        num_in_flight = 0
        exhausted = False
        with self._threads():
            while True:
                if self._fatal is not None:
                    yield from (outcome for outcome in self._arrived(0.0) if outcome is not None)
                    raise self._fatal
                if not self._leaving.is_set() and stopping():
                    exhausted = True
                    self._leaving.set()
                if self._leaving.is_set():
                    self._shortage.clear()  # the next run does them
                    if num_in_flight and overdue():
                        self.abandoned = True
                        return
                task = None
                if len(self._shortage):
                    task = self._shortage.next() if not num_in_flight else None
                elif not exhausted and num_in_flight < self._shortage.max_rows:
                    drawn = next(source, _END)
                    exhausted = drawn is _END
                    task = drawn if isinstance(drawn, RowTask) else None
                if task is not None:
                    num_in_flight += 1
                    self._unread.release()
                    self._tasks.put(task)
                elif exhausted and not num_in_flight:
                    return
                for outcome in self._arrived(POLL_S if task is None else 0.0):
                    num_in_flight -= 1
                    if outcome is None or self._shortage.takes(outcome):
                        continue
                    self._shortage.learn(outcome)
                    yield outcome

    def _arrived(self, wait_s: float) -> Iterator[RowOutcome | None]:
        try:
            yield self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait()
            while True:
                yield self._outcomes.get_nowait()
        except queue.Empty:
            return

    @contextmanager
    def _threads(self) -> Iterator[None]:
        readers = [self._thread(self._read, f"reader-{number}") for number in range(self._workers)]
        engine = [self._thread(self._infer, "inference")]
        writers = [self._thread(self._write, f"writer-{number}") for number in range(self._workers)]
        try:
            yield
        except BaseException:
            self._leaving.set()
            self._aborted.set()  # rows that are still on their way are dropped
            raise
        finally:
            if self.abandoned:
                self._aborted.set()
            for stage, inbox in ((readers, self._tasks), (engine, self._ready), (writers, self._filled)):
                for _ in stage:
                    inbox.put(None)
                for thread in stage if not self.abandoned else ():
                    thread.join()

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # a bug, or an error of the whole run: the main thread raises it
                self._fatal = self._fatal or error
                self._leaving.set()
                self._aborted.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    # ── readers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> None:
        while (task := self._tasks.get()) is not None:
            with on_row(task.row.id, task.attempt):
                self._outcome_or_ready(task)
            self._unread.acquire()

    def _outcome_or_ready(self, task: RowTask) -> None:
        reserved = 0

        def reserve(num_bytes: int) -> bool:
            nonlocal reserved
            is_granted = self._budget.acquire(num_bytes, self._leaving.is_set)
            reserved = num_bytes if is_granted else 0
            return is_granted

        prepared: PreparedRow | None = None
        try:
            if not self._leaving.is_set():
                tiling = task.tiling or self._tiling
                prepared = prepare_row(
                    task,
                    tiling,
                    max_image_bytes=self._max_image_bytes,
                    limit_bytes=self._limit_bytes,
                    reserve=reserve,
                )
        except Exception as error:
            self._budget.release(reserved)
            self._outcomes.put(RowOutcome(task, as_failure(error, task, "read"), worker=worker_id()))
            return
        if prepared is None:
            self._outcomes.put(None)
        else:
            self._filling[id(prepared)] = prepared
            self._ready.put(prepared)

    # ── inference ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _infer(self) -> None:
        batcher: _RowBatcher = Batcher(self._runner.fill, self._runner.batch_size, self._runner.anticipate)
        num_batches_before = self.num_batches
        open_for_more = True
        while not self._aborted.is_set():
            while open_for_more and batcher.hungry:
                try:
                    prepared = self._next_ready(batcher)
                except queue.Empty:
                    break
                if prepared is None:
                    open_for_more = False
                elif self._leaving.is_set():
                    self._let_go(prepared)
                    self._outcomes.put(None)
                else:
                    batcher.add(prepared, row_fills(prepared, prepared.task.tiling or self._tiling))
            if not open_for_more and not batcher.num_jobs:
                return
            for filled in batcher.step():
                self._filled.put(filled)
            self.num_batches = num_batches_before + batcher.num_batches

    def _next_ready(self, batcher: _RowBatcher) -> PreparedRow | None:
        if not batcher.num_jobs:
            return self._ready.get()
        if batcher.has_full_batch:
            return self._ready.get_nowait()
        if self._unread.acquire(blocking=False):  # only a look: whether anything is being read
            self._unread.release()
            return self._ready.get(timeout=LINGER_S)
        return self._ready.get_nowait()

    # ── writers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _write(self) -> None:
        while (filled := self._filled.get()) is not None:
            prepared = filled.name
            assert isinstance(prepared, PreparedRow)
            try:
                with on_row(prepared.task.row.id, prepared.task.attempt):
                    outcome = None if self._aborted.is_set() else self._written(prepared, filled)
            finally:
                self._let_go(prepared)
            self._outcomes.put(outcome)

    def _written(self, prepared: PreparedRow, filled: Filled[None]) -> RowOutcome:
        task = prepared.task
        prepared.watch.add("infer", filled.seconds)
        prepared.watch.add("blend", filled.own_seconds)
        failure: Failure | None = None
        try:
            if filled.error is not None:
                failure = as_failure(filled.error, task, "infer", filled.cause)
            else:
                write_row(prepared, filled.num_tiles)
                if task.tiling is not None:
                    prepared.warnings.append(in_smaller_tiles(task.tiling))
        except Exception as error:
            failure = as_failure(error, task, "write")
        return RowOutcome(
            task,
            failure,
            num_tiles=dict(filled.num_tiles),
            seconds=prepared.watch.seconds,
            coverage=prepared.holes.coverage,
            num_pixels=prepared.source.header.num_pixels,
            warnings=tuple(prepared.warnings),
            worker=worker_id(),
        )

    def _let_go(self, prepared: PreparedRow) -> None:
        del self._filling[id(prepared)]
        prepared.close()
        self._budget.release(prepared.needed_bytes)
