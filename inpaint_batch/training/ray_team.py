"""A training run whose processes Ray Train starts, on one machine or many, and starts again where one is lost.

Ray makes the processes and their group; from there on each is a member of a `Team`, as under torchrun. The run's folder
must be one that all machines see. A signal to the program that started it becomes a file there, which the
processes look for after every step.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from inpaint_batch.errors import InpaintBatchError, StopRequestedError, WorkerLostError
from inpaint_batch.execution.ray_cluster import ray_cluster
from inpaint_batch.signals import told_of_signals
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.monitor import LOG
from inpaint_batch.training.trainer import BEST, EXPORT, LAST, check_run, train

STOP = "stop"
"""File in the run's folder: save and end."""
RAY_FOLDER = "ray"
"""Folder in the run's folder for what Ray itself keeps."""
SHOW_EVERY_S = 1.0
MAX_RESTARTS = 3
"""Losses of a process that are answered by a new start from the last checkpoint."""

log = logging.getLogger(__name__)


def train_on_ray(
    config: TrainConfig,
    data: Path,
    run: Path,
    *,
    num_workers: int,
    damage: Path | None = None,
    resume: bool = False,
    init: Path | None = None,
    device: str = "auto",
    num_loaders: int = 2,
    num_threads: int = 1,
) -> float:
    """As `train`, in `num_workers` processes on the cluster that RAY_ADDRESS names, or on one made for it here.

    `device`: `auto` takes a GPU for each process where the cluster has as many; `num_threads`: those of torch in each
    process. Raises what `train` raises, MissingDependencyError without Ray Train, and WorkerLostError where processes
    cannot be had or are lost more than MAX_RESTARTS times.
    """
    check_run(run, resume=resume)
    run.mkdir(parents=True, exist_ok=True)
    (run / STOP).unlink(missing_ok=True)
    (run / LOG).touch()
    job = {
        "config": config.to_dict(),
        "data": data.absolute(),
        "run": run.absolute(),
        "damage": damage.absolute() if damage else None,
        "init": init.absolute() if init else None,
        "device": device,
        "num_loaders": num_loaders,
        "num_threads": num_threads,
    }
    # One more than there are processes: Ray Train itself takes one.
    cluster = ray_cluster("ray.train", "ray.train.torch", extra="train,ray-train", num_cpus=num_workers + 1)
    with cluster as ray, told_of_signals(lambda _number: (run / STOP).touch()), _shown(run / LOG):
        on_gpus = device != "cpu" and ray.cluster_resources().get("GPU", 0) >= num_workers
        trainer = ray.train.torch.TorchTrainer(
            _work,
            train_loop_config=job,
            scaling_config=ray.train.ScalingConfig(num_workers=num_workers, use_gpu=on_gpus),
            run_config=ray.train.RunConfig(
                name="train",
                storage_path=str(run.absolute() / RAY_FOLDER),
                failure_config=ray.train.FailureConfig(max_failures=MAX_RESTARTS),
            ),
        )
        try:
            trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise _reason(error) from error
    reached = load_checkpoint(run / LAST)
    if reached.step < config.steps:
        raise StopRequestedError(f"stopped at step {reached.step}; go on with --resume")
    return reached.best_psnr


def _work(job: dict[str, Any]) -> None:
    """One process of the team. What it raises is answered by a new start, but for the wish to stop."""
    import ray.train.torch
    import torch

    torch.set_num_threads(max(1, job["num_threads"]))
    run = job["run"]
    place = ray.train.torch.get_device()
    resume = (run / LAST).exists()
    if not resume:  # a start before this one may have been lost before its first checkpoint
        for name in (EXPORT, BEST):
            (run / name).unlink(missing_ok=True)
    with suppress(StopRequestedError):
        train(
            TrainConfig.from_dict(job["config"]),
            job["data"],
            run,
            damage=job["damage"],
            resume=resume,
            init=None if resume else job["init"],
            device=str(place) if job["device"] == "auto" or place.type == "cuda" else job["device"],
            num_loaders=job["num_loaders"],
            should_stop=(run / STOP).exists,
        )


def _reason(error: Exception) -> InpaintBatchError:
    """The failure of a process in words of ours, where one of ours is behind it."""
    for failure in getattr(error, "worker_failures", {}).values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InpaintBatchError):
                return cause
            cause = cause.__cause__ or getattr(cause, "_base_exc", None)
    return WorkerLostError(f"the processes of Ray Train were lost: {error}; go on with --resume")


@contextmanager
def _shown(path: Path) -> Iterator[None]:
    """What is added to the log of the run meanwhile appears on screen: Ray would mix it with remarks of its own."""
    done = threading.Event()

    def follow() -> None:
        with path.open(encoding="utf-8") as file:
            file.seek(0, os.SEEK_END)
            while True:
                ending = done.wait(SHOW_EVERY_S)
                for line in file:
                    log.info(line.strip())
                if ending:
                    return

    thread = threading.Thread(target=follow, name="log", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
