"""Photographs with damage whose place is known: real elements of dust, scratches and stains over clean pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import ConfigError
from inpaint_batch.imaging.opencv import read_picture
from inpaint_batch.types import BoolArray, FloatArray

MARK_KINDS = {
    "scratches": ("scratches", "hair", "hair-short", "lint"),
    "dust": ("dirt", "spots", "sprinkles"),
    "stains": ("dots", "smut", "stain"),
}
"""Kind of damage -> folders of its elements."""
SCALES = {"scratches": (0.4, 1.0), "dust": (0.5, 1.0), "stains": (0.1, 0.4)}
"""Elements are drawn at this part of their own size (they are 400 px squares), from and to."""
TEST_EVERY = 4
"""Every so manieth element of a folder is for tests, the others are for training."""
BRIGHT, DARK = (0.88, 1.0), (0.0, 0.12)
"""Tones of marks, 0..1: bare paper and what lay on a negative, or dirt."""
MAX_TINT = 0.06
"""Channels of a mark's colour differ by up to this: paper is a little yellow, dirt a little brown."""
RIM_PX = (0.4, 0.8)
"""Standard deviation of the blur that makes rims soft, from and to."""
VISIBLE = 0.25
"""Truth is what was changed by at least this part of the contrast."""
MIN_TRUTH_PX = 20
MIN_MARK_PX = 4
"""Smaller marks are not counted."""
NUM_TRIES = 20


@dataclass(frozen=True, slots=True, eq=False)
class Damaged:
    """A photograph with marks on it."""

    rgb: FloatArray
    """(h, w, 3), 0..1, rounded to 8 bits."""
    truth: BoolArray
    """(h, w): what was visibly changed."""


class MarkLibrary:
    """The elements of one part, `test` or `train`, of a folder with a folder for each sort of damage."""

    def __init__(self, folder: Path, part: str) -> None:
        """Raise ConfigError where a sort is missing. Elements are read when they are drawn."""
        self._paths: dict[str, list[list[Path]]] = {}
        for kind, sorts in MARK_KINDS.items():
            self._paths[kind] = []
            for sort in sorts:
                paths = sorted((folder / sort).glob("*.png"))
                mine = [
                    path for at, path in enumerate(paths) if (at % TEST_EVERY == TEST_EVERY - 1) == (part == "test")
                ]
                if not mine:
                    raise ConfigError(f"no damage elements (PNG files) in {folder / sort}")
                self._paths[kind].append(mine)

    def element(self, rng: np.random.Generator, kind: str) -> FloatArray:
        """How much an element of the kind covers, 0..1, cut to its box, turned and mirrored at random."""
        sorts = self._paths[kind]
        paths: Sequence[Path] = sorts[int(rng.integers(len(sorts)))]
        path = paths[int(rng.integers(len(paths)))]
        decoded = read_picture(path, cv2.IMREAD_GRAYSCALE)
        if decoded is None:
            raise ConfigError(f"damage element {path} cannot be read as PNG")
        rows, columns = np.nonzero(decoded > 64)
        if not rows.size:
            return np.zeros((1, 1), np.float32)
        cut = decoded[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        turned = np.rot90(cut, int(rng.integers(4)))[:: int(rng.choice((-1, 1)))]
        return np.asarray(turned / np.float32(255), np.float32)


def draw_marks(
    rgb: FloatArray,
    rng: np.random.Generator,
    library: MarkLibrary,
    kind: str,
    contrast: float,
    *,
    bright: bool,
) -> Damaged:
    """`rgb` (h, w, 3), 0..1, with one element of `kind` that moves samples by up to `contrast` towards white or black.

    Where no element leaves a visible mark, such as white on white, the photograph comes back as it was, without truth.
    """
    low, high = SCALES[kind]
    for _ in range(NUM_TRIES):
        element = library.element(rng, kind)
        scale = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        size = (max(1, round(element.shape[1] * scale)), max(1, round(element.shape[0] * scale)))
        element = np.asarray(cv2.resize(element, size, interpolation=cv2.INTER_AREA), np.float32)
        alpha = _placed(element, rng, rgb.shape[0], rgb.shape[1])
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), float(rng.uniform(*RIM_PX))), np.float32)
        tone = rng.uniform(*(BRIGHT if bright else DARK)) - MAX_TINT * rng.uniform() * np.array((0, 0.4, 1))
        moved = np.clip(np.clip(tone, 0, 1).astype(np.float32) - rgb, -contrast, contrast)
        damaged = np.rint(255 * np.clip(rgb + alpha[..., None] * moved, 0, 1)).astype(np.float32) / np.float32(255)
        change = luma(damaged) - luma(rgb)
        truth = np.asarray((change if bright else -change) >= VISIBLE * contrast, np.bool_)
        if np.count_nonzero(truth) >= MIN_TRUTH_PX:
            return Damaged(damaged, truth)
    return Damaged(rgb, np.zeros(rgb.shape[:2], np.bool_))


def luma(rgb: FloatArray) -> FloatArray:
    """Grey (h, w), 0..1, of RGB samples (h, w, 3)."""
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)


def _placed(element: FloatArray, rng: np.random.Generator, height: int, width: int) -> FloatArray:
    """An element laid somewhere over (height, width), cut where it is larger."""
    canvas = np.zeros((height, width), np.float32)
    rooms = (height - element.shape[0], width - element.shape[1])
    at = [int(rng.integers(min(0, room), max(0, room) + 1)) for room in rooms]
    top, left = (max(0, each) for each in at)
    part = element[max(0, -at[0]) :, max(0, -at[1]) :][: height - top, : width - left]
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part
    return canvas


def count_marks(marks: BoolArray, others: BoolArray) -> tuple[int, int]:
    """How many connected marks of at least MIN_MARK_PX there are, and how many of these `others` covers by half."""
    num, labels = cv2.connectedComponents(np.ascontiguousarray(marks).view(np.uint8), connectivity=8)
    areas = np.bincount(labels.ravel(), minlength=num)[1:]
    hit = np.bincount(labels[others], minlength=num)[1:]
    counted: NDArray[np.bool_] = areas >= MIN_MARK_PX
    return int(np.count_nonzero(counted)), int(np.count_nonzero(counted & (hit >= areas / 2)))
