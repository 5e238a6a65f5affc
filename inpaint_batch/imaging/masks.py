"""Read a user's mask file into grey values. What white and black mean is decided elsewhere."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from inpaint_batch.imaging import exif, png, webp
from inpaint_batch.imaging.jpeg import read_stream
from inpaint_batch.imaging.jpeg_stream import parse
from inpaint_batch.imaging.read import sniff
from inpaint_batch.imaging.source import check_budget, check_file_size, damaged, reading, refuse

_WHAT = "mask"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_BAND_ROWS = 256
_MIN_IS_WHITE, _PALETTE = 0, 3

Grey = NDArray[np.uint8]


def read_mask_samples(path: Path, *, max_bytes: int) -> tuple[Grey, int]:
    """Luminance (h, w) uint8, 0 black to 255 white, of any PNG, JPEG, TIFF or WebP, and its orientation tag (1..8).

    Alpha is ignored; 16-bit masks keep their upper 8 bits; pixels stay in the orientation of the file. Raises
    `RowError`: read for a missing, damaged or unusable file, memory if decoding would take more than `max_bytes`.
    """
    with reading(path, _WHAT):
        kind = sniff(path, _WHAT)
        check_file_size(path, path.stat().st_size, max_bytes, _WHAT)
        match kind:
            case "png":
                return _read_png(path, max_bytes)
            case "jpeg":
                return _read_jpeg(path, max_bytes)
            case "webp":
                return _read_webp(path, max_bytes)
            case "tiff":
                return _read_tiff(path, max_bytes)


def _read_png(path: Path, max_bytes: int) -> tuple[Grey, int]:
    info = png.read_info(path, _WHAT)
    check_budget(path, info.width_px, info.height_px, info.decoded_bytes_per_pixel, max_bytes, _WHAT)
    if info.is_animated:
        raise refuse(path, "an animated PNG", "save one frame as a still PNG", _WHAT)
    return _to_grey(png.decode(path.read_bytes())), info.orientation


def _read_jpeg(path: Path, max_bytes: int) -> tuple[Grey, int]:
    stream = read_stream(path, _WHAT)
    check_budget(path, stream.width_px, stream.height_px, len(stream.components), max_bytes, _WHAT)
    if stream.depth != 8 or len(stream.components) not in (1, 3):
        raise refuse(path, "a CMYK or 12-bit JPEG", "save the mask as a grey PNG", _WHAT)
    data = path.read_bytes()
    parse(data)  # the decoder pads a truncated picture with grey and says nothing
    return _to_grey(imagecodecs.jpeg8_decode(data)), exif.orientation(stream.exif)


def _read_webp(path: Path, max_bytes: int) -> tuple[Grey, int]:
    header = webp.parse_header(path, _WHAT)
    check_budget(path, header.width_px, header.height_px, 4, max_bytes, _WHAT)
    return _to_grey(webp.decode(path, header)), header.orientation


def _read_tiff(path: Path, max_bytes: int) -> tuple[Grey, int]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        num_bands, depth = int(page.samplesperpixel), page.bitspersample
        if len(file.pages) > 1:
            raise refuse(path, f"a TIFF of {len(file.pages)} pages", "save the mask as a single page", _WHAT)
        if int(page.sampleformat) != 1 or depth not in (1, 2, 4, 8, 16) or num_bands > 4:
            raise refuse(path, f"a TIFF of {num_bands} x {depth} bit", "save the mask as a grey PNG", _WHAT)
        photometric = int(page.photometric)
        if photometric not in (_MIN_IS_WHITE, 1, 2, _PALETTE, 6):
            raise refuse(path, f"a TIFF of photometric {photometric}", "save the mask as a grey PNG", _WHAT)
        itemsize = 2 if depth == 16 or photometric == _PALETTE else 1
        check_budget(path, int(page.imagewidth), int(page.imagelength), num_bands * itemsize, max_bytes, _WHAT)
        if (
            max(offset + length for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True))
            > path.stat().st_size
        ):
            raise damaged(path, "it is truncated: pixels lie beyond its end", _WHAT)
        samples = page.asarray()
        if int(page.planarconfig) == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, -1)
        orientation = int(page.tags.valueof(274, default=1))
        if photometric == _PALETTE:
            samples = np.moveaxis(np.asarray(page.colormap), 0, -1)[samples]
        else:
            samples = _scale_to_whole_type(samples, depth)
    grey = _to_grey(samples)
    if photometric == _MIN_IS_WHITE:
        np.invert(grey, out=grey)
    return grey, orientation if 1 <= orientation <= 8 else 1


def _scale_to_whole_type(samples: NDArray[np.generic], depth: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Samples of fewer than 8 bits spread over 0..255."""
    if depth == 16:
        return samples.astype(np.uint16, copy=False)
    whole = samples.astype(np.uint8, copy=False)
    if depth < 8:
        whole = whole * np.uint8(255 // ((1 << depth) - 1))
    return whole


def _to_grey(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> Grey:
    """(h, w) uint8 of (h, w) or (h, w, 1 to 4) samples, alpha dropped."""
    if samples.ndim == 2:
        samples = samples[..., None]
    if samples.shape[2] < 3:
        return _upper_byte(samples[..., 0])
    grey = np.empty(samples.shape[:2], np.uint8)
    for top in range(0, len(samples), _BAND_ROWS):  # in bands: floating point would take four times the mask's memory
        rows = slice(top, top + _BAND_ROWS)
        grey[rows] = np.rint(_upper_byte(samples[rows, :, :3]).astype(np.float32) @ _LUMA).clip(0, 255).astype(np.uint8)
    return grey


def _upper_byte(samples: NDArray[np.uint8] | NDArray[np.uint16]) -> Grey:
    return (samples >> 8).astype(np.uint8) if samples.dtype == np.uint16 else samples.astype(np.uint8)
