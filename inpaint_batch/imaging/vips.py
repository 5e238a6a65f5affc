"""libvips, set up once: which loaders it may use, and what its complaints mean for the person who owns the file.

The only module that imports pyvips. Importing it sets up the libvips of the whole process: one thread per image (the
work is spread over rows, not within one), no cache of past results (it would give the old pixels of a file that was
written anew), and no loader but the four formats that are read here. A process that has used libvips must not fork;
its child would hang.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.file_errors import damaged
from inpaint_batch.types import SampleArray

os.environ.setdefault("VIPS_CONCURRENCY", "1")  # read once, when libvips is loaded
import pyvips

pyvips.cache_set_max(0)
pyvips.operation_block_set("VipsForeignLoad", True)
for _format in ("Jpeg", "Png", "Tiff", "Webp"):
    pyvips.operation_block_set(f"VipsForeignLoad{_format}", False)

Image = Any
"""A `pyvips.Image`; pyvips has no types."""

Error: type[Exception] = pyvips.Error
"""What libvips raises outside `explaining`."""

_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
# From top to bottom, and an exception where the default would be black pixels and silence.
_OPTIONS = {"access": "sequential", "fail_on": "error"}
_NO_LOADER = ("is not a known file format", "is not in a known format", "not found")
_NO_CODEC = ("compression support is not configured", "decoding is not implemented")
_CUT_SHORT = ("premature end", "expected", "truncated", "read error", "end of file", "unable to parse")
_NO_MEMORY = ("out of memory",)
_SYSTEM = ("unix error", "system error", "unable to open", "does not exist")


def open_file(path: Path, what: str = "image") -> Image:
    """The header of a JPEG, PNG, TIFF or WebP; pixels follow with `samples`. Raises `RowError`."""
    with explaining(path, what):
        return _open(pyvips.Source.new_from_file(os.fsencode(path)))


def open_bytes(data: bytes | memoryview, path: Path, what: str = "image") -> Image:
    """Like `open_file`, of the file in `data`, which is not copied. `path` is what errors speak of."""
    with explaining(path, what):
        return _open(pyvips.Source.new_from_memory(data))


def _open(source: Any) -> Image:
    # By way of a source, because libvips takes a file name that ends in [1] for options.
    return pyvips.Image.new_from_source(source, "", **_OPTIONS)


def samples(image: Image, path: Path, what: str = "image") -> SampleArray:
    """Run the pipeline that ends in `image`: (h, w, bands) uint8 or uint16, in memory of its own. Raises `RowError`.

    This is where a damaged file shows.
    """
    with explaining(path, what):
        return array(image)


def bands(image: Image, num_rows: int, path: Path, what: str = "image") -> Iterator[tuple[int, SampleArray]]:
    """Like `samples`, from top to bottom: the first of at most `num_rows` rows, and the rows (rows, w, bands)."""
    with explaining(path, what):
        region = pyvips.Region.new(image)
        for top in range(0, image.height, num_rows):
            height = min(num_rows, image.height - top)
            rows = np.frombuffer(region.fetch(0, top, image.width, height), _DTYPES[image.format])
            yield top, rows.reshape(height, image.width, image.bands)


def strict_samples(file: bytes) -> SampleArray:
    """Pixels of an image in memory, with every warning of its decoder taken for an error. Raises `Error`."""
    return array(
        pyvips.Image.new_from_source(pyvips.Source.new_from_memory(file), "", access="sequential", fail_on="warning")
    )


def fax4_file(samples: SampleArray) -> bytes:
    """A little-endian TIFF of one strip, packed by CCITT group 4, of (h, w) of 0 and 255. Raises `Error`."""
    image = from_samples(samples[..., None], "b-w")
    options = {"compression": "ccittfax4", "bitdepth": 1, "tile_height": image.height}
    return bytes(image.tiffsave_buffer(**options))


def webp_file(samples: SampleArray, effort: int) -> bytes:
    """A lossless WebP of (h, w, 3 or 4) uint8 samples, exact also where alpha is 0. Raises `Error`."""
    return bytes(from_samples(samples, "srgb").webpsave_buffer(lossless=True, exact=True, effort=effort))


def from_samples(samples: SampleArray, interpretation: str) -> Image:
    """An image of samples (h, w, bands) uint8 or uint16 in memory, meaning what libvips calls `interpretation`."""
    height, width, bands = samples.shape
    kind = "uchar" if samples.dtype == np.uint8 else "ushort"
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(samples).data, width, height, bands, kind)
    return image.copy(interpretation=interpretation)


def with_profile(image: Image, profile: bytes) -> Image:
    """`image` with an ICC profile attached, which the colour management then takes for its own."""
    image = image.copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)
    return image


def array(image: Image) -> SampleArray:
    """Run the pipeline that ends in `image`: (h, w, bands) uint8 or uint16. Raises `Error`."""
    return np.frombuffer(image.write_to_memory(), _DTYPES[image.format]).reshape(image.height, image.width, image.bands)


@contextmanager
def explaining(path: Path, what: str) -> Iterator[None]:
    """Turn the one error class of pyvips into `RowError`s (read, memory) about `path`."""
    pyvips.vips_lib.vips_error_clear()  # what libvips noted and went on from would stand in front of the next error
    try:
        yield
    except pyvips.Error as error:
        raise _row_error(str(error), path, what) from None


def _row_error(text: str, path: Path, what: str) -> RowError:
    """libvips names the operation first, then what went wrong, often once for every strip of the file."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    detail = lines[min(1, len(lines) - 1)] if lines else "no reason given"
    lower = text.lower()
    if any(words in lower for words in _NO_CODEC):
        advice = "save it with LZW or Deflate, or use the libvips of the system (Debian: apt install libvips42)"
        return RowError(FailureCode.READ, f"libvips lacks a codec for the {what} {path} ({detail}); {advice}")
    if any(words in lower for words in _SYSTEM):
        message = f"the {what} {path} could not be read ({detail}); check the disk or share it lies on, then run again"
        return RowError(FailureCode.READ, message, retryable=True)
    if any(words in lower for words in _NO_LOADER):
        advice = "install pyvips[binary], which brings JPEG, PNG, TIFF and WebP, if it is sound"
        return RowError(FailureCode.READ, f"the {what} {path} is not an image that libvips knows ({detail}); {advice}")
    if any(words in lower for words in _NO_MEMORY):
        message = f"there was no memory left to decode the {what} {path}; use fewer workers or a larger machine"
        return RowError(FailureCode.MEMORY, message, retryable=True)
    if any(words in lower for words in _CUT_SHORT):
        return damaged(path, f"it is truncated or torn ({detail})", what)
    return RowError(
        FailureCode.READ,
        f"the {what} {path} is damaged or of an unusual kind ({detail}); replace it, or save it as PNG",
    )
