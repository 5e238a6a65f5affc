"""CCITT group 4 (T.6), the usual compression of bilevel scans, through the libtiff in libvips.

There is no other encoder within reach, and no other decoder that notices damage: this one is told to take a warning
for an error. Segments travel in the smallest TIFF that can hold one.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

GROUP_4 = 4
"""Value of the Compression tag."""
_SHORT, _LONG = 3, 4
_HEADER_BYTES = 8
_STRIP_OFFSETS, _STRIP_LENGTHS = 273, 279


def unpack(packed: bytes, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """(h, w) of 0 and 1, as the bits of one segment stand in its file. Raises `ValueError` where it is damaged."""
    from inpaint_batch.imaging import vips  # brings libvips, which few files need

    entries = [
        (256, _LONG, width_px),
        (257, _LONG, height_px),
        (258, _SHORT, 1),  # bits per sample
        (259, _SHORT, GROUP_4),
        (262, _SHORT, 1),  # min is black: bits then come as they are
        (_STRIP_OFFSETS, _LONG, _HEADER_BYTES),
        (277, _SHORT, 1),  # samples per pixel
        (278, _LONG, height_px),  # rows per strip
        (_STRIP_LENGTHS, _LONG, len(packed)),
    ]
    pixels = packed + bytes(len(packed) & 1)
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    head = b"II*\x00" + struct.pack("<I", _HEADER_BYTES + len(pixels))
    file = head + pixels + struct.pack("<H", len(entries)) + directory + bytes(4)
    try:
        samples = vips.strict_samples(file)
    except vips.Error as error:
        raise ValueError(f"its fax code is damaged: {' '.join(str(error).split())}") from None
    return np.asarray(samples[..., 0] != 0, np.uint8)


def pack(bits: NDArray[np.uint8]) -> bytes:
    """One segment of (h, w) of 0 and 1: what `unpack` turns back into these."""
    from inpaint_batch.imaging import vips

    file = vips.fax4_file(bits * np.uint8(255))
    (directory,) = struct.unpack_from("<I", file, 4)
    (num_entries,) = struct.unpack_from("<H", file, directory)
    values = {}
    for place in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, kind = struct.unpack_from("<HH", file, place)
        (values[tag],) = struct.unpack_from("<H" if kind == _SHORT else "<I", file, place + 8)
    start = values[_STRIP_OFFSETS]
    return file[start : start + values[_STRIP_LENGTHS]]
