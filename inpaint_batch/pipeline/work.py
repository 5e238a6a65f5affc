"""One run over the rows of a manifest: what is left is handed to the executor, and every end is written down."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import EngineError, FailureLimitError, RowsFailedError, StopRequestedError
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.execution.tasks import EngineFacts, Executor, RowOutcome, RowTask
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.pipeline.ahead import ahead
from inpaint_batch.pipeline.entries import ended, failed_row, left_row, report_of, started
from inpaint_batch.pipeline.executors import advice, open_executor
from inpaint_batch.pipeline.manifest_rows import ManifestRows
from inpaint_batch.pipeline.rows import Left, Refused, RowPlanner, Skip
from inpaint_batch.pipeline.settled import Settled
from inpaint_batch.pipeline.settling import Settling
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.pipeline.store_state import StoreState
from inpaint_batch.report.failures import Failures
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.summary import Summary
from inpaint_batch.report.tally import FailedRow, RowReport
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.types import Row
from inpaint_batch.words import counted

SKIPPED_TOLD = 1000
"""Rows done before after which the progress is told of them."""
_CAUSES = {
    "image": "image changed",
    "mask": "mask changed",
    "options": "options changed",
    "model": "model changed",
    "output": "output renamed",
    "version": "recorded in another way",
    "missing": "result missing",
    "failed": "had failed",
}


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
        self._settled: Settled | None = None
        self._settling: Settling
        self._failures = Failures(state, config.part)
        self._left = Failures(state, config.part, name="left")
        self._begun: dict[str, RowTask] = {}  # rows in flight, by id
        self._suspects: list[RowTask] = []
        self._isolated = False

    def do(self, rows: ManifestRows) -> None:
        """Do all rows that are left; raises what the run shall end with where that is not success."""
        config = self._config
        writer = config.part.name if config.part else ""
        workers = open_executor(config, signature=self._signature, writer=writer, stopping=self._stop)
        with closing(self._failures), closing(self._left), ExitStack() as life:
            try:
                engine, executor = life.enter_context(workers)
            except StopRequestedError:
                raise self._stop.error("nothing was begun") from None
            self._do(engine, executor, rows)

    def _do(self, engine: EngineFacts, executor: Executor, rows: ManifestRows) -> None:
        config, summary = self._config, self._summary
        self._isolated = executor.isolates_rows
        summary.engine, summary.model, summary.precision = engine.name, engine.model, engine.precision
        about = {"engine": engine.name, "model": engine.model, "precision": engine.precision}
        if config.part:
            about["shard"] = str(config.part)
        num_rows = rows.num_rows
        self._progress.start(num_rows, {**about, "output": config.place})
        for note in summary.notes:
            self._progress.note(note)
        if not num_rows:
            self._note("no row falls to this run: there is nothing to do")
        for note in engine.notes:
            self._note(note)
        if (tip := advice(config, num_rows)) is not None:
            self._note(tip)
        if unfit := sorted(set(config.tiling.buckets_px) - set(engine.buckets_px)):
            raise EngineError(f"{engine.name} does not take tiles of {unfit} px; take those out of tiling.buckets_px")
        if not self._stands(rows, engine):
            self._do_all(engine, executor, rows)
        failures = self._place_of(self._failures)
        if self._limit_reached():
            raise FailureLimitError(
                f"{counted(self._tally.num_failed, 'row')} failed, more than --max-failures {config.max_failures}; "
                f"see {failures}"
            )
        if self._tally.num_rows < num_rows and self._stop():
            raise self._stop.error()
        if self._tally.num_all_failed:
            raise RowsFailedError(
                f"{self._tally.num_all_failed} of {counted(num_rows, 'row')} failed; reasons in {failures}"
            )

    def _stands(self, rows: ManifestRows, engine: EngineFacts) -> bool:
        """Whether nothing has changed since an earlier run brought every row to its end; all is then counted."""
        settled = None if self._config.fresh else rows.settled(self._state, self._config)
        if settled is None or not settled.holds(self._config, engine.identity, self._shall_end):
            return False
        self._tally.num_skipped = settled.num_rows - len(settled.failures)
        for failure in settled.failures:
            row = failure.failed
            report = RowReport(failure.id, "failed", row.line, code=row.code, message=row.message, earlier=True)
            self._count_failed(report, row)
        self._progress.skipped(self._tally)
        self._note("nothing has changed since the last run")
        self._failures.write()
        return True

    def _do_all(self, engine: EngineFacts, executor: Executor, rows: ManifestRows) -> None:
        """Row by row."""
        config = self._config
        # What a store holds is not seen from here, and a cache beside a copy of its state would not last.
        digest = rows.digest if self._remote is None else ""
        settling = self._settling = Settling(self._state, config, engine.identity, digest)
        ledger = Ledger(self._state, fresh=config.fresh, shard=config.part, is_copy=self._remote is not None)
        try:
            if ledger.num_damaged:
                self._note(
                    f"passed over {counted(ledger.num_damaged, 'torn line')} in the ledger; such rows are done again"
                )
            planner = RowPlanner(config, ledger, engine, settling)
            self._do_rows(executor, ledger, self._tasks(rows, planner, ledger))
            if redone := self._tally.redone:
                causes = ", ".join(f"{_CAUSES[cause]} {number}" for cause, number in redone.most_common())
                self._note(f"rows done again: {redone.total()} ({causes})")
            if number := self._tally.num_left:
                self._note(
                    f"rows left as they were, since their outputs exist and are not ours: {number}; they are listed in "
                    f"{self._place_of(self._left)}"
                )
            self._summary.num_batches = executor.num_batches
        finally:
            try:
                ledger.close()
            finally:
                settling.close(rows.num_rows)
                self._write_list(self._failures, rows)
                if self._tally.num_left or self._left.path.exists():
                    self._write_list(self._left, rows)

    def _write_list(self, listed: Failures, rows: ManifestRows) -> None:
        if self._tally.num_rows < rows.num_rows and rows.are_of(self._place_of(listed)):
            return  # nothing else names the rows that are left: the next run shall find them there
        listed.write(absolute=self._remote is not None)

    def _place_of(self, listed: Failures) -> str:
        """Where people find that list."""
        return f"{self._config.place}/{STATE_FOLDER}/{listed.path.name}"

    def _do_rows(self, executor: Executor, ledger: Ledger, tasks: Iterator[RowTask]) -> None:
        self._progress.watch(lambda: {"flight": len(self._begun), **executor.queues()}, executor.filling)
        try:
            self._execute(executor, ledger, tasks)
            if self._suspects and not self._shall_end():
                in_flight = counted(len(self._suspects), "row")
                self._note(f"the last run died with {in_flight} in flight; done last, one at a time")
            for task in sorted(self._suspects, key=lambda task: ledger.num_deaths(task.row.id)):
                if self._shall_end():
                    return
                self._execute(executor, ledger, iter([self._begin(task, ledger, alone=True)]))
            if self._begun and not self._shall_end():  # exit code 0 would say that they are done
                raise RuntimeError(f"no outcome of {counted(len(self._begun), 'row')}, {min(self._begun)} among them")
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
        if task.why:
            self._tally.redone[task.why] += 1
        ledger.append(started(task, self._summary.run, alone=alone))
        return task

    def _record(self, outcome: RowOutcome, ledger: Ledger) -> None:
        entry = ended(outcome, self._summary.run)
        # First: a line that the disk did not take may yet get there when the file is closed, and none shall follow it
        # that says that the row was dropped.
        row = self._begun.pop(entry.id).row
        ledger.append(entry)
        report = report_of(entry, row.line)
        if outcome.failure is None:
            self._settling.done(entry.id, entry.output)
            self._tally.add(report)
            self._progress.row(report, self._tally)
        else:
            failed = failed_row(row, report)
            self._settling.failed(entry.id, failed)
            self._count_failed(report, failed)

    def _tasks(self, rows: ManifestRows, planner: RowPlanner, ledger: Ledger) -> Iterator[RowTask]:
        """The tasks that are left; rows that come to their end at once are counted on the way."""
        part, tally = self._config.part, self._tally
        for row in ahead(rows.read(), by_content=self._config.content_hash, part=part, stop=self._stop):
            if self._shall_end():
                return
            if part is not None and not part.has(row.id):
                planner.pass_over(row)
                continue
            ledger.tick()
            plan = planner.plan(row)
            match plan:
                case RowTask() if ledger.in_flight_at_death(row.id) and not self._isolated:
                    self._suspects.append(plan)  # one of these may have killed it: they come last, one at a time
                case RowTask():
                    yield self._begin(plan, ledger)
                case Skip(output=output):
                    self._settling.done(row.id, output)
                    tally.num_skipped += 1
                    if not tally.num_skipped % SKIPPED_TOLD:
                        self._progress.skipped(tally)
                case Left(place=place):
                    self._settling.spoil()
                    self._left.add(left_row(row, place))
                    tally.num_left += 1
                    if not tally.num_left % SKIPPED_TOLD:
                        self._progress.skipped(tally)
                case Refused():
                    self._refuse(row, plan, ledger)

    def _refuse(self, row: Row | RowProblem, plan: Refused, ledger: Ledger) -> None:
        code, message = plan.error.code.value, plan.error.message
        if not plan.earlier and not plan.leaves_result:
            ledger.append(
                LedgerEntry(
                    id=row.id,
                    key=plan.key,
                    status="failed",
                    code=code,
                    message=message,
                    retryable=plan.error.retryable,
                    run=self._summary.run,
                )
            )
        report = RowReport(row.id, "failed", row.line, code=code, message=message, earlier=plan.earlier)
        failed = failed_row(row, report)
        if isinstance(row, RowProblem) or plan.key:
            self._settling.failed(row.id, failed, of_manifest=isinstance(row, RowProblem))
        else:  # for something beside its files, such as what stands at the place of its output
            self._settling.spoil()
        self._count_failed(report, failed)

    def _count_failed(self, report: RowReport, failed: FailedRow) -> None:
        self._tally.add(report)
        self._failures.add(failed)
        self._progress.row(report, self._tally)

    def _shall_end(self) -> bool:
        return self._stop() or self._limit_reached()

    def _limit_reached(self) -> bool:
        return 0 <= self._config.max_failures < self._tally.num_failed

    def _note(self, text: str) -> None:
        self._summary.notes.append(text)
        self._progress.note(text)
