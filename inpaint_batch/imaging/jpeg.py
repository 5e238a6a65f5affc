"""JPEG as an image source: refuse what cannot be kept, decode once, keep the bytes for patching."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np

from inpaint_batch.imaging import exif, jpeg_segments, jpeg_stream
from inpaint_batch.imaging.colour import as_ink_profile
from inpaint_batch.imaging.file_errors import check_budget, check_file_size, damaged, refuse
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.imaging.source import WholeRasterSource
from inpaint_batch.types import Box, Header, SampleArray

_HEADER_BYTES = 1 << 20


def read_stream(path: Path) -> JpegStream:
    """Structure up to the first scan; raises `RowError` (read)."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        while True:
            try:
                return jpeg_stream.parse(head, header_only=True)
            except jpeg_segments.TruncatedError as error:
                more = file.read(len(head))  # long metadata: read on before giving up
                if not more:
                    raise damaged(path, str(error)) from None
                head += more
            except ValueError as error:
                raise damaged(path, str(error)) from None


class JpegSource(WholeRasterSource):
    """An 8-bit grey, YCbCr, RGB or CMYK JPEG with Huffman coding, baseline or progressive."""

    _checked: tuple[bytes, JpegStream] | None = None

    def __init__(self, path: Path, header: Header, coefficient_bytes: int) -> None:
        """`coefficient_bytes` is what the coefficients of all components take in memory."""
        super().__init__(path, header)
        self.coefficient_bytes = coefficient_bytes

    def checked(self) -> tuple[bytes, JpegStream]:
        """The file's bytes and structure, once known to decode.

        The coefficient library ends the whole process on a bad stream; it may only ever see bytes that passed here.
        """
        with self._lock:
            self.read(Box(0, 0, 1, 1))
            assert self._checked is not None
            return self._checked

    def _decode(self) -> SampleArray:
        data = self.path.read_bytes()
        try:
            stream = jpeg_stream.parse(data)  # the decoder pads a truncated picture with grey and says nothing
        except ValueError as error:
            raise damaged(self.path, str(error)) from None
        raster: SampleArray = imagecodecs.jpeg8_decode(data)
        self._checked = data, stream
        if stream.is_inverted:
            np.invert(raster, out=raster)
        return raster.reshape(*raster.shape[:2], -1)

    def _forget(self) -> None:
        super()._forget()
        self._checked = None


def open_jpeg(path: Path, max_bytes: int) -> JpegSource:
    """Open a JPEG by its header; raises `RowError` (read, memory)."""
    check_file_size(path, path.stat().st_size, max_bytes)
    stream = read_stream(path)
    check_budget(path, stream.width_px, stream.height_px, len(stream.components), max_bytes)
    if stream.depth != 8:
        raise refuse(path, f"a JPEG of {stream.depth} bit per sample", "convert it to a 16-bit TIFF or PNG first")
    if not stream.is_huffman_dct:
        raise refuse(path, "a JPEG with lossless or arithmetic coding", "convert it to TIFF or PNG first")
    if len(stream.components) not in (1, 3, 4):
        raise refuse(path, f"a JPEG of {len(stream.components)} components", "convert it to RGB first")
    if not all(all(stream.subsampling(index)) for index in range(len(stream.components))):
        kind = "a JPEG of which some components are sampled 2 for 3 of others"
        raise refuse(path, kind, "convert it to TIFF or PNG first")
    is_ink = len(stream.components) == 4
    profile = stream.icc_profile if is_ink else b""
    header = Header(
        format="jpeg",
        width_px=stream.width_px,
        height_px=stream.height_px,
        num_bands=len(stream.components),
        dtype="uint8",
        has_alpha=False,
        orientation=exif.orientation(stream.exif),
        model="ink" if is_ink else "light",
        ink_profile=as_ink_profile(profile),
        has_coefficients=True,
    )
    return JpegSource(path, header, sum(map(stream.coefficient_bytes, range(len(stream.components)))))
