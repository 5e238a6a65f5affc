"""Which executor does the rows of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import UsageError
from inpaint_batch.execution.engine_runner import EngineRunner
from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.execution.tasks import EngineFacts, Executor, never
from inpaint_batch.execution.worker import OutputMark, WorkerSettings, automatic_workers
from inpaint_batch.machine import gpus_alike, num_cores
from inpaint_batch.pipeline.status import run_file
from inpaint_batch.runtime.plans import PLANS_VARIABLE
from inpaint_batch.runtime.select import check_choice, runs_on_cpus, select_engine
from inpaint_batch.runtime.store import without_tilde
from inpaint_batch.storage.atomic import give_up_temporaries, remove_stale_temporaries
from inpaint_batch.storage.paths import STATE_FOLDER

if TYPE_CHECKING:
    from inpaint_batch.execution.transport import Transport

CORES_PER_PROCESS = 4
"""Small images keep about so many cores busy: all but the pixels is done under one lock of the interpreter."""
MANY_ROWS = 1000
"""For fewer it is not worth to speak of executors."""


def choose_executor(config: RunConfig) -> Literal["local", "process", "ray"]:
    """What `auto` comes to.

    Ray where a cluster is named (RAY_ADDRESS) or several GPUs are there and Ray is installed; else processes where
    something is wanted that only they can give (`--row-timeout`, `--actors`); else this process.
    """
    chosen = config.executor
    if chosen == "auto":
        several = config.engine == "auto" and find_spec("ray") is not None and len(gpus_alike()) > 1
        if os.environ.get("RAY_ADDRESS") or several:
            return "ray"
        return "process" if config.row_timeout_s or config.actors else "local"
    if chosen == "local" and (config.row_timeout_s or config.actors):
        flag = "--row-timeout" if config.row_timeout_s else "--actors"
        raise UsageError(
            f"{flag} needs workers in processes of their own, since a thread cannot be taken away from a row: say "
            "--executor process, or --executor ray on a cluster"
        )
    return chosen


def check_executor(config: RunConfig) -> None:
    """Raise what `open_executor` would raise and what can be told before anything is written or started."""
    if choose_executor(config) != "ray":  # its nodes may have a model that is not here
        check_choice(config.engine, config.model, config.precision)


def num_processes(config: RunConfig) -> int:
    """How many processes of a run share this machine, and its memory (see `row_memory.row_limit_bytes`).

    1 with a Ray cluster elsewhere: how it places its actors is known once a run has joined it. Raises UsageError as
    `choose_executor` does.
    """
    chosen = choose_executor(config)
    if chosen == "local" or (chosen == "ray" and os.environ.get("RAY_ADDRESS")):
        return 1
    return config.actors or len(_gpus_for(config)) or 1


def _gpus_for(config: RunConfig) -> list[str]:
    """Names of the GPUs that workers on this machine share."""
    return [] if runs_on_cpus(config.engine) else gpus_alike()


def advice(config: RunConfig, num_rows: int) -> str | None:
    """What may suit this machine better than the executor that `auto` comes to; None where there is no such thing."""
    number = num_cores() // CORES_PER_PROCESS
    by_itself = config.executor == "auto" and not config.workers and choose_executor(config) == "local"
    if num_rows < MANY_ROWS or not by_itself:
        return None
    if num_gpus := len(_gpus_for(config)):
        return f"{num_gpus} GPUs, of which one is used: --executor process uses all" if num_gpus > 1 else None
    if number < 2 or config.engine not in ("auto", "onnxruntime"):
        return None
    return f"{num_cores()} cores: small images are done faster with --executor process --actors {number}"


def num_workers(config: RunConfig) -> int:
    """Threads of this process that read, and as many that write."""
    return config.workers or automatic_workers(num_cores())


@contextmanager
def open_executor(
    config: RunConfig, *, signature: str, writer: str, stopping: Callable[[], bool] = never
) -> Iterator[tuple[EngineFacts, Executor]]:
    """The engine's facts and an executor that runs it.

    Temporary files of workers elsewhere carry `signature`; what lost ones left is removed at the end, in the name of
    `writer` (see `storage.atomic`). Raises StopRequestedError where `stopping()` becomes true while a first worker is
    waited for.
    """
    chosen = choose_executor(config)
    if chosen == "local":
        with _local(config) as opened:
            yield opened
        return
    from inpaint_batch.execution.pool_executor import PoolExecutor

    model = config.model if config.model == "default" else str(without_tilde(config.model).absolute())
    plans = os.environ.get(PLANS_VARIABLE)
    settings = WorkerSettings(
        engine=config.engine,
        model=model,
        precision=config.precision,
        passes=config.passes,
        tiling=config.planning,
        threads=0,
        workers=config.workers,
        max_image_bytes=config.max_image_bytes,
        max_memory_bytes=config.max_memory_bytes,
        signature=signature,
        plans=str(without_tilde(plans).absolute()) if plans else "",
        output_mark=None if config.store else _mark_of(run_file(config.output / STATE_FOLDER, config.part)),
    )
    executor: PoolExecutor | None = None
    try:
        executor = PoolExecutor(
            _transport(chosen, settings, config, stopping), row_timeout_s=config.row_timeout_s, stopping=stopping
        )
        with closing(executor):
            yield executor.engine, executor
    finally:
        if executor is not None and executor.num_lost:
            remove_stale_temporaries(config.output, {writer: ""})


def _mark_of(path: Path) -> OutputMark:
    return OutputMark(str(path.absolute()), path.read_bytes())


@contextmanager
def _local(config: RunConfig) -> Iterator[tuple[EngineFacts, Executor]]:
    engine = select_engine(config.engine, model=config.model, precision=config.precision, passes=config.passes)
    executor = LocalExecutor(
        EngineRunner(engine),
        config.planning,
        workers=num_workers(config),
        max_image_bytes=config.max_image_bytes,
        max_memory_bytes=config.max_memory_bytes,
    )
    try:
        yield EngineFacts.of(engine), executor
    finally:
        if executor.abandoned:  # closing the engine would wait for a tile that may hang
            give_up_temporaries()
        else:
            engine.close()


def _transport(
    chosen: Literal["process", "ray"], settings: WorkerSettings, config: RunConfig, stopping: Callable[[], bool]
) -> Transport:
    if chosen == "process":
        from inpaint_batch.execution.process_transport import ProcessTransport

        gpus = _gpus_for(config)
        return ProcessTransport(settings, num_processes=config.actors, num_cores=num_cores(), gpus=gpus)
    from inpaint_batch.execution.ray_transport import RayTransport

    return RayTransport(settings, num_actors=config.actors, stopping=stopping)
