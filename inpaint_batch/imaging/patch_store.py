"""The patches of one row until they are written: in memory, and beyond that in a file without a name."""

from __future__ import annotations

import os
import tempfile
from bisect import insort
from collections.abc import Sequence
from contextlib import ExitStack
from operator import itemgetter
from typing import IO, NamedTuple, overload

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.storage.scratch import scratch_folder
from inpaint_batch.types import Box, Patch


class _Spilled(NamedTuple):
    """A patch in the file: its samples, then its hole, a bit a pixel."""

    box: Box
    with_alpha: bool
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


class PatchStore(Sequence[Patch]):
    """Patches in the order of their windows, whichever of them came first.

    One thread adds; once the last is there, any may read.
    """

    def __init__(self, in_memory_bytes: int) -> None:
        """Up to `in_memory_bytes` of them stay in memory."""
        self._left_bytes = in_memory_bytes
        self._entries: list[tuple[int, Patch | _Spilled]] = []
        self._life = ExitStack()
        self._file: IO[bytes] | None = None

    def add(self, window: int, patch: Patch) -> None:
        """Take on a patch of window number `window`; those of one window stay in the order in which they come.

        Raises RowError(WRITE) where there is no room for the file.
        """
        num_bytes = patch.samples.nbytes + patch.hole.nbytes
        if num_bytes <= self._left_bytes:
            self._left_bytes -= num_bytes
            entry: Patch | _Spilled = patch
        else:
            entry = self._spill(patch)
        insort(self._entries, (window, entry), key=itemgetter(0))  # behind those of the same window

    def close(self) -> None:
        """Let go of all of them."""
        self._entries.clear()
        self._life.close()

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> Patch: ...
    @overload
    def __getitem__(self, index: slice) -> list[Patch]: ...
    def __getitem__(self, index: int | slice) -> Patch | list[Patch]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        entry = self._entries[index][1]
        return entry if isinstance(entry, Patch) else self._loaded(entry)

    def _spill(self, patch: Patch) -> _Spilled:
        try:
            if self._file is None:
                file = tempfile.TemporaryFile(dir=scratch_folder())  # noqa: SIM115  (closed with the store)
                self._file = self._life.enter_context(file)
            offset = self._file.seek(0, 2)
            self._file.write(np.ascontiguousarray(patch.samples).data)
            self._file.write(np.packbits(patch.hole).data)
            self._file.flush()
        except OSError as error:
            raise RowError(
                FailureCode.WRITE,
                f"there is no room for what was filled of this image in {scratch_folder()} ({error.strerror}); free "
                "some, or set TMPDIR to a folder with more",
                retryable=True,
            ) from error
        return _Spilled(patch.box, patch.with_alpha, offset, patch.samples.shape, patch.samples.dtype)

    def _loaded(self, entry: _Spilled) -> Patch:
        assert self._file is not None
        num_bytes = int(np.prod(entry.shape)) * entry.dtype.itemsize
        stored = os.pread(self._file.fileno(), num_bytes + -(-entry.box.area_px // 8), entry.offset)
        samples = np.frombuffer(stored[:num_bytes], entry.dtype)
        packed = np.frombuffer(stored[num_bytes:], np.uint8)
        hole = np.unpackbits(packed, count=entry.box.area_px).view(np.bool_).reshape(entry.box.height, entry.box.width)
        return Patch(entry.box, samples.reshape(entry.shape), hole, with_alpha=entry.with_alpha)
