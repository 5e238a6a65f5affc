"""TIFF as an image source: only the segments that somebody asks for are decoded."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from inpaint_batch.imaging.source import ImageSource, damaged
from inpaint_batch.imaging.tiff_codec import unpack_segment
from inpaint_batch.imaging.tiff_layout import TiffLayout, read_layout
from inpaint_batch.types import Box, Header, SampleArray


class TiffSource(ImageSource):
    """A single-page grey or RGB TIFF of 8 or 16 bits, losslessly compressed, in strips or tiles."""

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

    def _forget(self) -> None:
        self._raster = None
        self._decoded.clear()


def open_tiff(path: Path, max_bytes: int) -> TiffSource:
    """Open a TIFF by its directory; raises `RowError` (read, memory)."""
    layout = read_layout(path, max_bytes)
    header = Header(
        format="tiff",
        width_px=layout.width_px,
        height_px=layout.height_px,
        num_bands=layout.num_bands,
        dtype=layout.dtype,
        has_alpha=layout.has_alpha,
        orientation=layout.orientation,
    )
    return TiffSource(path, header, layout)


def read_segment(file: BinaryIO, layout: TiffLayout, index: int, path: Path) -> SampleArray:
    """Segment `index` as stored (h, w, bands), padding included, but black-is-zero. Raises `RowError` (read)."""
    file.seek(layout.offsets[index])
    packed = file.read(layout.lengths[index])
    full_shape = (*layout.segment_px, layout.segment_bands)
    try:
        samples = unpack_segment(
            packed, layout.compression, layout.predictor, file_dtype(layout), full_shape, layout.stored_shape(index)
        )
    except (ValueError, RuntimeError) as error:
        raise damaged(path, f"segment {index} does not decode ({error})") from error
    return turn_white(samples, layout, index)


def turn_white(samples: SampleArray, layout: TiffLayout, index: int) -> SampleArray:
    """Swap min-is-white and black-is-zero in segment `index` (its own inverse); alpha stays."""
    if layout.is_min_white and layout.bands(index).start == 0:
        samples = samples.copy()
        np.invert(samples[..., :1], out=samples[..., :1])
    return samples


def file_dtype(layout: TiffLayout) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """Sample type with the byte order of the file."""
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16] = np.dtype(layout.dtype).newbyteorder(layout.byte_order)
    return dtype
