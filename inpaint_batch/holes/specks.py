"""Compact marks, such as dust: what differs from the median around it, is small, and lies alone on even ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.types import BoolArray, Box, FloatArray

TEXTURE_PX = 20.0
"""Standard deviation of the window over which texture is measured."""
SMOOTH_PX = 0.6
"""Standard deviation of the blur before, against noise of single pixels."""
WEAK = 0.45
"""A speck reaches as far as this part of the threshold, around a pixel above the threshold."""
RING_PX = (2, 4)
"""The ground is looked at between these distances from a speck."""
MAX_UNEVEN = 0.5
"""The ground may differ within itself by this part of the speck's contrast."""
MAX_ASPECT = 3.0
"""Longer shapes are lines."""
MIN_FULLNESS = 0.4
"""A speck fills at least this part of its box."""


@dataclass(frozen=True, slots=True)
class SpeckLimits:
    """Which marks count."""

    threshold: float
    """How often the contrast exceeds texture and noise around it."""
    min_contrast: float
    """Texture below counts as this, 0..1."""
    min_area_px: int
    min_size_px: int
    """Longest side of the box, from."""
    max_size_px: int
    """Longest side of the box, to."""


def find_specks(grey: FloatArray, limits: SpeckLimits) -> tuple[BoolArray, BoolArray]:
    """Bright and dark specks (h, w) of `grey` (h, w), 0..1."""
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), SMOOTH_PX), np.float32)
    window_px = 2 * limits.max_size_px + 1
    # The median of 8 bits costs the same for every window. Half a level of error in the ground is no matter.
    ground = cv2.medianBlur(np.rint(smooth * 255).astype(np.uint8), window_px).astype(np.float32) / np.float32(255)
    difference = smooth - ground
    signs = (difference, -difference)
    squares = (np.square(np.maximum(each, 0)) for each in signs)
    textures = [np.sqrt(np.maximum(cv2.GaussianBlur(each, (0, 0), TEXTURE_PX), 0)) for each in squares]
    bright, dark = (
        _isolated(contrast / np.maximum(textures[1 - number], limits.min_contrast), sign * smooth, limits)
        for number, (contrast, sign) in enumerate(zip(signs, (np.float32(1), np.float32(-1)), strict=True))
    )
    return bright, dark


def _isolated(prominence: FloatArray, grey: FloatArray, limits: SpeckLimits) -> BoolArray:
    """The components of `prominence` that count; `grey` such that specks are bright."""
    weak = prominence >= WEAK * limits.threshold
    _, labels, stats, _ = cv2.connectedComponentsWithStats(weak.view(np.uint8), connectivity=8)
    strong = np.bincount(labels[prominence >= limits.threshold], minlength=len(stats)) > 0
    width, height, area = (stats[:, each] for each in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    longest, shortest = np.maximum(width, height), np.minimum(width, height)
    wanted = (
        strong
        & (area >= limits.min_area_px)
        & (longest >= limits.min_size_px)
        & (longest <= limits.max_size_px)
        & (longest <= MAX_ASPECT * shortest)
        & (area >= MIN_FULLNESS * width * height)
    )
    wanted[0] = False
    found = np.zeros(grey.shape, np.bool_)
    for label in np.flatnonzero(wanted):
        left, top, box_width, box_height, _ = stats[label]
        box = Box(int(top), int(left), int(box_height), int(box_width)).expand(RING_PX[1]).intersect(_whole(grey))
        speck = labels[box.slices] == label
        if _is_alone(speck, grey[box.slices]):
            found[box.slices] |= speck
    return found


def _is_alone(speck: BoolArray, grey: FloatArray) -> bool:
    """Whether the ring around a speck is even, and darker than the speck."""
    inner, outer = (cv2.dilate(speck.view(np.uint8), _disc(each)) for each in RING_PX)
    ring = grey[(outer > inner)]
    if not ring.size:
        return False
    low, middle, high = np.percentile(ring, (5, 50, 95))
    contrast = float(np.percentile(grey[speck], 75)) - middle
    return bool(high - low <= MAX_UNEVEN * contrast)


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _whole(grey: FloatArray) -> Box:
    return Box(0, 0, grey.shape[0], grey.shape[1])
