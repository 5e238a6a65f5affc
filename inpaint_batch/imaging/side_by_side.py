"""Work on many segments of one file, several at a time, handed back in the order in which it was given.

Codecs let other threads run while they work, and a scan of a gigapixel has thousands of segments. One set of threads
serves all files of a process, so that many small ones at a time do not end in more threads than there are processors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache

from inpaint_batch.machine import num_cores
from inpaint_batch.threads import JobT, ResultT, in_turn

_MAX_THREADS = 8
AT_ONCE_BYTES = 2 << 20
"""Decoded segments of one file that are on their way at a time, unless a single one is larger."""


def in_order(work: Callable[[JobT], ResultT], jobs: Iterable[JobT], job_bytes: int) -> Iterator[ResultT]:
    """What `work` makes of each job, in order; `jobs` is drawn by the calling thread, few ahead of what is taken.

    `job_bytes` is the size of the decoded samples of one. Raises what `work` raises, when its turn comes.
    """
    at_once = min(2 * _num_threads(), AT_ONCE_BYTES // max(1, job_bytes))
    if at_once < 2:
        yield from map(work, jobs)
        return
    yield from in_turn(_threads(), work, jobs, at_once)


def _num_threads() -> int:
    return min(_MAX_THREADS, num_cores())


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_num_threads(), thread_name_prefix="segments")
