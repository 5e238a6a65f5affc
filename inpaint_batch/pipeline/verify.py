"""`verify`: are the results of all rows there, and like their sources wherever there is no hole?

Nothing is taken from what the run said of its own work: the hole is found anew from mask and settings, and the files
are compared anew. The ledger tells only which row has which name, and why one has no result.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import FailureCode, RowError, RowsFailedError, StorageError
from inpaint_batch.execution.budget import MemoryBudget, return_large_blocks
from inpaint_batch.execution.failure import as_failure
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.local import MEMORY_BUDGET_BYTES
from inpaint_batch.execution.row_memory import row_limit_bytes
from inpaint_batch.execution.sidecar import SUFFIX
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.verify import Verified, verify_result
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, row_config
from inpaint_batch.pipeline.executors import num_processes, num_workers
from inpaint_batch.pipeline.rows import is_variant, output_name
from inpaint_batch.pipeline.store_copy import state_copy
from inpaint_batch.report.findings import Finding, FindingsPrinter, VerifyTotals
from inpaint_batch.report.pulse import Pulse
from inpaint_batch.storage.outputs import Outputs, outputs_at
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.threads import in_turn
from inpaint_batch.types import Row
from inpaint_batch.words import counted


@dataclass(frozen=True, slots=True)
class _Job:
    row: Row
    task: RowTask
    place: str
    has_sidecar: bool


_Found = Verified | RowError


def verify_manifest(
    config: RunConfig, manifest: Path | str, *, masks: Path | None, report: FindingsPrinter
) -> VerifyTotals:
    """Look at the result of every row of the shard; findings are reported in the order of the manifest.

    With `config.sidecar` each result must have its sidecar; without, those that are there are compared. Raises
    RowsFailedError if any result is not sound, ManifestError and UsageError as a run does, and StorageError where there
    is nothing to look at.
    """
    return_large_blocks()
    totals = VerifyTotals(shard=config.shard if config.part else "")
    pulse = Pulse()
    with ExitStack() as life:
        if config.store:
            root = life.enter_context(state_copy(config.store))
        elif config.output.is_dir():
            root = config.output
        else:
            raise StorageError(f"{config.output} is no folder: nothing was restored there; correct --output")
        ledger = Ledger(root / STATE_FOLDER, read_only=True)
        life.callback(ledger.close)
        jobs = _Jobs(config, ledger, outputs_at(config.store, root, read_only=True))
        rows = read_manifest(manifest, masks=masks)
        own = (row for row in rows if config.part is None or config.part.has(row.id))
        for row, found in _in_order(config, map(jobs.of, own)):
            totals.num_rows += 1
            pulse.beat(f"{counted(totals.num_rows, 'result')} compared, {totals.num_bad} not sound")
            if isinstance(found, RowError):
                totals.num_bad += 1
                report.finding(str(manifest), Finding(row.line, row.id, "error", found.code.value, found.message))
                continue
            totals.num_pixels += found.num_pixels
            totals.num_by_checksum += found.by_checksum
            for text in found.warnings:
                totals.num_warnings += 1
                report.finding(str(manifest), Finding(row.line, row.id, "warning", "", text))
    report.verified(totals)
    if totals.num_bad:
        in_all = counted(totals.num_rows, "row")
        raise RowsFailedError(f"{totals.num_bad} of {in_all} without a sound result; see above what to do about each")
    return totals


class _Jobs:
    """What there is to compare for each row."""

    def __init__(self, config: RunConfig, ledger: Ledger, outputs: Outputs) -> None:
        self._config, self._ledger, self._outputs = config, ledger, outputs

    def of(self, row: Row | RowProblem) -> tuple[Row | RowProblem, _Job | RowError]:
        """The files that are to be compared, or why there are none."""
        if isinstance(row, RowProblem):
            return row, row.error
        try:
            return row, self._job(row)
        except RowError as error:
            return row, error

    def _job(self, row: Row) -> _Job:
        settings = row_config(row, self._config.row)
        name = output_name(row, settings)
        known = self._ledger.known(row.id)
        if known is not None and is_variant(known.output, name):
            name = known.output  # that of a conflict
        place = f"{self._config.place}/{name}"
        if known is not None and known.status == "failed":
            raise RowError(FailureCode(known.code), f"no run could do this row: {self._ledger.message(row.id)}")
        if known is not None and known.status == "started":
            raise _missing(f"a run has begun {place} and not come to its end; run the manifest again")
        if not self._outputs.exists(name):
            if known is None:
                raise _missing(f"there is no {place}: no run has done this row; run the manifest")
            raise _missing(f"there is no {place} any more; run the manifest again, which makes it anew")
        has_sidecar = self._outputs.exists(name + SUFFIX)
        if self._config.sidecar and not has_sidecar:
            raise _missing(f"there is no {place + SUFFIX}; run the manifest again with --sidecar")
        return _Job(row, RowTask(row, settings, "", name, ""), place, has_sidecar)


def _missing(message: str) -> RowError:
    return RowError(FailureCode.WRITE, message)


def _in_order(
    config: RunConfig, jobs: Iterator[tuple[Row | RowProblem, _Job | RowError]]
) -> Iterator[tuple[Row | RowProblem, _Found]]:
    budget = MemoryBudget(MEMORY_BUDGET_BYTES)
    limit_bytes = row_limit_bytes(config.max_memory_bytes, num_processes(config))
    workers = num_workers(config)

    def compared(pair: tuple[Row | RowProblem, _Job | RowError]) -> tuple[Row | RowProblem, _Found]:
        row, job = pair
        return row, job if isinstance(job, RowError) else _compared(job, config, budget, limit_bytes)

    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        yield from in_turn(pool, compared, jobs, 4 * workers)


def _compared(job: _Job, config: RunConfig, budget: MemoryBudget, limit_bytes: int) -> _Found:
    try:
        with budget.drawn() as reserve:
            return verify_result(
                job.task,
                job.place,
                has_sidecar=job.has_sidecar,
                max_image_bytes=config.max_image_bytes,
                limit_bytes=limit_bytes,
                reserve=reserve,
            )
    except RowError as error:
        return error
    except Exception as error:
        return as_failure(error, job.task, "read").error()
