"""The reduced copies of a TIFF page: what is filled in the page is filled in them, lest they go on showing the damage.

A pixel of a copy stands for a cell of pixels of the page. Where a cell holds a hole pixel it becomes the mean of the
cell as it is after filling, and so do the others of the same block of a JPEG, which cannot stay anyway; everywhere else
the copy stays as it was, however it had been made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.patch_store import PatchStore
from inpaint_batch.imaging.source import filled_samples
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.types import BoolArray, Box, Patch, SampleArray

_SIDE_PX = 512
"""Of the squares of a page that are made part of a copy at a time; of a page in strips as many pixels are."""
_PATCHES_BYTES = 16 << 20
_Block = tuple[range, range]
"""A rectangle of cells: down, across."""


def with_copies(source: TiffSource, patches: Sequence[Patch]) -> Iterator[tuple[TiffSource, Sequence[Patch]]]:
    """A page and its reduced copies, from large to small, each with its patches, which hold until the next are asked
    for: those of a copy are made from the one before, so that a pyramid costs a third more than its page.

    Takes as much memory again as the decoded segments that the page keeps, at most.
    """
    yield source, patches
    page, all_patches = source, patches
    store: PatchStore | None = None
    try:
        for copy in page.reduced:
            if copy.header.width_px > source.header.width_px or copy.header.height_px > source.header.height_px:
                source, patches = page, all_patches  # two of nearly one size
            copy.cache_bytes = page.cache_bytes // 2
            fresh = PatchStore(min(_PATCHES_BYTES, page.cache_bytes // 4))
            try:
                for number, patch in enumerate(_reduced_patches(source, patches, copy, page.header.no_data)):
                    fresh.add(number, patch)
            finally:
                if store is not None:
                    store.close()
                store = fresh
            if source is not page:
                source.close()
            source, patches = copy, fresh
            yield source, patches
    finally:
        if store is not None:
            store.close()
        for copy in page.reduced:
            copy.close()


def _reduced_patches(
    source: TiffSource, patches: Sequence[Patch], copy: TiffSource, no_data: float | None
) -> Iterator[Patch]:
    """Patches of `copy`, a reduced copy of `source`, that show what `patches` fill in `source`; they do not overlap.

    Samples that are `no_data` count for nothing. Raises what reading the source raises.
    """
    rows = _Cells(source.header.height_px, copy.header.height_px)
    columns = _Cells(source.header.width_px, copy.header.width_px)
    side = _piece(source, rows, columns)
    with_alpha = bool(patches) and patches[0].with_alpha
    blocks = _blocks(patches, rows, columns, side, copy.layout.block_px)
    for down, across in sorted(blocks, key=lambda block: (block[0].start, block[1].start)):
        boxes = blocks[down, across]
        touched = _touched(patches, boxes, rows, columns, (down, across))
        touched = _in_whole_blocks(touched, copy.layout.block_px)
        if not touched.any():
            continue
        down, first_row = _trimmed(touched, 1, down)
        across, first_column = _trimmed(touched, 0, across)
        touched = touched[first_row : first_row + len(down), first_column : first_column + len(across)]
        box = Box(down.start, across.start, len(down), len(across))
        fresh = np.empty((*touched.shape, copy.header.num_bands), copy.header.dtype)
        for part_down, part_across in _pieces(down, across, side):
            around = _in_page(rows, columns, part_down, part_across)
            own = [patches[number] for number, each in boxes.items() if each.intersect(around).area_px]
            samples = filled_samples(source, around, own)
            starts = rows.starts(part_down) - around.top, columns.starts(part_across) - around.left
            part = Box(part_down.start, part_across.start, len(part_down), len(part_across))
            fresh[part.shift(-box.top, -box.left).slices] = _mean(samples, *starts, no_data)
        if copy.header.is_premultiplied and not with_alpha:  # no colour is more than the alpha that stays
            fresh = np.minimum(fresh, copy.read(box)[..., -1:])
        yield Patch(box, fresh, touched, with_alpha=with_alpha)


def _piece(source: TiffSource, rows: _Cells, columns: _Cells) -> tuple[int, int]:
    """(height, width) in cells of what is made at a time."""
    if source.layout.grid[1] > 1:
        return max(1, _SIDE_PX // rows.largest_px), max(1, _SIDE_PX // columns.largest_px)
    # A strip is decoded as a whole.
    return max(1, _SIDE_PX**2 // (source.header.width_px * rows.largest_px)), len(columns)


def _blocks(
    patches: Sequence[Patch], rows: _Cells, columns: _Cells, side: tuple[int, int], step: tuple[int, int]
) -> dict[_Block, dict[int, Box]]:
    """Rectangles of cells, none twice, that have patches: with their numbers and boxes. They begin at multiples of
    `step`, and are as large as `side` or a little larger: what is coded together is written at once, since what little
    each part of it changes would be lost where it is quantised.
    """
    height, width = (-(-length // each) * each for each, length in zip(step, side, strict=True))
    blocks: defaultdict[_Block, dict[int, Box]] = defaultdict(dict)
    for number, patch in enumerate(patches):
        box = patch.box
        down, across = rows.touching(box.top, box.bottom), columns.touching(box.left, box.right)
        for top in range(down.start // height * height, down.stop, height):
            for left in range(across.start // width * width, across.stop, width):
                block = range(top, min(top + height, len(rows))), range(left, min(left + width, len(columns)))
                blocks[block][number] = box
    return blocks


def _touched(
    patches: Sequence[Patch], numbers: Iterable[int], rows: _Cells, columns: _Cells, block: _Block
) -> BoolArray:
    """Which cells of a block hold a hole pixel (h, w)."""
    down, across = block
    around = _in_page(rows, columns, down, across)
    touched = np.zeros((len(down), len(across)), np.bool_)
    for number in numbers:
        patch = patches[number]
        common = patch.box.intersect(around)
        hole = patch.hole[common.shift(-patch.box.top, -patch.box.left).slices]
        own_down, own_across = rows.touching(common.top, common.bottom), columns.touching(common.left, common.right)
        tops, lefts = rows.starts(own_down) - common.top, columns.starts(own_across) - common.left
        found = _any(hole, np.maximum(tops, 0), np.maximum(lefts, 0))
        inside = Box(own_down.start, own_across.start, *found.shape).shift(-down.start, -across.start)
        touched[inside.slices] |= found
    return touched


def _in_whole_blocks(touched: BoolArray, block_px: tuple[int, int]) -> BoolArray:
    """`touched` (h, w), and what is coded with it: that would keep some of the damage, its colour above all."""
    (height, width), (down, across) = touched.shape, block_px
    padded = np.pad(touched, ((0, -height % down), (0, -width % across)))
    coded = padded.reshape(-1, down, padded.shape[1] // across, across).any(axis=(1, 3))
    whole: BoolArray = coded.repeat(down, axis=0).repeat(across, axis=1)[:height, :width]
    return whole


def _pieces(down: range, across: range, side: tuple[int, int]) -> Iterator[_Block]:
    """A rectangle of cells in parts of at most `side`."""
    for top in range(0, len(down), side[0]):
        for left in range(0, len(across), side[1]):
            yield down[top : top + side[0]], across[left : left + side[1]]


def _in_page(rows: _Cells, columns: _Cells, down: range, across: range) -> Box:
    top, left = rows.start(down.start), columns.start(across.start)
    return Box(top, left, rows.start(down.stop) - top, columns.start(across.stop) - left)


def _trimmed(touched: BoolArray, other_axis: int, cells: range) -> tuple[range, int]:
    """Of `cells` those between the first and the last that is touched, and how many stand in front of them."""
    found = np.flatnonzero(touched.any(axis=other_axis))
    first, last = int(found[0]), int(found[-1])
    return cells[first : last + 1], first


class _Cells:
    """How the pixels of one side of a page are shared out among those of a copy."""

    def __init__(self, length_px: int, copy_px: int) -> None:
        self._length_px = length_px
        self._copy_px = copy_px
        halvings = max(0, round(np.log2(length_px / copy_px)))
        # A program that halves leaves out a last odd row, or gives it a cell of its own.
        is_halved = copy_px in (length_px >> halvings, -(-length_px >> halvings))
        self._step = 1 << halvings if is_halved else 0

    def __len__(self) -> int:
        return self._copy_px

    @property
    def largest_px(self) -> int:
        """Pixels of the largest, but for a last one that takes in what is left out."""
        return self._step or -(-self._length_px // self._copy_px)

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


def _mean(
    samples: SampleArray, rows: NDArray[np.intp], columns: NDArray[np.intp], no_data: float | None
) -> SampleArray:
    """The mean of each cell (h, w, bands); cells begin at `rows` and `columns`. Of a cell without data, its first."""

    def sums(values: NDArray[np.generic]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):  # of infinities that cancel each other
            in_rows = np.add.reduceat(values, rows, axis=0, dtype=np.float64)
            summed: NDArray[np.float64] = np.add.reduceat(in_rows, columns, axis=1)
        return summed

    is_absent: BoolArray = np.isnan(samples) if samples.dtype.kind == "f" else np.zeros(samples.shape, np.bool_)
    if no_data is not None:
        with np.errstate(over="ignore"):  # it may be beyond what the type can hold
            is_absent |= samples == no_data
    if is_absent.any():
        counts = sums(~is_absent)
        means = sums(np.where(is_absent, samples.dtype.type(0), samples)) / np.maximum(counts, 1)
    else:
        height_px, width_px = samples.shape[:2]
        sizes = np.outer(np.diff(rows, append=height_px), np.diff(columns, append=width_px))
        counts, means = sizes[..., None], sums(samples) / sizes[..., None]
    rounded = np.rint(means) if samples.dtype.kind in "ui" else means
    fresh = cast(SampleArray, rounded.astype(samples.dtype))
    np.copyto(fresh, samples[np.ix_(rows, columns)], where=counts == 0)
    return fresh


def _any(hole: BoolArray, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> BoolArray:
    found: BoolArray = np.logical_or.reduceat(np.logical_or.reduceat(hole, rows, axis=0), columns, axis=1)
    return found
