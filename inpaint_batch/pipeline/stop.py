"""A polite request to stop, and the signals that make it.

SIGTERM and SIGUSR1 (what schedulers send before they take a machine away) and a first Ctrl-C ask the run to bring what
it began to its end, and to drop what takes longer than a time of grace. A second Ctrl-C ends the process at once, which
is as safe as `kill -9`: the ledger holds. A search for damage is asked in the same way; it drops what it began.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from inpaint_batch.errors import StopRequestedError
from inpaint_batch.signals import told_of_signals
from inpaint_batch.words import counted


class Stop:
    """Whether the run was asked to stop, and by what."""

    def __init__(self, grace_s: float = 0.0) -> None:
        """`grace_s`: how long rows in flight may go on then; 0 for as long as it takes."""
        self.signal_name = ""
        """Name of the first signal that came; empty if none did."""
        self.num_dropped = 0
        """Rows that were begun and did not end in time."""
        self.left_threads = False
        """Whether threads of this process may still be at these, so that it must not wait for them."""
        self._grace_s = grace_s
        self._asked_at_s = 0.0

    def __call__(self) -> bool:
        """Whether no new row shall be begun."""
        return bool(self.signal_name)

    def request(self, signal_name: str) -> None:
        """Ask for it; the first request counts."""
        self._asked_at_s = self._asked_at_s or time.monotonic()
        self.signal_name = self.signal_name or signal_name

    def overdue(self) -> bool:
        """Whether the time of grace is over."""
        return bool(self.signal_name) and 0 < self._grace_s < time.monotonic() - self._asked_at_s

    def error(self, begun: str = "what was begun is done") -> StopRequestedError | KeyboardInterrupt:
        """What to end with once everything in flight is as `begun` says."""
        if self.signal_name == "SIGINT":
            return KeyboardInterrupt()
        if self.num_dropped:
            begun = f"dropped {counted(self.num_dropped, 'row')} that did not end within --grace {self._grace_s:g} s"
        return StopRequestedError(f"stopped by {self.signal_name}; {begun}, run again to go on")


@contextmanager
def stop_on_signals(grace_s: float = 0.0) -> Iterator[Stop]:
    """Within it, signals set the returned flag. Call from the main thread; see `told_of_signals`."""
    stop = Stop(grace_s)

    def tell(number: int) -> None:
        if number == signal.SIGINT and stop():
            os.write(2, b"\ninpaint-batch: interrupted; ended at once, run again to go on\n")
            os._exit(130)
        stop.request(signal.Signals(number).name)

    with told_of_signals(tell):
        yield stop
