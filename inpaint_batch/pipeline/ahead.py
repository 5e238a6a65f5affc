"""Rows whose files are asked after ahead of their turn: one after the other, each would wait for its own answers.

Objects are always; files of this machine only where their bytes are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack

from inpaint_batch.config import Shard
from inpaint_batch.execution.identity import ask_version, content_digest, look
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.storage.paths import location
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row

NUM_ROWS = 256
"""So many rows ahead at most."""
NUM_REQUESTS = 32
"""So many requests at a time."""
POLL_S = 0.5
"""Seconds after which somebody who waits for an answer looks whether the run shall stop."""


def ahead(
    rows: Iterable[Row | RowProblem], *, by_content: bool = False, part: Shard | None = None, stop: Stop | None = None
) -> Iterator[Row | RowProblem]:
    """The same rows in the same order. Those with nothing to ask go straight through; no thread is started for them.

    Of rows of another part than `part` only the names count: nothing is asked about their files. What a question came
    to is seen by `identify`. Where the run shall stop while an answer is waited for, no more rows come, and the threads
    that wait are left to themselves: a store or a share that hangs may keep them for minutes.
    """
    waiting: deque[tuple[Row | RowProblem, list[Future[None]]]] = deque()
    pool: ThreadPoolExecutor | None = None
    with ExitStack() as life:
        for row in rows:
            paths = [] if isinstance(row, RowProblem) else list(dict.fromkeys((row.image, row.mask)))
            if not by_content:
                paths = [path for path in paths if is_uri(path)]
            if paths and part is not None and not part.has(row.id):
                paths = []
            if not paths and not waiting:
                yield row
                continue
            if pool is None:
                pool = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="ahead")
                life.callback(pool.shutdown, wait=False, cancel_futures=True)
            waiting.append((row, [pool.submit(_ask, path) for path in paths]))
            if len(waiting) >= NUM_ROWS:
                first, answers = waiting.popleft()
                if not _answered(answers, stop):
                    return
                yield first
        for first, answers in waiting:
            if not _answered(answers, stop):
                return
            yield first


def _ask(path: str) -> None:
    name = location(path)
    if is_uri(name):
        ask_version(name)
    elif (seen := look(name)) is not None:
        content_digest(name, seen)


def _answered(answers: list[Future[None]], stop: Stop | None) -> bool:
    """Wait for the answers; False where the run shall stop before they are there."""
    while answers and wait(answers, POLL_S).not_done:
        if stop is not None and stop():
            stop.left_threads = True
            return False
    return True
