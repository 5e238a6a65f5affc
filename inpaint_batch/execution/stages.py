"""What a row passes through in this process: readers, one inferring thread and writers, joined by queues.

::

    tasks ─> readers (open, mask, plan) ─> inference (batcher, engine) ─> writers (write, verify, rename) ─> outcomes

Bytes in flight are limited: readers draw what a row needs from a budget before they load pixels.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from inpaint_batch.config import TilingConfig
from inpaint_batch.execution.batcher import Batcher, Filled
from inpaint_batch.execution.budget import MemoryBudget
from inpaint_batch.execution.failure import as_failure
from inpaint_batch.execution.fill import row_fills
from inpaint_batch.execution.prepare import prepare_row
from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.execution.shortage import in_smaller_tiles
from inpaint_batch.execution.tasks import Failure, RowOutcome, RowTask
from inpaint_batch.execution.write import write_row
from inpaint_batch.logids import on_row, worker_id
from inpaint_batch.tiling.fill import TileRequest
from inpaint_batch.types import FloatArray

LINGER_S = 0.01
"""How long a batch that is not full waits for a row that is being read just now."""

_RowBatcher = Batcher[TileRequest, None]


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


class Stages:
    """The threads and queues of one run. Its owner puts tasks in, takes outcomes out, and counts what is in between."""

    def __init__(
        self,
        runner: TileRunner,
        tiling: TilingConfig,
        *,
        max_image_bytes: int,
        limit_bytes: int,
        budget_bytes: int,
    ) -> None:
        """`limit_bytes` is what one row may need at most, `budget_bytes` what all in flight may (see `row_memory`)."""
        self._runner = runner
        self._tiling = tiling
        self._max_image_bytes = max_image_bytes
        self._limit_bytes = limit_bytes
        self._budget = MemoryBudget(budget_bytes)
        self._tasks: queue.SimpleQueue[RowTask | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[PreparedRow | None] = queue.SimpleQueue()
        self._filled: queue.SimpleQueue[Filled[None] | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[RowOutcome | None] = queue.SimpleQueue()
        self._unread = threading.Semaphore(0)  # one for each row that no reader is through with
        self._aborted = threading.Event()  # finish no row any more
        self._abandoned = False
        self.filling: dict[int, PreparedRow] = {}
        """Rows between their plan and their end, by identity."""
        self.leaving = threading.Event()
        """Set by the owner, or after an error: rows that no engine has seen yet are dropped."""
        self.error: BaseException | None = None
        """A bug, or an error of the whole run, that ended a thread; no outcome will come any more."""
        self.num_batches = 0
        """Batches that the engine has run, beside those that the owner has begun with."""

    def put(self, task: RowTask) -> None:
        """Take on one more row."""
        self._unread.release()
        self._tasks.put(task)

    def arrived(self, wait_s: float) -> Iterator[RowOutcome | None]:
        """Outcomes that are there, or the first to come within that time; None stands for a row that was dropped."""
        try:
            yield self._outcomes.get(timeout=wait_s) if wait_s else self._outcomes.get_nowait()
            while True:
                yield self._outcomes.get_nowait()
        except queue.Empty:
            return

    def queues(self) -> Mapping[str, int]:
        """Rows that wait for a reader, for the engine and for a writer."""
        return {"read": self._tasks.qsize(), "infer": self._ready.qsize(), "write": self._filled.qsize()}

    def abandon(self) -> None:
        """Leave rows in flight, and the threads that have them, to themselves."""
        self._abandoned = True
        self._abort()

    @contextmanager
    def running(self, num_workers: int) -> Iterator[None]:
        """Start so many readers and writers, and the inferring thread; on leaving wait for them, but for `abandon`.

        Where it is left by an exception, rows that are still on their way are dropped.
        """
        readers = [self._thread(self._read, f"reader-{number}") for number in range(num_workers)]
        engine = [self._thread(self._infer, "inference")]
        writers = [self._thread(self._write, f"writer-{number}") for number in range(num_workers)]
        try:
            yield
        except BaseException:
            self._abort()
            raise
        finally:
            for stage, inbox in ((readers, self._tasks), (engine, self._ready), (writers, self._filled)):
                for _ in stage:
                    inbox.put(None)
                for thread in stage if not self._abandoned else ():
                    thread.join()
            for prepared in list(self.filling.values()) if not self._abandoned else ():  # whose stage has ended
                self._let_go(prepared)

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # the owner raises it
                self.error = self.error or error
                self._abort()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _abort(self) -> None:
        self.leaving.set()
        self._aborted.set()

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
            is_granted = self._budget.acquire(num_bytes, self.leaving.is_set)
            reserved = num_bytes if is_granted else 0
            return is_granted

        prepared: PreparedRow | None = None
        try:
            if not self.leaving.is_set():
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
            self.filling[id(prepared)] = prepared
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
                elif self.leaving.is_set():
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
            is_filled=filled.error is None,
            seconds=prepared.watch.seconds,
            coverage=prepared.holes.coverage,
            doubt=prepared.doubt,
            doubtful=prepared.doubtful,
            num_pixels=prepared.source.header.num_pixels,
            warnings=tuple(prepared.warnings),
            worker=worker_id(),
        )

    def _let_go(self, prepared: PreparedRow) -> None:
        del self.filling[id(prepared)]
        prepared.close()
        self._budget.release(prepared.needed_bytes)
