"""The lossless way out for a JPEG source: a PNG of its decoded samples that carries the metadata over."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import photoshop, png
from inpaint_batch.imaging.file_errors import spoiled
from inpaint_batch.imaging.jpeg import JpegSource
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.imaging.png_chunks import Chunk, make_chunk, split_chunks, write_chunks
from inpaint_batch.imaging.source import filled_samples, verify_samples
from inpaint_batch.types import Header, Patch

_PER_METRE = {1: 1 / 0.0254, 2: 100.0}
"""From the JFIF density units: per inch, per centimetre."""
_DIGITS_IN_LINE = 72


def check_jpeg_as_png(path: Path, header: Header) -> None:
    """Raise `RowError` (write) where a PNG cannot hold the samples of a JPEG, as its header tells."""
    if header.model == "ink":
        message = f"{path} is a CMYK JPEG, and a PNG cannot hold CMYK; run this row with jpeg=patch"
        raise RowError(FailureCode.WRITE, message)


def write_jpeg_as_png(source: JpegSource, patches: Sequence[Patch], destination: Path) -> None:
    """Write the decoded and patched samples as PNG, with ICC profile, EXIF (orientation included), XMP, IPTC, density,
    comments.
    """
    check_jpeg_as_png(source.path, source.header)
    _, stream = source.checked()
    samples = filled_samples(source, source.header.box, patches)
    header, *rest = png.encode(samples)
    pixels = [chunk for chunk in rest if chunk.kind in (b"IDAT", b"IEND")]
    write_chunks(destination, [header, *_metadata_chunks(stream), *pixels])


def verify_jpeg_as_png(source: JpegSource, patches: Sequence[Patch], destination: Path, max_bytes: int) -> None:
    """Read `destination` back and raise `RowError` (write) unless samples and metadata are what was meant."""
    _, stream = source.checked()
    written = png.open_png(destination, max_bytes)
    if not set(_metadata_chunks(stream)) <= set(split_chunks(destination.read_bytes())):
        raise spoiled(destination, "its metadata is not that of the source")
    verify_samples(source, patches, written)


def _metadata_chunks(stream: JpegStream) -> list[Chunk]:
    """PNG chunks, in an order that the specification allows in front of the pixels."""
    chunks = []
    if stream.icc_profile:
        chunks.append(make_chunk(b"iCCP", b"ICC profile\x00\x00" + zlib.compress(stream.icc_profile)))
    if stream.density and (density := _density(*stream.density)):
        chunks.append(make_chunk(b"pHYs", density))
    if stream.exif:
        chunks.append(make_chunk(b"eXIf", stream.exif))
    if stream.xmp:
        chunks.append(make_chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + stream.xmp))
    if resources := photoshop.without_previews(stream.photoshop):  # they would go on showing what was there
        profile = zlib.compress(_raw_profile(resources))
        chunks.append(make_chunk(b"zTXt", b"Raw profile type iptc\x00\x00" + profile))
    chunks.extend(_comment(text.replace(b"\x00", b" ")) for text in stream.comments)
    return chunks


def _density(unit: int, across: int, down: int) -> bytes:
    """Body of a pHYs chunk; empty where there is nothing to tell."""
    if unit in _PER_METRE:
        return struct.pack(">IIB", round(across * _PER_METRE[unit]), round(down * _PER_METRE[unit]), 1)
    return struct.pack(">IIB", across, down, 0) if unit == 0 and across != down else b""  # the shape of pixels alone


def _comment(text: bytes) -> Chunk:
    """A chunk; other letters than those of English have one of their own."""
    try:
        is_plain = text.decode().isascii()
    except UnicodeDecodeError:
        is_plain = True  # in Latin-1, for all that is known
    if is_plain:
        return make_chunk(b"tEXt", b"Comment\x00" + text)
    return make_chunk(b"iTXt", b"Comment\x00\x00\x00\x00\x00" + text)


def _raw_profile(resources: bytes) -> bytes:
    """IPTC in the form that ImageMagick gave it in PNG, which has no chunk for it, and that others read: its name,
    length, and lines of 72 hexadecimal digits.
    """
    digits = resources.hex()
    lines = [digits[start : start + _DIGITS_IN_LINE] for start in range(0, len(digits), _DIGITS_IN_LINE)]
    return "\n".join(["", "iptc", f"{len(resources):8}", *lines, ""]).encode()
