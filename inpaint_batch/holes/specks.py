"""Compact marks, such as dust: what differs from the median around it, is small, and lies alone on even ground."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.holes.texture import texture
from inpaint_batch.types import BoolArray, Box, FloatArray

TEXTURE_PX = 20.0
"""Standard deviation of the window over which texture is measured."""
SMOOTH_PX = 0.6
"""Standard deviation of the blur before, against noise of single pixels."""
WEAK = 0.45
"""A speck reaches as far as this part of the threshold, around a pixel above the threshold,"""
PEAK_WINDOW_PX, WEAK_PART = 9, 0.5
"""and as this part of what stands out most in a window of this side: on uneven ground it would run into others."""
BLACK, WHITE = 0.02, 0.93
"""Ground beyond is clipped: nothing bright is sought on black, nothing dark on white."""
RING_PX = (2, 4)
"""The ground is looked at between these distances from a speck."""
EVEN, MAX_UNEVEN = 0.35, 0.45
"""The ground may differ within itself by this part of the speck's contrast, and by the second one if there are few
specks of the other polarity,"""
MIN_RING = 0.3
"""where at least this part of it is not covered by other specks."""
PEAK_PART = 0.4
"""A pixel belongs to a speck if it has this part of its contrast."""
MAX_ASPECT = 3.0
"""Longer shapes are lines."""
MIN_FULLNESS = 0.4
"""A speck fills at least this part of its box."""
MAX_OTHERS = 0.15
"""Specks of the other polarity that stand out as much, over the specks that are taken."""


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


@dataclass(frozen=True, slots=True, eq=False)
class _Speck:
    prominence: float
    """Of the pixel that stands out most."""
    box: Box
    pixels: BoolArray
    """(box.height, box.width)."""
    is_even: bool
    """The ground around it is EVEN."""


def find_specks(grey: FloatArray, limits: SpeckLimits) -> tuple[BoolArray, BoolArray]:
    """Bright and dark specks (h, w) of `grey` (h, w), 0..1.

    Sand, leaves and pores come bright and dark, damage mostly in one polarity: as many of one are taken, those that
    stand out most first, as leave those of the other that stand out as much a part of MAX_OTHERS; and all that lie on
    even ground.
    """
    smooth = np.asarray(cv2.GaussianBlur(grey, (0, 0), SMOOTH_PX), np.float32)
    window_px = 2 * limits.max_size_px + 1
    # The median of 8 bits costs the same for every window. Half a level of error in the ground is no matter.
    ground = cv2.medianBlur(np.rint(smooth * 255).astype(np.uint8), window_px).astype(np.float32) / np.float32(255)
    difference = smooth - ground
    textures = [texture(np.maximum(each, 0), TEXTURE_PX) for each in (difference, -difference)]
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
    return _drawn(_credible(bright, dark), grey.shape), _drawn(_credible(dark, bright), grey.shape)


def _isolated(prominence: FloatArray, grey: FloatArray, clipped: float, limits: SpeckLimits) -> list[_Speck]:
    """The components of `prominence` that count; `grey` such that specks are bright."""
    highest = cv2.dilate(prominence, np.ones((PEAK_WINDOW_PX, PEAK_WINDOW_PX), np.uint8))
    weak = (prominence >= WEAK * limits.threshold) & (prominence >= WEAK_PART * highest)
    num, numbers, stats, _ = cv2.connectedComponentsWithStats(weak.view(np.uint8), connectivity=8)
    labels = np.asarray(numbers, np.int32)
    peaks = np.zeros(num, np.float32)
    np.maximum.at(peaks, labels[weak], prominence[weak])
    width, height, area = (stats[:, each] for each in (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT, cv2.CC_STAT_AREA))
    longest, shortest = np.maximum(width, height), np.minimum(width, height)
    wanted = (
        (peaks >= limits.threshold)
        & (area >= limits.min_area_px)
        & (longest >= limits.min_size_px)
        & (longest <= limits.max_size_px)
        & (longest <= MAX_ASPECT * shortest)
        & (area >= MIN_FULLNESS * width * height)
    )
    wanted[0] = False
    found: list[_Speck] = []
    for label in np.flatnonzero(wanted):
        left, top, box_width, box_height, _ = stats[label]
        box = Box(int(top), int(left), int(box_height), int(box_width)).expand(RING_PX[1])
        if _whole(grey).contains(box):  # at the border nobody knows what it lies on
            found.extend(_alone(labels[box.slices], int(label), float(peaks[label]), grey[box.slices], box, clipped))
    return found


def _alone(
    labels: NDArray[np.int32], label: int, prominence: float, grey: FloatArray, box: Box, clipped: float
) -> Iterator[_Speck]:
    """The pixels of a speck that have enough of its contrast; none where the ring around it is not even, or is at most
    `clipped`, or is mostly covered by others."""
    speck = labels == label
    inner, outer = (cv2.dilate(speck.view(np.uint8), _disc(each)) for each in RING_PX)
    ring = outer > inner
    ground = grey[ring & (labels == 0)]
    if not ground.size or ground.size < MIN_RING * np.count_nonzero(ring):
        return
    low, middle, high = _quantiles(ground, 0.05, 0.5, 0.95)
    contrast = _quantiles(grey[speck], 0.75)[0] - middle
    if middle > clipped and high - low <= MAX_UNEVEN * contrast:
        pixels = np.asarray(speck & (grey >= middle + PEAK_PART * contrast), np.bool_)
        yield _Speck(prominence, box, pixels, bool(high - low <= EVEN * contrast))


def _quantiles(values: FloatArray, *parts: float) -> list[float]:
    """As np.quantile, which takes ten times as long for so few values."""
    places = np.asarray(parts) * (values.size - 1)
    return [float(each) for each in np.interp(places, np.arange(values.size), np.sort(values))]


def _credible(own: list[_Speck], other: list[_Speck]) -> list[_Speck]:
    """The specks in `own` that `other` cannot explain."""
    own = sorted(own, key=lambda speck: -speck.prominence)
    others = np.sort([speck.prominence for speck in other])
    num_others = len(others) - np.searchsorted(others, [speck.prominence for speck in own])
    good = np.flatnonzero(num_others <= MAX_OTHERS * np.arange(1, len(own) + 1))
    num_taken = int(good[-1]) + 1 if good.size else 0
    return own[:num_taken] + [speck for speck in own[num_taken:] if speck.is_even]


def _drawn(specks: list[_Speck], shape: tuple[int, ...]) -> BoolArray:
    found = np.zeros(shape, np.bool_)
    for speck in specks:
        found[speck.box.slices] |= speck.pixels
    return found


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _whole(grey: FloatArray) -> Box:
    return Box(0, 0, grey.shape[0], grey.shape[1])
