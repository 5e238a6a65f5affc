"""Small pictures of large images: made part by part, as the file is cut, and turned as a viewer shows them."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.holes.orientation import turn
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.types import BoolArray, Box, FloatArray, Header, SampleArray

JPEG_QUALITY = 90
MARK_BGRA = (120, 40, 235, 255)
IndexArray = NDArray[np.intp]


class Overview:
    """An image made small by averaging, with marks on it; takes memory for the small one alone."""

    def __init__(self, header: Header, longer_side_px: int) -> None:
        """The smallest whole factor is taken that makes no side longer than `longer_side_px`."""
        self._header = header
        self.factor = max(1, -(-max(header.height_px, header.width_px) // longer_side_px))
        """A cell of the small picture is so many pixels high and wide."""
        sides = (header.height_px, header.width_px)
        self.marked = np.zeros([-(-side // self.factor) for side in sides], np.bool_)
        """Cells in which any pixel is marked: one pixel alone must not vanish."""
        self._sum = np.zeros((*self.marked.shape, 3), np.float32)

    def add(self, box: Box, samples: SampleArray, marked: BoolArray) -> None:
        """Samples (h, w, bands) and marks (h, w) of a part of the image; each pixel is to come once."""
        cells, starts = _cells(box, self.factor)
        self.marked[cells] |= _reduce(np.logical_or, marked, starts)
        self._sum[cells] += _reduce(np.add, samples_to_rgb(samples, self._header), starts)

    def picture(self) -> bytes:
        """The small image, upright, as a JPEG file."""
        sides = (self._header.height_px, self._header.width_px)
        heights, widths = (
            np.diff(np.minimum(np.arange(count + 1) * self.factor, side))
            for count, side in zip(self.marked.shape, sides, strict=True)
        )
        num_pixels = np.outer(heights, widths)[..., None].astype(np.float32)
        return upright_jpeg(np.divide(self._sum, num_pixels, dtype=np.float32), self._header.orientation)

    def marks(self) -> bytes:
        """The marks alone, upright, as a PNG file that is transparent elsewhere."""
        upright = turn(self.marked.astype(np.uint8), self._header.orientation)
        return cv2.imencode(".png", upright[..., None] * np.array(MARK_BGRA, np.uint8))[1].tobytes()


def upright_jpeg(rgb: FloatArray, orientation: int) -> bytes:
    """RGB (h, w, 3) in [0, 1] as a JPEG file, turned by EXIF `orientation` 1..8."""
    eight = np.rint(255 * np.clip(rgb, 0, 1)).astype(np.uint8)
    upright = np.dstack([turn(np.ascontiguousarray(eight[..., band]), orientation) for band in (2, 1, 0)])
    settings = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    return cv2.imencode(".jpg", upright, settings)[1].tobytes()


def _cells(box: Box, factor: int) -> tuple[tuple[slice, slice], list[IndexArray]]:
    """The cells that `box` touches, and where in it each row and each column of them begins."""
    cells, starts = [], []
    for first, length in ((box.top, box.height), (box.left, box.width)):
        touched = range(first // factor, -(-(first + length) // factor))
        cells.append(slice(touched.start, touched.stop))
        starts.append(np.maximum(np.array(touched) * factor - first, 0))
    return (cells[0], cells[1]), starts


def _reduce(operation: np.ufunc, pixels: NDArray[Any], starts: list[IndexArray]) -> NDArray[Any]:
    """The pixels of each cell taken together; `starts` as `_cells` gives them."""
    return np.asarray(operation.reduceat(operation.reduceat(pixels, starts[0], axis=0), starts[1], axis=1))
