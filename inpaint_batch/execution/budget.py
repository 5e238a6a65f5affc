"""How much memory rows in flight may take together."""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

LARGE_BLOCK_BYTES = 8 << 20
"""Blocks from this size on go back to the system when they are freed. Masks and rasters of photographs are larger;
nearly all that the engine needs for a tile is smaller, and would cost time if it went back and forth."""
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have freed rasters go back to the system at once, where the C library can be told so (glibc).

    Left alone it raises its threshold as blocks are freed, up to 32 MiB, keeps what is smaller for later, and that in a
    heap of its own for each thread. Affects the whole process; changes no result.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


class MemoryBudget:
    """A number of bytes that rows draw from before they load pixels, and give back when they are written.

    First come, first served, so that a large image is not overtaken for ever by small ones. One that is larger than
    the whole budget gets in when it is alone.
    """

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = total_bytes
        self._used_bytes = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @property
    def used_bytes(self) -> int:
        """Bytes that are drawn at the moment."""
        return self._used_bytes

    def acquire(self, num_bytes: int, cancelled: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `num_bytes` are free and take them; False, and nothing taken, if `cancelled()` is true first."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or not self._fits(num_bytes):
                    if cancelled():
                        return False
                    self._changed.wait(0.2)  # wakes now and then, to see whether it was cancelled
                self._used_bytes += num_bytes
                return True
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def release(self, num_bytes: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._used_bytes -= num_bytes
            self._changed.notify_all()

    @contextmanager
    def drawn(self) -> Iterator[Callable[[int], bool]]:
        """What a row asks for room with (the `reserve` of `prepare_row`), until the context ends. It never says no."""
        reserved = 0

        def reserve(num_bytes: int) -> bool:
            nonlocal reserved
            self.acquire(num_bytes)
            reserved += num_bytes
            return True

        try:
            yield reserve
        finally:
            self.release(reserved)

    def _fits(self, num_bytes: int) -> bool:
        return self._used_bytes == 0 or self._used_bytes + num_bytes <= self.total_bytes
