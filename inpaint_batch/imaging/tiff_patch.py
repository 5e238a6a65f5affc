"""Patch a TIFF: copy the file, re-encode the segments that hold a hole sample, move those that grew, fix their
addresses.

No tag but the two address arrays changes, and no byte of an untouched segment. What grew goes to where others that
grew or shrank left room, or to the end; the rest of that room are zeros.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff_jpeg
from inpaint_batch.imaging.few_bits import reverse_bits
from inpaint_batch.imaging.file_errors import opened
from inpaint_batch.imaging.side_by_side import in_order
from inpaint_batch.imaging.tiff import TiffSource, file_dtype, turn_white, unpack
from inpaint_batch.imaging.tiff_codec import pack_segments
from inpaint_batch.imaging.tiff_cog import blank_note
from inpaint_batch.imaging.tiff_layout import (
    ARRAY_FORMATS,
    CLASSIC_LIMIT_BYTES,
    LONG,
    LONG8,
    ArrayTag,
    TiffLayout,
    append_even,
)
from inpaint_batch.imaging.tiff_levels import with_copies
from inpaint_batch.imaging.tiff_touched import Job, filled_samples, job_of, own_patches, touched_segments
from inpaint_batch.storage.byte_ranges import copy_range
from inpaint_batch.types import Patch


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
    touched = touched_segments(layout, patches)
    order = sorted(touched, key=layout.offsets.__getitem__)
    with opened(source.path) as original, destination.open("r+b" if is_copy else "w+b") as file:
        size, copied = original.seek(0, 2), 0
        if not is_copy:
            file.truncate(size)
        end = file.seek(0, 2)
        grown: list[int] = []
        left: list[tuple[int, int]] = []
        jobs = (job_of(source, original, run, touched) for run in layout.in_runs(order))
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


def _patched(source: TiffSource, patches: Sequence[Patch], job: Job) -> list[bytes]:
    """Each segment of a run with its patches, as it shall stand in the file."""
    layout = source.layout
    if layout.is_jpeg:
        unpack(job.packed, layout, job.run, source.path)  # nobody may have decoded them yet, where it is a copy
        return [
            tiff_jpeg.patch(packed, layout.jpeg_tables, is_ycbcr=layout.kind.is_ycbcr, patches=own, path=source.path)
            for packed, own in own_patches(source, patches, job)
        ]
    samples = turn_white(filled_samples(source, patches, job), layout, job.run)
    packed = pack_segments(
        samples, layout.compression, layout.predictor, file_dtype(layout), layout.segment_px[0], layout.kind.depth
    )
    return [reverse_bits(each) for each in packed] if layout.kind.is_reversed else packed


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
    if max(values) < 1 << 8 * struct.calcsize(ARRAY_FORMATS[tag.kind]):
        file.seek(tag.values)
        file.write(struct.pack(f"{order}{len(values)}{ARRAY_FORMATS[tag.kind]}", *values))
        return
    kind = LONG8 if layout.is_big else LONG
    packed = struct.pack(f"{order}{len(values)}{ARRAY_FORMATS[kind]}", *values)
    file.seek(tag.entry + 2)
    file.write(struct.pack(order + "H", kind))
    address, size = tag.entry + (12 if layout.is_big else 8), 8 if layout.is_big else 4
    if len(packed) <= size:
        content = packed.ljust(size, b"\x00")
    else:
        content = struct.pack(order + ("Q" if layout.is_big else "I"), _append(file, packed, layout, path))
    file.seek(address)
    file.write(content)
