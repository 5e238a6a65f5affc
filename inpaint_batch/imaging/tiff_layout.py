"""Where the segments (strips or tiles) of a TIFF page lie, and how they are packed."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np

from inpaint_batch.imaging import tiff_jpeg
from inpaint_batch.imaging.tiff_kind import TiffKind
from inpaint_batch.types import Box

RUN_BYTES = 1 << 18
"""Strips are decoded together until they hold that much: most writers make them of 8 KB, where what it takes to begin
with one outweighs its pixels."""
CLASSIC_LIMIT_BYTES = 1 << 32
"""No classic TIFF may be larger."""
SHORT, LONG, LONG8 = 3, 4, 16
ARRAY_FORMATS = {SHORT: "H", LONG: "I", LONG8: "Q"}
"""As `struct` calls those types of a TIFF that numbers of bytes come in."""


@dataclass(frozen=True, slots=True)
class ArrayTag:
    """Where the file keeps one array of the directory (offsets or lengths of segments)."""

    entry: int
    """File offset of its directory entry."""
    values: int
    """File offset of the values; inside the entry where they fit there."""
    kind: int
    """TIFF type: one of SHORT, LONG, LONG8."""
    count: int

    @property
    def num_bytes(self) -> int:
        """Of the values."""
        return self.count * struct.calcsize(ARRAY_FORMATS[self.kind])


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
    block_px: tuple[int, int] = (1, 1)
    """(height, width) of the pixels that are coded together, of JPEG segments."""
    no_data: float | None = None
    """A value that stands for no sample at all, as GDAL notes it in elevation models and the like."""
    photoshop: range = range(0)
    """Where in the file the image resources of Photoshop stand; empty where there are none, or in the midst of
    segments.
    """

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


def append_even(file: BinaryIO, data: bytes) -> int:
    """Put `data` at the end of a file, at an even address as the format wants it; returns that."""
    offset = file.seek(0, 2)
    if offset & 1:
        file.write(b"\x00")
        offset += 1
    file.write(data)
    return offset
