"""The signals that ask a process to leave: a scheduler's before it takes a machine away, and Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ASKING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))


@contextmanager
def told_of_signals(tell: Callable[[int], object]) -> Iterator[None]:
    """Within it, `tell` is called with the number of each of these signals that comes. Call from the main thread.

    Handlers from before are put back, if none came. Who was asked is leaving, and hears nothing any more: a scheduler
    that says it twice would kill the process in its last milliseconds, and see that instead of the exit code.
    """
    came = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal came
        came = True
        tell(number)

    before = {number: signal.signal(number, handle) for number in ASKING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if came else handler)
