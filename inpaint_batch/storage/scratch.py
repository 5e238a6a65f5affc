"""A folder of this process for files on their way between a store and the pixels.

It lies in the system's folder for temporary files (TMPDIR) and goes with the process. One that was killed cannot take
its folder away; the next process that wants one does, since the kernel then no longer holds the lock in it.
"""

from __future__ import annotations

import atexit
import fcntl
import itertools
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "inpaint-batch-scratch-"
_LOCK = "lock"
_folders: dict[int, Path] = {}  # by process: a forked one does not share
_making = threading.Lock()
_numbers = itertools.count(1)


def scratch_folder() -> Path:
    """The folder, made with the first call. Raises OSError where there is no place for it."""
    with _making:
        folder = _folders.get(os.getpid())
        if folder is None:
            _remove_stale(Path(tempfile.gettempdir()))
            folder = _folders[os.getpid()] = _locked_folder()
            atexit.register(_remove, os.getpid(), folder)
        return folder


@contextmanager
def scratch_file(like: str) -> Iterator[Path]:
    """A path for one file, with the suffix of `like`; what stands there is removed at the end."""
    suffix = os.path.splitext(like)[1][:16]  # noqa: PTH122  (of a URI)
    path = scratch_folder() / f"{next(_numbers)}{suffix}"
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _locked_folder() -> Path:
    # It gets the name that `_remove_stale` looks for once its lock is held: another process may be looking just now.
    made = Path(tempfile.mkdtemp(prefix=f"new-{_PREFIX}"))
    try:
        descriptor = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # held until the process ends, however it does
            return made.rename(made.with_name(made.name.removeprefix("new-")))
        except BaseException:
            os.close(descriptor)
            raise
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _remove(pid: int, folder: Path) -> None:
    if pid == os.getpid():
        shutil.rmtree(folder, ignore_errors=True)


def _remove_stale(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: somebody works there
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
