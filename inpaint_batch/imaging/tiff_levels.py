"""The reduced copies of a TIFF page: what is filled in the page is filled in them, lest they go on showing the damage.

A pixel of a copy stands for a cell of pixels of the page. Where a cell holds a hole pixel it becomes the mean of the
cell as it is after filling; everywhere else the copy stays as it was, however it had been made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.source import apply_patches
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.types import BoolArray, Box, Patch, SampleArray

_SIDE_PX = 512
"""Of the squares in which patches near each other are found."""


def with_copies(source: TiffSource, patches: Sequence[Patch]) -> Iterator[tuple[TiffSource, Sequence[Patch]]]:
    """A page and its reduced copies, from large to small, each with its patches: those of a copy are made from the one
    before, so that a pyramid costs a third more than its page.
    """
    yield source, patches
    for copy in source.reduced:
        source, patches = copy, _reduced_patches(source, patches, copy)
        yield source, patches


def _reduced_patches(source: TiffSource, patches: Sequence[Patch], copy: TiffSource) -> list[Patch]:
    """Patches of `copy`, a reduced copy of `source`, that show what `patches` fill in `source`.

    They may overlap, and agree where they do. Raises what reading the source raises.
    """
    near = _Near(patches)
    rows = _Cells(source.header.height_px, copy.header.height_px)
    columns = _Cells(source.header.width_px, copy.header.width_px)
    reduced = []
    for patch in patches:
        down, across = rows.touching(patch.box.top, patch.box.bottom), columns.touching(patch.box.left, patch.box.right)
        top, left = rows.start(down.start), columns.start(across.start)
        around = Box(top, left, rows.start(down.stop) - top, columns.start(across.stop) - left)
        others = [patches[number] for number in near.numbers(around)]
        samples, hole = source.read(around).copy(), np.zeros((around.height, around.width), np.bool_)
        apply_patches(source, samples, around, others)
        for other in others:
            common = around.intersect(other.box)
            inside = common.shift(-other.box.top, -other.box.left).slices
            hole[common.shift(-top, -left).slices] |= other.hole[inside]
        starts = rows.starts(down) - top, columns.starts(across) - left
        box = Box(down.start, across.start, len(down), len(across))
        reduced.append(Patch(box, _mean(samples, *starts), _any(hole, *starts), with_alpha=patch.with_alpha))
    return reduced


class _Cells:
    """How the pixels of one side of a page are shared out among those of a copy."""

    def __init__(self, length_px: int, copy_px: int) -> None:
        self._length_px = length_px
        self._copy_px = copy_px
        halvings = max(0, round(np.log2(length_px / copy_px)))
        # A program that halves leaves out a last odd row, or gives it a cell of its own.
        is_halved = copy_px in (length_px >> halvings, -(-length_px >> halvings))
        self._step = 1 << halvings if is_halved else 0

    def start(self, cell: int) -> int:
        """The first pixel of a cell; of the one behind the last, the length."""
        if cell >= self._copy_px:
            return self._length_px
        return cell * self._step if self._step else cell * self._length_px // self._copy_px

    def starts(self, cells: range) -> NDArray[np.intp]:
        """The first pixel of each."""
        return np.array([self.start(cell) for cell in cells], np.intp)

    def touching(self, start: int, stop: int) -> range:
        """The cells that hold one of the pixels [start, stop)."""
        first, last = (self._cell(pixel) for pixel in (start, stop - 1))
        return range(first, last + 1)

    def _cell(self, pixel: int) -> int:
        if self._step:
            return min(pixel // self._step, self._copy_px - 1)
        return ((pixel + 1) * self._copy_px - 1) // self._length_px


class _Near:
    """Which patches lie near a place."""

    def __init__(self, patches: Sequence[Patch]) -> None:
        self._patches = patches
        self._squares: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, patch in enumerate(patches):
            for square in _squares(patch.box):
                self._squares[square].append(number)

    def numbers(self, box: Box) -> list[int]:
        """Of the patches that share a square with `box`, in order."""
        return sorted({number for square in _squares(box) for number in self._squares.get(square, ())})


def _squares(box: Box) -> Iterator[tuple[int, int]]:
    for row in range(box.top // _SIDE_PX, -(-box.bottom // _SIDE_PX)):
        for column in range(box.left // _SIDE_PX, -(-box.right // _SIDE_PX)):
            yield row, column


def _mean(samples: SampleArray, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> SampleArray:
    """The mean of each cell (h, w, bands); cells begin at `rows` and `columns`."""
    height_px, width_px = samples.shape[:2]
    sums = np.add.reduceat(np.add.reduceat(samples.astype(np.float64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff(rows, append=height_px), np.diff(columns, append=width_px))
    means = sums / sizes[..., None]
    fresh: SampleArray = (np.rint(means) if samples.dtype.kind in "ui" else means).astype(samples.dtype)
    return fresh


def _any(hole: BoolArray, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> BoolArray:
    found: BoolArray = np.logical_or.reduceat(np.logical_or.reduceat(hole, rows, axis=0), columns, axis=1)
    return found
