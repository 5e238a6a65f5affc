"""One run at a time in an output folder, or one for each shard of a manifest."""

from __future__ import annotations

import contextlib
import fcntl
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from inpaint_batch.config import Shard
from inpaint_batch.errors import StorageError
from inpaint_batch.processes import process_name
from inpaint_batch.storage.paths import names_in


class RunLock:
    """A lock that the kernel holds for this process, so that it is gone when the process is, however it ended."""

    def __init__(self, path: Path, *, shared: bool = False) -> None:
        """With `shared`, others may hold it shared at the same time, and nothing is said of who does."""
        self._path = path
        self._shared = shared
        self._descriptor = -1
        self.killed = ""
        """The last holder, where it did not give the lock back itself, so that it may have left temporary files: see
        `process_name`, unless an earlier version or another hand wrote it. Empty where it did give it back."""

    def __enter__(self) -> RunLock:
        """Take the lock. Raises `StorageError` where another process holds it, and `OSError`."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)  # less the umask, as all else
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)  # and with it the lock, which would otherwise last as long as this process
            raise
        self._descriptor = descriptor
        return self

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip() or "another process"
            raise StorageError(
                f"{self._path.parent.parent} is in use by another run ({holder}); wait for it to end, or choose "
                "another --output"
            ) from None
        except OSError as error:
            raise StorageError(
                f"{self._path} cannot be locked ({error.strerror}); choose an --output on a file system with locks"
            ) from error
        self.killed = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
        os.ftruncate(descriptor, 0)
        if not self._shared:
            os.pwrite(descriptor, f"{process_name()}\n".encode(), 0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        with contextlib.suppress(OSError):
            if not self._shared:
                os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = -1


def holder_of(path: Path) -> str:
    """Who took the lock and has not given it back, alive or not (see `process_name`); empty where nobody did."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def hold_folder(state: Path, shard: Shard | None) -> Iterator[dict[str, str]]:
    """Hold the output folder for a run of `shard`, or of the whole manifest; yields who was killed, by writer.

    Shards of one n run side by side, anything else runs alone: rows of 2/3 are also rows of some shard of four. A
    writer is the name of a shard, or empty for a run of the whole. Raises StorageError where another run is in the way.
    """
    with RunLock(state / "lock", shared=shard is not None) as whole, contextlib.ExitStack() as own:
        killed = {"": whole.killed} if whole.killed else {}
        if shard is not None and (before := own.enter_context(RunLock(state / f"lock-{shard.name}")).killed):
            killed[shard.name] = before
        # Ours is taken before the others are looked at: of two runs that start together at least one sees the other.
        for path in (state / name for name in fnmatch.filter(names_in(state), "lock-*-of-*")):
            if shard is None or not path.name.endswith(f"-of-{shard.count}"):
                with RunLock(path, shared=True) as other:  # shards that start together all look
                    if other.killed:
                        killed[path.name.removeprefix("lock-")] = other.killed
        yield killed
