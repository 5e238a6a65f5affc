"""What an executor is given and what it gives back: plain data that pickles, and carries no pixels."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.sidecar import RunFacts
from inpaint_batch.report.row_tiles import RowTiles
from inpaint_batch.runtime.engine import Engine
from inpaint_batch.types import Box, Row


class RowTask(msgspec.Struct, frozen=True):
    """One row that is to be done now, with everything about it decided."""

    row: Row
    """The line of the manifest."""
    config: RowConfig
    """The settings that hold for this row: the run's, overridden by the row's own columns."""
    key: str
    """Identity of the work (see `identity.row_key`)."""
    output: str
    """Name of the result relative to the output folder, after conflicts were settled."""
    destination: str
    """Path where the result goes: `output` inside the output folder, already checked to lie there."""
    facts: RunFacts | None = None
    """What is said of the run in its result and beside it; None where no result is to be written."""
    store: str = ""
    """URI below which `output` goes once it is written; empty where `destination` is its last place."""
    tiling: TilingConfig | None = None
    """Its own geometry, where memory did not suffice for that of the run."""
    why: str = ""
    """What has changed since an earlier run did it, or had it fail (`identity.Change`, `missing` result, `failed`);
    empty where none did."""
    is_there: bool = False
    """Whether an earlier run knew the row and something lies where its result goes, most likely its result of then."""
    attempt: int = 1
    """How often this run has begun it: more than 1 where a worker was lost with it, or memory ran out."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row could not be done."""

    code: FailureCode
    message: str
    """One sentence: what happened and what to do next."""
    retryable: bool = False
    """Whether the same row may succeed if it is simply run again."""

    @classmethod
    def of(cls, error: RowError) -> Failure:
        """The same, from the exception that said it."""
        return cls(error.code, error.message, error.retryable)

    def error(self) -> RowError:
        """The exception that says the same."""
        return RowError(self.code, self.message, retryable=self.retryable)


class RowOutcome(msgspec.Struct, frozen=True):
    """What became of a task."""

    task: RowTask
    failure: Failure | None = None
    """None where the row is done."""
    num_tiles: Mapping[int, int] = msgspec.field(default_factory=dict)
    """Tiles that the engine ran for this row, by side in pixels."""
    is_filled: bool = False
    """Whether that was all of them: where the row failed all the same, it was not for the engine."""
    seconds: Mapping[str, float] = msgspec.field(default_factory=dict)
    """Time spent on this row by stage (`types.STAGES`). A batch's time is shared out by its tiles."""
    coverage: float | None = None
    """Part of the image that is hole, 0..1; None where it never became known."""
    doubt: float | None = None
    """See `PreparedRow.doubt`."""
    doubtful: Box | None = None
    """Where its doubt is the largest."""
    num_pixels: int = 0
    """Pixels of the image, 0 where it never became known."""
    warnings: tuple[str, ...] = ()
    """Sentences for the person who owns the file; the row is done nevertheless."""
    worker: str = ""
    """Process that brought it to its end (`logids.worker_id`); empty where it was lost."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What a run needs to know of an engine that may be loaded elsewhere."""

    name: str
    model: str
    precision: str
    identity: str
    """See `Engine.identity`."""
    buckets_px: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, engine: Engine) -> EngineFacts:
        """Those of a loaded engine."""
        return cls(
            engine.name, engine.model, engine.precision, engine.identity, tuple(engine.buckets_px), tuple(engine.notes)
        )


def never() -> bool:
    """For runs that nobody stops."""
    return False


class Executor(Protocol):
    """Does rows. Where and how is its own affair; the outcome of a row must not depend on it."""

    isolates_rows: bool
    """Whether this process survives a row that kills what works on it."""
    abandoned: bool
    """Whether the last run left rows in flight to themselves; where they are in this process, its threads still are."""

    @property
    def num_batches(self) -> int:
        """Batches that the engine has run."""
        ...

    def queues(self) -> Mapping[str, int]:
        """Rows in flight by what they wait for or are in, to be asked from any thread while rows are done."""
        ...

    def filling(self) -> Sequence[RowTiles]:
        """Rows that are being filled or written, as far as that can be seen from here; from any thread, too."""
        ...

    def run(
        self, tasks: Iterable[RowTask], stopping: Callable[[], bool], overdue: Callable[[], bool] = never
    ) -> Generator[RowOutcome]:
        """Yield one outcome for each task, in the order in which they end.

        Tasks are drawn lazily. Once `stopping()` is true no further task is drawn; those already drawn are brought to
        their end, or dropped without an outcome where no work has gone into them. Once `overdue()` is true as well, all
        that are left are dropped at once, whatever state they are in. A failed row is an outcome; only a
        run-level error (`InpaintBatchError`) is raised, and then rows in flight have no outcome. Close the generator if
        you leave it early.
        """
        ...
