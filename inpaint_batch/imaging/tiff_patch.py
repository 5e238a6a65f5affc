"""Patch a TIFF: copy the file, re-encode the segments that hold a hole sample, move those that grew, fix their
addresses.

No tag but the two address arrays changes, and no byte of an untouched segment. What grew goes to where others that
grew or shrank left room, or to the end; the rest of that room are zeros.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff_jpeg
from inpaint_batch.imaging.few_bits import reverse_bits
from inpaint_batch.imaging.file_errors import opened, reading, spoiled
from inpaint_batch.imaging.side_by_side import in_order
from inpaint_batch.imaging.source import same_samples
from inpaint_batch.imaging.tiff import TiffSource, file_dtype, open_tiff, read_packed, turn_white, unpack
from inpaint_batch.imaging.tiff_codec import pack_segments
from inpaint_batch.imaging.tiff_cog import BLANK, blank_note, find_note
from inpaint_batch.imaging.tiff_layout import CLASSIC_LIMIT_BYTES, ArrayTag, TiffLayout, append_even
from inpaint_batch.imaging.tiff_levels import with_copies
from inpaint_batch.storage.byte_ranges import copy_range, is_same_range
from inpaint_batch.types import BoolArray, Box, Patch, SampleArray

_SHORT, _LONG, _LONG8 = 3, 4, 16
_FORMATS = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}


def write_tiff(source: TiffSource, patches: Sequence[Patch], destination: Path, *, is_copy: bool = False) -> None:
    """Write `source` with `patches` in place, its reduced copies likewise; with `is_copy` the file at `destination` is
    one of the source already.

    Raises `RowError` (write) if a classic TIFF would outgrow 4 GB.
    """
    for page, own in with_copies(source, patches):
        _write_page(page, own, destination, is_copy=is_copy or page is not source)
    with destination.open("r+b") as file:
        blank_note(file, is_big=source.layout.is_big)


def _write_page(source: TiffSource, patches: Sequence[Patch], destination: Path, *, is_copy: bool) -> None:
    layout = source.layout
    offsets, lengths = list(layout.offsets), list(layout.lengths)
    touched = _touched(layout, patches)
    order = sorted(touched, key=layout.offsets.__getitem__)
    with opened(source.path) as original, destination.open("r+b" if is_copy else "w+b") as file:
        size, copied = original.seek(0, 2), 0
        if not is_copy:
            file.truncate(size)
        end = file.seek(0, 2)
        grown: list[int] = []
        left: list[tuple[int, int]] = []
        jobs = (_job(source, original, run, touched) for run in layout.in_runs(order))
        packed_runs = in_order(partial(_patched, source, patches), jobs, layout.run_bytes)
        # Front to back: what stays is copied while the next segments are packed.
        for index, packed in zip(order, chain.from_iterable(packed_runs), strict=True):
            fits = index not in layout.shared and len(packed) <= lengths[index]
            if index not in layout.shared:
                if not is_copy:
                    copy_range(original, file, copied, offsets[index])
                    copied = offsets[index] + lengths[index]
                file.seek(offsets[index])
                kept = packed if fits else b""
                file.write(kept.ljust(lengths[index], b"\x00"))
                left.append((offsets[index] + len(kept), lengths[index] - len(kept)))
            if not fits:
                grown.append(index)
                offsets[index] = _append(file, packed, layout, source.path)
            lengths[index] = len(packed)
        if not is_copy:
            copy_range(original, file, copied, size)
        if grown:
            _settle(file, grown, left, offsets, lengths, end)
        if offsets != list(layout.offsets):
            _store(file, layout, layout.offsets_tag, offsets, source.path)
        if layout.lengths_tag is not None and lengths != list(layout.lengths):
            _store(file, layout, layout.lengths_tag, lengths, source.path)


class _Job(NamedTuple):
    """Segments that are to be filled."""

    run: range
    packed: list[bytes]
    """As they stand in the source."""
    numbers: list[int]
    """Of the patches that have a hole there."""


def _job(source: TiffSource, file: BinaryIO, run: range, touched: Mapping[int, Sequence[int]]) -> _Job:
    numbers = sorted({number for index in run for number in touched[index]})
    with reading(source.path):
        return _Job(run, read_packed(file, source.layout, run), numbers)


def _filled(source: TiffSource, patches: Sequence[Patch], job: _Job) -> SampleArray:
    """The samples (h, w, bands) of a run with its patches, black-is-zero."""
    samples = unpack(job.packed, source.layout, job.run, source.path)
    chosen = (patches[number] for number in job.numbers)
    _patch_run(samples, source.layout, job.run, chosen, source.header.num_colours)
    return samples


def _patched(source: TiffSource, patches: Sequence[Patch], job: _Job) -> list[bytes]:
    """The same, each segment as it shall stand in the file."""
    layout = source.layout
    if layout.is_jpeg:
        unpack(job.packed, layout, job.run, source.path)  # nobody may have decoded them yet, where it is a copy
        return [
            tiff_jpeg.patch(packed, layout.jpeg_tables, is_ycbcr=layout.kind.is_ycbcr, patches=own, path=source.path)
            for packed, own in _own_patches(source, patches, job)
        ]
    samples = turn_white(_filled(source, patches, job), layout, job.run)
    packed = pack_segments(
        samples, layout.compression, layout.predictor, file_dtype(layout), layout.segment_px[0], layout.kind.depth
    )
    return [reverse_bits(each) for each in packed] if layout.kind.is_reversed else packed


def _own_patches(source: TiffSource, patches: Sequence[Patch], job: _Job) -> Iterator[tuple[bytes, list[Patch]]]:
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


def _touched(layout: TiffLayout, patches: Sequence[Patch]) -> dict[int, list[int]]:
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


def _append(file: BinaryIO, data: bytes, layout: TiffLayout, path: Path) -> int:
    """Put `data` at the end of the file; returns its offset."""
    end = file.seek(0, 2)
    if not layout.is_big and end + end % 2 + len(data) > CLASSIC_LIMIT_BYTES:
        message = f"{path} is a classic TIFF that would grow past 4 GB; convert it to BigTIFF and run again."
        raise RowError(FailureCode.WRITE, message)
    return append_even(file, data)


def _settle(
    file: BinaryIO,
    grown: Iterable[int],
    left: Iterable[tuple[int, int]],
    offsets: list[int],
    lengths: Sequence[int],
    end: int,
) -> None:
    """Move the segments that were appended behind `end` to where there is room, the largest first, and the rest
    together, and end the file there. Updates `offsets`; `left` are (start, length) of what is free, front to back.

    Most grow by little. Without this a compressed file with dust all over grew by half.
    """

    def move(index: int, offset: int) -> None:
        if offset != offsets[index]:
            file.seek(offsets[index])
            packed = file.read(lengths[index])
            file.seek(offset)
            file.write(packed)
            offsets[index] = offset

    rooms: list[tuple[int, int]] = []  # length, start
    for start, length in left:
        before, at = rooms.pop() if rooms and sum(rooms[-1]) == start else (0, start)
        rooms.append((before + length, at))
    rooms.sort()
    rest = []
    for index in sorted(grown, key=lambda index: (-lengths[index], index)):
        least = bisect_left(rooms, (lengths[index], 0))
        if least == len(rooms):
            rest.append(index)
            continue
        room, start = rooms.pop(least)
        move(index, start)
        used = lengths[index] + (start + lengths[index] & 1)  # to an even address
        if used < room:
            insort(rooms, (room - used, start + used))
    for index in sorted(rest, key=offsets.__getitem__):
        end += end & 1
        move(index, end)
        end += lengths[index]
    file.truncate(end)


def _store(file: BinaryIO, layout: TiffLayout, tag: ArrayTag, values: Sequence[int], path: Path) -> None:
    """Write an address array back: in place where its type still holds the values, else as a wider type at the end."""
    order = layout.byte_order
    if max(values) < 1 << 8 * struct.calcsize(_FORMATS[tag.kind]):
        file.seek(tag.values)
        file.write(struct.pack(f"{order}{len(values)}{_FORMATS[tag.kind]}", *values))
        return
    kind = _LONG8 if layout.is_big else _LONG
    packed = struct.pack(f"{order}{len(values)}{_FORMATS[kind]}", *values)
    file.seek(tag.entry + 2)
    file.write(struct.pack(order + "H", kind))
    address, size = tag.entry + (12 if layout.is_big else 8), 8 if layout.is_big else 4
    if len(packed) <= size:
        content = packed.ljust(size, b"\x00")
    else:
        content = struct.pack(order + ("Q" if layout.is_big else "I"), _append(file, packed, layout, path))
    file.seek(address)
    file.write(content)


def verify_tiff(source: TiffSource, patches: Sequence[Patch], destination: Path, max_bytes: int) -> None:
    """Raise `RowError` (write) unless untouched segments equal byte for byte, touched ones decode to what was meant,
    and the bytes in front of and between them changed only in the address arrays; so in the reduced copies.
    """
    written = open_tiff(destination, max_bytes, source.layout.page_number)
    if len(written.reduced) != len(source.reduced):
        raise spoiled(destination, "its reduced copies changed on the way")
    with opened(source.path) as old, destination.open("rb") as new:
        gaps: list[tuple[int, int]] = []
        pages = with_copies(source, patches)
        for (page, own), written_page in zip(pages, [written, *written.reduced], strict=True):
            gaps += _verified_page(page, own, written_page, old, new)
        with reading(source.path):
            note = find_note(old, is_big=source.layout.is_big)
        if note is not None:
            gaps.append(note)
            new.seek(note.start)
            if new.read(note.length) != BLANK * note.length:
                raise spoiled(destination, "it still says how it was laid out")
        _verify_rest(old, new, gaps, destination)


def _verified_page(
    source: TiffSource, patches: Sequence[Patch], written: TiffSource, old: BinaryIO, new: BinaryIO
) -> list[tuple[int, int]]:
    """Compare the segments of one page; returns which bytes (start, length) of the old file it may have changed."""
    before, after, destination = source.layout, written.layout, written.path
    # The fill may move the levels that the output would be given if it were opened as a source.
    if (
        replace(source.header, levels=None) != replace(written.header, levels=None)
        or before.segment_px != after.segment_px
    ):
        raise spoiled(destination, "its header changed on the way")
    touched = _touched(before, patches)
    places = zip(before.offsets, before.lengths, after.offsets, after.lengths, strict=True)
    for index, (offset, length, new_offset, new_length) in enumerate(places):
        if index not in touched and (offset, length) != (new_offset, new_length):
            raise spoiled(destination, f"segment {index} moved although it holds no hole")
    runs = before.in_runs(sorted(touched))
    jobs = ((_job(source, old, run, touched), read_packed(new, after, run)) for run in runs)

    def first_wrong(pair: tuple[_Job, list[bytes]]) -> int | None:
        job, packed = pair
        if before.is_jpeg:
            unpack(packed, after, job.run, destination)
            return _first_wrong_jpeg(source, patches, job, packed, destination)
        meant, found = _filled(source, patches, job), unpack(packed, after, job.run, destination)
        if same_samples(meant, found):
            return None
        rows = (slice(start, start + before.segment_px[0]) for start in range(0, len(meant), before.segment_px[0]))
        parts = zip(job.run, rows, strict=True)
        return next(index for index, part in parts if not same_samples(meant[part], found[part]))

    for segment in in_order(first_wrong, jobs, before.run_bytes):
        if segment is not None:
            raise spoiled(destination, f"segment {segment} read back different from what was meant")
    gaps = [(before.offsets[index], before.lengths[index]) for index in touched if index not in before.shared]
    for tag in (before.offsets_tag, before.lengths_tag):
        if tag is not None:
            gaps.append((tag.entry, 20 if before.is_big else 12))
            gaps.append((tag.values, tag.count * struct.calcsize(_FORMATS[tag.kind])))
    return gaps


def _first_wrong_jpeg(
    source: TiffSource, patches: Sequence[Patch], job: _Job, packed: Sequence[bytes], destination: Path
) -> int | None:
    """The first segment whose tables or size changed; raises `RowError` (write) where coefficients are wrong."""
    tables, is_ycbcr = source.layout.jpeg_tables, source.layout.kind.is_ycbcr
    for index, after, (before, own) in zip(job.run, packed, _own_patches(source, patches, job), strict=True):
        if tiff_jpeg.difference(before, after, tables, is_ycbcr=is_ycbcr, patches=own, path=destination):
            return index
    return None


def _verify_rest(old: BinaryIO, new: BinaryIO, gaps: Iterable[tuple[int, int]], destination: Path) -> None:
    """Compare all bytes of the old file but those of `gaps` (start, length); so, untouched segments too."""
    position, end = 0, old.seek(0, 2)
    for start, length in sorted([*gaps, (end, 0)]):
        if not is_same_range(old, new, position, start):
            raise spoiled(destination, "bytes outside the filled segments changed on the way")
        position = max(position, start + length)
