"""PNG: what the chunks of a file say, its samples, and a writer that renews nothing but the pixel data."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import imagecodecs
import numpy as np

from inpaint_batch.imaging import exif
from inpaint_batch.imaging.few_bits import join_bytes
from inpaint_batch.imaging.file_errors import check_budget, check_file_size, damaged, reading, refuse, spoiled
from inpaint_batch.imaging.png_chunks import (
    CHECKSUM_BYTES,
    CHUNK_HEAD_BYTES,
    SIGNATURE,
    Chunk,
    checksum,
    make_chunk,
    read_chunks,
    split_chunks,
    write_chunks,
)
from inpaint_batch.imaging.source import WholeRasterSource, filled_samples, verify_samples
from inpaint_batch.types import Header, Patch, SampleArray

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
NUM_BANDS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGB_ALPHA: 4}
_LEGAL_DEPTHS = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), RGB_ALPHA: (8, 16)}
_SMALL_CHUNK_BYTES = 1 << 16
_ANCILLARY_BIT = 0x20
"""In the first letter of a chunk's type: set where decoders may go on without it."""
_PLACES_OF_PIXELS = b"iDOT"
"""A chunk of Apple's programs that says where in the file the lower half of the pixels begins. They refuse the whole
file where that is not so."""
_RENEWED = (b"IHDR", b"IDAT", _PLACES_OF_PIXELS)
_IN_ORDER = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_COLOUR_TYPE_PLACE = 9
"""In the body of IHDR."""
_MAX_SIDE_PX = 1_000_000
"""Of libpng."""
_PLAIN_COMPRESSION_LEVEL = 6
COMPRESSION_LEVEL = 4
"""Of 9. On a 15-megapixel photograph 1.9 s and 4 % larger than level 6, which takes 4.5 s."""


@dataclass(frozen=True, slots=True)
class PngInfo:
    """What the chunks in front of and behind the pixels say."""

    width_px: int
    height_px: int
    depth: int
    colour_type: int
    is_interlaced: bool
    is_animated: bool
    orientation: int
    transparency: bytes
    """Body of tRNS, or empty."""
    palette: bytes
    """Body of PLTE, or empty."""

    @property
    def decoded_bytes_per_pixel(self) -> int:
        """Of the decoder's own output: fewer than 8 bits become 8."""
        return NUM_BANDS[self.colour_type] * max(1, self.depth // 8)

    @property
    def palette_with_alpha(self) -> bytes:
        """Red, green, blue and alpha of every palette entry; empty for other kinds."""
        if self.colour_type != PALETTE:
            return b""
        entries = np.full((len(self.palette) // 3, 4), 255, np.uint8)
        entries[:, :3] = np.frombuffer(self.palette, np.uint8).reshape(-1, 3)
        alpha = np.frombuffer(self.transparency, np.uint8)[: len(entries)]
        entries[: len(alpha), 3] = alpha
        return entries.tobytes()


def read_info(path: Path, what: str = "image") -> PngInfo:
    """Walk the chunks of a PNG without reading a pixel; raises `RowError` (read) where they do not hold together."""
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        kind, length = _chunk_head(file, path, what)
        if kind != b"IHDR" or length != 13:
            raise damaged(path, "it does not begin with an image header", what)
        header = _checked_body(file, kind, length, path, what)
        width_px, height_px, depth, colour_type, _, _, interlace = struct.unpack(">IIBBBBB", header)
        if not width_px or not height_px or depth not in _LEGAL_DEPTHS.get(colour_type, ()):
            raise damaged(path, "its image header makes no sense", what)
        small: dict[bytes, bytes] = {}
        critical = [kind]
        is_animated = False
        while kind != b"IEND":
            previous = kind
            kind, length = _chunk_head(file, path, what)
            if not kind[0] & _ANCILLARY_BIT and not kind == previous == b"IDAT":
                critical.append(kind)
            is_animated |= kind == b"acTL"
            if kind in (b"eXIf", b"tRNS", b"PLTE") and length <= _SMALL_CHUNK_BYTES:
                small[kind] = _checked_body(file, kind, length, path, what)
            else:
                file.seek(length + CHECKSUM_BYTES, 1)
    _check_order(critical, path, what)
    palette = small.get(b"PLTE", b"")
    if colour_type == PALETTE and (not palette or len(palette) % 3 or len(palette) > 3 << depth):
        raise damaged(path, "its palette is missing or makes no sense", what)
    return PngInfo(
        width_px=width_px,
        height_px=height_px,
        depth=depth,
        colour_type=colour_type,
        is_interlaced=bool(interlace),
        is_animated=is_animated,
        orientation=exif.orientation(small.get(b"eXIf", b"")),
        transparency=_transparency(small.get(b"tRNS", b""), colour_type),
        palette=palette,
    )


def _transparency(body: bytes, colour_type: int) -> bytes:
    """`body` of a tRNS chunk, or nothing where it does not fit: decoders pass over it then."""
    wanted = {GREY: 2, RGB: 6, PALETTE: len(body)}.get(colour_type)
    return body if len(body) == wanted else b""


def _checked_body(file: BinaryIO, kind: bytes, length: int, path: Path, what: str) -> bytes:
    """Body of the chunk whose head was just read. Decoders drop EXIF and transparency with a wrong checksum; without
    header or palette they give up, and so must we: both are carried over as they are.
    """
    body = file.read(length)
    if checksum(kind + body) == file.read(CHECKSUM_BYTES):
        return body
    if kind[0] & _ANCILLARY_BIT:
        return b""
    raise damaged(path, f"the checksum of its {kind.decode()} chunk is wrong", what)


def _check_order(critical: list[bytes], path: Path, what: str) -> None:
    """Raise `RowError` (read) unless these chunks, runs of pixels taken as one, are those that decoders look for."""
    if unknown := set(critical) - set(_IN_ORDER):
        raise damaged(path, f"it needs a chunk {min(unknown)!r} that nobody knows", what)
    if b"IDAT" not in critical:
        raise damaged(path, "it holds no pixels", what)
    if critical != [kind for kind in _IN_ORDER if kind != b"PLTE" or b"PLTE" in critical]:
        raise damaged(path, "its chunks are not in order", what)


def _chunk_head(file: BinaryIO, path: Path, what: str) -> tuple[bytes, int]:
    head = file.read(CHUNK_HEAD_BYTES)
    if len(head) < CHUNK_HEAD_BYTES:
        raise damaged(path, "it is truncated", what)
    if not head[4:].isalpha():
        raise damaged(path, f"it holds a chunk of type {head[4:]!r}", what)
    return head[4:], int.from_bytes(head[:4], "big")


def decode(path: Path, info: PngInfo) -> SampleArray:
    """(h, w, bands) samples of a PNG as stored: no transparency or palette applied, 1, 2 and 4 bits not scaled."""
    chunks = split_chunks(path.read_bytes())
    pixels = b"".join(chunk.whole for chunk in chunks if chunk.kind in (b"IDAT", b"IEND"))
    header = bytearray(chunks[0].body)
    if info.colour_type == PALETTE:
        header[_COLOUR_TYPE_PLACE] = GREY  # decoders then leave the indices alone
    plain = SIGNATURE + make_chunk(b"IHDR", bytes(header)).whole + pixels
    if info.is_interlaced:
        # The other decoder prints a warning for each such file.
        from inpaint_batch.imaging import vips

        samples = vips.samples(vips.open_bytes(plain, path), path)
    else:
        samples = imagecodecs.png_decode(plain)
        samples = samples.reshape(*samples.shape[:2], -1)
    # Decoders stretch few bits to 8.
    return samples // np.uint8(255 // ((1 << info.depth) - 1)) if info.depth < 8 else samples


def encode(samples: SampleArray) -> list[Chunk]:
    """Chunks of a fresh, non-interlaced PNG of (h, w, bands) samples, bands 1 to 4 meaning grey, grey + alpha, RGB,
    RGBA.
    """
    flat = samples[..., 0] if samples.shape[2] == 1 else samples
    return split_chunks(bytes(imagecodecs.png_encode(np.ascontiguousarray(flat), level=COMPRESSION_LEVEL)))


def _encode_plainly(samples: SampleArray, depth: int) -> Chunk:
    """IDAT chunk of (h, w, 1) samples of up to 8 bits, unfiltered, as suits indices and few bits."""
    rows = join_bytes(samples[..., 0].astype(np.uint8, copy=False), depth) if depth < 8 else samples[..., 0]
    filtered = np.zeros((rows.shape[0], rows.shape[1] + 1), np.uint8)  # each row begins with its filter: 0, none
    filtered[:, 1:] = rows
    return make_chunk(b"IDAT", zlib.compress(filtered.tobytes(), _PLAIN_COMPRESSION_LEVEL))


class PngSource(WholeRasterSource):
    """A still PNG of any kind."""

    def __init__(self, path: Path, header: Header, info: PngInfo) -> None:
        super().__init__(path, header)
        self.info = info

    def _decode(self) -> SampleArray:
        return decode(self.path, self.info)

    def admissible(self, samples: SampleArray) -> SampleArray:
        """Keep the fill clear of a transparent key colour: one step of the last band, where it would hit it. Not with
        one bit, of which that would leave a single colour.
        """
        info, header = self.info, self.header
        if not info.transparency or info.depth == 1 or header.has_alpha or header.model == "palette":
            return samples
        key = np.frombuffer(self.info.transparency, ">u2")
        hit = (samples == key).all(axis=-1)
        if not hit.any():
            return samples
        samples = samples.copy()
        samples[hit, -1] = np.bitwise_xor(samples[hit, -1], samples.dtype.type(1))
        return samples


def open_png(path: Path, max_bytes: int) -> PngSource:
    """Open a PNG by its header; raises `RowError` (read, memory) for what cannot be kept exactly or is too large."""
    info = read_info(path)
    check_budget(path, info.width_px, info.height_px, info.decoded_bytes_per_pixel, max_bytes)
    check_file_size(path, path.stat().st_size, max_bytes)
    if info.is_animated:
        raise refuse(path, "an animated PNG", "save the frame you want as a still PNG")
    if max(info.width_px, info.height_px) > _MAX_SIDE_PX:
        raise refuse(path, f"a PNG of more than {_MAX_SIDE_PX:,} px on a side", "save it as a TIFF")
    num_bands = NUM_BANDS[info.colour_type]
    header = Header(
        format="png",
        width_px=info.width_px,
        height_px=info.height_px,
        num_bands=num_bands,
        dtype="uint16" if info.depth == 16 else "uint8",
        has_alpha=num_bands in (2, 4),
        orientation=info.orientation,
        model="palette" if info.colour_type == PALETTE else "light",
        levels=(0.0, float((1 << info.depth) - 1)) if info.depth < 8 and info.colour_type == GREY else None,
        palette=info.palette_with_alpha,
    )
    return PngSource(path, header, info)


def write_png(source: PngSource, patches: Sequence[Patch], destination: Path) -> None:
    """Write the patched samples; every chunk but IDAT stays byte for byte and in its place (an interlaced file
    becomes plain). What only tells where pixels stood goes.
    """
    samples = filled_samples(source, source.header.box, patches)
    info = source.info
    if info.colour_type == PALETTE or info.depth < 8:
        pixels = [_encode_plainly(samples, info.depth)]
    else:
        pixels = [chunk for chunk in encode(samples) if chunk.kind == b"IDAT"]
    with reading(source.path):
        original, trailer = read_chunks(source.path)
    write_chunks(destination, _with_pixels(original, pixels), trailer)


def _with_pixels(original: Iterable[Chunk], pixels: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks of a file with `pixels` where the first of its own stood, not interlaced."""
    is_written = False
    for chunk in original:
        if chunk.kind == b"IHDR":
            yield make_chunk(chunk.kind, chunk.body[:-1] + b"\x00")  # the last byte is the interlace method
        elif chunk.kind not in (b"IDAT", _PLACES_OF_PIXELS):
            yield chunk
        elif chunk.kind == b"IDAT" and not is_written:
            yield from pixels
            is_written = True


def verify_png(source: PngSource, patches: Sequence[Patch], destination: Path, max_bytes: int) -> None:
    """Read `destination` back and raise `RowError` (write) unless samples and chunks are what was meant."""
    written = open_png(destination, max_bytes)
    if _kept_chunks(source.path) != _kept_chunks(destination):
        raise spoiled(destination, "its metadata changed on the way")
    verify_samples(source, patches, written)


def _kept_chunks(path: Path) -> list[Chunk]:
    return [chunk for chunk in split_chunks(path.read_bytes()) if chunk.kind not in _RENEWED]
