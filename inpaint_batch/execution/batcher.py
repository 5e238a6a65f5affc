"""Full batches out of many small fills.

A *fill* is a generator that stands for one window of one image: it yields the tiles of a level, is sent their filled
pixels, yields the next level, and finally returns its result. The batcher drives many of them at once, those of
one row and those of its neighbours, and packs what they yield into batches of one tile side. Which tiles share a batch
depends on timing; what comes back for a tile does not.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Protocol, TypeVar

from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.execution.careful import CarefulRunner
from inpaint_batch.execution.shortage import is_out_of_memory
from inpaint_batch.types import FloatArray


class TileLike(Protocol):
    """All that the batcher needs to know of a tile."""

    @property
    def side_px(self) -> int:
        """Side of the square tile; tiles of one side share a batch."""
        ...


BATCHES_AHEAD = 2
"""Full batches for which fills are started: one for the engine, and one that is made ready meanwhile."""
MAX_HELD_PX = 64 * 256**2
"""Pixels of tiles of open fills, filled or waiting (12 bytes each once they are filled), from which on none is started:
else those whose last tile is of a side that comes seldom would wait for a full batch of it in ever greater number."""

TileT = TypeVar("TileT", bound=TileLike)
ResultT = TypeVar("ResultT")

Fill = Generator[Sequence[TileT], Sequence[FloatArray], ResultT]
"""Yields tiles, is sent one (3, side, side) array for each, returns its result."""


@dataclass(slots=True)
class Filled(Generic[ResultT]):
    """A job that has ended."""

    name: object
    """The name under which it was added."""
    results: list[ResultT]
    """What its fills returned, in their order; not complete where `error` is set."""
    error: RowError | None
    num_tiles: Counter[int]
    """Tiles that were run for it, by side."""
    seconds: float
    """Its share of the engine's time."""
    own_seconds: float
    """What its fills took between the batches: cutting tiles out, blending them in."""
    cause: BaseException | None = None
    """The unexpected exception behind `error`, for the log."""


@dataclass(slots=True, eq=False)
class _Job(Generic[TileT, ResultT]):
    name: object
    fills: Iterator[Fill[TileT, ResultT]]
    results: dict[int, ResultT] = field(default_factory=dict)
    open_fills: list[_OpenFill[TileT, ResultT]] = field(default_factory=list)
    num_started: int = 0
    all_started: bool = False
    error: RowError | None = None
    cause: BaseException | None = None
    num_tiles: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    own_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _OpenFill(Generic[TileT, ResultT]):
    job: _Job[TileT, ResultT]
    index: int
    generator: Fill[TileT, ResultT]
    fills: list[FloatArray | None] = field(default_factory=list)
    num_missing: int = 0
    held_px: int = 0
    """Pixels of its tiles that wait or are filled."""


@dataclass(slots=True)
class _Waiting(Generic[TileT, ResultT]):
    fill: _OpenFill[TileT, ResultT]
    index: int
    tile: TileT


class Batcher(Generic[TileT, ResultT]):
    """Drives fills; not thread-safe: one thread calls everything."""

    def __init__(
        self,
        run: Callable[[Sequence[TileT]], Sequence[FloatArray]],
        batch_size: Callable[[int], int],
        anticipate: Callable[[Sequence[TileT]], None],
    ) -> None:
        """`run` fills tiles of one side, one (3, side, side) array for each; `batch_size` is how many at most at once.

        What `run` returns for a tile must not depend on the other tiles. `anticipate` is told before each batch of the
        tiles that are likely to be the next.
        """
        self._engine = CarefulRunner(run, batch_size)
        self._anticipate = anticipate
        self._jobs: deque[_Job[TileT, ResultT]] = deque()  # those with fills not yet started, oldest first
        self._waiting: dict[int, deque[_Waiting[TileT, ResultT]]] = {}
        self._num_waiting = 0
        self._held_px = 0
        self._finished: list[Filled[ResultT]] = []
        self.num_jobs = 0
        """Jobs added and not yet handed back."""
        self.num_batches = 0

    def add(self, name: object, fills: Iterable[Fill[TileT, ResultT]]) -> None:
        """Take on a job: the fills of one row. They are drawn lazily, a few at a time."""
        self._jobs.append(_Job(name, iter(fills)))
        self.num_jobs += 1

    @property
    def hungry(self) -> bool:
        """Whether another job would help: there are no two full batches, and all fills have been started."""
        self._start_fills()
        return self._full_side(BATCHES_AHEAD) is None and not self._jobs

    @property
    def has_full_batch(self) -> bool:
        """Whether there is enough for the engine to do."""
        return self._full_side() is not None

    def step(self) -> list[Filled[ResultT]]:
        """Run one batch, the fullest there is; return the jobs that ended by it.

        Raises whatever run-level error (`InpaintBatchError`) the engine raises; any other exception fails one job.
        """
        self._start_fills()
        side = self._fullest_side()
        if side is not None:
            batch = self._take(side)
            if batch:
                self._look_ahead()
                self._run_batch(side, batch)
        finished, self._finished = self._finished, []
        self.num_jobs -= len(finished)
        return finished

    def _look_ahead(self) -> None:
        """Have what is likely to be run next made ready, and nothing of rows that have failed: they are let go."""
        side = self._fullest_side()
        if side is not None:
            wanted = (waiting.tile for waiting in self._waiting[side] if waiting.fill.job.error is None)
            self._anticipate(list(islice(wanted, self._engine.batch_size(side))))

    def _full_side(self, num_batches: int = 1) -> int | None:
        full = [
            side for side, queue in self._waiting.items() if len(queue) >= num_batches * self._engine.batch_size(side)
        ]
        return max(full, default=None)

    def _fullest_side(self) -> int | None:
        side = self._full_side()
        if side is None and self._num_waiting:
            side = max(self._waiting, key=lambda side: len(self._waiting[side]))
        return side

    def _start_fills(self) -> None:
        # Few fills are open at a time, since an open one holds the pixels of its level.
        while self._jobs and self._full_side(BATCHES_AHEAD) is None and self._held_px < MAX_HELD_PX:
            job = self._jobs[0]
            started = time.perf_counter()
            try:
                generator = next(job.fills, None)
            except Exception as error:
                self._fail(job, error)
                continue
            finally:
                job.own_seconds += time.perf_counter() - started
            if generator is None:
                self._jobs.popleft()
                job.all_started = True
                self._end_if_complete(job)
                continue
            fill = _OpenFill(job, job.num_started, generator)
            job.num_started += 1
            job.open_fills.append(fill)
            self._advance(fill, None)

    def _advance(self, fill: _OpenFill[TileT, ResultT], filled: list[FloatArray] | None) -> None:
        """Send a level's pixels and queue the next level's tiles."""
        job = fill.job
        started = time.perf_counter()
        try:
            tiles = next(fill.generator) if filled is None else fill.generator.send(filled)
            while not tiles:  # a level without tiles
                tiles = fill.generator.send([])
        except StopIteration as end:
            job.results[fill.index] = end.value
            job.open_fills.remove(fill)
            job.own_seconds += time.perf_counter() - started
            self._end_if_complete(job)
            return
        except Exception as error:
            job.own_seconds += time.perf_counter() - started
            self._fail(job, error)
            return
        job.own_seconds += time.perf_counter() - started
        fill.fills = [None] * len(tiles)
        fill.num_missing = len(tiles)
        fill.held_px = sum(tile.side_px**2 for tile in tiles)
        self._held_px += fill.held_px
        for index, tile in enumerate(tiles):
            self._waiting.setdefault(tile.side_px, deque()).append(_Waiting(fill, index, tile))
        self._num_waiting += len(tiles)

    def _take(self, side: int) -> list[_Waiting[TileT, ResultT]]:
        queue = self._waiting[side]
        batch: list[_Waiting[TileT, ResultT]] = []
        while queue and len(batch) < self._engine.batch_size(side):
            waiting = queue.popleft()
            self._num_waiting -= 1
            if waiting.fill.job.error is None:
                batch.append(waiting)
        return batch

    def _run_batch(self, side: int, batch: list[_Waiting[TileT, ResultT]]) -> None:
        started = time.perf_counter()
        self.num_batches += 1
        filled = self._engine.run(side, [waiting.tile for waiting in batch])
        share_s = (time.perf_counter() - started) / len(batch)
        for waiting, pixels in zip(batch, filled, strict=True):
            job = waiting.fill.job
            job.seconds += share_s
            job.num_tiles[side] += 1
            if job.error is None:
                self._deliver(waiting, pixels)

    def _deliver(self, waiting: _Waiting[TileT, ResultT], pixels: FloatArray | Exception) -> None:
        fill = waiting.fill
        if isinstance(pixels, Exception):
            self._fail(fill.job, pixels)
            return
        fill.fills[waiting.index] = pixels
        fill.num_missing -= 1
        if fill.num_missing == 0:
            filled = [pixels for pixels in fill.fills if pixels is not None]
            fill.fills = []
            self._let_go(fill)
            self._advance(fill, filled)

    def _let_go(self, fill: _OpenFill[TileT, ResultT]) -> None:
        self._held_px -= fill.held_px
        fill.held_px = 0

    def _fail(self, job: _Job[TileT, ResultT], error: Exception) -> None:
        if isinstance(error, InpaintBatchError):
            raise error
        job.error, job.cause = _as_row_error(error)
        for fill in job.open_fills:
            self._let_go(fill)
            fill.generator.close()
        job.open_fills.clear()
        if not job.all_started:
            self._jobs.remove(job)
            job.all_started = True
        self._end_if_complete(job)

    def _end_if_complete(self, job: _Job[TileT, ResultT]) -> None:
        if not job.all_started or job.open_fills:
            return
        results = [job.results[index] for index in sorted(job.results)]
        self._finished.append(
            Filled(job.name, results, job.error, job.num_tiles, job.seconds, job.own_seconds, job.cause)
        )


def _as_row_error(error: Exception) -> tuple[RowError, BaseException | None]:
    if is_out_of_memory(error) and getattr(error, "code", FailureCode.INFER) is FailureCode.INFER:
        message = "there was not enough memory to fill this image, even alone and in small tiles; use a larger machine"
        return RowError(FailureCode.MEMORY, message, retryable=True), error
    if isinstance(error, RowError):
        return error, None
    message = f"the engine failed on this image ({type(error).__name__}: {error}); see run.log for the details"
    return RowError(FailureCode.INFER, message, retryable=True), error
