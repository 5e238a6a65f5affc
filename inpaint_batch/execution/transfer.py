"""The files of one row on this machine: those of the manifest themselves, or copies of objects while it is in flight.

Image and mask in a store are fetched right before they are decoded; a result that goes to a store is written and
verified here as any other, sent whole, and removed. How many copies there are at a time is bounded as the rows in
flight are: in number, and in decoded bytes, which are more than those of the files.
"""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from inpaint_batch.errors import RowError
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.storage.nearby import on_this_machine
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import describe, send
from inpaint_batch.storage.scratch import scratch_file
from inpaint_batch.storage.uris import is_uri, joined


class RowFiles:
    """Paths for one task; `close` it when the row has ended, however it did. Of local rows it does nothing."""

    def __init__(self, task: RowTask) -> None:
        self._life = ExitStack()
        self._names: dict[str, str] = {}  # scratch path -> what people know it by
        self._store = task.store
        if task.store:
            task = replace(task, destination=str(self._folder() / Path(task.output).name))
            self._names[task.destination] = joined(task.store, task.output)
        self.task = task
        """The task, its destination on this machine."""
        self.image = Path(task.row.image)
        """The image on this machine, once `bring_image` was called; so are the others."""
        self.mask = Path(task.row.mask)

    def bring_image(self) -> Path:
        """Fetch the image if it lies in a store. Raises RowError(READ), and StorageError where the store refuses."""
        self.image = self._brought(self.task.row.image, "image")
        return self.image

    def bring_mask(self) -> Path:
        """The same for the mask."""
        self.mask = self._brought(self.task.row.mask, "mask")
        return self.mask

    def bring_truth(self) -> Path | None:
        """The same for the undamaged image; None where none is known."""
        truth = self.task.row.truth
        return self._brought(truth, "truth") if truth else None

    def find_mask(self) -> None:
        """Raise RowError(READ) where the mask is not there or may not be read, and StorageError as `bring_mask`.

        It is not fetched.
        """
        mask = self.task.row.mask
        if not is_uri(mask):
            with reading(self.mask, "mask"):
                if stat.S_ISDIR(self.mask.stat().st_mode):
                    raise IsADirectoryError
            return
        try:
            if not describe(mask):
                raise ObjectError("missing", mask)
        except ObjectError as error:
            raise error.for_row(mask, "mask") from error

    def deliver(self, *beside: Path) -> None:
        """Send the finished result to its store, files beside it first. Raises StorageError where that fails."""
        if not self._store:
            return
        result = joined(self._store, self.task.output)
        try:
            for path in beside:
                send(path, result + path.name.removeprefix(Path(self.task.destination).name))
            send(Path(self.task.destination), result)
        except ObjectError as error:
            raise error.for_run("write the results") from error

    @contextmanager
    def by_name(self) -> Iterator[None]:
        """Within it, a RowError that speaks of a copy on this machine speaks of the object instead."""
        try:
            yield
        except RowError as error:
            message = error.message
            for path in sorted(self._names, key=len, reverse=True):  # one may begin as another does
                message = message.replace(path, self._names[path])
            if message == error.message:
                raise
            raise RowError(error.code, message, retryable=error.retryable) from error

    def close(self) -> None:
        """Remove the copies."""
        self._life.close()

    def _brought(self, location: str, role: str) -> Path:
        path = self._life.enter_context(on_this_machine(location, role))
        if is_uri(location):
            self._names[str(path)] = location
        return path

    def _folder(self) -> Path:
        marker = self._life.enter_context(scratch_file(""))
        marker.mkdir()
        self._life.callback(shutil.rmtree, marker, ignore_errors=True)
        return marker
