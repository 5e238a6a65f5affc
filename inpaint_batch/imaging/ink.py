"""CMYK without a profile: what it looks like, and how a fill is parted into inks.

Light is (1 - ink) × (1 - black). The same colour can be printed with much black or with little, and programs that show
such a file take it for a press of their own choice, where that is not the same colour. So a fill has as much black as
its surroundings have in colours of the same darkness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.sampling import evenly
from inpaint_batch.types import BoolMap, Box, FloatArray

RING_PX = 40
"""How far around a piece of the fill its surroundings reach."""
MAX_BOXES = 8
"""Pieces of one window whose surroundings are looked at."""
NUM_STEPS = 16
"""Steps of darkness for which the share of black is measured."""
MIN_SAMPLES = 24
"""Pixels of one step that tell its share."""


@dataclass(frozen=True, slots=True, eq=False)
class Black:
    """How much of the black that a colour could have is printed: measured at some darknesses."""

    darkness: NDArray[np.float64]
    """(n,) ascending: 1 less the lightest of red, green and blue, the most black that a colour can have."""
    share: NDArray[np.float64]
    """(n,) of it, 0..1."""

    def of(self, darkness: FloatArray) -> FloatArray:
        """The black of colours of that darkness, which is no more than that."""
        return np.asarray(darkness * np.interp(darkness, self.darkness, self.share), np.float32)


AS_MUCH_AS_POSSIBLE = Black(np.zeros(1), np.ones(1))
"""Where nothing is known: grey is printed with black ink alone."""


def surrounding_black(source: ImageSource, hole: BoolMap, boxes: Sequence[Box]) -> Black:
    """The black around `boxes` of a fill, among the samples of a CMYK image that are not in `hole` (H, W)."""
    image = source.header.box
    found = []
    for box in evenly(boxes, MAX_BOXES):
        around = box.expand(RING_PX).intersect(image)
        known = ~np.asarray(hole[around.slices])
        found.append(source.read(around)[known][:, :4] / np.float32(source.header.white))
    amounts = np.concatenate(found)
    black = amounts[:, 3]
    darkness = 1 - light_of(amounts).max(axis=1)
    step = np.minimum((darkness * NUM_STEPS).astype(int), NUM_STEPS - 1)
    steps = [step == number for number in range(1, NUM_STEPS)]  # of what is nearly white no share can be told
    told = [each for each in steps if np.count_nonzero(each) >= MIN_SAMPLES]
    if not told:
        return AS_MUCH_AS_POSSIBLE
    return Black(
        np.array([np.median(darkness[each]) for each in told], np.float64),
        np.array([np.median(black[each] / darkness[each]).clip(0, 1) for each in told], np.float64),
    )


def light_of(amounts: FloatArray) -> FloatArray:
    """RGB (..., 3) of inks (..., 4), all of 0..1."""
    return (1 - amounts[..., :3]) * (1 - amounts[..., 3:])


def inks_of(rgb: FloatArray, black: Black) -> FloatArray:
    """Inks (..., 4) of RGB (..., 3), all of 0..1, so that `light_of` gives the same light."""
    inks = np.ones((*rgb.shape[:-1], 4), np.float32)
    inks[..., 3:] = black.of(1 - rgb.max(axis=-1, keepdims=True))
    unprinted = 1 - inks[..., 3:]
    np.divide(rgb, unprinted, out=inks[..., :3], where=unprinted > 0)
    inks[..., :3] = 1 - np.minimum(inks[..., :3], 1)  # none where all is black
    return inks
