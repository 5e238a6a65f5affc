"""TIFF as an image source: only the segments that somebody asks for are decoded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.colour import robust_levels
from inpaint_batch.imaging.source import ImageSource, damaged
from inpaint_batch.imaging.tiff_codec import FileType, unpack_segment
from inpaint_batch.imaging.tiff_layout import TiffLayout, read_layout
from inpaint_batch.types import BoolMap, Box, Header, SampleArray

_MAX_LEVEL_SEGMENTS = 32
_MAX_LEVEL_PIXELS = 1 << 16
"""Of one segment."""
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples, less their whole parts, spread evenly over 0 to 1."""


class TiffSource(ImageSource):
    """One page of a losslessly compressed TIFF, in strips or tiles."""

    def __init__(self, path: Path, header: Header, layout: TiffLayout) -> None:
        super().__init__(path, header)
        self.layout = layout
        self._raster: SampleArray | None = None
        self._decoded: set[int] = set()

    def _samples(self, box: Box) -> SampleArray:
        if self._raster is None:
            header = self.header
            # Zeros are not committed by the system until written, so untouched segments cost nothing.
            self._raster = np.zeros((header.height_px, header.width_px, header.num_bands), header.dtype)
        missing = [index for index in self.layout.touching(box) if index not in self._decoded]
        if missing:
            with self.path.open("rb") as file:
                for index in missing:
                    segment = read_segment(file, self.layout, index, self.path)
                    inside = self.layout.box(index)
                    where = (*inside.slices, self.layout.bands(index))
                    self._raster[where] = segment[: inside.height, : inside.width]
                    self._decoded.add(index)
        return self._raster

    def learn_levels(self, hole: BoolMap) -> None:
        """As in `ImageSource`; looks at the same few segments as opening does."""
        if self.layout.kind.has_free_range:
            levels = _find_levels(self.path, self.layout, self.header.num_colours, hole)
            self.header = replace(self.header, levels=levels)

    def _forget(self) -> None:
        self._raster = None
        self._decoded.clear()


def open_tiff(path: Path, max_bytes: int, page: int | None = None) -> TiffSource:
    """Open one page of a TIFF by its directory; raises `RowError` (read, memory).

    `page` counts from 1; None stands for the only page. Of a page of 32-bit samples, a few segments are decoded to
    find its levels.
    """
    layout = read_layout(path, max_bytes, page)
    kind = layout.kind
    levels = (0.0, float((1 << kind.depth) - 1)) if kind.depth < 8 else None
    header = Header(
        format="tiff",
        width_px=layout.width_px,
        height_px=layout.height_px,
        num_bands=layout.num_bands,
        dtype=kind.dtype,
        has_alpha=kind.has_alpha,
        orientation=layout.orientation,
        model=kind.model,
        levels=levels if kind.model == "light" else None,
        palette=kind.palette,
        ink_profile=kind.ink_profile,
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
                segment = read_segment(file, layout, index + plane * num_in_plane, path)
                part = segment[: inside.height : every, : inside.width : every, :num_colours]
                if hole is not None:
                    part = part[~hole[inside.slices][::every, ::every]]
                chosen.append(part.reshape(-1))
    black, white = robust_levels(np.concatenate(chosen))
    return (white, black) if layout.kind.is_min_white else (black, white)


def read_segment(file: BinaryIO, layout: TiffLayout, index: int, path: Path) -> SampleArray:
    """Segment `index` as stored (h, w, bands), padding included, but black-is-zero. Raises `RowError` (read)."""
    file.seek(layout.offsets[index])
    packed = file.read(layout.lengths[index])
    full_shape = (*layout.segment_px, layout.segment_bands)
    try:
        samples = unpack_segment(
            packed,
            layout.compression,
            layout.predictor,
            file_dtype(layout),
            full_shape,
            layout.stored_shape(index),
            layout.kind.depth,
        )
    except (ValueError, RuntimeError) as error:
        raise damaged(path, f"segment {index} does not decode ({error})") from error
    return turn_white(samples, layout, index)


def turn_white(samples: SampleArray, layout: TiffLayout, index: int) -> SampleArray:
    """Swap min-is-white and black-is-zero in segment `index` (its own inverse); alpha stays.

    Samples without a fixed range stay as well: their levels are swapped instead.
    """
    if layout.kind.is_min_white and layout.bands(index).start == 0 and not layout.kind.has_free_range:
        samples = samples.copy()
        np.bitwise_xor(samples[..., :1], samples.dtype.type((1 << layout.kind.depth) - 1), out=samples[..., :1])
    return samples


def file_dtype(layout: TiffLayout) -> FileType:
    """Sample type with the byte order of the file."""
    dtype: FileType = np.dtype(layout.kind.dtype).newbyteorder(layout.byte_order)
    return dtype
