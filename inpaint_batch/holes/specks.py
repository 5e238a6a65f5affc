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
BLACK, WHITE = 0.02, 0.93
"""Ground beyond is clipped: nothing bright is sought on black, nothing dark on white."""
RING_PX = (2, 4)
"""The ground is looked at between these distances from a speck."""
MAX_UNEVEN = 0.35
"""The ground may differ within itself by this part of the speck's contrast."""
PEAK_PART = 0.4
"""A pixel belongs to a speck if it has this part of its contrast."""
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
    squares = (np.square(np.maximum(each, 0)) for each in (difference, -difference))
    textures = [np.sqrt(np.maximum(cv2.GaussianBlur(each, (0, 0), TEXTURE_PX), 0)) for each in squares]
    sides = ((difference, smooth, BLACK), (-difference, -smooth, -WHITE))
    bright, dark = (
        _isolated(
            np.asarray(contrast / np.maximum(textures[1 - number], limits.min_contrast), np.float32),
            own,
            clipped,
            limits,
        )
        for number, (contrast, own, clipped) in enumerate(sides)
    )
    return bright, dark


def _isolated(prominence: FloatArray, grey: FloatArray, clipped: float, limits: SpeckLimits) -> BoolArray:
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
        found[box.slices] |= _alone(speck, grey[box.slices], clipped)
    return found


def _alone(speck: BoolArray, grey: FloatArray, clipped: float) -> BoolArray:
    """The pixels of `speck` that have enough of its contrast; none where the ring around it is not even, or is at most
    `clipped`."""
    inner, outer = (cv2.dilate(speck.view(np.uint8), _disc(each)) for each in RING_PX)
    ring = grey[(outer > inner)]
    if not ring.size:
        return np.zeros_like(speck)
    low, middle, high = np.percentile(ring, (5, 50, 95))
    contrast = float(np.percentile(grey[speck], 75)) - middle
    if middle <= clipped or high - low > MAX_UNEVEN * contrast:
        return np.zeros_like(speck)
    return np.asarray(speck & (grey >= middle + PEAK_PART * contrast), np.bool_)


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _whole(grey: FloatArray) -> Box:
    return Box(0, 0, grey.shape[0], grey.shape[1])
