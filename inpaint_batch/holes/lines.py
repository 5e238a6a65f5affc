"""How much each pixel looks like part of a thin line: oriented line filters at several widths.

A pixel's mean along a direction is compared with the means of parallel lines on both sides. Only where it is above all
of them (bright) or below all (dark) is there a line; an edge is above one side only, stripes are above none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.holes.texture import texture
from inpaint_batch.types import BoolArray, FloatArray

NUM_ORIENTATIONS = 12
LEVEL_SIDES_PX = (0, 384, 768)
"""Widths of about 1-3, 3-6 and 6-12 px: each level has half the resolution of the one before. Lines of a level are
sought where the shorter side of the image is at least this: in a small image a wide line is what the picture shows."""
ALONG_PX = 4.0
"""Standard deviation of the filter along the line."""
ACROSS_PX = 0.7
"""Standard deviation of the filter across the line."""
SIDES_PX = (3.0, 5.0)
"""Distances of the parallel lines on either side."""
TEXTURE_PX = 12.0
"""Standard deviation of the window over which texture is measured, at each level."""


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Responses to lines of one polarity, all (h, w)."""

    prominence: FloatArray
    """How often the contrast of the line exceeds what texture and noise around it give, >= 0."""
    ridge: BoolArray
    """Where the response is greatest across the line: one pixel wide."""


def find_lines(grey: FloatArray, min_contrast: float, side_px: int) -> tuple[Lines, Lines]:
    """Bright and dark lines in `grey` (h, w), 0..1, a part of an image whose shorter side is `side_px`.

    Texture below `min_contrast` counts as `min_contrast`.
    """
    best: list[Lines | None] = [None, None]
    level_grey = grey
    for level, least_px in enumerate(LEVEL_SIDES_PX):
        if side_px < least_px:
            break
        responses = _responses(level_grey)
        textures = [texture(response, TEXTURE_PX) for response, _ in responses]
        for polarity, (response, across) in enumerate(responses):
            # What stands out the other way round is texture, whereas damage is of one polarity: scratches, however
            # dense, do not hide themselves.
            prominence = np.asarray(response / np.maximum(textures[1 - polarity], min_contrast), np.float32)
            lines = _enlarged(Lines(prominence, _ridge(response, across)), grey.shape[0], grey.shape[1], level)
            best[polarity] = lines if best[polarity] is None else _stronger(best[polarity], lines)
        level_grey = np.asarray(cv2.resize(level_grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    nothing = Lines(np.zeros(grey.shape, np.float32), np.zeros(grey.shape, np.bool_))
    return best[0] or nothing, best[1] or nothing


def _responses(grey: FloatArray) -> list[tuple[FloatArray, NDArray[np.uint8]]]:
    """For bright and dark: the greatest contrast (h, w) over all directions, and the direction across it, 0..3 in steps
    of 45 degrees from the x axis."""
    height, width = grey.shape
    found = [(np.zeros(grey.shape, np.float32), np.zeros(grey.shape, np.uint8)) for _ in range(2)]
    pad = int(SIDES_PX[-1]) + 1
    padded = cv2.copyMakeBorder(grey, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    for number in range(NUM_ORIENTATIONS):
        angle = np.pi * number / NUM_ORIENTATIONS
        means = np.asarray(cv2.filter2D(padded, -1, _kernel(angle), borderType=cv2.BORDER_REFLECT_101), np.float32)

        def beside(distance_px: float, means: FloatArray = means, angle: float = angle) -> FloatArray:
            dx, dy = round(-distance_px * np.sin(angle)), round(distance_px * np.cos(angle))
            return means[pad + dy : pad + dy + height, pad + dx : pad + dx + width]

        middle = beside(0)
        highest, lowest = beside(SIDES_PX[0]).copy(), beside(SIDES_PX[0]).copy()
        for each in (beside(sign * side_px) for side_px in SIDES_PX for sign in (-1, 1)):
            np.maximum(highest, each, out=highest)
            np.minimum(lowest, each, out=lowest)
        across = round((angle + np.pi / 2) / (np.pi / 4)) % 4
        contrasts = (np.subtract(middle, highest, out=highest), np.subtract(lowest, middle, out=lowest))
        for (response, direction), contrast in zip(found, contrasts, strict=True):
            np.copyto(direction, np.uint8(across), where=contrast > response)
            np.maximum(response, contrast, out=response)
    return found


def _kernel(angle: float) -> FloatArray:
    reach = int(np.ceil(2.5 * ALONG_PX))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    kernel = np.exp(-0.5 * ((along / ALONG_PX) ** 2 + (across / ACROSS_PX) ** 2))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _ridge(response: FloatArray, across: NDArray[np.uint8]) -> BoolArray:
    ridge = np.zeros(response.shape, np.bool_)
    height, width = response.shape
    padded = cv2.copyMakeBorder(response, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    for direction, (dx, dy) in enumerate(((1, 0), (1, 1), (0, 1), (-1, 1))):
        before = padded[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        behind = padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        ridge |= (across == direction) & (response > before) & (response >= behind)
    return ridge


def _enlarged(lines: Lines, height: int, width: int, level: int) -> Lines:
    if level == 0:
        return lines
    size = (width, height)
    prominence = cv2.resize(lines.prominence, size, interpolation=cv2.INTER_LINEAR)
    ridge = cv2.resize(lines.ridge.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_)
    return Lines(np.asarray(prominence, np.float32), ridge)


def _stronger(one: Lines | None, other: Lines) -> Lines:
    assert one is not None
    stronger = other.prominence > one.prominence
    return Lines(np.maximum(one.prominence, other.prominence), np.where(stronger, other.ridge, one.ridge))
