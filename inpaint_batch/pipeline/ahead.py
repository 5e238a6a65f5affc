"""Rows whose objects are asked after ahead of their turn: one after the other, each would wait for its own answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

from inpaint_batch.execution.identity import object_version
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row

NUM_ROWS = 256
"""So many rows ahead at most."""
NUM_REQUESTS = 32
"""So many requests at a time."""


def ahead(rows: Iterable[Row | RowProblem]) -> Iterator[Row | RowProblem]:
    """The same rows in the same order. Those without objects go straight through, and no thread is started for them.

    What a request comes to is seen when `object_version` is asked again.
    """
    waiting: deque[tuple[Row | RowProblem, list[Future[str]]]] = deque()
    pool: ThreadPoolExecutor | None = None
    with ExitStack() as life:
        for row in rows:
            uris = [] if isinstance(row, RowProblem) else [uri for uri in (row.image, row.mask) if is_uri(uri)]
            if not uris and not waiting:
                yield row
                continue
            if pool is None:
                pool = ThreadPoolExecutor(NUM_REQUESTS, thread_name_prefix="ahead")
                life.callback(pool.shutdown, wait=False, cancel_futures=True)
            waiting.append((row, [pool.submit(object_version, uri) for uri in uris]))
            if len(waiting) >= NUM_ROWS:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())


def _settled(row: Row | RowProblem, answers: list[Future[str]]) -> Row | RowProblem:
    for answer in answers:
        answer.exception()
    return row
