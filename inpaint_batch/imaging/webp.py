"""WebP: its RIFF chunks, its samples, and a lossless writer that carries the metadata chunks over."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import imagecodecs
import numpy as np

from inpaint_batch.imaging import exif
from inpaint_batch.imaging.file_errors import check_budget, check_file_size, damaged, reading, refuse, spoiled
from inpaint_batch.imaging.source import WholeRasterSource, filled_samples, verify_samples
from inpaint_batch.types import Header, Patch, SampleArray

_ALPHA_FLAG, _ANIMATION_FLAG = 0x10, 0x02
_PIXEL_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH", b"VP8X")
_REPLACED_CHUNKS = (b"VP8 ", b"VP8L", b"ALPH")
_VP8L_ALPHA_BYTE, _VP8L_ALPHA_BIT = 4, 0x10
_HEAD_BYTES = 32
_MAX_EXIF_BYTES = 1 << 24


def read_chunks(path: Path, *, bodies: bool = False) -> list[tuple[bytes, bytes]]:
    """(type, body) of every RIFF chunk; of pixel chunks only the first bytes unless `bodies`. Raises `RowError`
    (read).
    """
    with path.open("rb") as file:
        end = 8 + int.from_bytes(file.read(12)[4:8], "little")
        if path.stat().st_size < end:
            raise damaged(path, "it is truncated")
        chunks = []
        while file.tell() + 8 <= end:
            kind, length = struct.unpack("<4sI", file.read(8))
            position = file.tell()
            if position + length > end:
                raise damaged(path, f"its {kind!r} chunk leaves the file")
            is_small = kind not in (*_PIXEL_CHUNKS, b"ANMF") and length <= _MAX_EXIF_BYTES
            chunks.append((kind, file.read(length if bodies or is_small else min(length, _HEAD_BYTES))))
            file.seek(position + length + (length & 1))
    return chunks


def read_trailer(path: Path) -> bytes:
    """What stands behind the end of the RIFF file; mostly nothing."""
    with path.open("rb") as file:
        file.seek(8 + int.from_bytes(file.read(12)[4:8], "little"))
        return file.read()


def parse_header(path: Path) -> Header:
    """Size, alpha and orientation of a still WebP; raises `RowError` (read) for animations and damaged files."""
    chunks = read_chunks(path)
    first = dict(reversed(chunks))
    if b"VP8X" in first and chunks[0][0] != b"VP8X":  # decoders would not look at it
        raise damaged(path, "its chunks are not in order")
    try:
        if b"VP8X" in first:
            flags = first[b"VP8X"][0]
            width_px = 1 + int.from_bytes(first[b"VP8X"][4:7], "little")
            height_px = 1 + int.from_bytes(first[b"VP8X"][7:10], "little")
            has_alpha = bool(flags & _ALPHA_FLAG) or b"ALPH" in first
            if b"VP8L" in first:  # decoders heed its own word, too
                has_alpha |= bool(first[b"VP8L"][_VP8L_ALPHA_BYTE] & _VP8L_ALPHA_BIT)
            if flags & _ANIMATION_FLAG or b"ANMF" in first:
                raise refuse(path, "an animated WebP", "save the frame you want as a still image")
        elif b"VP8L" in first:
            (packed,) = struct.unpack_from("<I", first[b"VP8L"], 1)
            width_px, height_px, has_alpha = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF), bool(packed >> 28 & 1)
        else:
            width_px, height_px = (side & 0x3FFF for side in struct.unpack_from("<HH", first[b"VP8 "], 6))
            has_alpha = False
    except (KeyError, IndexError, struct.error):
        raise damaged(path, "it holds no pixels") from None
    return Header(
        format="webp",
        width_px=width_px,
        height_px=height_px,
        num_bands=4 if has_alpha else 3,
        dtype="uint8",
        has_alpha=has_alpha,
        orientation=exif.orientation(first.get(b"EXIF", b"")),
    )


def decode(path: Path, header: Header) -> SampleArray:
    """(h, w, 3 or 4) uint8 samples of a still WebP."""
    samples: SampleArray = imagecodecs.webp_decode(path.read_bytes(), hasalpha=header.has_alpha)
    if samples.shape != (header.height_px, header.width_px, header.num_bands):
        raise damaged(path, "its pixels do not match its header")
    return samples


class WebpSource(WholeRasterSource):
    """A still WebP, lossy or lossless. It is always written back lossless, so that the decoded samples stay."""

    def _decode(self) -> SampleArray:
        return decode(self.path, self.header)


def open_webp(path: Path, max_bytes: int) -> WebpSource:
    """Open a WebP by its header; raises `RowError` (read, memory)."""
    header = parse_header(path)
    # The decoder fills RGB or RGBA, but a lossless stream passes through 32-bit pixels on the way.
    check_budget(path, header.width_px, header.height_px, 4, max_bytes)
    check_file_size(path, path.stat().st_size, max_bytes)
    return WebpSource(path, header)


def write_webp(source: WebpSource, patches: Sequence[Patch], destination: Path) -> None:
    """Write the patched samples lossless; ICC profile, EXIF, XMP and unknown chunks stay byte for byte."""
    header = source.header
    samples = filled_samples(source, header.box, patches)
    pixels = _encode(samples)
    body = b""
    is_written = False
    with reading(source.path):
        chunks, trailer = read_chunks(source.path, bodies=True), read_trailer(source.path)
    for kind, content in chunks:
        if kind not in _REPLACED_CHUNKS:
            body += _riff_chunk(kind, content)
        elif kind != b"ALPH" and not is_written:  # VP8L holds alpha itself; decoders look at the first picture only
            body += _riff_chunk(b"VP8L", pixels)
            is_written = True
    destination.write_bytes(_riff(body) + trailer)


_METHOD = 2
"""Effort 0..6. Over 20 photographs of 256 × 256 px, one thread: 2 took 30 ms and 94.4 kB each, libwebp's own choice, 4,
107 ms and 91.4 kB."""
_MAX_SIDE_PX = 16382
"""Of imagecodecs; the format has one more."""


def _encode(samples: SampleArray) -> bytes:
    """Body of a VP8L chunk, exact also where alpha is 0."""
    if max(samples.shape) > _MAX_SIDE_PX:
        from inpaint_batch.imaging import vips

        container = vips.webp_file(samples, _METHOD)
    else:
        container = bytes(imagecodecs.webp_encode(np.ascontiguousarray(samples), lossless=True, method=_METHOD))
    start, (kind, length) = 12, struct.unpack_from("<4sI", container, 12)
    while kind != b"VP8L":  # of libvips, which puts a profile of its own in front
        start += 8 + length + (length & 1)
        kind, length = struct.unpack_from("<4sI", container, start)
    pixels = bytearray(container[start + 8 : start + 8 + length])
    if samples.shape[2] == 4:
        # The encoder drops the alpha hint where every pixel is opaque; the file shall still say that it has alpha.
        pixels[_VP8L_ALPHA_BYTE] |= _VP8L_ALPHA_BIT
    return bytes(pixels)


def join_chunks(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """A whole file of (type, body) pairs."""
    return _riff(b"".join(_riff_chunk(kind, body) for kind, body in chunks))


def _riff(body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _riff_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\x00" * (len(body) & 1)


def verify_webp(source: WebpSource, patches: Sequence[Patch], destination: Path, max_bytes: int) -> None:
    """Read `destination` back and raise `RowError` (write) unless samples and metadata are what was meant."""
    written = open_webp(destination, max_bytes)
    before, after = (
        [chunk for chunk in read_chunks(path, bodies=True) if chunk[0] not in _REPLACED_CHUNKS]
        for path in (source.path, destination)
    )
    if before != after or read_trailer(source.path) != read_trailer(destination):
        raise spoiled(destination, "its metadata changed on the way")
    verify_samples(source, patches, written)
