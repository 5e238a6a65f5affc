"""Which part of a manifest this process is to do, as a scheduler tells it."""

from __future__ import annotations

from collections.abc import Mapping

from inpaint_batch.config import Shard
from inpaint_batch.errors import UsageError

COUNT_VARIABLE = "INPAINT_BATCH_SHARD_COUNT"
"""Kubernetes tells a pod its index but not how many there are; this variable does."""


def shard_from_environment(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """(`i/n`, where it came from) of a Slurm job array or a Kubernetes Indexed Job; None outside of both.

    Raises UsageError where the scheduler says too little to be certain that the shards make up the whole.
    """
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _of_slurm(environment)
    if "JOB_COMPLETION_INDEX" in environment:
        return _of_kubernetes(environment)
    return None


def _of_slurm(environment: Mapping[str, str]) -> tuple[str, str]:
    task = _number(environment, "SLURM_ARRAY_TASK_ID")
    count = _number(environment, "SLURM_ARRAY_TASK_COUNT")
    first = _number(environment, "SLURM_ARRAY_TASK_MIN", default=1)
    step = _number(environment, "SLURM_ARRAY_TASK_STEP", default=1) or 1
    at, rest = divmod(task - first, step)
    if rest or not 0 <= at < count:
        raise UsageError(
            f"task {task} of an array of {count} that begins at {first} is no part of it; use --array=1-{count}, or "
            "say the part yourself with --shard i/n (--shard 1/1 does all rows)"
        )
    return str(Shard(at + 1, count)), "SLURM_ARRAY_TASK_ID"


def _of_kubernetes(environment: Mapping[str, str]) -> tuple[str, str]:
    if COUNT_VARIABLE not in environment:
        raise UsageError(
            f"JOB_COMPLETION_INDEX is set, but not how many pods there are; set {COUNT_VARIABLE} to the job's "
            "completions, or say the part yourself with --shard i/n (--shard 1/1 does all rows)"
        )
    index, count = _number(environment, "JOB_COMPLETION_INDEX"), _number(environment, COUNT_VARIABLE)
    if not 0 <= index < count:
        raise UsageError(f"JOB_COMPLETION_INDEX is {index}, but {COUNT_VARIABLE} says {count}; make it the completions")
    return str(Shard(index + 1, count)), "JOB_COMPLETION_INDEX"


def _number(environment: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    text = environment.get(name, "")
    if not text and default is not None:
        return default
    if not text.strip().isdigit():
        raise UsageError(f"{name} should be a whole number, not {text!r}; say the part yourself with --shard i/n")
    return int(text)
