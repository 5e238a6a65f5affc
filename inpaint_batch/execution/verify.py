"""A finished result once more beside its source: is everything that is no hole as it was, and are the files still those
that were worked on?

The hole is found as a run finds it, from the mask and the settings of the row; what a run said of it plays no part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.prepare import mask_and_holes, open_source
from inpaint_batch.execution.row_memory import needed_bytes
from inpaint_batch.execution.sidecar import SUFFIX, checksum, told_checksums
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.known import compare_known
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import written_format
from inpaint_batch.storage.nearby import on_this_machine

_OTHER_FLAGS = "changed since, or restored with other settings: give this command those of the run"


@dataclass(frozen=True, slots=True)
class Verified:
    """A result that is sound."""

    num_pixels: int
    by_checksum: bool
    """Whether the checksums beside it were compared, too."""
    warnings: Sequence[str] = ()


def verify_result(
    task: RowTask,
    place: str,
    *,
    has_sidecar: bool,
    max_image_bytes: int,
    limit_bytes: int,
    reserve: Callable[[int], bool],
) -> Verified:
    """Compare the result at `place`, a path or URI, with the source of its row.

    With `has_sidecar` the checksums in the JSON beside it are compared with source, mask and result, too. `reserve` and
    the limits are as for `prepare_row`. Raises RowError: write where the result is not what it should be; read, memory,
    size, mask as `prepare_row` does.
    """
    files = RowFiles(task)
    with ExitStack() as life:
        life.callback(files.close)
        life.enter_context(files.by_name())
        files.bring_image()
        source = open_source(files, max_image_bytes, limit_bytes)
        life.callback(source.close)
        reserve(needed_bytes(source, limit_bytes))
        mask, holes = mask_and_holes(files, source, max_image_bytes, limit_bytes)
        with _about(place, place):
            result = life.enter_context(on_this_machine(place, "output"))
        if has_sidecar:
            _compare_checksums(files, result, place, mask.checksum)
        with _about(str(result), place):
            written = open_image(result, max_bytes=max_image_bytes, page=task.config.page or None)
            life.callback(written.close)
            wanted = written_format(source.header.format, task.config.jpeg)
            if written.header.format != wanted:
                raise _wrong(place, f"is a {written.header.format.upper()}, not a {wanted.upper()}; {_OTHER_FLAGS}")
            found = compare_known(source, written, holes.hole)
        if found.problem:
            raise _wrong(place, f"differs from its source: {found.problem}; {_OTHER_FLAGS}")
        warnings = []
        if holes.num_hole_px and not found.is_filled:
            warnings.append("nothing has changed in its holes: they look as in the source")
        return Verified(source.header.num_pixels, has_sidecar, warnings)


def _compare_checksums(files: RowFiles, result: Path, place: str, known_mask: dict[str, Any] | None) -> None:
    """Raise RowError(WRITE) unless the files are those that the JSON beside the result names."""
    beside = place + SUFFIX
    with on_this_machine(beside, "output") as path:
        try:
            told = told_checksums(path)
        except (OSError, ValueError) as error:
            raise _wrong(place, f"cannot be told from another: {beside} cannot be read ({error})") from error
    with reading(result):
        if checksum(result) != told["result"]:
            raise _wrong(place, f"is not the file that {beside} names: damaged or edited since")
    with reading(files.image):
        if checksum(files.image) != told["source"]:
            raise _wrong(place, f"was made of another source: {files.task.row.image} has changed since")
    with reading(files.mask, "mask"):
        if (known_mask or checksum(files.mask)) != told["mask"]:
            raise _wrong(place, f"was made with another mask: {files.task.row.mask} has changed since")


def _wrong(place: str, what: str) -> RowError:
    return RowError(FailureCode.WRITE, f"the result {place} {what}")


@contextmanager
def _about(path: str, place: str) -> Iterator[None]:
    """Within it, what cannot be read of `path` is the fault of the result at `place`."""
    try:
        yield
    except RowError as error:
        if error.code == FailureCode.READ and path in error.message:
            raise _wrong(place, f"cannot be read: {error.message}") from error
        raise
