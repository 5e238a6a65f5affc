"""A large file is copied while its row is still planned and filled, since its result differs from it in few places.

The copy has no name until it is wanted, so a process that is killed leaves nothing behind. Linux alone has such files,
and not on every file system; where there are none, the result is copied when it is written.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from inpaint_batch.storage.byte_ranges import copy_range

WORTHWHILE_BYTES = 64 << 20
"""Smaller files are copied in less time than a thread for it is worth."""
_PIECE_BYTES = 16 << 20
"""After each piece it is looked whether the copy is still wanted."""

_room = threading.Semaphore(1)
"""One at a time in a process: it takes room on the disk long before its result would, and where several rows are under
way, the processors have enough to do."""


class EarlyCopy:
    """A copy that a thread of its own is making. One that fails is as good as none: it is not told of."""

    def __init__(self, source: Path, descriptor: int) -> None:
        """Use `begin`. Raises RuntimeError where no thread is to be had."""
        self._source = source
        self._file = os.fdopen(descriptor, "w+b")
        self._is_whole = False
        self._unwanted = threading.Event()
        self._thread = threading.Thread(target=self._copy, name="early-copy", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._file.close()
            raise

    @classmethod
    def begin(cls, source: Path, folder: Path) -> EarlyCopy | None:
        """Copy `source` into a file of the file system of `folder`; None where that cannot be, or is not worth it."""
        if not hasattr(os, "O_TMPFILE") or not _room.acquire(blocking=False):
            return None
        try:
            if source.stat().st_size >= WORTHWHILE_BYTES:
                return cls(source, os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666))
        except (OSError, RuntimeError):  # such as a folder that is not there yet, or no thread to be had
            pass
        _room.release()
        return None

    def take(self, path: Path) -> bool:
        """Wait for the copy and put it in the place of the file `path`; where there is none that file stays, and False
        is returned.
        """
        self._thread.join()
        is_taken = self._is_whole and self._replace(path)
        self.close()
        return is_taken

    def close(self) -> None:
        """Stop, and free its room on the disk unless it was taken. May be called again."""
        self._unwanted.set()
        self._thread.join()
        if not self._file.closed:
            self._file.close()
            _room.release()

    def _copy(self) -> None:
        with suppress(OSError, EOFError), self._source.open("rb") as source:
            size = source.seek(0, os.SEEK_END)
            for start in range(0, size, _PIECE_BYTES):
                if self._unwanted.is_set():
                    return
                copy_range(source, self._file, start, min(start + _PIECE_BYTES, size))
            self._file.flush()
            os.fsync(self._file.fileno())  # or it would have to wait for all of it in the end
            self._is_whole = True

    def _replace(self, path: Path) -> bool:
        number = self._file.fileno()
        path.unlink()  # a link takes no name that is in use
        try:
            # The folder plays no part, but without one Python calls link(2), which does not follow the way to the file.
            os.link(f"/proc/self/fd/{number}", path, src_dir_fd=number, follow_symlinks=True)
        except OSError:
            path.touch()
            return False
        return True
