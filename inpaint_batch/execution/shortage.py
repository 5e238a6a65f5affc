"""What is done where memory runs out: fewer at a time, then smaller tiles, and only then is a row given up.

The engine halves a batch that does not fit (`batcher`). A row for which that is not enough is tried again alone, when
nothing else is in flight; then, where it was the engine that wanted too much, in smaller and smaller tiles. Smaller
tiles give other pixels than the same row gets on a larger machine, so the row says so in a warning.
"""

from __future__ import annotations

import dataclasses
from collections import deque

import msgspec

from inpaint_batch.config import TilingConfig
from inpaint_batch.errors import ConfigError, FailureCode
from inpaint_batch.execution.tasks import RowOutcome, RowTask

_SIGNS = ("out of memory", "bad_alloc", "bad allocation", "allocate memory", "alloc_failed", "outofmemory")
"""How CUDA, cuDNN, cuBLAS, ONNX Runtime and the C++ library tell of it, in exceptions of their own."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an exception, or what it was raised from, means that memory ran out."""
    while error is not None:
        text = f"{type(error).__name__} {error}".lower()
        if isinstance(error, MemoryError) or any(sign in text for sign in _SIGNS):
            return True
        error = error.__cause__
    return False


def smaller(tiling: TilingConfig) -> TilingConfig | None:
    """The same geometry without its largest tile; None where there is no smaller one."""
    try:
        return dataclasses.replace(tiling, buckets_px=tiling.buckets_px[:-1])
    except ConfigError:  # no tile is left, or none that holds the margin
        return None


def in_smaller_tiles(tiling: TilingConfig) -> str:
    """The sentence for the owner of a file that was done in tiles of that geometry."""
    return (
        f"memory did not suffice, so it was filled in tiles of {tiling.buckets_px[-1]} px at most; a larger machine "
        "gives other pixels (--fresh does it again)"
    )


EASY_ROWS = 16
"""Rows done without shortage after which one more may be in flight again."""


class Shortage:
    """Rows of one run that memory did not suffice for, to be tried again alone."""

    def __init__(self, tiling: TilingConfig, max_rows: int) -> None:
        """`max_rows` is how many may be in flight where memory suffices."""
        self._tiling = tiling
        self._most_rows = max_rows
        self.max_rows = max_rows
        """How many rows may be in flight, by what has become of those before."""
        self._num_easy = 0
        self._waiting: deque[RowTask] = deque()
        self._alone: set[str] = set()

    def __len__(self) -> int:
        """Rows that wait until nothing else is in flight."""
        return len(self._waiting)

    def next(self) -> RowTask:
        """The row that has waited longest."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Forget them."""
        self._waiting.clear()

    def takes(self, outcome: RowOutcome) -> bool:
        """Whether the row is tried again, so that this outcome is not its end."""
        task, failure = outcome.task, outcome.failure
        if failure is None or failure.code is not FailureCode.MEMORY or not failure.retryable:
            return False
        if task.row.id in self._alone:
            is_engines = outcome.num_tiles and not outcome.is_filled
            tiling = smaller(task.tiling or self._tiling) if is_engines else None
            if tiling is None:
                return False
            facts = task.facts and dataclasses.replace(task.facts, tiling=tiling)
            task = msgspec.structs.replace(task, tiling=tiling, facts=facts)
        self._alone.add(task.row.id)
        self._waiting.append(msgspec.structs.replace(task, attempt=task.attempt + 1))
        return True

    def learn(self, outcome: RowOutcome) -> None:
        """Of a row at its end: fewer at a time where all that it had lacked was to be alone, else slowly more again."""
        task = outcome.task
        was_alone = task.row.id in self._alone
        self._alone.discard(task.row.id)
        if outcome.failure is not None or task.tiling is not None:
            return  # neither says how many there is room for
        if was_alone:
            self.max_rows = max(1, self.max_rows // 2)
            self._num_easy = 0
            return
        self._num_easy += 1
        if self._num_easy >= EASY_ROWS:
            self.max_rows = min(self._most_rows, self.max_rows + 1)
            self._num_easy = 0
