"""Is a written TIFF what it was meant to be? Its bytes are compared with the source, and what was filled is decoded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from inpaint_batch.imaging import tiff_jpeg
from inpaint_batch.imaging.file_errors import opened, reading, spoiled
from inpaint_batch.imaging.side_by_side import in_order
from inpaint_batch.imaging.source import same_samples
from inpaint_batch.imaging.tiff import TiffSource, open_tiff, read_packed, unpack
from inpaint_batch.imaging.tiff_cog import BLANK, find_note
from inpaint_batch.imaging.tiff_levels import with_copies
from inpaint_batch.imaging.tiff_touched import Job, filled_samples, job_of, own_patches, touched_segments
from inpaint_batch.storage.byte_ranges import is_same_range
from inpaint_batch.types import Patch


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
    touched = touched_segments(before, patches)
    places = zip(before.offsets, before.lengths, after.offsets, after.lengths, strict=True)
    for index, (offset, length, new_offset, new_length) in enumerate(places):
        if index not in touched and (offset, length) != (new_offset, new_length):
            raise spoiled(destination, f"segment {index} moved although it holds no hole")
    runs = before.in_runs(sorted(touched))
    jobs = ((job_of(source, old, run, touched), read_packed(new, after, run)) for run in runs)

    def first_wrong(pair: tuple[Job, list[bytes]]) -> int | None:
        job, packed = pair
        if before.is_jpeg:
            unpack(packed, after, job.run, destination)
            return _first_wrong_jpeg(source, patches, job, packed, destination)
        meant, found = filled_samples(source, patches, job), unpack(packed, after, job.run, destination)
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
            gaps.append((tag.values, tag.num_bytes))
    return gaps


def _first_wrong_jpeg(
    source: TiffSource, patches: Sequence[Patch], job: Job, packed: Sequence[bytes], destination: Path
) -> int | None:
    """The first segment whose tables or size changed; raises `RowError` (write) where coefficients are wrong."""
    tables, is_ycbcr = source.layout.jpeg_tables, source.layout.kind.is_ycbcr
    for index, after, (before, own) in zip(job.run, packed, own_patches(source, patches, job), strict=True):
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
