"""Open an image file: find out what it is, read its header, refuse what cannot be kept exactly. No pixel is read
here.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.jpeg import open_jpeg
from inpaint_batch.imaging.png import SIGNATURE, open_png
from inpaint_batch.imaging.source import ImageSource, reading
from inpaint_batch.imaging.tiff import open_tiff
from inpaint_batch.imaging.webp import open_webp
from inpaint_batch.types import ImageFormat

_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_OTHERS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\xff\x0a": "a JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "a JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "a JPEG 2000",
}
_OPENERS: dict[ImageFormat, Callable[[Path, int], ImageSource]] = {
    "jpeg": open_jpeg,
    "png": open_png,
    "webp": open_webp,
}


def open_image(path: Path, *, max_bytes: int, page: int | None = None) -> ImageSource:
    """Open an image by its header.

    `page` counts from 1. Without it, a file of several pages is refused; with it, only that page is read and patched.

    Raises `RowError`: memory, if what has to be decoded at once (all samples; of a TIFF one strip or tile) would take
    more than `max_bytes`; read, if the file is missing,
    empty, not a JPEG, PNG, TIFF or WebP, damaged, or of a kind that cannot be written back exactly (the message names
    it).
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
    if not head:
        raise RowError(FailureCode.READ, f"the {what} {path} is empty (0 bytes); replace it with a sound copy")
    kind = next((name for magic, name in _OTHERS.items() if head.startswith(magic)), "")
    if head[4:8] == b"ftyp":
        kind = "an AVIF or HEIC"
    found = f"is {kind}" if kind else "is not an image"
    kinds = "JPEG, PNG, TIFF and WebP" if what == "image" else "JPEG, PNG, TIFF, WebP, GeoJSON, COCO and run lengths"
    raise RowError(FailureCode.READ, f"the {what} {path} {found}; only {kinds} can be read")
