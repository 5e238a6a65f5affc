"""Pack and unpack TIFF segments: byte order, predictor, compression. Each encoder undoes its decoder exactly.

Segments that lie under each other are done together: each is packed on its own, all else is done to their rows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging import fax
from inpaint_batch.imaging.few_bits import join_bytes, split_bytes
from inpaint_batch.types import SampleArray

_DEFLATE_LEVEL = 6
_ZSTD_LEVEL = 9
_HORIZONTAL, _FLOATING = 2, 3
"""Values of the Predictor tag."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One lossless compression."""

    name: str
    unpack: Callable[[bytes, int], bytes]
    """(packed, wanted number of bytes) to bytes; may return fewer from damaged input."""
    pack: Callable[[bytes, int], bytes]
    """(bytes, bytes in one row) to packed bytes."""
    needs: str | None = None
    """Name of the imagecodecs codec class, where there is one."""
    has_predictor: bool = True

    def is_available(self) -> bool:
        """Whether imagecodecs was built with it."""
        return self.needs is None or bool(getattr(getattr(imagecodecs, self.needs, None), "available", False))


def _pack_bits(raw: bytes, row_bytes: int) -> bytes:
    # The TIFF specification: a run never crosses the end of a row.
    rows = (raw[start : start + row_bytes] for start in range(0, len(raw), row_bytes))
    return b"".join(bytes(imagecodecs.packbits_encode(row)) for row in rows)


def _inflate(packed: bytes, size: int) -> bytes:
    try:
        return bytes(imagecodecs.deflate_decode(packed, out=size))
    except RuntimeError:  # libdeflate takes all or nothing; what is damaged or longer is for zlib to judge
        return bytes(imagecodecs.zlib_decode(packed, out=size))


_DEFLATE = Codec("Deflate", _inflate, lambda raw, _: bytes(imagecodecs.deflate_encode(raw, _DEFLATE_LEVEL)), "DEFLATE")
CODECS = {
    1: Codec("no", lambda packed, size: packed[:size], lambda raw, _: raw, has_predictor=False),
    5: Codec(
        "LZW",
        lambda packed, size: bytes(imagecodecs.lzw_decode(packed, out=size)),
        lambda raw, _: bytes(imagecodecs.lzw_encode(raw)),
        "LZW",
    ),
    8: _DEFLATE,
    32946: _DEFLATE,
    32773: Codec(
        "PackBits",
        lambda packed, size: bytes(imagecodecs.packbits_decode(packed, out=size)),
        _pack_bits,
        "PACKBITS",
        has_predictor=False,
    ),
    50000: Codec(
        "ZSTD",
        lambda packed, size: bytes(imagecodecs.zstd_decode(packed, out=size)),
        lambda raw, _: bytes(imagecodecs.zstd_encode(raw, level=_ZSTD_LEVEL)),
        "ZSTD",
    ),
}
"""By the number in the Compression tag; fax compression, which knows rows of pixels and not of bytes, is in `fax`."""


def has_predictor(compression: int) -> bool:
    """Whether readers heed the Predictor tag with it."""
    return compression in CODECS and CODECS[compression].has_predictor


FileType = np.dtype[np.uint8] | np.dtype[np.uint16] | np.dtype[np.uint32] | np.dtype[np.int32] | np.dtype[np.float32]
"""Sample type with the byte order of the file."""


class DamagedSegmentError(ValueError):
    """One of several segments does not unpack."""

    def __init__(self, position: int, reason: object) -> None:
        super().__init__(str(reason))
        self.position = position
        """Which of them, from 0."""


def unpack_segments(
    packed: Sequence[bytes],
    compression: int,
    predictor: int,
    dtype: FileType,
    segment_rows: int,
    shape: tuple[int, int, int],
    depth: int = 8,
) -> SampleArray:
    """Samples (h, w, bands) in native byte order of packed segments that lie under each other.

    `dtype` is that of the file, byte order included; `shape` is what is needed of all together. Each segment has
    `segment_rows` rows; of the last there may be fewer, or more than are needed, since some writers pad it. A `depth`
    of 1, 2 or 4 bits says how many samples share a byte. Raises `DamagedSegmentError` where one is damaged or short.
    """
    row_bytes = shape[1] * shape[2] if compression == fax.GROUP_4 else _row_bytes(shape, dtype, depth)
    raw = []
    for position, each in enumerate(packed):
        num_rows = min(segment_rows, shape[0] - position * segment_rows)
        try:
            if compression == fax.GROUP_4:
                unpacked = fax.unpack(each, num_rows, shape[1]).tobytes()
            else:
                unpacked = CODECS[compression].unpack(each, segment_rows * row_bytes)
        except (ValueError, RuntimeError) as error:
            raise DamagedSegmentError(position, error) from error
        wanted_bytes = num_rows * row_bytes
        if len(unpacked) < wanted_bytes:
            raise DamagedSegmentError(position, f"a segment unpacks to {len(unpacked)} bytes instead of {wanted_bytes}")
        raw.append(unpacked)
    joined = raw[0] if len(raw) == 1 else b"".join(raw)
    stored = np.frombuffer(joined, np.uint8, shape[0] * row_bytes).reshape(shape[0], row_bytes)
    if compression == fax.GROUP_4:
        return stored.reshape(shape).copy()
    if depth < 8:
        return split_bytes(stored, shape[1] * shape[2], depth).reshape(shape)
    if predictor == _FLOATING:
        return _undo_floating(stored, shape, dtype)
    samples = cast(SampleArray, stored.view(dtype).reshape(shape).astype(dtype.newbyteorder("=")))
    if predictor == _HORIZONTAL:
        bits = _as_bits(samples)
        imagecodecs.delta_decode(bits, axis=1, out=bits)  # a third of the time of numpy's running sums
    return samples


def pack_segments(
    samples: SampleArray, compression: int, predictor: int, dtype: FileType, segment_rows: int, depth: int = 8
) -> list[bytes]:
    """Packed segments of samples (h, w, bands): what `unpack_segments` turns back into exactly these."""
    starts = range(0, len(samples), segment_rows)
    if compression == fax.GROUP_4:
        bits = samples[..., 0].astype(np.uint8, copy=False)
        return [fax.pack(bits[start : start + segment_rows]) for start in starts]
    row_bytes = _row_bytes(samples.shape, dtype, depth)
    if depth < 8:
        raw = join_bytes(samples.reshape(len(samples), -1).astype(np.uint8, copy=False), depth).tobytes()
    elif predictor == _FLOATING:
        raw = _do_floating(samples, dtype)
    else:
        stored = samples
        if predictor == _HORIZONTAL:
            stored = samples.copy()
            _as_bits(stored)[:, 1:] -= _as_bits(samples)[:, :-1]
        raw = np.ascontiguousarray(stored).astype(dtype).tobytes()
    pack = CODECS[compression].pack
    return [pack(raw[start * row_bytes : (start + segment_rows) * row_bytes], row_bytes) for start in starts]


def _row_bytes(shape: tuple[int, ...], dtype: FileType, depth: int) -> int:
    bits = depth if depth < 8 else 8 * dtype.itemsize
    return -(-shape[1] * shape[2] * bits // 8)


def _as_bits(samples: SampleArray) -> NDArray[np.unsignedinteger]:
    """The same memory as unsigned integers, in which differences wrap around."""
    return samples.view(f"u{samples.dtype.itemsize}")


def _undo_floating(stored: NDArray[np.uint8], shape: tuple[int, int, int], dtype: FileType) -> SampleArray:
    """Predictor 3: each row is split into planes of like bytes, highest first, and each byte is a difference."""
    height, width, bands = shape
    summed = np.cumsum(stored.reshape(height, -1, bands), axis=1, dtype=np.uint8)
    planes = summed.reshape(height, dtype.itemsize, width * bands).transpose(0, 2, 1)
    big_endian = np.ascontiguousarray(planes).view(dtype.newbyteorder(">"))
    return cast(SampleArray, big_endian.reshape(shape).astype(dtype.newbyteorder("=")))


def _do_floating(samples: SampleArray, dtype: FileType) -> bytes:
    height, _, bands = samples.shape
    big_endian = np.ascontiguousarray(samples).astype(dtype.newbyteorder(">")).view(np.uint8)
    planes = big_endian.reshape(height, -1, dtype.itemsize).transpose(0, 2, 1)
    summed = np.ascontiguousarray(planes).reshape(height, -1, bands)
    stored = summed.copy()
    stored[:, 1:] -= summed[:, :-1]
    return stored.tobytes()
