"""`check`: everything about a manifest that costs no inference, row by row, without writing anything."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from inpaint_batch.config import PROCESS_BYTES, RunConfig
from inpaint_batch.errors import RowError, RowsFailedError
from inpaint_batch.execution.budget import MemoryBudget, return_large_blocks
from inpaint_batch.execution.failure import as_failure
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.local import MEMORY_BUDGET_BYTES
from inpaint_batch.execution.prepare import look_at_header, prepare_row
from inpaint_batch.execution.row_memory import row_limit_bytes
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, row_config
from inpaint_batch.pipeline.executors import check_executor, num_processes, num_workers
from inpaint_batch.pipeline.rows import OutputNames, output_name
from inpaint_batch.pipeline.store_copy import state_copy
from inpaint_batch.report.findings import CheckTotals, Finding, FindingsPrinter
from inpaint_batch.report.pulse import Pulse
from inpaint_batch.storage.paths import STATE_FOLDER, check_output_root
from inpaint_batch.threads import in_turn
from inpaint_batch.tiling.cost import Cost, estimate
from inpaint_batch.types import Row
from inpaint_batch.words import counted

SECONDS_PER_TILE = {64: 0.0021, 128: 0.0064, 256: 0.0268}
"""One pass over a tile, the shipped INT8 model on one thread of a Xeon at 2.5 GHz; only for the rough estimate
(engines/README.md, batch of 1)."""

Depth = Literal["rows", "headers", "pixels"]
"""How much of a manifest is looked at: its rows alone; images up to their first pixel; everything."""
PROBES_PER_WORKER = 4
"""Headers are waited for more than worked on."""


@dataclass(frozen=True, slots=True)
class _Checked:
    """What was found out about one row."""

    findings: tuple[Finding, ...]
    num_pixels: int = 0
    needed_bytes: int = 0
    cost: Cost | None = None

    @property
    def is_bad(self) -> bool:
        return any(finding.level == "error" for finding in self.findings)


_NOTHING = _Checked(())


def check_manifest(
    config: RunConfig,
    manifest: Path | str,
    *,
    masks: Path | None,
    with_output: bool,
    report: FindingsPrinter,
    depth: Depth = "pixels",
) -> CheckTotals:
    """Look at every row as a run would up to the engine: names, headers, pixels, mask, holes, plan.

    `with_output` tells whether the output folder is to be looked at as well. With a `depth` of `rows` no file is
    opened; with `headers` no pixel is decoded and no mask read, only whether it is there. Findings are reported in the
    order of the manifest. Raises RowsFailedError if a row would fail, and ManifestError, UsageError and StorageError as
    `run` does, as well as EngineError where the model is not there.
    """
    return_large_blocks()
    check_executor(config)
    totals = CheckTotals(depth=depth)
    rows = read_manifest(manifest, masks=masks)
    names: OutputNames | None = None
    if with_output:
        names = _output_names(config, manifest, masks)
    sum_bytes = largest_bytes = 0
    pulse = Pulse()
    for checked in _in_order(config, rows, names, depth):
        totals.num_rows += 1
        pulse.beat(f"{counted(totals.num_rows, 'row')} looked at, {totals.num_bad} would fail")
        totals.num_bad += checked.is_bad
        totals.num_pixels += checked.num_pixels
        if checked is _NOTHING:
            continue
        for finding in checked.findings:
            totals.num_warnings += finding.level == "warning"
            report.finding(str(manifest), finding)
        if checked.cost is not None:
            totals.num_tiles.update(checked.cost.num_tiles)
            totals.seconds += checked.cost.seconds
            row_bytes = checked.needed_bytes + checked.cost.peak_bytes
            sum_bytes += row_bytes
            largest_bytes = max(largest_bytes, row_bytes)
    totals.peak_bytes = PROCESS_BYTES + max(largest_bytes, min(sum_bytes, MEMORY_BUDGET_BYTES))
    report.totals(totals)
    if totals.num_bad:
        raise RowsFailedError(
            f"{totals.num_bad} of {counted(totals.num_rows, 'row')} would fail; correct them as said above"
        )
    return totals


def _output_names(config: RunConfig, manifest: Path | str, masks: Path | None) -> OutputNames:
    if config.store:
        with state_copy(config.store) as root:
            ledger = Ledger(root / STATE_FOLDER, read_only=True)
            ledger.owns("", "")  # reads what it needs for that now
        return OutputNames(replace(config, output=root), ledger.owns, read_only=True)
    check_output_root(config.output, [manifest, masks], create=False)
    return OutputNames(config, Ledger(config.output / STATE_FOLDER, read_only=True).owns, read_only=True)


def _in_order(
    config: RunConfig, rows: Iterator[Row | RowProblem], names: OutputNames | None, depth: Depth
) -> Iterator[_Checked]:
    if depth == "rows":
        for row in rows:
            findings = _of_row(row, config, names)
            yield _Checked(tuple(findings)) if findings else _NOTHING
        return
    budget = MemoryBudget(MEMORY_BUDGET_BYTES)
    limit_bytes = row_limit_bytes(config.max_memory_bytes, num_processes(config))
    workers = num_workers(config) * (PROBES_PER_WORKER if depth == "headers" else 1)

    def examined(job: tuple[Row | RowProblem, list[Finding]]) -> _Checked:
        row, findings = job
        if isinstance(row, RowProblem):
            return _Checked(tuple(findings))
        return _examine(row, config, budget, limit_bytes, findings, depth)

    jobs = ((row, _of_row(row, config, names)) for row in rows)
    with ThreadPoolExecutor(workers, thread_name_prefix="check") as pool:
        yield from in_turn(pool, examined, jobs, 4 * workers)


def _of_row(row: Row | RowProblem, config: RunConfig, names: OutputNames | None) -> list[Finding]:
    """What the manifest and the names in the output folder tell, without a look at image and mask."""
    if isinstance(row, RowProblem):
        return [_finding(row, row.error)]
    try:
        name = output_name(row, row_config(row, config.row))
        if names is not None:
            names.claim(row, name)
    except RowError as error:
        return [_finding(row, error)]
    return []


def _examine(
    row: Row, config: RunConfig, budget: MemoryBudget, limit_bytes: int, findings: list[Finding], depth: Depth
) -> _Checked:
    task: RowTask | None = None
    try:
        settings = row_config(row, config.row)
        task = RowTask(row, settings, "", output_name(row, settings), "")
        if depth == "headers":
            header = look_at_header(task, max_image_bytes=config.max_image_bytes, limit_bytes=limit_bytes)
            return _Checked(tuple(findings), header.num_pixels)
        with budget.drawn() as reserve:
            prepared = prepare_row(
                task,
                config.planning,
                max_image_bytes=config.max_image_bytes,
                limit_bytes=limit_bytes,
                reserve=reserve,
            )
            assert prepared is not None
            prepared.close()
        header = prepared.source.header
        warnings = [Finding(row.line, row.id, "warning", "", text) for text in prepared.warnings]
        cost = estimate(
            prepared.windows,
            seconds_per_tile={side: seconds * config.passes for side, seconds in SECONDS_PER_TILE.items()},
        )
        return _Checked((*findings, *warnings), header.num_pixels, prepared.needed_bytes, cost)
    except RowError as error:
        told = {finding.message for finding in findings}
        return _Checked((*findings, *([_finding(row, error)] if error.message not in told else [])))
    except Exception as error:
        assert task is not None
        failure = as_failure(error, task, "read")
        return _Checked((*findings, Finding(row.line, row.id, "error", failure.code.value, failure.message)))


def _finding(row: Row | RowProblem, error: RowError) -> Finding:
    return Finding(row.line, row.id, "error", error.code.value, error.message)
