"""A row on its way, in the words of the ledger, of reports, and of `failures.csv`."""

from __future__ import annotations

from inpaint_batch.errors import RowError
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.execution.tasks import Failure, RowOutcome, RowTask
from inpaint_batch.manifest.schema import RowProblem, to_cells
from inpaint_batch.report.tally import FailedRow, RowReport
from inpaint_batch.storage.paths import location
from inpaint_batch.storage.uris import joined
from inpaint_batch.types import Row


def beside_earlier(error: RowError, place: str) -> RowError:
    """The same error, which says too that an earlier result still lies at `place`, so that nobody takes it for good."""
    message = f"{error.message}; an earlier result still lies at {place}"
    return RowError(error.code, message, retryable=error.retryable)


def started(task: RowTask, run: str, *, alone: bool) -> LedgerEntry:
    """The line that says that a row is worked on from now; `alone`: and no other."""
    return LedgerEntry(
        id=task.row.id,
        key=task.key,
        status="started",
        alone=alone,
        image=location(task.row.image),
        output=task.output,
        why=task.why,
        run=run,
    )


def report_of(entry: LedgerEntry, line: int) -> RowReport:
    """What is told about a row that has come to its end; `line` is its place in the manifest."""
    return RowReport(
        entry.id,
        "failed" if entry.status == "failed" else "done",
        line,
        output=entry.output,
        code=entry.code,
        message=entry.message,
        num_pixels=entry.num_pixels,
        num_tiles=entry.num_tiles,
        seconds=entry.seconds,
        warnings=entry.warnings,
        worker=entry.worker,
        attempt=entry.attempt,
    )


def failed_row(row: Row | RowProblem, report: RowReport) -> FailedRow:
    """A row as it stands in `failures.csv`."""
    cells = row.cells if isinstance(row, RowProblem) else to_cells(row)
    return FailedRow(dict(cells), report.code, report.message, report.line)


def left_row(row: Row | RowProblem, place: str) -> FailedRow:
    """A row as it stands in `left.csv`: its output was left as it was."""
    cells = row.cells if isinstance(row, RowProblem) else to_cells(row)
    return FailedRow(dict(cells), "", f"{place} exists and was not written for this row", row.line)


def ended(outcome: RowOutcome, run: str) -> LedgerEntry:
    """The line that says what became of a row."""
    task, failure = outcome.task, outcome.failure
    if failure is not None and task.is_there:
        place = joined(task.store, task.output) if task.store else task.destination
        failure = Failure.of(beside_earlier(failure.error(), place))
    return LedgerEntry(
        id=task.row.id,
        key=task.key,
        status="failed" if failure else "done",
        image=location(task.row.image),
        output=task.output,
        code=failure.code.value if failure else "",
        message=failure.message if failure else "",
        retryable=failure.retryable if failure else None,
        num_tiles=dict(sorted(outcome.num_tiles.items())),
        # To tenths of a millisecond; round() would take four times as long.
        seconds={stage: int(1e4 * seconds + 0.5) / 1e4 for stage, seconds in outcome.seconds.items() if seconds},
        coverage=None if outcome.coverage is None else round(outcome.coverage, 6),
        doubt=None if outcome.doubt is None else round(outcome.doubt, 2),
        doubtful=outcome.doubtful,
        num_pixels=outcome.num_pixels,
        warnings=outcome.warnings,
        run=run,
        worker=outcome.worker,
        attempt=task.attempt,
        page=task.config.page,
    )
