"""Work that is done in several threads at a time and handed back in the order in which it was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def in_turn(
    pool: ThreadPoolExecutor, work: Callable[[JobT], ResultT], jobs: Iterable[JobT], at_once: int
) -> Iterator[ResultT]:
    """What `work` makes of each job, in order.

    `jobs` is drawn by the calling thread, at most `at_once` (1 or more) ahead of what is taken. Raises what `work`
    raises, when its turn comes; what has not begun by then, or when nobody takes any more, is not done.
    """
    under_way: deque[Future[ResultT]] = deque()
    try:
        for job in jobs:
            under_way.append(pool.submit(work, job))
            if len(under_way) >= at_once:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        for each in under_way:
            each.cancel()
