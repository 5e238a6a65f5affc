"""What workers in other processes can do, and how one speaks with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

CHUNKS_IN_FLIGHT = 2
"""Calls with rows that a worker may have at a time: one is ready when the other is done."""


class WorkerGoneError(Exception):
    """A worker died, or cannot be reached, before it answered. Never leaves this package's executors."""

    def __init__(self, reason: str = "", *, of_memory: bool = False, for_good: bool = False) -> None:
        """`for_good`: it will not be started again, for that reason."""
        super().__init__(reason)
        self.reason = reason
        self.of_memory = of_memory
        self.for_good = for_good


class Transport(Protocol):
    """Where workers live and how one speaks with them. A worker is a `worker.RowWorker`, a handle stands for it.

    A worker that dies is started again under its handle, unless it is gone for good.
    """

    rows_at_once: int
    """How many rows a worker reads at a time: with fewer in a chunk some of its threads would be idle."""

    def num_wanted(self) -> int:
        """How many workers there shall be; may grow while a run lasts."""
        ...

    def hire(self) -> Any:
        """A handle for one more worker. Returns at once."""
        ...

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        """Have a worker do something; returns at once with a token that `wait` and `answer` take."""
        ...

    def wait(self, tokens: Sequence[Any], timeout_s: float) -> set[Any]:
        """The calls that have an answer; waits for a first one for so long at most."""
        ...

    def answer(self, token: Any) -> Any:
        """What the worker returned; raises what it raised, or WorkerGoneError."""
        ...

    def was_its_machine(self, handle: Any) -> bool | None:
        """Of a worker that was lost: whether its machine was lost with it; None while nobody knows."""
        ...

    def take_away(self, handle: Any) -> None:
        """End a worker that hangs; another takes its place."""
        ...

    def close(self) -> None:
        """Dismiss all workers at once, whatever they do."""
        ...
