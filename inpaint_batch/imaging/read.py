"""Open an image file: find out what it is, read its header, refuse what cannot be kept exactly. No pixel is read
here.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jp2
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.jpeg import open_jpeg
from inpaint_batch.imaging.png import open_png
from inpaint_batch.imaging.png_chunks import SIGNATURE
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import open_tiff
from inpaint_batch.imaging.webp import open_webp
from inpaint_batch.types import ImageFormat

_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_JXL = ("a JPEG XL", "djxl (package libjxl-tools) makes a PNG of it")
_DPX = ("a DPX", "save it as a TIFF of 16 bits")
_OTHERS = {
    b"GIF8": ("a GIF", "save it as a PNG"),
    b"BM": ("a BMP", "save it as a PNG"),
    b"\xff\xfe": ("text in UTF-16", "save it as UTF-8"),  # as PowerShell writes it
    b"\xfe\xff": ("text in UTF-16", "save it as UTF-8"),
    b"8BPS": ("a Photoshop file", "save a flattened copy as a TIFF"),
    b"SDPX": _DPX,
    b"XPDS": _DPX,
    b"\x76\x2f\x31\x01": ("an OpenEXR", "save it as a TIFF of 16 bits or 32-bit float"),
    b"%PDF": ("a PDF", "pdfimages (package poppler-utils) takes the scans out of it"),
    b"\xff\x0a": _JXL,
    b"\x00\x00\x00\x0cJXL ": _JXL,
    jp2.RAW_SIGNATURE: ("a bare JPEG 2000 code stream", "opj_decompress (package libopenjp2-tools) makes a TIFF of it"),
    jp2.SIGNATURE: ("a JPEG 2000", "save it as a PNG"),  # as a mask
}
_AVIF = ("an AVIF", "avifdec (package libavif-bin) makes a PNG of it")
_HEIC = ("a HEIC", "heif-convert (package libheif-examples) makes a PNG of it")
_FILM = ("a film or another file of the MP4 family", "ffmpeg makes a PNG of each of its frames")
_RAW = ("a raw file of a camera", "develop it, and save it as a TIFF")
_FAMILY_OF_MP4 = {b"av": _AVIF, b"he": _HEIC, b"mi": _HEIC, b"ms": _HEIC, b"cr": _RAW}
"""By the first two letters of the brand: avif, avis; heic, heix, hevc, mif1, msf1 and their kin; crx."""
_OPENERS: dict[ImageFormat, Callable[[Path, int], ImageSource]] = {
    "jpeg": open_jpeg,
    "png": open_png,
    "webp": open_webp,
    "jp2": jp2.open_jp2,
}


def open_image(path: Path, *, max_bytes: int, page: int | None = None) -> ImageSource:
    """Open an image by its header.

    `page` counts from 1. Without it, a file of several pages is refused; with it, only that page is read and patched.

    Raises `RowError`: memory, if what has to be decoded at once (all samples; of a TIFF one strip or tile) would take
    more than `max_bytes`; read, if the file is missing, empty, not a JPEG, JPEG 2000, PNG, TIFF or WebP, damaged, or of
    a kind that cannot be written back exactly (the message names it).
    """
    with reading(path):
        kind = sniff(path)
        if kind == "tiff":
            return open_tiff(path, max_bytes, page)
        if page not in (None, 1):
            message = f"the image {path} has no page {page}; only a TIFF can have several"
            raise RowError(FailureCode.READ, message)
        return _OPENERS[kind](path, max_bytes)


def sniff(path: Path, what: str = "image") -> ImageFormat:
    """Format by the first bytes, whatever the name says; raises `RowError` (read) for anything else."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a pipe would wait for ever
        raise RowError(
            FailureCode.READ, f"the {what} {path} is a pipe or a device, not a file; save it as a file first"
        )
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head.startswith(SIGNATURE):
        return "png"
    if head.startswith(_TIFF_MAGICS):
        return "tiff"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "webp"
    if head.startswith(jp2.SIGNATURE) and what == "image":
        return "jp2"
    if not head:
        raise RowError(FailureCode.READ, f"the {what} {path} is empty (0 bytes); replace it with a sound copy")
    kind, advice = next((found for magic, found in _OTHERS.items() if head.startswith(magic)), ("", ""))
    if head[4:8] == b"ftyp":
        kind, advice = _FAMILY_OF_MP4.get(head[8:10], _FILM)
    found = f"is {kind}" if kind else "is not an image"
    others = " and JPEG 2000 (JP2)" if what == "image" else ", GeoJSON, COCO and run lengths"
    told = f"the {what} {path} {found}; only JPEG, PNG, TIFF, WebP{others} can be read"
    raise RowError(FailureCode.READ, f"{told}: {advice}" if advice else told)
