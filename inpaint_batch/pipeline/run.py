"""`run`: manifest, preflight, executor, ledger and report put together."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import (
    EngineError,
    FailureLimitError,
    RowError,
    RowsFailedError,
    StorageError,
    exit_code_of,
)
from inpaint_batch.execution.identity import location, object_version
from inpaint_batch.execution.ledger import Ledger, LedgerEntry
from inpaint_batch.execution.lock import hold_folder
from inpaint_batch.execution.tasks import EngineFacts, Executor, RowOutcome, RowTask
from inpaint_batch.logids import HumanFormatter, in_run
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, to_cells
from inpaint_batch.pipeline.ahead import ahead
from inpaint_batch.pipeline.executors import open_executor
from inpaint_batch.pipeline.rows import Refused, RowPlanner, Skip
from inpaint_batch.pipeline.status import begin_run_file
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.pipeline.store_state import StoreState, open_place
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.summary import Summary, state_ending, write_failures
from inpaint_batch.report.tally import FailedRow, RowReport
from inpaint_batch.storage.atomic import remove_stale_temporaries, storage_error, temporaries_of
from inpaint_batch.storage.paths import STATE_FOLDER, check_output_root
from inpaint_batch.types import Row

log = logging.getLogger("inpaint_batch")

MAX_AUTOMATIC_WORKERS = 4


def num_workers(config: RunConfig) -> int:
    """Threads that read, and as many that write: what was asked for, or one per core that we may use, four at most."""
    if config.workers:
        return config.workers
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, MAX_AUTOMATIC_WORKERS)


def run_manifest(
    config: RunConfig, manifest: Path | str, *, masks: Path | None, progress: Progress, stop: Stop, shard_from: str = ""
) -> Summary:
    """Do every row of the manifest that is not done yet; returns the summary if all is done.

    `shard_from` tells where the shard comes from, if it was not the user who named it.

    Whatever happens once the output folder is ours, `summary.json` tells it. Raises the run-level error that the
    program ends with: RowsFailedError if rows failed, FailureLimitError, StopRequestedError or KeyboardInterrupt if it
    was stopped, and ManifestError, UsageError, EngineError, StorageError as they come.
    """
    started_s = time.time()
    part = config.part
    with in_run(config.shard) as run_id:
        num_rows = sum(1 for row in read_manifest(manifest, masks=masks) if part is None or part.has(row.id))
        object_version.cache_clear()
        with open_place(config) as (config, remote):
            return _run(config, remote, manifest, masks, num_rows, started_s, progress, stop, shard_from, run_id)


def _run(
    config: RunConfig,
    remote: StoreState | None,
    manifest: Path | str,
    masks: Path | None,
    num_rows: int,
    started_s: float,
    progress: Progress,
    stop: Stop,
    shard_from: str,
    run_id: str,
) -> Summary:
    part = config.part
    folders = [folder for folder in (manifest, masks) if isinstance(folder, Path) and folder.is_dir()]
    check_output_root(config.output, folders)
    state = config.output / STATE_FOLDER
    with _disk_errors(state):
        state.mkdir(exist_ok=True)
        with (
            hold_folder(state, part) as killed,
            _log_file(state / f"run{state_ending(part)}.log"),
            temporaries_of(part.name if part else "") as signature,
        ):
            if killed:
                remove_stale_temporaries(config.output, killed)
            summary = Summary(config, str(manifest), started_s, run=run_id)
            if part is not None and shard_from:
                summary.notes.append(f"this does shard {part} only, by {shard_from}; --shard 1/1 does all rows")
            begin_run_file(state, summary, num_rows)
            if remote is not None:
                remote.begin()
            run = _Run(config, state, summary, progress, stop, signature, remote)
            try:
                with _disk_errors(state):
                    run.do(manifest, masks, num_rows)
            except BaseException as error:
                exit_code = exit_code_of(error)
                progress.finish(summary.tally, exit_code)
                if exit_code == 1:
                    log.error("the run ended by a bug", exc_info=error)
                with suppress(OSError, StorageError, RowError):  # a full disk shall not hide why the run ended
                    summary.write(state, exit_code, " ".join(f"{error}".split()))
                raise
            progress.finish(summary.tally, 0)
            summary.write(state, 0)
            return summary


class _Run:
    """One run: what several of its steps share."""

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
        config = self._config
        writer = config.part.name if config.part else ""
        with open_executor(config, workers=num_workers(config), signature=self._signature, writer=writer) as (
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
        finally:
            with suppress(OSError):  # what ends the run is told already
                for task in self._begun.values():
                    ledger.append(LedgerEntry(id=task.row.id, key=task.key, status="dropped", run=self._summary.run))

    def _execute(self, executor: Executor, ledger: Ledger, tasks: Iterator[RowTask]) -> None:
        if self._remote is not None:
            tasks = self._remote.announced(tasks)
        with closing(executor.run(tasks, self._shall_end)) as outcomes:
            for outcome in outcomes:
                self._record(outcome, ledger)

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


@contextmanager
def _disk_errors(state: Path) -> Iterator[None]:
    """Turn an OSError about the state folder into what it means for the run."""
    try:
        yield
    except OSError as error:
        known = storage_error(error, state / "ledger")
        if known is None and error.filename and Path(os.fsdecode(error.filename)).is_relative_to(state):
            known = StorageError(f"cannot use {error.filename}: {error.strerror}; run again once that is mended")
        if known is None:
            raise
        raise known from error


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Send what is logged, mostly tracebacks, to a file; it appears with the first message."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True, errors="backslashreplace")
    handler.setFormatter(HumanFormatter())
    before = log.propagate
    log.addHandler(handler)
    log.propagate = False  # not to stderr as well
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before
        handler.close()
