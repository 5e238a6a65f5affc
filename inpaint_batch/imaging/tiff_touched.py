"""Which segments of a TIFF hold a hole sample, and what they shall hold; for who writes them and who verifies them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.tiff import TiffSource, read_packed, unpack
from inpaint_batch.imaging.tiff_layout import TiffLayout
from inpaint_batch.types import BoolArray, Box, Patch, SampleArray


class Job(NamedTuple):
    """Segments that are to be filled."""

    run: range
    packed: list[bytes]
    """As they stand in the source."""
    numbers: list[int]
    """Of the patches that have a hole there."""


def job_of(source: TiffSource, file: BinaryIO, run: range, touched: Mapping[int, Sequence[int]]) -> Job:
    """What there is to do for a run of segments, read from the source's open `file`. Raises RowError(READ)."""
    numbers = sorted({number for index in run for number in touched[index]})
    with reading(source.path):
        return Job(run, read_packed(file, source.layout, run), numbers)


def filled_samples(source: TiffSource, patches: Sequence[Patch], job: Job) -> SampleArray:
    """The samples (h, w, bands) of a run with its patches, black-is-zero. Raises RowError(READ)."""
    samples = unpack(job.packed, source.layout, job.run, source.path)
    chosen = (patches[number] for number in job.numbers)
    _patch_run(samples, source.layout, job.run, chosen, source.header.num_colours)
    return samples


def own_patches(source: TiffSource, patches: Sequence[Patch], job: Job) -> Iterator[tuple[bytes, list[Patch]]]:
    """Each segment of a run as it stands in the source, and what of the patches lies in it, counted from its corner."""
    layout, num_colours = source.layout, source.header.num_colours
    for packed, index in zip(job.packed, job.run, strict=True):
        own, box, bands = [], layout.box(index), layout.bands(index)
        for patch in (patches[number] for number in job.numbers):
            common = box.intersect(patch.box)
            if common.area_px:
                inside = common.shift(-patch.box.top, -patch.box.left).slices
                samples = patch.samples[inside][..., bands.start : min(bands.stop, num_colours)]
                own.append(Patch(common.shift(-box.top, -box.left), samples, patch.hole[inside]))
        yield packed, own


def touched_segments(layout: TiffLayout, patches: Sequence[Patch]) -> dict[int, list[int]]:
    """Segments that hold at least one hole pixel, each with the numbers of the patches that have it there."""
    rows, columns = layout.grid
    planes = range(layout.num_bands if layout.is_planar else 1)
    touched: dict[int, list[int]] = {}
    for number, patch in enumerate(patches):
        if not patch.box.area_px:
            continue
        is_touched, first_row, first_column = _segments_of(patch.hole, patch.box, layout.segment_px)
        for row, column in np.argwhere(is_touched).tolist():
            index = (first_row + row) * columns + first_column + column
            for plane in planes:
                touched.setdefault(plane * rows * columns + index, []).append(number)
    return touched


def _segments_of(hole: BoolArray, box: Box, segment_px: tuple[int, int]) -> tuple[BoolArray, int, int]:
    """Whether anything of `hole`, which lies at `box`, is true in each segment of a grid (rows, columns) of them; and
    the row and column in the whole grid that it begins with.
    """
    height_px, width_px = segment_px
    first_row, first_column = box.top // height_px, box.left // width_px
    tops = range(first_row * height_px - box.top, box.height, height_px)
    in_rows = [hole[max(top, 0) : top + height_px].any(axis=0) for top in tops]  # several times as fast as reduceat
    lefts = np.maximum(np.arange(first_column * width_px - box.left, box.width, width_px), 0)
    return np.logical_or.reduceat(np.array(in_rows), lefts, axis=1), first_row, first_column


def _patch_run(
    samples: SampleArray, layout: TiffLayout, run: range, patches: Iterable[Patch], num_colours: int
) -> None:
    """Write the hole samples of all patches into a run (h, w, bands), black-is-zero, in place."""
    box, bands = layout.box_of(run), layout.bands(run[0])
    for patch in patches:
        filled = slice(bands.start, bands.stop if patch.with_alpha else min(bands.stop, num_colours))
        common = box.intersect(patch.box)
        inside = common.shift(-patch.box.top, -patch.box.left).slices
        target = samples[common.shift(-box.top, -box.left).slices]
        fill = patch.samples[inside][..., filled]
        np.copyto(target[..., : fill.shape[2]], fill, where=patch.hole[inside][..., None])
