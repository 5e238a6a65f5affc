"""Standard output and error of every command: the work does not hang on who reads them.

Where a reader leaves (`| head`), the rest goes nowhere: the work goes on, and the exit code stays what it is. So it is
where a stream is closed from the beginning (`2>&-`). Where standard output takes no more for another reason, a full
disk above all, the work goes on as well, and the command tells it in the end. Python would raise any of it out of the
middle of the work.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Sink(io.RawIOBase):
    """The bytes of a stream, on their way to its file for as long as that takes them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.error: OSError | None = None
        """Why the file took no more; None as long as it does, and where only its reader has left."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._descriptor)  # for what libraries and child processes write as well
            os.close(nowhere)
            return memoryview(data).nbytes


@contextmanager
def lasting_streams() -> Iterator[Callable[[], OSError | None]]:
    """Within it, writing to standard output and error never fails; yields what tells why standard output was cut off.

    That flushes it, and is None where it was not cut off or its reader has left.
    """
    _open_what_is_closed()
    before = sys.stdout, sys.stderr
    out, error = _sink_of(sys.stdout), _sink_of(sys.stderr)
    sys.stdout, sys.stderr = _through(out, sys.stdout), _through(error, sys.stderr)

    def cut_off() -> OSError | None:
        if out is None:
            return None
        sys.stdout.flush()
        return out.error

    try:
        yield cut_off
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_what_is_closed() -> None:
    """Else the next file that is opened, the ledger or a result, has the number of the stream, and what libraries and
    child processes say goes into it. `sys.stdin` stays None: who reads it says that it is closed.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, io.TextIOWrapper(io.FileIO(nowhere, "w"), "utf-8", "surrogateescape"))


def _sink_of(stream: TextIO) -> _Sink | None:
    """None where there is no file, as in a test."""
    try:
        return _Sink(stream.fileno())
    except OSError:
        return None


def _through(sink: _Sink | None, stream: TextIO) -> TextIO:
    if sink is None:
        return stream
    stream.flush()
    # A path that is no UTF-8 comes out as the bytes that it has on the disk, and ends no command.
    errors = "surrogateescape" if stream.errors == "strict" else stream.errors
    return io.TextIOWrapper(
        io.BufferedWriter(sink), stream.encoding, errors, line_buffering=getattr(stream, "line_buffering", True)
    )
