"""Is a result its source wherever there is no hole? Asked of finished files, whoever wrote them, and however long ago.

What the fill was meant to be is not known any more, so nothing is said of it; nor of metadata, to which a run may have
added on request.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.jpeg import JpegSource
from inpaint_batch.imaging.jpeg_coefficients import Coefficients, opened_coefficients
from inpaint_batch.imaging.jpeg_patch import changed_blocks, structural_difference, touched_blocks
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.imaging.source import ImageSource, bands_of_rows, differing, outline
from inpaint_batch.imaging.tiff import TiffSource, read_packed, unpack
from inpaint_batch.imaging.tiff_jpeg import opened_segment
from inpaint_batch.imaging.tiff_layout import TiffLayout
from inpaint_batch.types import BoolMap, Box, HolePart, SampleArray
from inpaint_batch.words import counted


@dataclass(slots=True)
class Difference:
    """What a result changed of its source."""

    in_general: str = ""
    """What the two differ in as wholes, as a sentence about the result; nothing else is looked at then."""
    num_wrong: int = 0
    """How much differs that is known: pixels, or of coefficients blocks."""
    first_wrong: Box | None = None
    """Where the first of that is."""
    unit: str = "pixel"
    is_filled: bool = False
    """Whether anything differs in the hole."""

    @property
    def problem(self) -> str:
        """What is wrong, as the end of a sentence about the result; empty where nothing is."""
        if self.in_general or self.first_wrong is None:
            return self.in_general
        many = f"{counted(self.num_wrong, self.unit)} outside the hole {'is' if self.num_wrong == 1 else 'are'} not"
        return f"{many} as in the source, the first in row {self.first_wrong.top}, column {self.first_wrong.left}"


def compare_known(source: ImageSource, written: ImageSource, hole: BoolMap) -> Difference:
    """Compare every sample outside `hole` (h, w); where both files hold coefficients of JPEG, those of every block that
    has no hole pixel, and the tables and sizes that give them their meaning. Of the copies of a pyramid nothing.

    Takes memory for the samples of two images of formats that are decoded whole. Raises RowError (read).
    """
    meant, has = outline(source.header), outline(written.header)
    if meant != has:
        return Difference(f"it has {has}, not {meant}")
    match source, written:
        case JpegSource(), JpegSource():
            return _compare_jpegs(source, written, hole)
        case TiffSource(), TiffSource() if _is_packed_alike(source.layout, written.layout):
            return _compare_segments(source, written, hole)
        case _:
            return _compare_samples(source, written, hole)


def _compare_samples(source: ImageSource, written: ImageSource, hole: BoolMap) -> Difference:
    found = Difference()
    for box in source.parts():
        _count_pixels(found, source.read(box), written.read(box), hole, box)
    return found


def _count_pixels(found: Difference, before: SampleArray, after: SampleArray, hole: BoolMap, box: Box) -> None:
    """Add what differs between the samples of `box`."""
    changed = differing(before, after)
    if changed.any():
        in_hole = hole[box.slices]
        found.is_filled |= bool((changed & in_hole).any())
        _count(found, np.argwhere(changed & ~in_hole), box)


def _count(found: Difference, places: NDArray[np.intp], box: Box, step: tuple[int, int] = (1, 1)) -> None:
    """Add wrong places (n, 2), counted in steps of so many pixels from the corner of `box`."""
    found.num_wrong += len(places)
    if len(places) and found.first_wrong is None:
        row, column = (int(at) * each for at, each in zip(places[0], step, strict=True))
        found.first_wrong = Box(box.top + row, box.left + column, *step)


def _compare_jpegs(source: JpegSource, written: JpegSource, hole: BoolMap) -> Difference:
    found = Difference(unit="block")
    with ExitStack() as held:
        opened = []
        for each in (source, written):
            data, stream = each.checked()
            each.close()  # its samples
            opened.append((stream, held.enter_context(opened_coefficients(data[: stream.end], stream))))
        parts = [HolePart(box, hole[box.slices]) for box in bands_of_rows(source.header)]
        before, after = opened
        _count_blocks(found, before, after, parts, source.header.box)
    return found


def _is_packed_alike(one: TiffLayout, other: TiffLayout) -> bool:
    """Whether segments can be compared one by one, and no pixel is in several."""
    packings = (
        (each.kind, each.byte_order, each.compression, each.predictor, each.segment_px, each.is_tiled)
        for each in (one, other)
    )
    return not one.is_planar and not other.is_planar and len(set(packings)) == 1


def _compare_segments(source: TiffSource, written: TiffSource, hole: BoolMap) -> Difference:
    """What is packed alike is alike; few segments have to be decoded."""
    before, after = source.layout, written.layout
    if before.jpeg_tables != after.jpeg_tables:
        return Difference("its tables are not those of the source")
    found = Difference(unit="block" if before.is_jpeg else "pixel")
    with reading(source.path), source.path.open("rb") as old, reading(written.path), written.path.open("rb") as new:
        for index in range(len(before.offsets)):
            run = range(index, index + 1)
            was, now = read_packed(old, before, run), read_packed(new, after, run)
            if was == now:
                continue
            box = before.box(index)
            # The library of coefficients may only see what decodes.
            samples, others = unpack(was, before, run, source.path), unpack(now, after, run, written.path)
            whole = Box(0, 0, box.height, box.width)
            if not before.is_jpeg:
                _count_pixels(found, samples[whole.slices], others[whole.slices], hole, box)
                continue
            own = HolePart(whole, hole[box.slices])
            with _opened(was[0], before) as one, _opened(now[0], after) as other:
                _count_blocks(found, one, other, [own], box)
    return found


def _opened(packed: bytes, layout: TiffLayout) -> AbstractContextManager[tuple[JpegStream, list[Coefficients]]]:
    return opened_segment(packed, layout.jpeg_tables, is_ycbcr=layout.kind.is_ycbcr)


def _count_blocks(
    found: Difference,
    before: tuple[JpegStream, list[Coefficients]],
    after: tuple[JpegStream, list[Coefficients]],
    parts: list[HolePart],
    box: Box,
) -> None:
    """Add what differs between two JPEG streams that stand for `box`; `parts` are counted from its corner."""
    stream = before[0]
    if problem := structural_difference(stream, after[0]):
        found.in_general = f"{problem} is not that of the source"
        return
    for index, (old, new) in enumerate(zip(before[1], after[1], strict=True)):
        changed = changed_blocks(old, new)
        if changed.any():
            touched = touched_blocks(stream, index, parts)
            found.is_filled |= bool((changed & touched).any())
            down, across = stream.subsampling(index)
            _count(found, np.argwhere(changed & ~touched), box, (8 * down, 8 * across))
