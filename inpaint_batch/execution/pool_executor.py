"""The executor whose workers are other processes: of this machine, or the actors of a Ray cluster.

Rows travel as paths in chunks of about a second's work, two of them in flight for each worker, so that one is ready
when the other is done. Results are awaited here, in the driver, which alone knows the ledger. Who works is the affair
of `pool`, what becomes of the rows of a lost worker that of `requeue`; this is the loop between them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from inpaint_batch.errors import FailureCode, StopRequestedError
from inpaint_batch.execution.pool import Loss, Pool
from inpaint_batch.execution.requeue import Chunk, Requeue
from inpaint_batch.execution.tasks import EngineFacts, Failure, RowOutcome, RowTask, never
from inpaint_batch.execution.transport import Transport
from inpaint_batch.report.row_tiles import RowTiles

log = logging.getLogger(__name__)

POLL_S = 0.2


class PoolExecutor:
    """Does rows on workers elsewhere. One `run` at a time; `close` it."""

    def __init__(
        self, transport: Transport, *, row_timeout_s: float = 0.0, stopping: Callable[[], bool] = never
    ) -> None:
        """Wait for a first worker. The transport is closed with the executor, also where this raises.

        `row_timeout_s`: a row that takes longer fails with `timeout`; 0 for never. Raises WorkerLostError where no
        worker comes up, StopRequestedError where `stopping()` is true before, and what loading the engine raises in a
        worker.
        """
        self._pool = Pool(transport, row_timeout_s=row_timeout_s)
        self._row_timeout_s = row_timeout_s
        self._round = 0
        self.isolates_rows = True
        self.abandoned = False
        try:
            facts = self._pool.wait_for_first(stopping, POLL_S)
            if facts is None:
                raise StopRequestedError("stopped before a worker was there; run again to go on")
            self.engine: EngineFacts = facts
            """What every worker runs."""
        except BaseException:
            self.close()
            raise

    @property
    def num_batches(self) -> int:
        """Batches that the engines have run."""
        return self._pool.num_batches

    @property
    def num_lost(self) -> int:
        """How often a worker was lost, or taken away from a row that took too long."""
        return self._pool.num_lost

    def queues(self) -> Mapping[str, int]:
        """Rows that are with the workers (see `tasks.Executor`)."""
        return {"workers": self._pool.num_rows_in_flight}

    def filling(self) -> Sequence[RowTiles]:
        """How far large rows were when their workers were last asked."""
        return self._pool.filling()

    def close(self) -> None:
        """Dismiss the workers."""
        self._pool.close()

    def run(
        self, tasks: Iterable[RowTask], stopping: Callable[[], bool], overdue: Callable[[], bool] = never
    ) -> Generator[RowOutcome]:
        """Yield outcomes as they come (see `tasks.Executor`)."""
        self._round += 1
        pool, again = self._pool, Requeue(self._row_timeout_s)
        pool.begin()
        fresh = _travelling(tasks)
        outcomes: list[RowOutcome] = []
        exhausted = leaving = False
        while True:
            if not leaving and stopping():
                leaving = exhausted = True
                pool.leave(self._round)
            if leaving:
                again.clear()  # begun, but not done: the next run does them
                if overdue():
                    self.abandoned = pool.busy
                    return
            for member in pool.least_busy():
                chunk = again.next()
                if chunk is None and not exhausted:
                    chunk = Chunk(list(islice(fresh, member.chunk_rows(pool.transport.rows_at_once))))
                    exhausted = not chunk.tasks
                if chunk is None or not chunk.tasks:
                    break
                if chunk.alone and member.chunks:
                    again.unblamed([chunk])  # it waits for somebody who has nothing else
                    break
                pool.send(member, chunk, self._round)
            if exhausted and not len(again) and not pool.busy:
                return
            for loss in pool.look(outcomes, POLL_S):
                outcomes += self._taken_back(loss, again)
            yield from map(_as_seen_here, outcomes)
            outcomes.clear()

    def _taken_back(self, loss: Loss, again: Requeue) -> list[RowOutcome]:
        names = ", ".join(task.row.id for chunk in loss.chunks for task in chunk.tasks)
        if loss.hung:
            log.warning("a worker was taken away from rows that took too long: %s", names)
            return again.hung(loss.chunks)
        how = " for want of memory" if loss.of_memory else " with its machine" if loss.with_machine else ""
        log.warning("a worker died%s while it had %s", how, names)
        return again.died(loss.chunks, of_memory=loss.of_memory, with_machine=loss.with_machine)


def _travelling(tasks: Iterable[RowTask]) -> Iterator[RowTask]:
    """Tasks as they can be sent: a worker has a working folder of its own."""
    here = Path.cwd()
    for task in tasks:
        if not os.path.isabs(task.destination):  # noqa: PTH117  (a million times)
            task = msgspec.structs.replace(task, destination=str(here / task.destination))
        yield task


def _as_seen_here(outcome: RowOutcome) -> RowOutcome:
    """The same, but for a file that its worker alone does not see: that is no fault of the manifest."""
    failure, row = outcome.failure, outcome.task.row
    if failure is None or failure.code is not FailureCode.READ:
        return outcome
    for role, path in (("image", row.image), ("mask", row.mask)):
        if failure.message.startswith(f"the {role} {Path(path)} does not exist") and Path(path).exists():
            message = (
                f"the worker {outcome.worker} does not see the {role} {path}, which is there where the run was begun; "
                "mount the same files on all nodes, then run with --retry-failed"
            )
            return msgspec.structs.replace(outcome, failure=Failure(FailureCode.READ, message, retryable=True))
    return outcome
