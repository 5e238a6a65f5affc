"""More synthetic holes: polygons, text, and silhouettes of things that are not there.

Same contract as `synthesise.py`: each function takes its own random generator and returns a boolean map (height,
width), true where a pixel is missing, whose share lies about in `area`; never empty, never the whole image.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import cv2
import numpy as np

from inpaint_batch.holes.synthesise import MAX_DRAWS, never_trivial, target_pixels
from inpaint_batch.types import BoolArray

FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX,
)
LETTERS = string.ascii_letters + string.digits
FINEST_BLOB, COARSEST_BLOB = 0.04, 0.20
"""Standard deviation of the smoothing that makes silhouettes, as a share of the shorter side."""


def polygon_hole(
    rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.05, 0.20)
) -> BoolArray:
    """Stars of three to nine corners at random angles and distances: sharp corners, inward ones too."""
    target = target_pixels(rng, area, height, width)

    def draw(canvas: np.ndarray) -> None:
        missing = max(16.0, float(target - np.count_nonzero(canvas)))
        num_corners = int(rng.integers(3, 10))
        angles = np.sort(rng.uniform(0, 2 * np.pi, num_corners))
        # Radii of 0.4 to 1.6 of the disc that would do it alone, cut to what the image holds.
        radius = min(np.sqrt(missing / np.pi) * rng.uniform(0.5, 1.2), 0.5 * min(height, width))
        radii = radius * rng.uniform(0.4, 1.6, num_corners)
        centre = rng.uniform((0, 0), (width, height))
        corners = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(canvas, [np.round(corners).astype(np.int32)], 255)

    return _drawn(rng, draw, target, area, (height, width))


def text_hole(rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.03, 0.15)) -> BoolArray:
    """Lines of letters in several faces, sizes and weights: captions, stamps, watermarks.

    The faces are those that OpenCV brings, and look different in its versions 4 and 5.
    """
    target = target_pixels(rng, area, height, width)
    shorter = min(height, width)

    def draw(canvas: np.ndarray) -> None:
        font = FONTS[int(rng.integers(len(FONTS)))]
        letter_px = shorter * float(np.exp(rng.uniform(np.log(0.06), np.log(0.35))))
        thickness = max(1, round(letter_px * float(rng.uniform(0.05, 0.22))))
        letters = "".join(rng.choice(list(LETTERS), int(rng.integers(2, 13))))
        place = (int(rng.integers(-width // 4, width)), int(rng.integers(0, height + round(letter_px))))
        cv2.putText(canvas, letters, place, font, letter_px / 22.0, 255, thickness)  # 22 px: a capital at scale 1

    return _drawn(rng, draw, target, area, (height, width))


def silhouette_hole(
    rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = (0.05, 0.25)
) -> BoolArray:
    """The highest part of smoothed noise: blobs with soft outlines, like people and things that were cut out."""
    target = min(target_pixels(rng, area, height, width), height * width - 1)
    smoothing = min(height, width) * float(np.exp(rng.uniform(np.log(FINEST_BLOB), np.log(COARSEST_BLOB))))
    noise = rng.standard_normal((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), smoothing, borderType=cv2.BORDER_REFLECT)
    y, x = np.mgrid[0:height, 0:width]
    centre_y, centre_x = rng.uniform(0, height), rng.uniform(0, width)
    # A hill under the noise gathers the blobs into one or a few things.
    hill = np.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / (2 * (0.35 * min(height, width)) ** 2))
    ground = smooth / max(float(smooth.std()), 1e-12) + 1.5 * hill
    return never_trivial(ground > np.partition(ground, -target - 1, axis=None)[-target - 1], rng)


def _drawn(
    rng: np.random.Generator,
    draw: Callable[[np.ndarray], None],
    target: int,
    area: tuple[float, float],
    shape: tuple[int, int],
) -> BoolArray:
    """Draw until the target is reached; what would take too much is drawn again."""
    canvas = np.zeros(shape, np.uint8)
    for _ in range(MAX_DRAWS):
        before = canvas.copy()
        draw(canvas)
        if np.count_nonzero(canvas) > area[1] * canvas.size:
            canvas = before
        if np.count_nonzero(canvas) >= target:
            break
    return never_trivial(canvas > 0, rng)
