"""Pictures, files and patches that the imaging tests share. Files are made by Pillow and tifffile, never by the code
under test.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from inpaint_batch.config import JpegMode
from inpaint_batch.imaging.mask_pictures import open_picture
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

NO_LIMIT = 1 << 40
BANDS = {"grey": 1, "grey_alpha": 2, "rgb": 3, "rgba": 4}
newer_codecs = pytest.mark.skipif(
    not hasattr(imagecodecs, "CCITTFAX4"), reason="this imagecodecs reads no fax 4 and writes no 2 or 4 bits"
)
"""For tests that use imagecodecs beyond what the program asks of it."""
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note>kept</note></x:xmpmeta>'


def picture(kind: str, height_px: int = 97, width_px: int = 131, dtype: str = "uint8", seed: int = 0) -> NDArray:
    """A colourful, photograph-like picture (h, w) or (h, w, bands): waves, an edge, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float64)
    planes = [np.sin(x / 17 + 0.7 * band) + np.cos(y / (11 + 3 * band)) + (x > y) * 0.5 for band in range(3)]
    rgb = np.stack(planes, axis=-1) * 45 + 110 + rng.normal(0, 3, (height_px, width_px, 3))
    rgba = np.concatenate([rgb, rng.integers(0, 256, (height_px, width_px, 1))], axis=-1)
    if dtype == "uint16":
        rgba = rgba * 257 + rng.integers(-100, 100, rgba.shape)
    samples = np.clip(rgba, 0, np.iinfo(dtype).max).astype(dtype)
    chosen = {"grey": [0], "grey_alpha": [0, 3], "rgb": [0, 1, 2], "rgba": [0, 1, 2, 3]}[kind]
    samples = samples[..., chosen]
    return np.ascontiguousarray(samples[..., 0] if kind == "grey" else samples)


def patches_for(source: ImageSource, seed: int = 0) -> list[Patch]:
    """A stroke in the middle and a full corner, filled with a flat colour away from what is there; alpha deliberately
    wrong.
    """
    header = source.header
    rng = np.random.default_rng(seed)
    height_px, width_px = header.height_px, header.width_px
    middle = Box(height_px // 4, width_px // 4, height_px // 2, width_px // 2)
    corner = Box(height_px - height_px // 8, width_px - width_px // 8, height_px // 8, width_px // 8)
    patches = []
    for box in (middle, corner):
        hole = np.ones((box.height, box.width), np.bool_)
        if box is middle:
            y, x = np.mgrid[0 : box.height, 0 : box.width]
            hole = np.abs(y - x * box.height // box.width) < 5
        samples = np.empty((box.height, box.width, header.num_bands), header.dtype)
        samples[...] = rng.integers(40, 200, header.num_bands)
        patches.append(Patch(box, samples, hole))
    return patches


def restore(
    path: Path, out: Path, patches: list[Patch] | None = None, *, page: int | None = None, jpeg: JpegMode = "patch"
) -> tuple[Any, list[Patch]]:
    """Fill, write and verify; returns the source and the patches, which are `patches_for` it where none are given."""
    source = open_image(path, max_bytes=NO_LIMIT, page=page)
    patches = patches_for(source) if patches is None else patches
    write_filled(source, patches, out, jpeg=jpeg)
    verify_written(source, patches, out, jpeg=jpeg)
    return source, patches


def hole_map(source: ImageSource, patches: list[Patch]) -> NDArray[np.bool_]:
    hole = np.zeros((source.header.height_px, source.header.width_px), np.bool_)
    for patch in patches:
        hole[patch.box.slices] |= patch.hole
    return hole


def filled(samples: NDArray, source: ImageSource, patches: list[Patch]) -> NDArray:
    """What an output must hold: `samples` (h, w, bands) with the colours of the patches under their holes."""
    result = samples.copy()
    for patch in patches:
        region = result[patch.box.slices]
        for band in range(source.header.num_colours):
            region[..., band][patch.hole] = patch.samples[..., band][patch.hole]
    return result


def decode_elsewhere(path: Path) -> NDArray:
    """(h, w, bands) samples by a decoder that the package does not use for this format: Pillow, or tifffile's own for
    TIFF.
    """
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            samples = page.asarray()
            if samples.ndim == 3 and int(page.planarconfig) == 2:
                samples = np.moveaxis(samples, 0, -1)
    else:
        with Image.open(path) as image:
            samples = np.asarray(image)
    return samples.reshape(*samples.shape[:2], -1)


def exif_block(orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "A maker"
    return exif.tobytes()


def icc_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def read_mask_samples(path: Path, *, max_bytes: int = NO_LIMIT) -> tuple[NDArray[np.uint8], int]:
    """All of a mask and its orientation; its pieces must make up the whole, each pixel once."""
    mask = open_picture(path, max_bytes=max_bytes)
    grey = np.zeros(mask.shape, np.uint8)
    seen = np.zeros(mask.shape, np.uint8)
    for box, piece in mask.pieces():
        grey[box.slices] = piece
        seen[box.slices] += 1
    assert (seen == 1).all()
    return grey, mask.orientation


def png_bomb(width_px: int = 100_000, height_px: int = 20_000) -> bytes:
    """The head of a one-bit PNG of two gigapixels. Its pixels are cut short: nobody may get as far as to notice."""
    pixels = zlib.compress(bytes(1 << 16))
    header = struct.pack(">IIBBBBB", width_px, height_px, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def png16(samples: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG by hand: Pillow cannot write 16-bit RGB."""
    samples = samples.reshape(*samples.shape[:2], -1)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]]
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in samples)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png16_samples(data: bytes) -> NDArray[np.uint16]:
    """Undo `png16` for any filter, row by row: an independent decoder, since Pillow reads 16-bit RGB as 8-bit."""
    width, height, depth, colour_type = struct.unpack(">IIBB", data[16:26])
    assert depth == 16
    bands = {0: 1, 4: 2, 2: 3, 6: 4}[colour_type]
    position, packed = 8, b""
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += 12 + length
    raw = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1)
    step = 2 * bands
    above = [0] * (width * step)
    rows = []
    for kind, *line in raw.tolist():
        for i in range(len(line)):
            left, up = line[i - step] if i >= step else 0, above[i]
            corner = above[i - step] if i >= step else 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            elif kind == 4:
                guess = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
            else:
                guess = 0
            line[i] = (line[i] + guess) & 255
        rows.append(bytes(line))
        above = line
    return np.frombuffer(b"".join(rows), ">u2").astype(np.uint16).reshape(height, width, bands)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
