"""Tasks and settings of workers, as tests want them where it does not matter what they are."""

from __future__ import annotations

from typing import Any

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.worker import WorkerSettings
from inpaint_batch.types import Row


def row_task(name: str) -> RowTask:
    """A row of that id, whose files all have that name too."""
    return RowTask(Row(name, 2, name, name, name), RowConfig(), "key", name, name)


def worker_settings(**changes: Any) -> WorkerSettings:
    """Of a worker that computes nothing, on one thread."""
    values: dict[str, Any] = {"engine": "identity", "model": "default", "precision": "auto", "passes": 1}
    values |= {"tiling": TilingConfig(), "threads": 1, "workers": 1, "signature": ""}
    values |= {"max_image_bytes": 1 << 30, "max_memory_bytes": 0}
    return WorkerSettings(**values | changes)
