"""One run at a time in an output folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from inpaint_batch.errors import StorageError


class RunLock:
    """A lock that the kernel holds for this process, so that it is gone when the process is, however it ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self.last_run_was_killed = False
        """Whether the last holder did not give the lock back itself, so that it may have left temporary files."""

    def __enter__(self) -> RunLock:
        """Take the lock, or raise `StorageError` where another process holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(descriptor)
            raise StorageError(
                f"{self._path.parent.parent} is in use by another run ({holder}); wait for it to end, or choose "
                "another --output"
            ) from None
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                f"{self._path} cannot be locked ({error.strerror}); choose an --output on a file system with locks"
            ) from error
        self.last_run_was_killed = os.fstat(descriptor).st_size > 0
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1
