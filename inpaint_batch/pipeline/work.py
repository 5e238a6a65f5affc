"""One run over the rows of a manifest: what is left is handed to the executor, and every end is written down."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import EngineError, FailureLimitError, RowsFailedError
from inpaint_batch.execution.identity import location
from inpaint_batch.execution.ledger import Ledger, LedgerEntry
from inpaint_batch.execution.tasks import EngineFacts, Executor, RowOutcome, RowTask
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, to_cells
from inpaint_batch.pipeline.ahead import ahead
from inpaint_batch.pipeline.executors import open_executor
from inpaint_batch.pipeline.rows import Refused, RowPlanner, Skip
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.pipeline.store_state import StoreState
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.summary import Summary, state_ending, write_failures
from inpaint_batch.report.tally import FailedRow, RowReport
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.types import Row

MAX_AUTOMATIC_WORKERS = 4


def num_workers(config: RunConfig) -> int:
    """Threads that read, and as many that write: what was asked for, or one per core that we may use, four at most."""
    if config.workers:
        return config.workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MAX_AUTOMATIC_WORKERS)


class Work:
    """What the steps of one run share."""

    def __init__(
        self,
        config: RunConfig,
        state: Path,
        summary: Summary,
        progress: Progress,
        stop: Stop,
        signature: str,
        remote: StoreState | None,
    ) -> None:
        self._config = config
        self._state = state
        self._summary = summary
        self._tally = summary.tally
        self._progress = progress
        self._stop = stop
        self._signature = signature
        self._remote = remote
        self._failures: list[FailedRow] = []
        self._begun: dict[str, RowTask] = {}  # rows in flight, by id
        self._suspects: list[RowTask] = []
        self._isolated = False

    def do(self, manifest: Path | str, masks: Path | None, num_rows: int) -> None:
        """Do all rows that are left; raises what the run shall end with where that is not success."""
        config = self._config
        writer = config.part.name if config.part else ""
        with open_executor(
            config, workers=num_workers(config), signature=self._signature, writer=writer, stopping=self._stop
        ) as (
            engine,
            executor,
        ):
            self._do(engine, executor, manifest, masks, num_rows)

    def _do(
        self, engine: EngineFacts, executor: Executor, manifest: Path | str, masks: Path | None, num_rows: int
    ) -> None:
        config, summary = self._config, self._summary
        self._isolated = executor.isolates_rows
        summary.engine, summary.model, summary.precision = engine.name, engine.model, engine.precision
        about = {"engine": engine.name, "model": engine.model, "precision": engine.precision}
        if config.part:
            about["shard"] = str(config.part)
        self._progress.start(num_rows, {**about, "output": config.place})
        for note in summary.notes:
            self._progress.note(note)
        if not num_rows:
            self._note("no row falls to this run: there is nothing to do")
        for note in engine.notes:
            self._note(note)
        if unfit := sorted(set(config.tiling.buckets_px) - set(engine.buckets_px)):
            raise EngineError(f"{engine.name} does not take tiles of {unfit} px; take those out of tiling.buckets_px")
        ledger = Ledger(self._state, fresh=config.fresh, shard=config.part)
        try:
            if ledger.num_damaged:
                self._note(f"{ledger.num_damaged} torn lines in the ledger were passed over; their rows are done again")
            planner = RowPlanner(config, ledger, engine)
            self._progress.watch(lambda: {"flight": len(self._begun), **executor.queues()})
            self._do_rows(executor, ledger, self._tasks(manifest, masks, planner, ledger))
            if planner.num_redone:
                self._note(f"{planner.num_redone} rows were done again: their files, settings or model had changed")
            summary.num_batches = executor.num_batches
        finally:
            ledger.close()
            write_failures(self._state, self._failures, config.part, absolute=self._remote is not None)
        failures = f"{config.place}/{STATE_FOLDER}/failures{state_ending(config.part)}.csv"
        if self._limit_reached():
            raise FailureLimitError(
                f"{self._tally.num_failed} rows failed, more than --max-failures {config.max_failures}; see {failures}"
            )
        if self._tally.num_rows < num_rows and self._stop():
            raise self._stop.error()
        if self._tally.num_all_failed:
            raise RowsFailedError(
                f"{self._tally.num_all_failed} of {num_rows} rows failed; they are listed, with reasons, in {failures}"
            )

    def _do_rows(self, executor: Executor, ledger: Ledger, tasks: Iterator[RowTask]) -> None:
        try:
            self._execute(executor, ledger, tasks)
            if self._suspects and not self._shall_end():
                self._note(f"the last run died with {len(self._suspects)} rows in flight; these are done one at a time")
            for task in sorted(self._suspects, key=lambda task: ledger.num_deaths(task.row.id)):
                if self._shall_end():
                    return
                self._execute(executor, ledger, iter([self._begin(task, ledger, alone=True)]))
            if self._begun and not self._shall_end():  # exit code 0 would say that they are done
                raise RuntimeError(f"{len(self._begun)} rows have no outcome, {min(self._begun)} among them")
        finally:
            with suppress(OSError):  # what ends the run is told already
                for task in self._begun.values():
                    ledger.append(LedgerEntry(id=task.row.id, key=task.key, status="dropped", run=self._summary.run))

    def _execute(self, executor: Executor, ledger: Ledger, tasks: Iterator[RowTask]) -> None:
        if self._remote is not None:
            tasks = self._remote.announced(tasks)
        with closing(executor.run(tasks, self._shall_end, self._stop.overdue)) as outcomes:
            for outcome in outcomes:
                self._record(outcome, ledger)
        if executor.abandoned:
            self._stop.num_dropped = len(self._begun)
            self._stop.left_threads = not executor.isolates_rows

    def _begin(self, task: RowTask, ledger: Ledger, *, alone: bool = False) -> RowTask:
        self._begun[task.row.id] = task
        image = location(task.row.image)
        ledger.append(
            LedgerEntry(
                id=task.row.id,
                key=task.key,
                status="started",
                alone=alone,
                image=image,
                output=task.output,
                run=self._summary.run,
            )
        )
        return task

    def _record(self, outcome: RowOutcome, ledger: Ledger) -> None:
        entry = _entry(outcome, self._summary.run)
        ledger.append(entry)
        del self._begun[entry.id]
        self._count(
            RowReport(
                entry.id,
                "failed" if outcome.failure else "done",
                outcome.task.row.line,
                output=entry.output,
                code=entry.code,
                message=entry.message,
                num_pixels=entry.num_pixels,
                num_tiles=entry.num_tiles,
                seconds=entry.seconds,
                warnings=entry.warnings,
                worker=entry.worker,
                attempt=entry.attempt,
            ),
            outcome.task.row,
        )

    def _tasks(
        self, manifest: Path | str, masks: Path | None, planner: RowPlanner, ledger: Ledger
    ) -> Iterator[RowTask]:
        """The tasks that are left; rows that come to their end at once are counted on the way."""
        for row in ahead(read_manifest(manifest, masks=masks)):
            if self._shall_end():
                return
            if self._config.part is not None and not self._config.part.has(row.id):
                planner.pass_over(row)
                continue
            ledger.tick()
            plan = planner.plan(row)
            match plan:
                case RowTask() if ledger.in_flight_at_death(row.id) and not self._isolated:
                    self._suspects.append(plan)  # one of these may have killed it: they come last, one at a time
                case RowTask():
                    yield self._begin(plan, ledger)
                case Skip():
                    self._count(RowReport(row.id, "skipped", row.line, output=plan.output), row)
                case Refused(error=error, earlier=earlier, key=key):
                    if not earlier:
                        ledger.append(
                            LedgerEntry(
                                id=row.id,
                                key=key,
                                status="failed",
                                code=error.code.value,
                                message=error.message,
                                retryable=error.retryable,
                                run=self._summary.run,
                            )
                        )
                    code, message = error.code.value, error.message
                    self._count(RowReport(row.id, "failed", row.line, code=code, message=message, earlier=earlier), row)

    def _count(self, report: RowReport, row: Row | RowProblem) -> None:
        self._tally.add(report)
        if report.status == "failed":
            cells = row.cells if isinstance(row, RowProblem) else to_cells(row)
            self._failures.append(FailedRow(cells, report.code, report.message, report.line))
        self._progress.row(report, self._tally)

    def _shall_end(self) -> bool:
        return self._stop() or self._limit_reached()

    def _limit_reached(self) -> bool:
        return 0 <= self._config.max_failures < self._tally.num_failed

    def _note(self, text: str) -> None:
        self._summary.notes.append(text)
        self._progress.note(text)


def _entry(outcome: RowOutcome, run: str) -> LedgerEntry:
    task, failure = outcome.task, outcome.failure
    return LedgerEntry(
        id=task.row.id,
        key=task.key,
        status="failed" if failure else "done",
        image=location(task.row.image),
        output=task.output,
        code=failure.code.value if failure else "",
        message=failure.message if failure else "",
        retryable=failure.retryable if failure else False,
        num_tiles=outcome.num_tiles,
        seconds=outcome.seconds,
        coverage=outcome.coverage,
        num_pixels=outcome.num_pixels,
        warnings=outcome.warnings,
        run=run,
        worker=outcome.worker,
        attempt=task.attempt,
    )
