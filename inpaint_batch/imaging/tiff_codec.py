"""Pack and unpack one TIFF segment: byte order, predictor, compression. Each encoder undoes its decoder exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import imagecodecs
import numpy as np

from inpaint_batch.types import SampleArray

_DEFLATE_LEVEL = 6
_ZSTD_LEVEL = 9


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


_DEFLATE = Codec(
    "Deflate",
    lambda packed, size: bytes(imagecodecs.zlib_decode(packed, out=size)),
    lambda raw, _: bytes(imagecodecs.zlib_encode(raw, level=_DEFLATE_LEVEL)),
    "ZLIB",
)
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
"""By the number in the Compression tag."""


def unpack_segment(
    packed: bytes,
    compression: int,
    predictor: int,
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16],
    full_shape: tuple[int, int, int],
    shape: tuple[int, int, int],
) -> SampleArray:
    """Samples (h, w, bands) in native byte order of one packed segment.

    `dtype` is that of the file, byte order included; `shape` is what is needed, `full_shape` what some writers pad
    the last strip to. Raises `ValueError` or a codec's own error where the segment is damaged or short.
    """
    full_bytes, wanted_bytes = (int(np.prod(size)) * dtype.itemsize for size in (full_shape, shape))
    raw = CODECS[compression].unpack(packed, full_bytes)
    if len(raw) < wanted_bytes:
        raise ValueError(f"a segment unpacks to {len(raw)} bytes instead of {wanted_bytes}")
    stored = np.frombuffer(raw, dtype, int(np.prod(shape))).reshape(shape)
    samples = cast(SampleArray, stored.astype(dtype.newbyteorder("=")))
    if predictor == 2:
        np.cumsum(samples, axis=1, dtype=samples.dtype, out=samples)
    return samples


def pack_segment(
    samples: SampleArray, compression: int, predictor: int, dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
) -> bytes:
    """One packed segment of samples (h, w, bands): what `unpack_segment` turns back into exactly these."""
    stored = samples
    if predictor == 2:
        stored = samples.copy()
        stored[:, 1:] -= samples[:, :-1]
    row_bytes = samples.shape[1] * samples.shape[2] * dtype.itemsize
    return CODECS[compression].pack(np.ascontiguousarray(stored).astype(dtype).tobytes(), row_bytes)
