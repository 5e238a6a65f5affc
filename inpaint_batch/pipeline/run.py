"""`run`: manifest, preflight, executor, ledger and report put together."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import (
    InpaintBatchError,
    RowError,
    StorageError,
    exit_code_of,
    why_it_ends,
)
from inpaint_batch.execution.identity import forget_looks
from inpaint_batch.execution.ledger_lines import LEDGER_FOLDER
from inpaint_batch.execution.lock import hold_folder
from inpaint_batch.logids import HumanFormatter, in_run
from inpaint_batch.pipeline.executors import check_executor
from inpaint_batch.pipeline.manifest_rows import ManifestRows
from inpaint_batch.pipeline.status import begin_run_file
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.pipeline.store_state import StoreState, open_place
from inpaint_batch.pipeline.work import Work
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.summary import Summary, state_ending
from inpaint_batch.storage.atomic import remove_stale_temporaries, storage_error, temporaries_of
from inpaint_batch.storage.paths import STATE_FOLDER, check_output_root

log = logging.getLogger("inpaint_batch")


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
    with in_run(config.shard) as run_id:
        rows = ManifestRows(manifest, masks, config)
        forget_looks()
        check_executor(config)
        with open_place(config) as (config, remote):
            check_output_root(config.output, [manifest, masks])
            summary = Summary(config, str(manifest), started_s, run=run_id)
            if config.part is not None and shard_from:
                summary.notes.append(f"this does shard {config.part} only, by {shard_from}; --shard 1/1 does all rows")
            return _run(config, remote, rows, summary, progress, stop)


def _run(
    config: RunConfig,
    remote: StoreState | None,
    rows: ManifestRows,
    summary: Summary,
    progress: Progress,
    stop: Stop,
) -> Summary:
    part = config.part
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
            begin_run_file(state, summary, rows.num_rows, rows.digest)
            if remote is not None:
                remote.begin()
            work = Work(config, state, summary, progress, stop, signature, remote)
            try:
                with _disk_errors(state):
                    work.do(rows)
            except BaseException as error:
                exit_code = exit_code_of(error)
                if summary.engine:  # else nothing has begun that could be told to have ended
                    progress.finish(summary.tally, exit_code)
                if not isinstance(error, InpaintBatchError | KeyboardInterrupt):
                    log.error("the run ended by what nobody foresaw", exc_info=error)
                with suppress(OSError, StorageError, RowError):  # a full disk shall not hide why the run ended
                    summary.write(state, exit_code, why_it_ends(error))
                raise
            progress.finish(summary.tally, 0)
            summary.write(state, 0)
            return summary


@contextmanager
def _disk_errors(state: Path) -> Iterator[None]:
    """Turn an OSError about the state folder into what it means for the run."""
    try:
        yield
    except OSError as error:
        known = storage_error(error, state / LEDGER_FOLDER)
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
