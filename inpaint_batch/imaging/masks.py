"""Read a user's mask file into grey values. What white and black mean is decided elsewhere.

A mask is a picture, or areas written down in text (`mask_json`, `coco`, `runs`): these are white on black.
"""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import coco, png, vips
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.json_stream import PARSED_BYTES_PER_CHARACTER
from inpaint_batch.imaging.mask_json import ForImage, ManyImages, alone, canvas_of, read_json_mask
from inpaint_batch.imaging.read import sniff
from inpaint_batch.imaging.runs import pair_runs
from inpaint_batch.imaging.source import ImageSource, check_budget, check_file_size, damaged, reading, refuse
from inpaint_batch.types import Box

_WHAT = "mask"
_ROWS = 256
"""Rows of an image that are looked at together: a whole one in float32 could be four times the file's samples."""
_LUMA = [[0.299, 0.587, 0.114]]
_BYTES = {"uchar": 1, "ushort": 2}
_COLOURS = ("b-w", "grey16", "srgb", "rgb16")
_ORIENTATION_TAG = 274
_SAFE_IN_LIBVIPS = frozenset(
    [
        COMPRESSION.NONE,
        COMPRESSION.LZW,
        COMPRESSION.CCITTRLE,
        COMPRESSION.CCITTFAX3,
        COMPRESSION.CCITTFAX4,
    ]
)

_BLANK = b" \t\r\n"
_HEAD_BYTES = 256

Grey = NDArray[np.uint8]


class Mask(NamedTuple):
    """What a mask file says for one image."""

    grey: Grey
    """(h, w), 0 black to 255 white, in the orientation of the mask's file."""
    orientation: int
    """Its tag, 1..8; 1 for areas in text, which are taken as drawn on the upright view."""
    checksum: tuple[int, str] | None = None
    """Size in bytes and SHA-256 of a file that is kept for many rows, as it was when it was read; else None."""


def read_mask(bring: Callable[[], Path], image: ForImage, *, shown: str, version: Callable[[], str]) -> Mask:
    """Read a mask of any kind: PNG, JPEG, TIFF, WebP, GeoJSON, COCO, run lengths; known by its content.

    `bring` gives the file, and is not called for a COCO file that an earlier row has read; `shown` names it in
    messages, `version` changes when it does. Raises `RowError`: read for a missing or damaged file, mask for text that
    cannot be understood, size, and memory.
    """
    if shown.lower().endswith((".json", ".geojson")) and (index := coco.known_index(version())) is not None:
        return Mask(index.mask(image), 1, (index.num_bytes, index.sha256))
    path = bring()
    with reading(path, _WHAT):
        match _text_kind(path):
            case "json":
                try:
                    return Mask(read_json_mask(path, shown, image), 1)
                except ManyImages:
                    index = coco.index_of(version(), path, shown, max_bytes=image.max_bytes)
                    return Mask(index.mask(image), 1, (index.num_bytes, index.sha256))
            case "runs":
                alone(shown, image)
                check_file_size(path, path.stat().st_size * PARSED_BYTES_PER_CHARACTER, image.max_bytes, _WHAT)
                canvas = canvas_of(image.upright_px, shown, image)
                canvas.runs(pair_runs(path.read_bytes(), canvas.mask.size, shown))
                return Mask(canvas.mask, 1)
            case _:
                alone(shown, image)
                return Mask(*read_mask_samples(path, max_bytes=image.max_bytes))


def _text_kind(path: Path) -> Literal["json", "runs"] | None:
    """What kind of text a file begins with; None for anything else, and for what is no file."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip(_BLANK)
    if head[:1] in (b"{", b"["):
        return "json"
    return "runs" if head and not head.strip(b"0123456789" + _BLANK) else None


def read_mask_samples(path: Path, *, max_bytes: int) -> tuple[Grey, int]:
    """Luminance (h, w) uint8, 0 black to 255 white, of any PNG, JPEG, TIFF or WebP, and its orientation tag (1..8).

    Alpha is ignored (colours that were multiplied by it are divided by it again); 16-bit masks keep their upper 8
    bits; colour profiles are not applied; pixels stay in the orientation of the file. Raises `RowError`: read for a
    missing, damaged or unusable file, memory if decoding would take more than `max_bytes`.
    """
    with reading(path, _WHAT):
        kind = sniff(path, _WHAT)
        check_file_size(path, path.stat().st_size, max_bytes, _WHAT)
        # libvips reads the first frame of an animated PNG, and says nothing where the end of the file is missing.
        if kind == "png" and png.read_info(path, _WHAT).is_animated:
            raise refuse(path, "an animated PNG", "save one frame as a still PNG", _WHAT)
        image = vips.open_file(path, _WHAT)
        _check(path, image, max_bytes)
        if kind == "tiff" and (plain := _plain_twin(path)):
            image = vips.open_bytes(plain, path, _WHAT)
        orientation = _field(image, "orientation", 1)
        grey = vips.samples(_to_grey(image), path, _WHAT)[..., 0]
        return grey.astype(np.uint8, copy=False), orientation if 1 <= orientation <= 8 else 1


def drawn_mask(source: ImageSource, mask_from: str) -> Grey:
    """The mask (h, w) uint8 that is drawn in an image itself; it lies as the image does.

    `alpha`: 255 where the image is transparent, 0 where it is opaque. `#rrggbb`: 255 where it has that colour, and 8
    less for each step of 255 by which its most different channel is off. Raises RowError(MASK) where there is no alpha
    channel of 8 or 16 bits, and what `source.read` raises.
    """
    header = source.header
    if mask_from == "alpha" and not (header.has_alpha and header.dtype in ("uint8", "uint16")):
        raise RowError(
            FailureCode.MASK, "the image has no alpha channel of 8 or 16 bits that could be its mask; name a mask file"
        )
    mask = np.empty((header.height_px, header.width_px), np.uint8)
    for top in range(0, header.height_px, _ROWS):
        box = Box(top, 0, _ROWS, header.width_px).intersect(header.box)
        samples = source.read(box)
        if mask_from == "alpha":
            mask[box.slices] = 255 - samples[..., -1] // (257 if header.dtype == "uint16" else 1)
        else:
            key = np.array([int(mask_from[at : at + 2], 16) for at in (1, 3, 5)])
            steps = np.rint(samples_to_rgb(samples, header) * 255).astype(np.int32)
            mask[box.slices] = np.maximum(255 - 8 * np.abs(steps - key).max(axis=2), 0)
    return mask


def _check(path: Path, image: vips.Image, max_bytes: int) -> None:
    """Refuse by the header what is no mask, or too large."""
    num_pages = _field(image, "n-pages", 1)
    if num_pages > 1:
        raise refuse(path, f"a file of {num_pages} pages or frames", "save the mask as a single one", _WHAT)
    if image.format not in _BYTES or image.interpretation not in _COLOURS or image.bands > 4:
        kind = f"an image of {image.bands} bands of type {image.format} ({image.interpretation})"
        raise refuse(path, kind, "save the mask as a grey PNG", _WHAT)
    check_budget(path, image.width, image.height, image.bands * _BYTES[image.format], max_bytes, _WHAT)


def _plain_twin(path: Path) -> memoryview | None:
    """The same TIFF as one uncompressed strip, where libvips would not notice damage, or lacks the codec.

    Even with `fail_on="error"` it reads damaged tiles as black, and takes some damage within Deflate and PackBits for
    pixels; the wheel's build knows no ZSTD, LZMA, LERC or JPEG 2000. tifffile notices and knows them.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.compression in _SAFE_IN_LIBVIPS and not page.is_tiled:
            return None
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
            extratags=[(_ORIENTATION_TAG, 3, 1, int(page.tags.valueof(_ORIENTATION_TAG, default=1)), True)],
            metadata=None,
        )
        return plain.getbuffer()


def _to_grey(image: vips.Image) -> vips.Image:
    """One band of 8 bits; alpha dropped. libvips' own conversion would weigh the colours by light, not by luma."""
    if image.format == "ushort":
        image = (image >> 8).cast("uchar")
    if image.bands < 3:
        return image[0]
    return image.extract_band(0, n=3).recomb(_LUMA).rint().cast("uchar")


def _field(image: vips.Image, name: str, default: int) -> int:
    return int(image.get(name)) if image.get_typeof(name) else default
