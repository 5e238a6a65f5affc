"""Where the segments (strips or tiles) of a TIFF page lie, and how they are packed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tifffile

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff_jpeg, tiff_kind
from inpaint_batch.imaging.source import check_budget, damaged, refuse
from inpaint_batch.imaging.tiff_codec import has_predictor
from inpaint_batch.imaging.tiff_kind import TiffKind
from inpaint_batch.types import Box

_OFFSET_TAGS, _LENGTH_TAGS = (324, 273), (325, 279)
_ARRAY_TYPES = (3, 4, 16)
"""SHORT, LONG, LONG8."""
_INTERLEAVED, _PLANES = 1, 2
"""Values of PlanarConfiguration."""
_REDUCED = 1
"""Bit of NewSubfileType: a smaller version of another page."""
RUN_BYTES = 1 << 18
"""Strips are decoded together until they hold that much: most writers make them of 8 KB, where what it takes to begin
with one outweighs its pixels."""


@dataclass(frozen=True, slots=True)
class ArrayTag:
    """Where the file keeps one array of the directory (offsets or lengths of segments)."""

    entry: int
    """File offset of its directory entry."""
    values: int
    """File offset of the values; inside the entry where they fit there."""
    kind: int
    """TIFF type: 3 SHORT, 4 LONG, 16 LONG8."""
    count: int


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """One image file directory, as far as reading and patching its segments needs it."""

    kind: TiffKind
    page_number: int | None
    """The page it was asked for, from 1; None for the only page."""
    byte_order: Literal["<", ">"]
    is_big: bool
    width_px: int
    height_px: int
    num_bands: int
    orientation: int
    compression: int
    predictor: int
    is_planar: bool
    segment_px: tuple[int, int]
    """(height, width) of a full segment."""
    is_tiled: bool
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    offsets_tag: ArrayTag
    lengths_tag: ArrayTag | None
    """None where the file leaves the lengths out, which only uncompressed ones may."""
    shared: frozenset[int]
    """Indices of segments whose bytes somebody else uses too: other segments, other pages, or the directory."""
    jpeg_tables: bytes = b""
    """What JPEG segments have in common, as a stream without a picture."""

    @property
    def is_jpeg(self) -> bool:
        """Whether each segment is a JPEG stream."""
        return self.compression == tiff_jpeg.COMPRESSION

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of segments in one plane."""
        return -(-self.height_px // self.segment_px[0]), -(-self.width_px // self.segment_px[1])

    @property
    def segment_bands(self) -> int:
        """Bands in one segment."""
        return 1 if self.is_planar else self.num_bands

    @property
    def segment_bytes(self) -> int:
        """Memory that the samples of one segment take, decoded."""
        return self.segment_px[0] * self.segment_px[1] * self.segment_bands * np.dtype(self.kind.dtype).itemsize

    @property
    def run_length(self) -> int:
        """Segments that are decoded at once: one tile, or a few strips."""
        return 1 if self.is_tiled else max(1, RUN_BYTES // self.segment_bytes)

    @property
    def run_bytes(self) -> int:
        """Memory that the samples of one run take, decoded."""
        return self.run_length * self.segment_bytes

    def runs(self, box: Box) -> list[range]:
        """The runs of segments that hold a pixel of `box`, in file order.

        A run is one tile, or strips of one plane that lie under each other; every segment belongs to one run.
        """
        if self.is_tiled:
            return [range(index, index + 1) for index in self.touching(box)]
        if not box.area_px:
            return []
        num_strips, height_px = self.grid[0], self.segment_px[0]
        first = box.top // (self.run_length * height_px) * self.run_length
        starts = range(first, -(-box.bottom // height_px), self.run_length)
        num_planes = self.num_bands if self.is_planar else 1
        return [
            range(plane * num_strips + start, plane * num_strips + min(start + self.run_length, num_strips))
            for plane in range(num_planes)
            for start in starts
        ]

    def in_runs(self, indices: Iterable[int]) -> Iterator[range]:
        """The same segments in the same order; strips that follow each other come together, as many as a run has."""
        num_strips = self.grid[0]
        run = range(0)
        for index in indices:
            is_next = index == run.stop and index % num_strips and 0 < len(run) < self.run_length
            if not is_next and run:
                yield run
            run = range(run.start, index + 1) if is_next else range(index, index + 1)
        if run:
            yield run

    def box_of(self, run: range) -> Box:
        """Pixels of the image that the segments of a run hold."""
        return self.box(run[0]).union(self.box(run[-1]))

    def box(self, index: int) -> Box:
        """Pixels of the image that segment `index` holds."""
        rows, columns = self.grid
        row, column = divmod(index % (rows * columns), columns)
        height_px, width_px = self.segment_px
        whole = Box(row * height_px, column * width_px, height_px, width_px)
        return whole.intersect(Box(0, 0, self.height_px, self.width_px))

    def bands(self, index: int) -> slice:
        """Bands of the image that segment `index` holds."""
        if not self.is_planar:
            return slice(0, self.num_bands)
        rows, columns = self.grid
        plane = index // (rows * columns)
        return slice(plane, plane + 1)

    def stored_shape(self, run: range) -> tuple[int, int, int]:
        """(height, width, bands) of a run as packed: tiles are always full, the last strip may be short."""
        height_px = self.segment_px[0] if self.is_tiled else self.box_of(run).height
        return height_px, self.segment_px[1], self.segment_bands

    def touching(self, box: Box) -> list[int]:
        """Indices of all segments that hold a pixel of `box`, in file order."""
        if not box.area_px:
            return []
        rows, columns = self.grid
        height_px, width_px = self.segment_px
        in_plane = [
            row * columns + column
            for row in range(box.top // height_px, -(-box.bottom // height_px))
            for column in range(box.left // width_px, -(-box.right // width_px))
        ]
        num_planes = self.num_bands if self.is_planar else 1
        return [plane * rows * columns + index for plane in range(num_planes) for index in in_plane]


def read_layout(path: Path, max_bytes: int, page_number: int | None = None) -> TiffLayout:
    """Layout of page `page_number` (from 1) of a TIFF, or of its only page.

    Raises `RowError`: read, naming what cannot be kept exactly; memory where one segment takes more than `max_bytes`
    decoded. How large the image is as a whole does not matter.
    """
    with tifffile.TiffFile(path) as file:
        page = _choose_page(path, file, page_number)
        kind = tiff_kind.recognise(path, page)
        width_px, height_px, num_bands = int(page.imagewidth), int(page.imagelength), int(page.samplesperpixel)
        is_tiled = bool(page.is_tiled)
        if is_tiled:
            segment_px = int(page.tilelength), int(page.tilewidth)
        else:
            segment_px = min(int(page.rowsperstrip), height_px), width_px
            if not segment_px[0]:
                raise damaged(path, "its strips have no rows")
        if num_bands > 1 and int(page.planarconfig) not in (_INTERLEAVED, _PLANES):
            raise damaged(path, "it does not say how its bands lie")
        check_budget(path, segment_px[1], segment_px[0], num_bands * max(1, kind.depth // 8), max_bytes)
        offsets_tag, lengths_tag = (_tag(page, codes) for codes in (_OFFSET_TAGS, _LENGTH_TAGS))
        orientation = int(page.tags.valueof(274, default=1))
        layout = TiffLayout(
            kind=kind,
            page_number=page_number,
            byte_order=file.byteorder,
            is_big=file.is_bigtiff,
            width_px=width_px,
            height_px=height_px,
            num_bands=num_bands,
            orientation=orientation if 1 <= orientation <= 8 else 1,
            compression=int(page.compression),
            # Without one of the codecs that know predictors, readers ignore the tag.
            predictor=int(page.predictor) if has_predictor(int(page.compression)) else 1,
            is_planar=num_bands > 1 and int(page.planarconfig) == _PLANES,
            segment_px=segment_px,
            is_tiled=is_tiled,
            offsets=tuple(int(offset) for offset in page.dataoffsets),
            lengths=tuple(int(length) for length in page.databytecounts),
            offsets_tag=_require(path, offsets_tag),
            lengths_tag=lengths_tag,
            shared=_shared_segments(path, file, page),
            jpeg_tables=bytes(page.tags.valueof(347, default=b"")),
        )
    _check_segments(path, layout, path.stat().st_size)
    return layout


def _choose_page(path: Path, file: tifffile.TiffFile, page_number: int | None) -> tifffile.TiffPage:
    num_pages = len(file.pages)
    if not num_pages:
        raise damaged(path, "it holds no page")
    if page_number is None and num_pages > 1:
        advice = f"say which one in the column `page` (1 to {num_pages}; the others then stay as they are) or split it"
        raise refuse(path, f"a TIFF of {num_pages} pages", advice)
    if page_number is not None and not 1 <= page_number <= num_pages:
        message = f"the image {path} has no page {page_number}; its pages are 1 to {num_pages}"
        raise RowError(FailureCode.READ, message)
    page = file.pages[(page_number or 1) - 1]
    if not isinstance(page, tifffile.TiffPage):
        raise damaged(path, "its directories do not hold together")
    return page


def _shared_segments(path: Path, file: tifffile.TiffFile, page: tifffile.TiffPage) -> frozenset[int]:
    """Which segments of `page` lie, in part or as a whole, on bytes that something else lies on."""
    spans = [(0, 16 if file.is_bigtiff else 8, -1)]  # start, end and index; -1 is whatever is none of our segments
    spans.extend(
        (int(start), int(start) + int(length), index)
        for index, (start, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False))
    )
    spans.extend((start, start + length, -1) for start, length in _directory_spans(page))
    spans.append(_beyond_the_last(path, file))
    own = {tag.values for tag in (_tag(page, _OFFSET_TAGS), _tag(page, _LENGTH_TAGS)) if tag}
    for other in file.pages:
        if other.offset == page.offset or not isinstance(other, tifffile.TiffPage):
            continue
        if int(other.subfiletype) & _REDUCED:
            advice = "save it without them"
            raise refuse(path, "a TIFF with reduced copies of its pages, which would go stale", advice)
        tags = [tag for tag in (_tag(other, _OFFSET_TAGS), _tag(other, _LENGTH_TAGS)) if tag]
        if any(tag.values in own for tag in tags):
            raise refuse(path, "a TIFF whose pages share their address lists", "save it again with any current program")
        spans.extend((start, start + length, -1) for start, length in _directory_spans(other))
        spans.extend(
            (int(start), int(start) + int(length), -1)
            for start, length in zip(other.dataoffsets, other.databytecounts, strict=False)
        )
    shared = set()
    farthest_end, holder = 0, -1
    for start, end, index in sorted(spans):
        if start < farthest_end and start < end:
            shared |= {index, holder}
        if end > farthest_end:
            farthest_end, holder = end, index
    return frozenset(shared - {-1})


def _directory_spans(page: tifffile.TiffPage) -> list[tuple[int, int]]:
    """(start, length) of a page's directory and of all values that stand outside it."""
    order = page.parent.tiff
    length = order.tagnosize + len(page.tags) * order.tagsize + order.offsetsize
    values = [(int(tag.valueoffset), int(tag.valuebytecount)) for tag in page.tags]
    return [(int(page.offset), length), *values]


def _beyond_the_last(path: Path, file: tifffile.TiffFile) -> tuple[int, int, int]:
    """What follows the last page, as in `_shared_segments`: nothing, or what no reader takes for a page now; it must
    stay as it is, or somebody might. Raises `RowError` (read) where more pages should follow beyond the end.
    """
    order, handle, last = file.tiff, file.filehandle, file.pages[-1]
    handle.seek(last.offset)
    (num_tags,) = struct.unpack(order.tagnoformat, handle.read(order.tagnosize))
    handle.seek(last.offset + order.tagnosize + num_tags * order.tagsize)
    packed = handle.read(order.offsetsize)
    start = struct.unpack(order.offsetformat, packed)[0] if len(packed) == order.offsetsize else 0
    if start + order.tagnosize > handle.size:
        raise damaged(path, "it is truncated: its next page lies beyond its end")
    return (start, start + order.tagnosize, -1) if start else (0, 0, -1)


def _tag(page: tifffile.TiffPage, codes: tuple[int, ...]) -> ArrayTag | None:
    for code in codes:
        tag = page.tags.get(code)
        if tag is not None:
            if int(tag.dtype) not in _ARRAY_TYPES:
                raise ValueError(f"tag {code} is of type {int(tag.dtype)}")
            return ArrayTag(int(tag.offset), int(tag.valueoffset), int(tag.dtype), int(tag.count))
    return None


def _require(path: Path, tag: ArrayTag | None) -> ArrayTag:
    if tag is None:
        raise damaged(path, "it does not say where its pixels are")
    return tag


def _check_segments(path: Path, layout: TiffLayout, file_bytes: int) -> None:
    rows, columns = layout.grid
    expected = rows * columns * (layout.num_bands if layout.is_planar else 1)
    if len(layout.offsets) != expected or len(layout.lengths) != expected or layout.offsets_tag.count != expected:
        raise damaged(path, f"it lists {len(layout.offsets)} segments where its size asks for {expected}")
    if layout.lengths_tag is None and layout.compression != 1:
        raise damaged(path, "it does not say how long its compressed segments are")
    if not all(layout.offsets):
        raise refuse(path, "a sparse TIFF (segments that were never written)", "save it again in full")
    ends = (offset + length for offset, length in zip(layout.offsets, layout.lengths, strict=True))
    if max(ends) > file_bytes:
        raise damaged(path, "it is truncated: pixels lie beyond its end")
