"""What every format offers to the rest of the package: a header now, samples later.

A source never rotates, never changes depth and never drops a band. The one translation it makes is exact and undone on
writing: a min-is-white TIFF is read (and patched) as black-is-zero, so that nobody else has to know.
"""

from __future__ import annotations

import errno
import os
import threading
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.storage.atomic import final_path
from inpaint_batch.storage.byte_ranges import UnreadableError
from inpaint_batch.types import BoolMap, Box, Header, Patch, SampleArray
from inpaint_batch.words import counted

BAND_OF_ROWS_PIXELS = 1 << 20
"""Pixels that comparisons look at in one go, so that they cost a few megabytes whatever the image."""


_BAD_PATHS = {
    errno.ELOOP: "is a link that leads back to itself; mend the link or name another file",
    errno.ENAMETOOLONG: "has a name that is too long for this file system; correct the path in the manifest",
}


class ImageSource(ABC):
    """One opened image file. Thread-safe; keeps what it decodes until `close`, or as much of it as it may."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.header = header
        self._lock = threading.RLock()

    def read(self, box: Box) -> SampleArray:
        """Samples of `box` (box.height, box.width, bands), read-only, in the dtype and orientation of the file.

        Raises `RowError` (read) if the file is damaged, and `ValueError` if the box leaves the image.
        """
        if not self.header.box.contains(box):
            raise ValueError(f"{box} leaves the image, which is {self.header.box}")
        with reading(self.path):
            samples = self._samples(box)
        samples.flags.writeable = False
        return samples

    def anticipate(self, boxes: Iterable[Box]) -> None:
        """Decode what `read` will need first, as far as there is room; `boxes` in the order in which they are read.

        Raises as `read` does.
        """
        for box in boxes:
            self.read(box)
            return  # where a format is decoded all or nothing

    def parts(self) -> Iterator[Box]:
        """Boxes that make up the image, in an order in which reading them decodes nothing twice."""
        return bands_of_rows(self.header)

    def close(self) -> None:
        """Let go of the samples. Views handed out before stay valid; a later `read` decodes again."""
        with self._lock:
            self._forget()

    def admissible(self, samples: SampleArray) -> SampleArray:
        """`samples` (bands last), changed only where the file format would take them for something else."""
        return samples

    def learn_levels(self, hole: BoolMap) -> None:
        """Find the levels of `header` again, from known samples alone; `hole` (h, w) is true where they are missing.

        Only 32-bit samples have levels to be found; for all others this does nothing. Raises `RowError` (read).
        """
        del hole

    @abstractmethod
    def _samples(self, box: Box) -> SampleArray:
        """Samples (box.height, box.width, bands), as a view of what is kept or a copy. Any thread may ask."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop whatever `_samples` keeps. Called under the lock."""


class WholeRasterSource(ImageSource):
    """A source whose format cannot be decoded in part."""

    _raster: SampleArray | None = None

    @abstractmethod
    def _decode(self) -> SampleArray:
        """All samples (height, width, bands)."""

    def _samples(self, box: Box) -> SampleArray:
        with self._lock:
            if self._raster is None:
                header, raster = self.header, self._decode()
                shape = (header.height_px, header.width_px, header.num_bands)
                if raster.shape != shape or raster.dtype != header.dtype:
                    raise damaged(self.path, "its pixels do not match its header")
                self._raster = raster
            return self._raster[box.slices]

    def _forget(self) -> None:
        self._raster = None


@contextmanager
def reading(path: Path, what: str = "image") -> Iterator[None]:
    """Turn whatever goes wrong inside into one `RowError` about `path`. `what` is "image" or "mask".

    Errors that concern the whole run pass as they are, such as those of a store that is asked meanwhile.
    """
    try:
        yield
    except (RowError, InpaintBatchError):
        raise
    except FileNotFoundError:
        raise RowError(FailureCode.READ, f"the {what} {path} {_why_missing(path)}") from None
    except NotADirectoryError:
        message = f"the {what} {path} lies below a file, not a folder; correct the path in the manifest"
        raise RowError(FailureCode.READ, message) from None
    except IsADirectoryError:
        raise RowError(FailureCode.READ, f"the {what} {path} is a folder; name a file in the manifest") from None
    except PermissionError:
        raise RowError(FailureCode.READ, f"the {what} {path} may not be read; check its permissions") from None
    except OSError as error:
        if error.errno in _BAD_PATHS:
            message = f"the {what} {path} {_BAD_PATHS[error.errno]}"
            raise RowError(FailureCode.READ, message) from None
        reason = error.strerror or error
        message = f"the {what} {path} could not be read: {reason}; check the disk or share it lies on, then run again"
        raise RowError(FailureCode.READ, message, retryable=True) from error
    except MemoryError:
        message = f"there was no memory left to decode the {what} {path}; use fewer workers or a larger machine"
        raise RowError(FailureCode.MEMORY, message, retryable=True) from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        message = f"the {what} {path} is damaged or truncated ({error}); replace it with a sound copy"
        raise RowError(FailureCode.READ, message) from error


def opened(path: Path) -> BinaryIO:
    """The file of an image, open; raises as `reading` does, so that nobody takes it for one that is written."""
    with reading(path):
        return path.open("rb")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into one `RowError` (write, memory; read: what it is a copy of).

    Other `RowError`s pass, and errors that concern the whole run.
    """
    try:
        yield
    except (RowError, InpaintBatchError):
        raise
    except UnreadableError as error:
        with reading(Path(error.filename)):
            raise
    except OSError as error:
        reason = error.strerror or error
        message = (
            f"the output {final_path(path)} could not be written: {reason}; check free space and permissions, then run "
            "again"
        )
        raise RowError(FailureCode.WRITE, message, retryable=True) from error
    except MemoryError:
        message = f"there was no memory left to write {final_path(path)}; use fewer workers or a larger machine"
        raise RowError(FailureCode.MEMORY, message, retryable=True) from None
    except Exception as error:  # encoders raise whatever they like
        message = (
            f"the output {final_path(path)} could not be encoded ({type(error).__name__}: {error}); please report this "
            "with the image"
        )
        raise RowError(FailureCode.WRITE, message) from error


@contextmanager
def verifying(path: Path) -> Iterator[None]:
    """Like `writing`, for reading `path` back: what cannot be read there was not written well.

    Where it is the source that cannot be read any more, its error (read) passes.
    """
    with writing(path):
        try:
            yield
        except RowError as error:
            if error.code == FailureCode.READ and str(path) in error.message:
                raise spoiled(path, error.message) from error
            raise


def _why_missing(path: Path) -> str:
    """What to say of a path where there is nothing, and what to do about it."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist; mend the link or name another file"
    if "\\" in path.name:
        return "does not exist; write the paths in the manifest with forward slashes, and as they are on this machine"
    if any(os.path.exists(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")):  # noqa: PTH110
        return "does not exist, but one with the accents put together otherwise does; write its name as `ls` prints it"
    if os.path.exists("/".join(part.strip() for part in str(path).split("/"))):  # noqa: PTH110
        return "does not exist, but one without the spaces around its name does; take them out of the manifest"
    for suffix in (path.suffix.lower(), path.suffix.upper()):
        if path.with_suffix(suffix).exists():
            return f"does not exist, but {path.with_suffix(suffix).name} does; write its name as it is on this machine"
    return "does not exist; correct the path in the manifest"


def refuse(path: Path, kind: str, advice: str, what: str = "image") -> RowError:
    """The error for a file that is sound but of a kind that cannot be kept exactly (an image) or used (a mask)."""
    reason = "cannot be kept exactly" if what == "image" else f"cannot serve as a {what}"
    return RowError(FailureCode.READ, f"the {what} {path} is {kind}, which {reason}; {advice}")


def damaged(path: Path, detail: str, what: str = "image") -> RowError:
    """The error for a file that is not what its first bytes promise."""
    return RowError(FailureCode.READ, f"the {what} {path} is damaged: {detail}; replace it with a sound copy")


def spoiled(path: Path, detail: str) -> RowError:
    """The error for an output that read back different from what was meant."""
    message = (
        f"the output {final_path(path)} read back wrong: {detail}; check the disk, and report this if it happens again"
    )
    return RowError(FailureCode.WRITE, message, retryable=True)


def check_budget(
    path: Path, width_px: int, height_px: int, bytes_per_pixel: int, max_bytes: int, what: str = "image"
) -> None:
    """Raise `RowError`: memory if the decoded samples would take more than `max_bytes`, read if there are none."""
    if width_px < 1 or height_px < 1:
        raise damaged(path, f"its header says {width_px} x {height_px} px", what)
    needed_bytes = width_px * height_px * bytes_per_pixel
    if needed_bytes > max_bytes:
        message = (
            f"the {what} {path} is {width_px} x {height_px} px and takes {needed_bytes / 2**20:.0f} MiB decoded, over "
            f"the limit of {max_bytes / 2**20:.0f} MiB; raise --max-image-megabytes if the file can be trusted"
        )
        raise RowError(FailureCode.MEMORY, message)


def check_file_size(path: Path, num_bytes: int, max_bytes: int, what: str = "image") -> None:
    """Raise `RowError` (memory) for a file that is itself larger than the budget for its samples."""
    if num_bytes > max_bytes:
        message = (
            f"the {what} {path} is {num_bytes >> 20} MiB on disk, over the limit of {max_bytes >> 20} MiB; raise "
            "--max-image-megabytes if the file can be trusted"
        )
        raise RowError(FailureCode.MEMORY, message)


def filled_samples(source: ImageSource, box: Box, patches: Sequence[Patch]) -> SampleArray:
    """The samples of `box` as a copy, with the hole samples of `patches` in their places. Raises as `source.read`."""
    header = source.header
    samples = source.read(box).copy()
    for patch in patches:
        num_bands = header.num_bands if patch.with_alpha else header.num_colours
        common = box.intersect(patch.box)
        if not common.area_px:
            continue
        inside = common.shift(-patch.box.top, -patch.box.left).slices
        target = samples[common.shift(-box.top, -box.left).slices]
        fill = source.admissible(patch.samples[inside])
        np.copyto(target[..., :num_bands], fill[..., :num_bands], where=patch.hole[inside][..., None])
    return samples


def bands_of_rows(header: Header) -> Iterator[Box]:
    """The image from top to bottom in full-width boxes of about `BAND_OF_ROWS_PIXELS`."""
    step_px = max(1, BAND_OF_ROWS_PIXELS // header.width_px)
    for top in range(0, header.height_px, step_px):
        yield Box(top, 0, min(step_px, header.height_px - top), header.width_px)


def same_samples(one: SampleArray, other: SampleArray) -> bool:
    """Whether two arrays are equal bit by bit: NaN equals itself, and zero is not minus zero."""
    if one.dtype != other.dtype:
        return False
    unsigned = f"u{one.dtype.itemsize}"
    return np.array_equal(np.ascontiguousarray(one).view(unsigned), np.ascontiguousarray(other).view(unsigned))


def _outline(header: Header) -> str:
    """What a result has in common with its source, in words."""
    alpha = " with alpha" if header.has_alpha else ""
    bands = f"{counted(header.num_bands, 'band')}{alpha} of {header.dtype}"
    return f"{header.width_px} x {header.height_px} px, {bands}, orientation {header.orientation}"


def verify_samples(source: ImageSource, patches: Sequence[Patch], written: ImageSource) -> None:
    """Raise `RowError` (write) unless `written` holds the samples of `source` with `patches` in place, and nothing
    else.
    """
    want = source.header
    meant, has = _outline(want), _outline(written.header)
    if meant != has:
        raise spoiled(written.path, f"it has {has}, not {meant}")
    for box in bands_of_rows(want):
        expected = filled_samples(source, box, patches)
        found = written.read(box)
        if not same_samples(expected, found):
            num_wrong = int(np.count_nonzero((expected != found).any(axis=2)))
            raise spoiled(written.path, f"{num_wrong} pixels in rows {box.top} to {box.bottom} are wrong")
