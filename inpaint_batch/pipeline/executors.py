"""Which executor does the rows of a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import UsageError
from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.execution.tasks import EngineFacts, Executor
from inpaint_batch.execution.tiles import EngineRunner
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.storage.atomic import remove_stale_temporaries

NVIDIA_DEVICES = Path("/proc/driver/nvidia/gpus")


def choose_executor(config: RunConfig) -> Literal["local", "ray"]:
    """`auto` is Ray where a cluster is named (RAY_ADDRESS) or several GPUs are there and Ray is installed."""
    if config.executor == "auto":
        several = num_visible_gpus() > 1 and config.engine == "auto" and find_spec("ray") is not None
        chosen: Literal["local", "ray"] = "ray" if os.environ.get("RAY_ADDRESS") or several else "local"
    else:
        chosen = config.executor
    if chosen == "local" and (config.row_timeout_s or config.actors):
        flag = "--row-timeout" if config.row_timeout_s else "--actors"
        raise UsageError(f"{flag} needs workers in processes of their own: add --executor ray")
    return chosen


def num_visible_gpus() -> int:
    """NVIDIA GPUs that this process may use, without a driver library."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return len([name for name in allowed.split(",") if name.strip() not in ("", "-1", "NoDevFiles")])
    return sum(1 for _ in NVIDIA_DEVICES.iterdir()) if NVIDIA_DEVICES.is_dir() else 0


@contextmanager
def open_executor(
    config: RunConfig, *, workers: int, signature: str, writer: str
) -> Iterator[tuple[EngineFacts, Executor]]:
    """The engine's facts and an executor that runs it.

    `workers` threads read, and as many write. Temporary files of workers elsewhere carry `signature`; what lost ones
    left is removed at the end, in the name of `writer` (see `storage.atomic`).
    """
    if choose_executor(config) == "local":
        engine = select_engine(config.engine, model=config.model, precision=config.precision, passes=config.passes)
        with closing(engine):
            runner = EngineRunner(engine)
            yield (
                EngineFacts.of(engine),
                LocalExecutor(runner, config.tiling, workers=workers, max_image_bytes=config.max_image_bytes),
            )
        return
    from inpaint_batch.execution.ray_executor import RayExecutor
    from inpaint_batch.execution.ray_worker import WorkerSettings

    model = config.model if config.model == "default" else str(Path(config.model).expanduser().absolute())
    settings = WorkerSettings(
        engine=config.engine,
        model=model,
        precision=config.precision,
        passes=config.passes,
        tiling=config.tiling,
        threads=0,
        workers=workers,
        max_image_bytes=config.max_image_bytes,
        signature=signature,
    )
    executor = RayExecutor(settings, num_actors=config.actors, row_timeout_s=config.row_timeout_s)
    try:
        with closing(executor):
            yield executor.engine, executor
    finally:
        if executor.num_lost:
            remove_stale_temporaries(config.output, (writer,))
