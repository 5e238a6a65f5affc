"""Write a filled image and read it back: one dispatch to the format's own writer and verifier."""

from __future__ import annotations

from collections.abc import Sequence
from os import SEEK_END
from pathlib import Path

from inpaint_batch.config import JpegMode
from inpaint_batch.imaging.file_errors import opened, reading, spoiled, verifying, writing
from inpaint_batch.imaging.jp2 import Jp2Source, verify_jp2, write_jp2
from inpaint_batch.imaging.jpeg import JpegSource
from inpaint_batch.imaging.jpeg_patch import verify_jpeg, write_jpeg
from inpaint_batch.imaging.jpeg_to_png import check_jpeg_as_png, verify_jpeg_as_png, write_jpeg_as_png
from inpaint_batch.imaging.png import PngSource, verify_png, write_png
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.imaging.tiff_patch import write_tiff
from inpaint_batch.imaging.tiff_verify import verify_tiff
from inpaint_batch.imaging.webp import WebpSource, verify_webp, write_webp
from inpaint_batch.storage.byte_ranges import copy_range, is_same_range
from inpaint_batch.types import Header, ImageFormat, Patch

_NO_LIMIT = 1 << 62
"""The output has the size of a source that passed its own check."""


def write_filled(
    source: ImageSource, patches: Sequence[Patch], destination: Path, *, jpeg: JpegMode, is_copy: bool = False
) -> None:
    """Write `source` with the hole samples of `patches` to `destination` (not atomic: pass a temporary path).

    Same format, size, depth and metadata as the source; with `jpeg="lossless"` a JPEG source becomes a PNG. Without
    patches the file is copied byte for byte, if the format stays. With `is_copy` the file there is a copy of the source
    already, which need not be made then. Raises `RowError` (write), or (read) where the source turns out to be damaged,
    and `ValueError` for a patch that does not fit.
    """
    _check_patches(source.header, patches)
    with writing(destination):
        if _is_copied(source, patches, jpeg):
            if not is_copy:
                _copy(source.path, destination)
            return
        match source:
            case JpegSource():
                (write_jpeg if jpeg == "patch" else write_jpeg_as_png)(source, patches, destination)
            case PngSource():
                write_png(source, patches, destination)
            case TiffSource():
                write_tiff(source, patches, destination, is_copy=is_copy)
            case WebpSource():
                write_webp(source, patches, destination)
            case Jp2Source():
                write_jp2(source, patches, destination)
            case _:
                raise TypeError(f"no writer for {type(source).__name__}")


def verify_written(source: ImageSource, patches: Sequence[Patch], destination: Path, *, jpeg: JpegMode) -> None:
    """Read `destination` back and raise `RowError` (write) if it is not exactly `source` with `patches`.

    Every known sample, every hole sample, size, bands, depth and metadata are compared. For a patched JPEG: metadata,
    tables, sampling, and every coefficient of every block that holds no hole sample; the other blocks hold the fill.
    """
    with verifying(destination):
        if _is_copied(source, patches, jpeg):
            _verify_copy(source.path, destination)
            return
        match source:
            case JpegSource() if jpeg == "patch":
                verify_jpeg(source, patches, destination)
            case JpegSource():
                verify_jpeg_as_png(source, patches, destination, _NO_LIMIT)
            case PngSource():
                verify_png(source, patches, destination, _NO_LIMIT)
            case TiffSource():
                verify_tiff(source, patches, destination, _NO_LIMIT)
            case WebpSource():
                verify_webp(source, patches, destination, _NO_LIMIT)
            case Jp2Source():
                verify_jp2(source, patches, destination, _NO_LIMIT)
            case _:
                raise TypeError(f"no verifier for {type(source).__name__}")


def written_format(source: ImageFormat, jpeg: JpegMode) -> ImageFormat:
    """The format of the result of a source of this format."""
    return "png" if source == "jpeg" and jpeg == "lossless" else source


def check_format(path: Path, header: Header, jpeg: JpegMode) -> None:
    """Raise `RowError` (write) where the header of a source tells that its result cannot be written."""
    if written_format(header.format, jpeg) != header.format:
        check_jpeg_as_png(path, header)


def _is_copied(source: ImageSource, patches: Sequence[Patch], jpeg: JpegMode) -> bool:
    return not patches and written_format(source.header.format, jpeg) == source.header.format


def _copy(source: Path, destination: Path) -> None:
    with opened(source) as old, destination.open("wb") as new:
        copy_range(old, new, 0, old.seek(0, SEEK_END))


def _verify_copy(source: Path, destination: Path) -> None:
    with opened(source) as old, destination.open("rb") as new:
        with reading(source):
            size = old.seek(0, SEEK_END)
        if new.seek(0, SEEK_END) != size or not is_same_range(old, new, 0, size):
            raise spoiled(destination, "it is no copy of the image")


def _check_patches(header: Header, patches: Sequence[Patch]) -> None:
    for patch in patches:
        shape = (patch.box.height, patch.box.width)
        fits = header.box.contains(patch.box) and patch.samples.shape == (*shape, header.num_bands)
        if not fits or patch.hole.shape != shape or patch.samples.dtype != header.dtype or not patch.box.area_px:
            raise ValueError(
                f"a patch of {patch.samples.shape} {patch.samples.dtype} at {patch.box} does not fit {header}"
            )
