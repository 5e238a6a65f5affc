"""Run-length encodings of masks: those of COCO, packed in text or as numbers, and pairs of start and length."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.polygons import Runs

MAX_CHARACTERS = 7
"""Of one packed number: five bits each. A number of 35 bits is more than any image has pixels."""
_FIRST = 48  # the character "0" stands for no bits set
_MORE, _NEGATIVE = 0x20, 0x10
_PAIRS = re.compile(rb"[0-9\s]+")


def coco_runs(counts: Any, num_pixels: int, shown: str) -> Runs:
    """The runs that COCO's `counts` mark: lengths of unmarked and marked pixels in turn, down the columns.

    `counts` is a list of whole numbers or the packed text. Raises RowError(MASK) where it is neither, or does not make
    up `num_pixels` exactly.
    """
    if isinstance(counts, str):
        lengths = _unpacked(counts, shown)
    elif isinstance(counts, list) and all(type(count) is int and 0 <= count <= num_pixels for count in counts):
        lengths = np.array(counts, np.int64)
    else:
        raise bad(shown, "has run lengths that are neither whole numbers of pixels nor COCO's text")
    if (lengths < 0).any() or int(lengths.sum()) != num_pixels:
        raise bad(shown, f"has run lengths that do not add up to the {num_pixels} pixels of its size")
    ends = np.cumsum(lengths)
    ends = ends[: len(ends) // 2 * 2]
    return np.stack([ends[0::2], ends[1::2]], axis=1)


def pair_runs(text: bytes, num_pixels: int, shown: str) -> Runs:
    """The runs of "start length start length ...", counted from 1 down the columns. Raises RowError(MASK)."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    if not _PAIRS.fullmatch(text):
        advice = "write `start length start length ...`, parted by spaces"
        raise bad(shown, "holds more than the whole numbers of a run-length encoding", advice)
    words = text.split()
    if len(words) % 2:
        raise bad(shown, f"has {len(words)} numbers, but starts and lengths of runs come in pairs")
    if max(map(len, words), default=0) > 18:
        raise bad(shown, "has a number of more than 18 digits")
    pairs = np.array(words, dtype=np.int64).reshape(-1, 2)
    ends = pairs[:, 0] - 1 + np.minimum(pairs[:, 1], num_pixels + 1)
    if (pairs[:, 0] < 1).any() or (ends > num_pixels).any():
        raise bad(
            shown,
            f"has runs that leave the {num_pixels} pixels of the image; these count from 1, down the columns",
        )
    return np.stack([pairs[:, 0] - 1, ends], axis=1)


def bad(shown: str, clause: str, advice: str = "export it again") -> RowError:
    """The error for a mask in text that says something impossible; `shown` names it."""
    return RowError(FailureCode.MASK, f"the mask {shown} {clause}; {advice}")


def _unpacked(text: str, shown: str) -> NDArray[np.int64]:
    """COCO's packed numbers: low bits first, a sign, and from the fourth on what is added to the one before last."""
    try:
        signs = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
    except UnicodeEncodeError:
        signs = np.array([-1])
    if not len(signs) or signs.min() < 0 or signs.max() > 63 or signs[-1] & _MORE:
        raise bad(shown, "has run lengths in a text that is not COCO's packing")
    last = np.flatnonzero(signs & _MORE == 0)
    first = np.append(0, last[:-1] + 1)
    if (last - first).max() >= MAX_CHARACTERS:
        raise bad(shown, "has a run length that is longer than any image")
    place = np.arange(len(signs)) - np.repeat(first, last - first + 1)
    numbers = np.add.reduceat((signs & 0x1F) << (5 * place), first)
    negative = signs[last] & _NEGATIVE != 0
    numbers -= np.where(negative, 1 << (5 * (last - first + 1)), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
