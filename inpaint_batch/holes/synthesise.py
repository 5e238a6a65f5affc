"""Synthetic holes, for training and for evaluation: strokes, boxes, and real elements of film and scan damage.

Polygons, text and silhouettes are in `shapes.py`.

Each function takes its own random generator and returns a boolean map (height, width), true where a pixel is
missing. The share of missing pixels lies in `area`, a (low, high) pair of fractions, as nearly as the shapes allow: a
box is at least 16 pixels large, and one element of damage that is larger than `area` allows may cover half as much
again. A hole is never empty and never the whole image.
"""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import ConfigError
from inpaint_batch.imaging.opencv import read_picture
from inpaint_batch.storage.paths import files_below
from inpaint_batch.types import BoolArray

MAX_DRAWS = 200
"""Elements drawn before a hole is taken as it is; reached only with odd area ranges."""
ALPHA_THRESHOLD = 127
"""A damage element covers a pixel where its alpha (0..255) is above this."""

log = logging.getLogger(__name__)


def stroke_hole(
    rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.05, 0.25)
) -> BoolArray:
    """Free-form brush strokes (Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, section
    4.1).

    Widths scale with the image: 1.5 % to 10 % of its shorter side, so that a hole looks alike at 64 and at 256
    pixels.
    """
    target = target_pixels(rng, area, height, width)
    canvas = np.zeros((height, width), np.uint8)
    shorter = min(height, width)
    for _ in range(MAX_DRAWS):
        before = canvas.copy()
        brush = max(1, round(shorter * float(np.exp(rng.uniform(np.log(0.015), np.log(0.10))))))
        num_points = int(rng.integers(2, 9))
        x, y = float(rng.uniform(0, width)), float(rng.uniform(0, height))
        angle = float(rng.uniform(0, 2 * np.pi))
        for _ in range(num_points):
            angle += float(rng.uniform(-0.9, 0.9))
            length = float(rng.uniform(0.08, 0.35)) * shorter
            end_x, end_y = x + length * np.cos(angle), y + length * np.sin(angle)
            cv2.line(canvas, (round(x), round(y)), (round(end_x), round(end_y)), 255, brush)
            cv2.circle(canvas, (round(end_x), round(end_y)), brush // 2, 255, -1)
            x, y = end_x, end_y
            if np.count_nonzero(canvas) >= target:
                break
        if np.count_nonzero(canvas) > area[1] * canvas.size:
            canvas = before  # this stroke took too much: draw another one
        if np.count_nonzero(canvas) >= min(target, area[1] * canvas.size):
            break
    return never_trivial(canvas > 0, rng)


def box_hole(rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.05, 0.20)) -> BoolArray:
    """One to four upright rectangles, sides between 1:2 and 2:1; they may overlap and touch the border."""
    target = target_pixels(rng, area, height, width)
    hole = np.zeros((height, width), bool)
    num_boxes = int(rng.integers(1, 5))
    for _ in range(MAX_DRAWS):
        missing = target - int(hole.sum())
        if missing <= 0:
            break
        share = max(16.0, min(float(missing), target / num_boxes * float(rng.uniform(0.7, 1.3))))
        ratio = float(np.exp(rng.uniform(-np.log(2), np.log(2))))
        box_height = int(np.clip(round(np.sqrt(share * ratio)), 1, height))
        box_width = int(np.clip(round(np.sqrt(share / ratio)), 1, width))
        top = int(rng.integers(0, height - box_height + 1))
        left = int(rng.integers(0, width - box_width + 1))
        hole[top : top + box_height, left : left + box_width] = True
    return never_trivial(hole, rng)


class DamageLibrary:
    """Elements of real damage: a folder (searched below too) of PNG files whose alpha, or grey level, is the
    damage."""

    def __init__(self, folder: Path) -> None:
        """Raise ConfigError where the folder holds no PNG file. Elements are read when they are first used."""
        self.paths = sorted(path for path in files_below(folder) if path.suffix.lower() == ".png")
        if not self.paths:
            raise ConfigError(f"no PNG files with damage elements under {folder}")
        self._elements: dict[int, BoolArray] = {}

    def hole(
        self, rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.01, 0.08)
    ) -> BoolArray:
        """Elements turned, flipped, scaled (0.4 to 1.5) and strewn until the target share is reached.

        One that cannot be read is told, once, and another one drawn. Raises ConfigError where no element has a shape.
        """
        target = target_pixels(rng, area, height, width)
        hole = np.zeros((height, width), bool)
        for _ in range(MAX_DRAWS):
            if hole.sum() >= target:
                break
            element = self._element(int(rng.integers(len(self.paths))))
            scale = float(np.exp(rng.uniform(np.log(0.4), np.log(1.5))))
            quarter_turns, flip = int(rng.integers(4)), bool(rng.integers(2))
            place_y, place_x = rng.uniform(0, 1, 2)
            placed = _placed(element, scale, quarter_turns, flip, (height, width), (float(place_y), float(place_x)))
            if (hole | placed).sum() <= area[1] * hole.size or not hole.any():
                hole |= placed
        if not any(element.any() for element in list(self._elements.values())):
            raise ConfigError(
                f"{len(self._elements)} damage elements were drawn, such as {self.paths[0]}, and not one can be read "
                "as PNG and is opaque or bright anywhere"
            )
        limit = area[1] * hole.size * 1.5
        if hole.sum() > limit:  # one single element larger than the range: keep a part of it
            rows = np.flatnonzero(hole.any(axis=1))
            keep = np.cumsum(hole.sum(axis=1)) <= limit
            keep[rows[0]] = True
            hole &= keep[:, None]
        return never_trivial(hole, rng)

    def _element(self, index: int) -> BoolArray:
        if index not in self._elements:
            decoded = self._read(self.paths[index])
            if decoded.dtype == np.uint16:
                decoded = (decoded >> 8).astype(np.uint8)
            covered = _covered(decoded)
            rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
            if rows.size:  # keep the tight box: most elements are small in a large transparent square
                covered = covered[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            self._elements[index] = covered
        return self._elements[index]

    def _read(self, path: Path) -> NDArray[np.uint8]:
        """What is in the file. Where it cannot be read, which shall not end a training of hours: one dark pixel."""
        try:
            decoded = read_picture(path, cv2.IMREAD_UNCHANGED)
            why = "it is damaged, or no PNG file"
        except OSError as error:
            decoded, why = None, error.strerror or str(error)
        if decoded is None:
            log.warning("skipping the damage element %s: %s", path, why)
            return np.zeros((1, 1), np.uint8)
        return decoded


def _covered(samples: NDArray[np.uint8]) -> BoolArray:
    """(h, w) of a decoded element: its alpha, where that has a shape; else where it is bright."""
    if samples.ndim == 2:
        return np.asarray(samples > ALPHA_THRESHOLD)
    if samples.shape[2] in (2, 4):
        opaque = samples[..., -1] > ALPHA_THRESHOLD
        if not opaque.all():
            return np.asarray(opaque)
        samples = samples[..., :-1]
    return np.asarray(samples.max(axis=2) > ALPHA_THRESHOLD)


def _placed(
    element: BoolArray,
    scale: float,
    quarter_turns: int,
    flip: bool,
    shape: tuple[int, int],
    place: tuple[float, float],
) -> BoolArray:
    """The element drawn on an empty canvas of `shape`; it may hang over the border by up to half."""
    turned = np.rot90(element, quarter_turns)
    if flip:
        turned = turned[:, ::-1]
    height = max(1, round(turned.shape[0] * scale))
    width = max(1, round(turned.shape[1] * scale))
    small = cv2.resize(turned.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.35
    canvas = np.zeros(shape, bool)
    top = round(place[0] * shape[0]) - height // 2
    left = round(place[1] * shape[1]) - width // 2
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(shape[0], top + height), min(shape[1], left + width)
    canvas[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def target_pixels(rng: np.random.Generator, area: tuple[float, float], height: int, width: int) -> int:
    """Number of pixels to take away, drawn from the shares of `area`; ConfigError where those cannot be."""
    low, high = area
    if not 0 < low <= high < 1:
        raise ConfigError(f"area must be two fractions, 0 < low <= high < 1, not {area}")
    return max(1, round(float(rng.uniform(low, high)) * height * width))


def never_trivial(hole: BoolArray, rng: np.random.Generator) -> BoolArray:
    """`hole` itself, with one pixel set where it has none, or one cleared where it has all."""
    if not hole.any():
        hole[int(rng.integers(hole.shape[0])), int(rng.integers(hole.shape[1]))] = True
    if hole.all():
        hole[0, 0] = False
    return hole
