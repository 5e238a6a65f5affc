"""Images of every kind that is restored, with all the metadata that their kind can hold.

Made by Pillow, tifffile and by hand; nothing of the package takes part.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

HEIGHT_PX, WIDTH_PX = 88, 104
HOLE = (8, 12, 10, 14)
"""Top, left, height and width, in a corner, so that known samples are left beside the blocks of a JPEG."""
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><note>kept</note></x:xmpmeta>'
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_BANDS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}
_PNG_TYPES = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6, "P": 3}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def picture(mode: str, dtype: str = "uint8", largest: float = 255) -> NDArray[Any]:
    """(h, w) or (h, w, bands): waves and a little noise."""
    bands = _BANDS[mode]
    rng = np.random.default_rng(bands)
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX]
    planes = [np.sin(x / (9 + band)) + np.cos(y / (7 + 2 * band)) for band in range(bands)]
    light = np.stack(planes, axis=-1) / 4 + 0.5 + rng.normal(0, 0.01, (HEIGHT_PX, WIDTH_PX, bands))
    samples = (np.clip(light, 0.1, 0.95) * largest).astype(dtype)
    return np.ascontiguousarray(samples[..., 0] if bands == 1 else samples)


def exif(orientation: int) -> bytes:
    """With a few tags of the camera."""
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "A maker"
    block[0x8769] = {0x9003: "2001:02:03 04:05:06", 0x829A: (1, 60)}
    return block.tobytes()


def every_kind() -> Iterator[tuple[str, bytes]]:
    """Name, whose suffix is that of the format, and bytes."""
    yield from _jpegs()
    yield from _pngs()
    yield from _tiffs()
    yield from _webps()
    yield from _jp2s()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _jpegs() -> Iterator[tuple[str, bytes]]:
    rgb, grey = Image.fromarray(picture("RGB")), Image.fromarray(picture("L"))
    ink = picture("CMYK")
    cmyk = Image.frombytes("CMYK", (WIDTH_PX, HEIGHT_PX), ink.tobytes())
    about = {"quality": 88, "icc_profile": SRGB, "dpi": (300, 300), "comment": b"kept", "xmp": XMP}
    for name, sampling in {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}.items():
        for progressive in (False, True):
            kind = "progressive" if progressive else "baseline"
            options = {**about, "subsampling": sampling, "progressive": progressive, "exif": exif(1)}
            yield f"{kind}-{name}.jpg", _saved(rgb, "JPEG", **options)
    for orientation in range(2, 9):
        yield f"orientation-{orientation}.jpg", _saved(rgb, "JPEG", **about, exif=exif(orientation))
    yield "restarts.jpg", _saved(rgb, "JPEG", **about, restart_marker_rows=1)
    yield "restart-blocks.jpg", _saved(rgb, "JPEG", **about, restart_marker_blocks=5)
    yield "grey.jpg", _saved(grey, "JPEG", quality=88, exif=exif(1), dpi=(72, 72))
    yield "cmyk.jpg", _saved(cmyk, "JPEG", quality=88, exif=exif(1))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _pngs() -> Iterator[tuple[str, bytes]]:
    grey = picture("L")
    for depth in (1, 2, 4):
        yield f"grey-{depth}.png", _png(grey >> (8 - depth), depth, "L")
        yield f"grey-{depth}-interlaced.png", _png(grey >> (8 - depth), depth, "L", interlaced=True)
    for depth in (1, 2, 4, 8):
        yield f"palette-{depth}.png", _png(grey >> (8 - depth), depth, "P")
        yield f"palette-{depth}-transparent.png", _png(grey >> (8 - depth), depth, "P", transparency=b"\xff\x00")
    for mode in ("L", "LA", "RGB", "RGBA"):
        for depth, dtype in ((8, "uint8"), (16, "uint16")):
            samples = picture(mode, dtype, (1 << depth) - 1)
            yield f"{mode}-{depth}.png", _png(samples, depth, mode)
            yield f"{mode}-{depth}-interlaced.png", _png(samples, depth, mode, interlaced=True)
    yield "key.png", _png(picture("RGB"), 8, "RGB", transparency=struct.pack(">HHH", 0, 0, 0))
    for orientation in range(2, 9):
        yield f"orientation-{orientation}.png", _png(picture("RGB"), 8, "RGB", orientation=orientation)


def _png(
    samples: NDArray[Any],
    depth: int,
    mode: str,
    *,
    interlaced: bool = False,
    transparency: bytes = b"",
    orientation: int = 1,
) -> bytes:
    samples = samples.reshape(HEIGHT_PX, WIDTH_PX, -1)
    passes = [samples[top::down, left::across] for top, left, down, across in _ADAM7] if interlaced else [samples]
    rows = b"".join(b"\x00" + _png_row(row, depth) for part in passes for row in part)
    header = struct.pack(">IIBBBBB", WIDTH_PX, HEIGHT_PX, depth, _PNG_TYPES[mode], 0, 0, int(interlaced))
    light = np.linspace(0, 255, 1 << depth).astype(np.uint8) if mode == "P" else np.zeros(0, np.uint8)
    has_colours = mode not in ("L", "LA")
    chunks = [
        _chunk(b"IHDR", header),
        _chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(SRGB)) if has_colours else b"",
        _chunk(b"pHYs", struct.pack(">IIB", 11811, 11811, 1)),
        _chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")),
        _chunk(b"PLTE", np.stack([light, light, 255 - light], 1).tobytes()) if mode == "P" else b"",
        _chunk(b"tRNS", transparency) if transparency else b"",
        _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        _chunk(b"IDAT", zlib.compress(rows, 6)),
        _chunk(b"prVt", b"private"),
        _chunk(b"tEXt", b"Comment\0kept"),
        _chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _png_row(row: NDArray[Any], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - depth :]
    return np.packbits(bits).tobytes()


def _tiff(samples: NDArray[Any], *, big: bool = False, order: str = "<", orientation: int = 1, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tags = [(274, 3, 1, orientation, True), (700, 1, len(XMP), XMP, True), (65000, 2, 8, "private", True)]
    with tifffile.TiffWriter(buffer, bigtiff=big, byteorder=order) as file:
        file.write(samples, metadata=None, resolution=(300, 300), description="kept", extratags=tags, **options)
    return buffer.getvalue()


def _pyramid() -> bytes:
    """Of two levels, the smaller ones as sub-images."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for step in (1, 2, 4):
            level = {"subifds": 2, "description": "kept"} if step == 1 else {"subfiletype": 1}
            samples = np.ascontiguousarray(picture("RGB")[::step, ::step])
            file.write(samples, photometric="rgb", compression="zlib", tile=(32, 32), metadata=None, **level)
    return buffer.getvalue()


def _tiffs() -> Iterator[tuple[str, bytes]]:
    colour = {"photometric": "rgb", "iccprofile": SRGB}
    rgb = picture("RGB")
    for compression in (None, "lzw", "zlib", "zstd", "packbits"):
        name = compression or "none"
        for big, order in ((False, "<"), (False, ">"), (True, "<"), (True, ">")):
            kind = f"{'big' if big else 'classic'}-{'intel' if order == '<' else 'motorola'}"
            options = {"big": big, "order": order, "compression": compression, "rowsperstrip": 13}
            yield f"{name}-{kind}.tif", _tiff(rgb, **options, **colour)
        tiles = {"tile": (32, 48), "compression": compression}
        yield f"{name}-tiles-16.tif", _tiff(picture("RGB", "uint16", 65535), **tiles, **colour)
        planes = np.moveaxis(rgb, -1, 0)
        yield f"{name}-planar.tif", _tiff(planes, planarconfig="separate", compression=compression, **colour)
    for compression in ("lzw", "zlib", "zstd"):
        for dtype, bits in (("uint8", 8), ("uint16", 16)):
            samples = picture("RGBA", dtype, (1 << bits) - 1)
            yield (
                f"{compression}-predictor-2-{bits}.tif",
                _tiff(samples, compression=compression, predictor=2, extrasamples=["unassalpha"], **colour),
            )
    yield "float-predictor-3.tif", _tiff(picture("L", "float32", 1), compression="zlib", predictor=3)
    yield "float.tif", _tiff(picture("RGB", "float32", 1), photometric="rgb", compression="lzw", rowsperstrip=16)
    yield "int32.tif", _tiff(picture("L", "int32", 100_000), compression="zlib", tile=(32, 32))
    yield "uint32.tif", _tiff(picture("L", "uint32", 4e9), rowsperstrip=16)
    yield "cmyk.tif", _tiff(picture("CMYK"), photometric="separated", compression="lzw", rowsperstrip=16)
    bits = picture("L") > 110
    for photometric in ("minisblack", "miniswhite"):
        yield f"bilevel-{photometric}.tif", _tiff(bits, photometric=photometric, compression="packbits")
        fax = {"compression": "group4", "dpi": (300, 300), "icc_profile": b""}
        white_first = {"tiffinfo": {262: int(photometric == "minisblack")}}
        yield f"bilevel-fax-4-{photometric}.tif", _saved(Image.fromarray(bits), "TIFF", **fax, **white_first)
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    for chroma, sampling in (("full", (1, 1)), ("halved", (2, 2))):
        options = {"compression": "jpeg", "compressionargs": {"level": 88}, "subsampling": sampling}
        yield f"jpeg-tiles-{chroma}.tif", _tiff(rgb, tile=(32, 48), **options, **colour)
    yield "jpeg-grey.tif", _tiff(picture("L"), compression="jpeg", rowsperstrip=16)
    for mode in ("RGB", "CMYK"):  # with tables that all strips share
        image = Image.frombytes(mode, (WIDTH_PX, HEIGHT_PX), picture(mode).tobytes())
        yield f"jpeg-strips-{mode.lower()}.tif", _saved(image, "TIFF", compression="jpeg", quality=88)
    yield "pyramid.tif", _pyramid()
    yield "palette.tif", _tiff(picture("L"), photometric="palette", colormap=colours, compression="lzw")
    for orientation in range(2, 9):
        yield f"orientation-{orientation}.tif", _tiff(rgb, orientation=orientation, compression="lzw", **colour)


def _jp2s() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "RGBA"):
        yield f"{mode.lower()}.jp2", _saved(Image.fromarray(picture(mode)), "JPEG2000")
    yield "tiles.jp2", _saved(Image.fromarray(picture("RGB")), "JPEG2000", tile_size=(64, 64), mct=0)


def _webps() -> Iterator[tuple[str, bytes]]:
    about = {"icc_profile": SRGB, "xmp": XMP}
    rgb, rgba = Image.fromarray(picture("RGB")), Image.fromarray(picture("RGBA"))
    yield "plain.webp", _saved(rgb, "WEBP", lossless=True, method=4)
    yield "rgb.webp", _saved(rgb, "WEBP", lossless=True, method=4, exif=exif(1), **about)
    yield "rgba.webp", _saved(rgba, "WEBP", lossless=True, exact=True, method=4, exif=exif(1), **about)
    for orientation in range(2, 9):
        yield f"orientation-{orientation}.webp", _saved(rgb, "WEBP", lossless=True, exif=exif(orientation), **about)
