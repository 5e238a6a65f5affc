"""Masks that are pictures, read piece by piece as grey values: a file of their own, or drawn in the image itself."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import exif, png, vips
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.file_errors import check_budget, check_file_size, damaged, reading, refuse
from inpaint_batch.imaging.read import sniff
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import read_packed, unpack
from inpaint_batch.imaging.tiff_directory import read_layouts
from inpaint_batch.imaging.tiff_layout import TiffLayout
from inpaint_batch.imaging.tiff_pages import has_single_page
from inpaint_batch.types import Box, Header, SampleArray
from inpaint_batch.words import counted

_WHAT = "mask"
_MAX_SEGMENT_BYTES = 64 << 20
"""A TIFF whose strips or tiles are larger is decoded as a whole."""
_LUMA = [[0.299, 0.587, 0.114]]
_BYTES = {"uchar": 1, "ushort": 2}
_NUMBERS = {
    "float": "of floating point numbers",
    "double": "of floating point numbers",
    "uint": "of 32-bit numbers",
    "int": "of 32-bit numbers",
    "short": "of signed numbers",
    "char": "of signed numbers",
}
_COLOURS = ("b-w", "grey16", "srgb", "rgb16")
_SAFE_IN_LIBVIPS = frozenset(
    [
        COMPRESSION.NONE,
        COMPRESSION.LZW,
        COMPRESSION.CCITTRLE,
        COMPRESSION.CCITT_T4,
    ]
)

_MAX_REPEATED_BYTES = 4096
_MAX_REPEATED = 64
"""Packed segments as short as that are mostly of one colour, and come again and again: so many are kept decoded."""
_PIECE_PX = 1 << 19
"""Pixels of a mask that are looked at together."""

Grey = NDArray[np.uint8]


class MaskPieces:
    """A mask that is read piece by piece, where its format allows that."""

    def __init__(
        self,
        shape: tuple[int, int],
        orientation: int,
        pieces: Callable[[], Iterator[tuple[Box, Grey]]],
        whole_bytes: int,
        *,
        alpha: Callable[[], Iterator[tuple[Box, Grey]]] | None = None,
        num_bits: int = 8,
    ) -> None:
        self.shape = shape
        """(h, w) as stored."""
        self.orientation = orientation
        """Its orientation tag, 1..8."""
        self.whole_bytes = whole_bytes
        """What decoding takes because it cannot be done in pieces; 0 where it can."""
        self.alpha = alpha
        """Its alpha channel in pieces, 0 transparent to 255 opaque; None where it has none."""
        self.num_bits = num_bits
        """Bits of a sample in the file; of more than 8 the upper 8 are read."""
        self._pieces = pieces

    def pieces(self) -> Iterator[tuple[Box, Grey]]:
        """Grey values (box.height, box.width), 0 black to 255 white, box by box. Raises `RowError` (read, memory)."""
        return self._pieces()


def open_picture(path: Path, *, max_bytes: int) -> MaskPieces:
    """Open any PNG, JPEG, TIFF or WebP as a mask: luminance, 0 black to 255 white.

    Alpha stays apart (colours that were multiplied by it are divided by it again); 16-bit masks keep their upper 8
    bits; colour profiles are not applied; pixels stay in the orientation of the file. Raises `RowError`: read for a
    missing, damaged or unusable file, memory if it has to be decoded at once and that would take more than `max_bytes`.
    """
    with reading(path, _WHAT):
        kind = sniff(path, _WHAT)
        # libvips reads the first frame of an animated PNG, says nothing where the end of the file is missing, and does
        # not see EXIF behind the pixels.
        info = png.read_info(path, _WHAT) if kind == "png" else None
        if info is not None and info.is_animated:
            raise refuse(path, "an animated PNG", "save one frame as a still PNG", _WHAT)
        image = vips.open_file(path, _WHAT)
        _check(path, image, is_single=kind == "tiff" and has_single_page(path))
        orientation = exif.sensible(_field(image, "orientation", 1)) if info is None else info.orientation
        shape = (image.height, image.width)
        is_safe = kind != "tiff" or _is_safe_in_libvips(path)
        if not is_safe and (layout := _plain_layout(path)) is not None:
            depth = layout.kind.depth
            return MaskPieces(shape, orientation, lambda: _from_segments(path, layout), 0, num_bits=depth)
        whole_bytes = 0
        if kind == "webp" or not is_safe or _field(image, "interlaced", 0):
            bytes_per_pixel = image.bands * _BYTES[image.format]
            check_budget(path, image.width, image.height, bytes_per_pixel, max_bytes, _WHAT)
            check_file_size(path, path.stat().st_size, max_bytes, _WHAT)
            whole_bytes = (1 if is_safe else 2) * image.width * image.height * bytes_per_pixel
        return MaskPieces(
            shape,
            orientation,
            lambda: _from_libvips(path, is_safe, _to_grey),
            whole_bytes,
            alpha=(lambda: _from_libvips(path, is_safe, _to_alpha)) if image.hasalpha() else None,
            num_bits=8 * _BYTES[image.format],
        )


def drawn_mask(source: ImageSource, mask_from: str) -> MaskPieces:
    """The mask that is drawn in an image itself; it lies as the image does.

    `alpha`: 255 where the image is transparent, 0 where it is opaque. `#rrggbb`: 255 where it has that colour, and 8
    less for each step of 255 by which its most different channel is off. Raises RowError(MASK) where there is no alpha
    channel of up to 16 bits; its pieces raise what `source.read` raises.
    """
    header = source.header
    if mask_from == "alpha" and not (header.has_alpha and header.dtype in ("uint8", "uint16")):
        advice = "name a mask file"
        if isinstance(source, png.PngSource) and source.info.transparency:
            advice = f"in this PNG single colours are transparent: save it as RGBA, or {advice}"
        raise RowError(
            FailureCode.MASK, f"the image has no alpha channel of up to 16 bits that could be its mask; {advice}"
        )

    def pieces() -> Iterator[tuple[Box, Grey]]:
        return ((box, _drawn(source.read(box), header, mask_from)) for box in source.parts())

    return MaskPieces((header.height_px, header.width_px), header.orientation, pieces, 0)


def _drawn(samples: SampleArray, header: Header, mask_from: str) -> Grey:
    if mask_from == "alpha":
        return np.asarray(255 - samples[..., -1].astype(np.uint32) * 255 // header.opaque, np.uint8)
    key = np.array([int(mask_from[at : at + 2], 16) for at in (1, 3, 5)])
    steps = np.rint(samples_to_rgb(samples, header) * 255).astype(np.int32)
    return np.asarray(np.maximum(255 - 8 * np.abs(steps - key).max(axis=2), 0), np.uint8)


def _from_libvips(path: Path, is_safe: bool, to_band: Callable[[vips.Image], vips.Image]) -> Iterator[tuple[Box, Grey]]:
    """From top to bottom, a few rows at a time."""
    with reading(path, _WHAT):
        plain = None if is_safe else _plain_twin(path)
        image = to_band(vips.open_file(path, _WHAT) if plain is None else vips.open_bytes(plain, path, _WHAT))
        for top, rows in vips.bands(image, max(1, _PIECE_PX // image.width), path, _WHAT):
            yield Box(top, 0, len(rows), image.width), rows[..., 0].astype(np.uint8, copy=False)


def _from_segments(path: Path, layout: TiffLayout) -> Iterator[tuple[Box, Grey]]:
    """Strip by strip or tile by tile."""
    repeated: dict[tuple[bytes, tuple[int, int, int]], Grey] = {}
    with reading(path, _WHAT), path.open("rb") as file:
        for run in layout.runs(Box(0, 0, layout.height_px, layout.width_px)):
            box = layout.box_of(run)
            packed = read_packed(file, layout, run)
            key = b"".join(packed), layout.stored_shape(run)
            grey = repeated.get(key) if len(key[0]) <= _MAX_REPEATED_BYTES else None
            if grey is None:
                grey = _grey_of_segment(unpack(packed, layout, run, path, _WHAT), layout.kind.depth)
                if len(key[0]) <= _MAX_REPEATED_BYTES and len(repeated) < _MAX_REPEATED:
                    repeated[key] = grey
            yield box, grey[: box.height, : box.width]


def _grey_of_segment(samples: SampleArray, depth: int) -> Grey:
    if depth < 8:
        return np.asarray(samples[..., 0] * np.uint8(255 // ((1 << depth) - 1)), np.uint8)
    if samples.shape[2] == 1:
        return np.asarray(samples[..., 0] // np.uint16(1 << (depth - 8)), np.uint8)
    image = vips.from_samples(samples, "srgb" if depth == 8 else "rgb16")
    return vips.array(_to_grey(image))[..., 0].astype(np.uint8, copy=False)


def _plain_layout(path: Path) -> TiffLayout | None:
    """Where the segments of a TIFF of grey or colour lie that is read without libvips; None for any other."""
    try:
        layout = read_layouts(path, _MAX_SEGMENT_BYTES)[0]
    except RowError:
        return None  # for a mask it may do all the same; and if it does not, others say so in terms of a mask
    kind = layout.kind
    is_plain = kind.model == "light" and kind.depth <= 16 and not kind.has_alpha and not layout.is_planar
    return layout if is_plain else None


def _is_safe_in_libvips(path: Path) -> bool:
    """Even with `fail_on="error"` libvips reads damaged tiles as black, and takes some damage within Deflate and
    PackBits for pixels; the wheel's build knows no ZSTD, LZMA, LERC or JPEG 2000. Where a file does not say of all of
    its strips where they are, it takes its first bytes for the pixels of the others.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_whole = len(page.dataoffsets) == math.prod(page.chunked)
        return page.compression in _SAFE_IN_LIBVIPS and not page.is_tiled and is_whole


def _check(path: Path, image: vips.Image, *, is_single: bool) -> None:
    """Refuse by the header what is no mask; `is_single` for a file whose other pages are none of their own."""
    num_pages = _field(image, "n-pages", 1)
    if num_pages > 1 and not is_single:
        raise refuse(path, f"a file of {num_pages} pages or frames", "save the mask as a single one", _WHAT)
    if image.format not in _BYTES or image.interpretation not in _COLOURS or image.bands > 4:
        kind = (
            "in CMYK"
            if image.interpretation == "cmyk"
            else _NUMBERS.get(image.format, f"of {counted(image.bands, 'band')}")
        )
        raise refuse(path, f"a picture {kind}", "save it as a grey PNG, white where pixels are missing", _WHAT)


def _plain_twin(path: Path) -> memoryview:
    """The same TIFF as one uncompressed strip: tifffile notices damage, and knows codecs, where libvips does not."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        num_segments = math.prod(page.chunked)
        if not len(page.dataoffsets) == len(page.databytecounts) == num_segments:  # the others would come out as black
            raise damaged(path, f"it does not say where all of its {num_segments} segments are", _WHAT)
        ends = (start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends) > path.stat().st_size:  # within JPEG, for one, this would come out as grey
            raise damaged(path, "it is truncated: pixels lie beyond its end", _WHAT)
        plain = io.BytesIO()
        tifffile.imwrite(
            plain,
            page.asarray(),
            photometric="rgb" if page.photometric == PHOTOMETRIC.YCBCR else page.photometric,  # decoders give RGB
            planarconfig=page.planarconfig if page.samplesperpixel > 1 else None,
            extrasamples=page.extrasamples,
            bitspersample=page.bitspersample,
            colormap=page.colormap,
            metadata=None,
        )
        return plain.getbuffer()


def _to_grey(image: vips.Image) -> vips.Image:
    """One band of 8 bits; alpha dropped. libvips' own conversion would weigh the colours by light, not by luma."""
    image = _to_bytes(image)
    if image.bands < 3:
        return image[0]
    return image.extract_band(0, n=3).recomb(_LUMA).rint().cast("uchar")


def _to_alpha(image: vips.Image) -> vips.Image:
    return _to_bytes(image)[image.bands - 1]


def _to_bytes(image: vips.Image) -> vips.Image:
    return (image >> 8).cast("uchar") if image.format == "ushort" else image


def _field(image: vips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default
