"""Segments of a TIFF that are JPEG streams: decoded like any other, patched through their coefficients.

The tables of all segments may stand in one tag (JPEGTables, TIFF Technical Note 2). A segment that is written anew goes
on using them: the note would allow it tables of its own, but libtiff would then read the next segment with those. What
the components mean the TIFF says, not the markers of the stream.

As `jpeg_coefficients` says, only segments that `unpack` took may be handed to the functions below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import imagecodecs

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_segments, jpeg_stream
from inpaint_batch.imaging.jpeg_coefficients import Coefficients, opened_coefficients
from inpaint_batch.imaging.jpeg_patch import check_planes, patched, structural_difference
from inpaint_batch.imaging.jpeg_segments import DHT, DQT, SOI
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.types import Patch, SampleArray

COMPRESSION = 7
"""In the Compression tag."""
SAVE_LOSSLESS = "save it with lossless compression (LZW, Deflate or ZSTD)"
"""What to do about segments that cannot be patched."""
_EOI = b"\xff\xd9"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""An APP14 segment but for its last byte: 0 for components as they are, 1 for YCbCr."""


def unpack(
    packed: bytes, tables: bytes, *, is_ycbcr: bool, shape: tuple[int, int, int], full_height_px: int
) -> SampleArray:
    """Samples (h, w, bands) uint8 of one segment; `shape` is what is needed of it. Of the last strip there may be as
    many rows as of the others.

    Raises ValueError or RuntimeError where it is damaged, and where it is of another kind than baseline Huffman coding
    of 8 bits.
    """
    data, stream = _whole(packed, tables, is_ycbcr=is_ycbcr)
    height_px, width_px, num_bands = shape
    if stream.depth != 8 or not stream.is_huffman_dct:
        raise ValueError("its coding is not that of baseline JPEG")
    is_as_tall = stream.height_px in (height_px, full_height_px)
    if (stream.width_px, len(stream.components)) != (width_px, num_bands) or not is_as_tall:
        size = f"{stream.width_px} x {stream.height_px} px of {len(stream.components)}"
        raise ValueError(f"it holds {size} components, not {width_px} x {height_px} of {num_bands}")
    samples: SampleArray = imagecodecs.jpeg8_decode(data)
    return samples.reshape(*samples.shape[:2], -1)[:height_px]


def patch(packed: bytes, tables: bytes, *, is_ycbcr: bool, patches: Sequence[Patch], path: Path) -> bytes:
    """A segment that `unpack` takes with `patches`, which lie inside it, as new coefficients.

    Raises RowError (write) for the rare stream that libjpeg cannot write again, and where the common Huffman tables are
    not the usual ones (annex K of the standard); `path` is for the message.
    """
    data, stream = _whole(packed, tables, is_ycbcr=is_ycbcr)
    own = jpeg_stream.parse(packed)
    own_codes, common_codes = jpeg_segments.huffman_tables(packed), _huffman_tables(tables)
    # Where a segment leaves none of the common ones as they are, no other segment can count on them.
    is_free = bool(own_codes) and own_codes.keys() >= common_codes.keys()
    is_free = is_free and not own_codes.items() & common_codes.items()
    fresh = patched(data, stream, patches, path, SAVE_LOSSLESS, has_own_tables=is_free)
    if not is_free:
        codes = common_codes | own_codes
        if any(codes.get(name) != table for name, table in jpeg_segments.huffman_tables(fresh).items()):
            message = f"{path} has Huffman tables of its own for all segments, and cannot be patched; {SAVE_LOSSLESS}"
            raise RowError(FailureCode.WRITE, message)
    left_out = [marker for marker, kept in ((DQT, own.quant_tables), (DHT, own_codes)) if not kept]
    return SOI + b"".join(own.metadata) + jpeg_segments.split_pixels(fresh, left_out)


def difference(
    before: bytes, after: bytes, tables: bytes, *, is_ycbcr: bool, patches: Sequence[Patch], path: Path
) -> str:
    """What `after` has changed of a segment beyond `patches`; empty where that is nothing.

    Raises RowError (write) where a coefficient of a known block changed or the fill is another; `path` is for it.
    """
    if jpeg_stream.parse(before).metadata != jpeg_stream.parse(after).metadata:
        return "its metadata"
    with (
        opened_segment(before, tables, is_ycbcr=is_ycbcr) as (stream, planes),
        opened_segment(after, tables, is_ycbcr=is_ycbcr) as (written, others),
    ):
        problem = structural_difference(stream, written)
        if not problem:
            check_planes(planes, others, stream, patches, path)
    return problem


@contextmanager
def opened_segment(packed: bytes, tables: bytes, *, is_ycbcr: bool) -> Iterator[tuple[JpegStream, list[Coefficients]]]:
    """A segment's structure and, until the context ends, its coefficients."""
    data, stream = _whole(packed, tables, is_ycbcr=is_ycbcr)
    with opened_coefficients(data, stream) as planes:
        yield stream, planes


def _whole(packed: bytes, tables: bytes, *, is_ycbcr: bool) -> tuple[bytes, JpegStream]:
    """A stream with its tables, and with a marker that says what the TIFF says of its colours."""
    if not packed.startswith(SOI):
        raise ValueError("it does not begin as a JPEG does")
    data = b"".join([SOI, jpeg_segments.common_tables(tables), jpeg_segments.split_pixels(packed)])
    stream = jpeg_stream.parse(data)
    if len(stream.components) != 3:  # of one and of four nothing needs to be said
        return data, stream
    adobe = _ADOBE + bytes([is_ycbcr])
    return SOI + adobe + data[2:], replace(stream, metadata=(adobe,), end=stream.end + len(adobe))


def _huffman_tables(tables: bytes) -> dict[int, bytes]:
    return jpeg_segments.huffman_tables(SOI + jpeg_segments.common_tables(tables) + _EOI)
