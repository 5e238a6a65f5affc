"""Samples of 1, 2 or 4 bits, which share bytes in PNG and TIFF alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def split_bytes(packed: NDArray[np.uint8], num_samples: int, depth: int) -> NDArray[np.uint8]:
    """(rows, num_samples) of 1, 2 or 4 bits each, from rows of bytes that begin with the highest bits."""
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    samples = packed[:, :, None] >> shifts & np.uint8((1 << depth) - 1)
    return samples.reshape(len(packed), -1)[:, :num_samples].copy()


def reverse_bits(data: bytes) -> bytes:
    """`data` with the bits of each byte in the opposite order."""
    return data.translate(_REVERSED)


def join_bytes(samples: NDArray[np.uint8], depth: int) -> NDArray[np.uint8]:
    """Undo `split_bytes`; bits that pad the end of a row are 0."""
    per_byte = 8 // depth
    padded = np.pad(samples, ((0, 0), (0, -samples.shape[1] % per_byte))).reshape(len(samples), -1, per_byte)
    shifts = np.arange(8 - depth, -1, -depth, dtype=np.uint8)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(padded << shifts, axis=2)
    return packed
