"""What every format offers to the rest of the package: a header now, samples later.

A source never rotates, never changes depth and never drops a band. The one translation it makes is exact and undone on
writing: a min-is-white TIFF is read (and patched) as black-is-zero, so that nobody else has to know.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.file_errors import damaged, reading, spoiled
from inpaint_batch.types import BoolArray, BoolMap, Box, Header, Patch, SampleArray
from inpaint_batch.words import counted

BAND_OF_ROWS_PIXELS = 1 << 20
"""Pixels that comparisons look at in one go, so that they cost a few megabytes whatever the image."""


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
    return one.dtype == other.dtype and np.array_equal(_bits(one), _bits(other))


def differing(one: SampleArray, other: SampleArray) -> BoolArray:
    """(h, w): which pixels of two arrays (h, w, bands) of one dtype are not equal bit by bit in all bands."""
    different: BoolArray = (_bits(one) != _bits(other)).any(axis=2)
    return different


def _bits(samples: SampleArray) -> NDArray[np.unsignedinteger]:
    return np.ascontiguousarray(samples).view(f"u{samples.dtype.itemsize}")


def outline(header: Header) -> str:
    """What a result has in common with its source, in words."""
    alpha = " with alpha" if header.has_alpha else ""
    bands = f"{counted(header.num_bands, 'band')}{alpha} of {header.dtype}"
    return f"{header.width_px} x {header.height_px} px, {bands}, orientation {header.orientation}"


def verify_samples(source: ImageSource, patches: Sequence[Patch], written: ImageSource) -> None:
    """Raise `RowError` (write) unless `written` holds the samples of `source` with `patches` in place, and nothing
    else.
    """
    want = source.header
    meant, has = outline(want), outline(written.header)
    if meant != has:
        raise spoiled(written.path, f"it has {has}, not {meant}")
    for box in bands_of_rows(want):
        expected = filled_samples(source, box, patches)
        found = written.read(box)
        if not same_samples(expected, found):
            num_wrong = int(np.count_nonzero(differing(expected, found)))
            raise spoiled(written.path, f"{num_wrong} pixels in rows {box.top} to {box.bottom} are wrong")
