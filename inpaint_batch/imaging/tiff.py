"""TIFF as an image source: only the segments that somebody asks for are decoded."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging import tiff_jpeg
from inpaint_batch.imaging.colour import robust_levels
from inpaint_batch.imaging.few_bits import reverse_bits
from inpaint_batch.imaging.file_errors import damaged, reading
from inpaint_batch.imaging.source import BAND_OF_ROWS_PIXELS, ImageSource
from inpaint_batch.imaging.tiff_codec import DamagedSegmentError, FileType, unpack_segments
from inpaint_batch.imaging.tiff_directory import read_layouts
from inpaint_batch.imaging.tiff_layout import TiffLayout
from inpaint_batch.types import BoolMap, Box, Header, SampleArray

DEFAULT_CACHE_BYTES = 64 << 20
_MAX_LEVEL_SEGMENTS = 32
_MAX_LEVEL_PIXELS = 1 << 16
"""Of one segment."""
_NUM_LOCKS = 31
"""Runs that may be decoded at a time, if chance has them use different locks."""
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, less their whole parts, spread evenly over 0 to 1."""


class TiffSource(ImageSource):
    """One page of a TIFF, in strips or tiles, of which only a few are held decoded at a time."""

    def __init__(self, path: Path, header: Header, layout: TiffLayout) -> None:
        super().__init__(path, header)
        self.layout = layout
        self.cache_bytes = DEFAULT_CACHE_BYTES
        """How many bytes of decoded segments are kept; the last one that was read is kept in any case."""
        self.reduced: list[TiffSource] = []
        """Smaller versions of the same page, which are written with it; the largest first."""
        self._kept: OrderedDict[range, SampleArray] = OrderedDict()  # by run; the least recently read first
        self._kept_bytes = 0
        self._decoding = [threading.Lock() for _ in range(_NUM_LOCKS)]

    def anticipate(self, boxes: Iterable[Box]) -> None:
        """As in `ImageSource`, until half of what may be kept is used."""
        for box in boxes:
            for run in self.layout.runs(box):
                if 2 * self._kept_bytes >= self.cache_bytes:
                    return
                with reading(self.path):
                    self._decoded(run)

    def parts(self) -> Iterator[Box]:
        """As in `ImageSource`: tiles one by one, strips a few together."""
        rows, columns = self.layout.grid
        height_px = self.layout.segment_px[0]
        if columns > 1:
            yield from (self.layout.box(index) for index in range(rows * columns))
            return
        step_px = height_px * max(1, BAND_OF_ROWS_PIXELS // (height_px * self.header.width_px))
        for top in range(0, self.header.height_px, step_px):
            yield Box(top, 0, step_px, self.header.width_px).intersect(self.header.box)

    def _samples(self, box: Box) -> SampleArray:
        header = self.header
        samples: SampleArray = np.empty((box.height, box.width, header.num_bands), header.dtype)
        for run in self.layout.runs(box):
            inside = self.layout.box_of(run)
            common = inside.intersect(box)
            where = (*common.shift(-box.top, -box.left).slices, self.layout.bands(run[0]))
            samples[where] = self._decoded(run)[common.shift(-inside.top, -inside.left).slices]
        return samples

    def _decoded(self, run: range) -> SampleArray:
        """The samples of a run: those that are kept, or decoded now, by one thread while others decode other runs."""
        with self._decoding[hash(run) % len(self._decoding)]:
            with self._lock:
                if run in self._kept:
                    self._kept.move_to_end(run)
                    return self._kept[run]
            with self.path.open("rb") as file:
                decoded = read_run(file, self.layout, run, self.path)
            with self._lock:
                self._kept[run] = decoded
                self._kept_bytes += decoded.nbytes
                while self._kept_bytes > self.cache_bytes and len(self._kept) > 1:
                    self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes
            return decoded

    def learn_levels(self, hole: BoolMap) -> None:
        """As in `ImageSource`; looks at the same few segments as opening does."""
        if self.layout.kind.has_free_range:
            levels = _find_levels(self.path, self.layout, self.header.num_colours, hole)
            self.header = replace(self.header, levels=levels)

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_bytes = 0


def open_tiff(path: Path, max_bytes: int, page: int | None = None) -> TiffSource:
    """Open one page of a TIFF by its directory; raises `RowError`: read, or memory if a segment exceeds `max_bytes`.

    `page` counts from 1; None stands for the only page. Of a page of 32-bit samples, a few segments are decoded to
    find its levels.
    """
    source, *copies = (_source(path, layout) for layout in read_layouts(path, max_bytes, page))
    source.reduced = sorted(copies, key=lambda copy: -copy.header.num_pixels)
    return source


def _source(path: Path, layout: TiffLayout) -> TiffSource:
    kind = layout.kind
    levels = (0.0, float((1 << kind.depth) - 1)) if kind.depth < 8 else None
    no_data = layout.no_data
    if no_data is not None and kind.is_min_white and not kind.has_free_range:
        no_data = (1 << kind.depth) - 1 - no_data  # as `turn_white` turns the samples
    header = Header(
        format="tiff",
        width_px=layout.width_px,
        height_px=layout.height_px,
        num_bands=layout.num_bands,
        dtype=kind.dtype,
        has_alpha=kind.has_alpha,
        is_premultiplied=kind.is_premultiplied,
        orientation=layout.orientation,
        model=kind.model,
        levels=levels if kind.model == "light" else None,
        palette=kind.palette,
        ink_profile=kind.ink_profile,
        no_data=no_data,
        has_coefficients=layout.is_jpeg,
    )
    if kind.has_free_range:
        header = replace(header, levels=_find_levels(path, layout, header.num_colours))
    return TiffSource(path, header, layout)


def _find_levels(path: Path, layout: TiffLayout, num_colours: int, hole: BoolMap | None = None) -> tuple[float, float]:
    """Values of black and white, from segments spread over the page, `hole` (h, w) left out once it is known."""
    num_in_plane = layout.grid[0] * layout.grid[1]
    num_planes = num_colours if layout.is_planar else 1
    if num_in_plane <= _MAX_LEVEL_SEGMENTS:
        indices = list(range(num_in_plane))
    else:  # an even step could run down one column of tiles
        indices = sorted({int(number * _GOLDEN % 1 * num_in_plane) for number in range(_MAX_LEVEL_SEGMENTS)})
    chosen: list[NDArray[Any]] = []
    with path.open("rb") as file:
        for index in indices:
            inside = layout.box(index)
            every = max(1, math.isqrt(inside.area_px // _MAX_LEVEL_PIXELS))
            for plane in range(num_planes):
                number = index + plane * num_in_plane
                segment = read_run(file, layout, range(number, number + 1), path)
                part = segment[: inside.height : every, : inside.width : every, :num_colours]
                if hole is not None:
                    part = part[~hole[inside.slices][::every, ::every]]
                chosen.append(part.reshape(-1))
    samples = np.concatenate(chosen)
    if layout.no_data is not None:
        with np.errstate(over="ignore"):  # it may be beyond what the type can hold
            samples = samples[samples != layout.no_data]
    black, white = robust_levels(samples)
    return (white, black) if layout.kind.is_min_white else (black, white)


def read_packed(file: BinaryIO, layout: TiffLayout, run: range) -> list[bytes]:
    """The bytes of each segment of a run as its codec wants them."""
    return [_read_packed(file, layout, index) for index in run]


def _read_packed(file: BinaryIO, layout: TiffLayout, index: int) -> bytes:
    file.seek(layout.offsets[index])
    packed = file.read(layout.lengths[index])
    return reverse_bits(packed) if layout.kind.is_reversed else packed


def read_run(file: BinaryIO, layout: TiffLayout, run: range, path: Path) -> SampleArray:
    """A run as stored (h, w, bands), padding included, but black-is-zero. Raises `RowError` (read)."""
    return unpack(read_packed(file, layout, run), layout, run, path)


def unpack(packed: Sequence[bytes], layout: TiffLayout, run: range, path: Path, what: str = "image") -> SampleArray:
    """Like `read_run`, of bytes that are there already."""
    try:
        if layout.is_jpeg:
            return _unpack_jpeg(packed, layout, run)
        samples = unpack_segments(
            packed,
            layout.compression,
            layout.predictor,
            file_dtype(layout),
            layout.segment_px[0],
            layout.stored_shape(run),
            layout.kind.depth,
        )
    except DamagedSegmentError as error:
        raise damaged(path, f"segment {run[error.position]} does not decode ({error})", what) from error
    return turn_white(samples, layout, run)


def _unpack_jpeg(packed: Sequence[bytes], layout: TiffLayout, run: range) -> SampleArray:
    parts = []
    for position, (each, index) in enumerate(zip(packed, run, strict=True)):
        try:
            samples = tiff_jpeg.unpack(
                each,
                layout.jpeg_tables,
                is_ycbcr=layout.kind.is_ycbcr,
                shape=layout.stored_shape(range(index, index + 1)),
                full_height_px=layout.segment_px[0],
            )
            parts.append(samples)
        except (ValueError, RuntimeError) as error:
            raise DamagedSegmentError(position, error) from error
    return cast(SampleArray, np.concatenate(parts))


def turn_white(samples: SampleArray, layout: TiffLayout, run: range) -> SampleArray:
    """Swap min-is-white and black-is-zero in the samples of a run (its own inverse); alpha stays.

    Samples without a fixed range stay as well: their levels are swapped instead.
    """
    if layout.kind.is_min_white and layout.bands(run[0]).start == 0 and not layout.kind.has_free_range:
        samples = samples.copy()
        np.bitwise_xor(samples[..., :1], samples.dtype.type((1 << layout.kind.depth) - 1), out=samples[..., :1])
    return samples


def file_dtype(layout: TiffLayout) -> FileType:
    """Sample type with the byte order of the file."""
    dtype: FileType = np.dtype(layout.kind.dtype).newbyteorder(layout.byte_order)
    return dtype
