"""A worker that two calls ask at a time."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from inpaint_batch.execution.worker import LogLine, _Lines

NUM_THREADS, NUM_EACH = 4, 3000


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads change as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty")
def test_every_line_that_is_logged_is_told_once() -> None:
    lines = _Lines()
    logger = logging.Logger("apart")
    logger.addHandler(lines)
    told: list[LogLine] = []
    done = threading.Event()

    def log(number: int) -> None:
        for each in range(NUM_EACH):
            logger.warning("%d", number * NUM_EACH + each)

    def take() -> None:
        while not done.is_set():
            told.extend(lines.take())

    takers = [threading.Thread(target=take) for _ in range(2)]
    writers = [threading.Thread(target=log, args=(number,)) for number in range(NUM_THREADS)]
    for thread in [*takers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in takers:
        thread.join()
    told += lines.take()
    assert sorted(int(line.text) for line in told) == list(range(NUM_THREADS * NUM_EACH))
