"""Sound files of every kind that is read, made by other programs than the one under test."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

HEIGHT_PX, WIDTH_PX = 80, 96
_BANDS_OF_PNG = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column, step down and across of each pass of an interlaced PNG."""


def sound_files() -> dict[str, bytes]:
    """Name, with the usual suffix, to bytes."""
    return {**_tiffs(), **_jpegs(), **_pngs(), **_webps(), **_jp2s()}


def picture(bands: int, dtype: str = "uint8", largest: int = 255) -> NDArray[np.generic]:
    """(h, w) or (h, w, bands): smooth, with a little noise; no sample of 8 bits or more is 0."""
    rng = np.random.default_rng(bands)
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    planes = [np.sin(x / (9 + band)) + np.cos(y / (7 + 2 * band)) for band in range(bands)]
    smooth = np.stack(planes, axis=-1) / 4 + 0.5 + rng.normal(0, 0.01, (HEIGHT_PX, WIDTH_PX, bands))
    samples = (np.clip(smooth, 0.1, 0.95) * largest).astype(dtype)
    return np.ascontiguousarray(samples[..., 0] if bands == 1 else samples)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _tiffs() -> dict[str, bytes]:
    rgb, rgb16, grey = picture(3), picture(3, "uint16", 65535), picture(1)
    bits = grey > 110
    planar = np.moveaxis(rgb, -1, 0)
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    two_pages = io.BytesIO()
    with tifffile.TiffWriter(two_pages) as file:
        for _ in range(2):
            file.write(rgb, photometric="rgb", compression="lzw", rowsperstrip=17, metadata=None)
    pyramid = io.BytesIO()
    with tifffile.TiffWriter(pyramid) as file:
        for step in (1, 2, 4):
            file.write(rgb[::step, ::step], photometric="rgb", tile=(32, 32), compression="zlib", subfiletype=step > 1)
    return {
        "strips.tif": _tiff(rgb, photometric="rgb", rowsperstrip=13),
        "lzw-predictor.tif": _tiff(rgb, photometric="rgb", compression="lzw", predictor=2, rowsperstrip=13),
        "deflate-tiles.tif": _tiff(rgb16, photometric="rgb", compression="zlib", tile=(32, 48)),
        "zstd-big.tif": _tiff(rgb, big=True, photometric="rgb", compression="zstd", rowsperstrip=16),
        "packbits-motorola.tif": _tiff(grey, order=">", compression="packbits", rowsperstrip=16),
        "planar-big-motorola.tif": _tiff(
            planar, big=True, order=">", photometric="rgb", planarconfig="separate", compression="lzw", rowsperstrip=16
        ),
        "bilevel.tif": _tiff(bits, photometric="miniswhite", compression="packbits", rowsperstrip=16),
        "fax4.tif": _saved(Image.fromarray(bits), "TIFF", compression="group4"),
        "float-predictor.tif": _tiff(picture(1, "float32", 1), compression="zlib", predictor=3, rowsperstrip=16),
        "cmyk.tif": _tiff(picture(4), photometric="separated", compression="lzw", rowsperstrip=16),
        "palette.tif": _tiff(grey, photometric="palette", colormap=colours, rowsperstrip=16),
        "pages.tif": two_pages.getvalue(),
        "pyramid.tif": pyramid.getvalue(),
        "jpeg-strips.tif": _saved(Image.fromarray(rgb), "TIFF", compression="jpeg", quality=85),
        "jpeg-tiles.tif": _tiff(rgb, photometric="rgb", compression="jpeg", tile=(32, 48)),
    }


def _tiff(samples: NDArray[np.generic], *, big: bool = False, order: str = "<", **options: object) -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as file:
        file.write(samples, metadata=None, **options)
    return buffer.getvalue()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpegs() -> dict[str, bytes]:
    rgb, grey, ink = (Image.fromarray(picture(bands)) for bands in (3, 1, 4))
    exif = Image.Exif()
    exif[0x0112] = 6
    cmyk = Image.frombytes("CMYK", ink.size, ink.tobytes())
    return {
        "baseline.jpg": _saved(rgb, "JPEG", quality=85, exif=exif.tobytes(), comment=b"kept"),
        "full-chroma.jpg": _saved(rgb, "JPEG", quality=95, subsampling=0),
        "progressive.jpg": _saved(rgb, "JPEG", quality=85, progressive=True),
        "restarts.jpg": _saved(rgb, "JPEG", quality=85, restart_marker_blocks=3),
        "grey.jpg": _saved(grey, "JPEG", quality=85),
        "cmyk.jpg": _saved(cmyk, "JPEG", quality=85),
    }


def _pngs() -> dict[str, bytes]:
    grey, rgb, rgba = picture(1), picture(3), picture(4)
    files = {f"grey{depth}.png": _png(grey >> (8 - depth), depth, 0) for depth in (1, 2, 4, 8)}
    files |= {f"palette{depth}.png": _png(grey >> (8 - depth), depth, 3) for depth in (1, 4, 8)}
    files |= {
        "grey16.png": _png(picture(1, "uint16", 65535), 16, 0),
        "rgb8.png": _png(rgb, 8, 2),
        "rgb8-interlaced.png": _png(rgb, 8, 2, interlaced=True),
        "grey4-interlaced.png": _png(grey >> 4, 4, 0, interlaced=True),
        "rgba8.png": _png(rgba, 8, 6),
        "grey-alpha16.png": _png(picture(2, "uint16", 65535), 16, 4),
        "rgba16.png": _png(picture(4, "uint16", 65535), 16, 6),
    }
    return files


def _png(samples: NDArray[np.generic], depth: int, colour_type: int, *, interlaced: bool = False) -> bytes:
    """A PNG by hand, unfiltered; metadata in front of the pixels and behind them."""
    samples = samples.reshape(HEIGHT_PX, WIDTH_PX, _BANDS_OF_PNG[colour_type])
    passes = [samples[top::down, left::across] for top, left, down, across in _ADAM7] if interlaced else [samples]
    rows = b"".join(b"\x00" + _png_row(row, depth) for part in passes for row in part)
    header = struct.pack(">IIBBBBB", WIDTH_PX, HEIGHT_PX, depth, colour_type, 0, 0, int(interlaced))
    packed = zlib.compress(rows)
    half = len(packed) // 2
    light = np.linspace(0, 255, 1 << depth).astype(np.uint8)
    palette = [png_chunk(b"PLTE", np.stack([light, light, 255 - light], 1).tobytes())] if colour_type == 3 else []
    chunks = [
        png_chunk(b"IHDR", header),
        png_chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
        *palette,
        png_chunk(b"IDAT", packed[:half]),
        png_chunk(b"IDAT", packed[half:]),
        png_chunk(b"tEXt", b"Comment\x00kept"),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _png_row(row: NDArray[np.generic], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def _webps() -> dict[str, bytes]:
    rgb, rgba = Image.fromarray(picture(3)), Image.fromarray(picture(4))
    exif = Image.Exif()
    exif[0x0112] = 3
    return {
        "lossless.webp": _saved(rgb, "WEBP", lossless=True),
        "lossless-alpha.webp": _saved(rgba, "WEBP", lossless=True, exact=True, exif=exif.tobytes()),
        "lossy.webp": _saved(rgb, "WEBP", quality=80),
        "lossy-alpha.webp": _saved(rgba, "WEBP", quality=80, xmp=b"<x/>"),
    }


def _jp2s() -> dict[str, bytes]:
    grey, rgb, rgba = (Image.fromarray(picture(bands)) for bands in (1, 3, 4))
    return {
        "grey.jp2": _saved(grey, "JPEG2000"),
        "tiles.jp2": _saved(rgb, "JPEG2000", tile_size=(48, 48)),
        "alpha.jp2": _saved(rgba, "JPEG2000"),
    }
