"""What runs in each worker process: an engine and the local executor, fed with chunks of rows.

It knows nothing of Ray or pipes; a transport makes it an actor or a child process. Rows come and outcomes go as plain
data.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from inpaint_batch import __version__
from inpaint_batch.config import TilingConfig
from inpaint_batch.errors import EngineError, StorageError, WorkerLostError
from inpaint_batch.execution.engine_runner import EngineRunner
from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.execution.stream import Stream
from inpaint_batch.execution.tasks import EngineFacts, RowOutcome, RowTask
from inpaint_batch.logids import Subject, current
from inpaint_batch.report.row_tiles import RowTiles, worth_telling
from inpaint_batch.runtime.engine import Engine
from inpaint_batch.runtime.plans import PLANS_VARIABLE
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.storage.atomic import signing_as

MAX_AUTOMATIC_WORKERS = 4
FIND_OUTPUT_S = 10.0
"""How long a worker looks for the output folder: a network file system may show what is new there a little later."""


def automatic_workers(num_cores: int) -> int:
    """Threads that read, and as many that write, where nobody says how many."""
    return min(num_cores, MAX_AUTOMATIC_WORKERS)


class OutputMark(NamedTuple):
    """A file in the output folder, by which a worker on another machine knows that it sees the same folder."""

    path: str
    """Absolute."""
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """All that a worker needs to know; pickles."""

    engine: str
    model: str
    """`default`, or an absolute path that every node can read."""
    precision: str
    passes: int
    tiling: TilingConfig
    threads: int
    """Tiles that the engine fills at a time; 0 for one per core that the worker gets."""
    workers: int
    """Threads that read, and as many that write; 0 for as many as suit those cores."""
    max_image_bytes: int
    max_memory_bytes: int
    """What the process of the worker may take; 0: its part of the machine's (see `row_memory.row_limit_bytes`)."""
    signature: str
    """What signs temporary files, so that they go stale with the driver (see `storage.atomic.temporaries_of`)."""

    output_mark: OutputMark | None = None
    """None where results go to a store."""
    num_processes: int = 1
    """Workers that share a machine, at most."""
    plans: str = ""
    """Absolute path of the folder of plans that the person has named, where a worker's own environment names none; its
    machine knows nothing of the environment of the run."""

    def on(self, num_cores: int, num_processes: int) -> WorkerSettings:
        """What was left open settled for a worker that gets so many cores, and is one of so many on its machine."""
        return dataclasses.replace(
            self,
            threads=self.threads or num_cores,
            workers=self.workers or automatic_workers(num_cores),
            num_processes=num_processes,
        )


class LogLine(NamedTuple):
    """Something that was logged."""

    level: int
    text: str
    """With the traceback, if there is one."""
    subject: Subject | None
    """The row that it is about."""


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of a chunk of rows."""

    outcomes: list[RowOutcome]
    """One for each row, or fewer where the worker was told to leave."""
    num_batches: int
    """Batches that the engine ran since the last chunk was done."""
    log: list[LogLine]
    """What was logged: the log file is where the driver is."""


class Pulse(NamedTuple):
    """What a worker says of itself while it works."""

    num_rows: int
    """Rows brought to their end so far."""
    filling: tuple[RowTiles, ...]
    """How far the rows are that are worth telling of."""


class RowWorker:
    """One worker, see `transport.Transport`. Its making does nothing that can fail; `start` loads the engine."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._engine: Engine | None = None
        self._executor: LocalExecutor | None = None
        self._stream: Stream | None = None
        self._num_told = 0
        self._telling = threading.Lock()  # two chunks may end at a time
        self._log = _Lines()
        self._life = ExitStack()
        self._life.enter_context(signing_as(settings.signature))
        logging.getLogger("inpaint_batch").addHandler(self._log)

    def start(self, version: str = __version__) -> EngineFacts:
        """Load the engine if it is not loaded, and tell what it is. `version` is the driver's, of this package.

        Raises EngineError where that is another one, what loading raises (EngineError, UsageError), and StorageError
        where the output folder is not here: results would go to a folder of the same name, and nobody would find them.
        """
        if version != __version__:  # before anything else: what came from there may mean something else here
            raise EngineError(f"a worker has inpaint-batch {__version__}, the run {version}; install the same there")
        settings = self._settings
        until_s = time.monotonic() + FIND_OUTPUT_S
        while not self._sees_output():
            if time.monotonic() >= until_s:
                assert settings.output_mark is not None
                folder = Path(settings.output_mark.path).parents[1]
                raise StorageError(f"a worker does not see the output folder {folder} of the run; mount it there")
            time.sleep(0.2)
        if self._engine is None:
            if settings.plans:
                os.environ.setdefault(PLANS_VARIABLE, settings.plans)
            self._engine = select_engine(
                settings.engine,
                model=settings.model,
                precision=settings.precision,
                passes=settings.passes,
                threads=settings.threads,
            )
            self._executor = LocalExecutor(
                EngineRunner(self._engine),
                settings.tiling,
                workers=settings.workers,
                max_image_bytes=settings.max_image_bytes,
                max_memory_bytes=settings.max_memory_bytes,
                num_processes=settings.num_processes,
            )
            self._stream = Stream(self._executor)
        return EngineFacts.of(self._engine)

    def do(self, round_number: int, tasks: list[RowTask]) -> ChunkResult:
        """Bring the rows to their end. Two chunks may come at a time, from two threads. Run-level errors pass.

        Where the device is lost, or the output folder, this process ends: only a new one could use it again, and
        whoever waits for this one starts another, and gives up a row that it happens with time and again.
        """
        if self._executor is None or self._stream is None:
            raise EngineError("a worker was given rows before it had an engine; this is a fault in the program")
        try:
            if not self._sees_output():
                raise WorkerLostError("the output folder of the run is gone here; mount it again")
            outcomes = self._stream.do(round_number, tasks)
        except WorkerLostError as error:
            print(f"inpaint-batch: a worker ends: {error}", file=sys.stderr, flush=True)
            os._exit(WorkerLostError.exit_code)
        with self._telling:
            before, self._num_told = self._num_told, self._executor.num_batches
            return ChunkResult(outcomes, self._num_told - before, self._log.take())

    def _sees_output(self) -> bool:
        mark = self._settings.output_mark
        try:
            return mark is None or Path(mark.path).read_bytes() == mark.content
        except OSError:
            return False

    def pulse(self) -> Pulse:
        """How far it is. Asked while `do` works, from another thread, as `leave` is."""
        if self._stream is None or self._executor is None:
            return Pulse(0, ())
        return Pulse(self._stream.num_rows, tuple(worth_telling(self._executor.filling())))

    def leave(self, round_number: int) -> None:
        """Begin no row of that round any more."""
        if self._stream is not None:
            self._stream.leave(round_number)


class _Lines(logging.Handler):
    """Keeps what is logged until somebody takes it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[LogLine] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(LogLine(record.levelno, self.format(record), current()))

    def take(self) -> list[LogLine]:
        self.acquire()  # as `logging` does around `emit`
        try:
            lines, self._lines = self._lines, []
        finally:
            self.release()
        return lines
