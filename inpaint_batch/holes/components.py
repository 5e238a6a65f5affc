"""The connected holes of a hole map: where each one is, how large, how deep."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from inpaint_batch.holes.distance import distance_px
from inpaint_batch.types import BoolArray, Box

BLOCK_PX = 64
"""Holes are first sought on blocks of this side, so that label and distance maps are needed around holes only."""


@dataclass(frozen=True, slots=True)
class Hole:
    """One 8-connected set of hole pixels."""

    box: Box
    """The smallest box that holds it. Boxes of different holes may overlap."""
    area_px: int
    """Number of its pixels."""
    depth_px: float
    """Greatest distance of one of its pixels to the nearest known pixel, centre to centre; 1.0 for a thin line. What
    lies beyond the border of the image does not count as known; infinite where no pixel is known at all."""


def find_holes(hole: BoolArray) -> list[Hole]:
    """The holes of `hole` (h, w), ordered by top, then left. Empty where nothing is true."""
    image = Box(0, 0, *hole.shape)
    found: list[Hole] = []
    blocks, groups = _groups_of_blocks(hole)
    for label, group in enumerate(groups, start=1):
        region = Box(*(side * BLOCK_PX for side in group)).expand(1).intersect(image)
        found += _holes_in(hole, region, blocks == label if len(groups) > 1 else None)
    return sorted(found, key=lambda each: (each.box, each.area_px, each.depth_px))


def _groups_of_blocks(hole: BoolArray) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int32]], list[Box]]:
    """Label the blocks that hold hole pixels; touching blocks share a label, so no hole spans two labels.

    Returns the labels (one per block, 0 for none) and the box of each label 1, 2, ..., counted in blocks.
    """
    rows = np.logical_or.reduceat(hole, np.arange(0, hole.shape[0], BLOCK_PX), axis=0)
    occupied = np.logical_or.reduceat(rows, np.arange(0, hole.shape[1], BLOCK_PX), axis=1)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(occupied.view(np.uint8), connectivity=8)
    return np.asarray(labels, np.int32), [_box(each) for each in stats[1:]]


def _holes_in(hole: BoolArray, region: Box, own_blocks: BoolArray | None) -> list[Hole]:
    """The holes inside `region` that lie in `own_blocks` (all of them where None)."""
    # A hole and the ring of pixels around it decide its depth: the way from a hole pixel to its nearest known pixel
    # leaves the hole through that ring, and no pixel there belongs to another hole.
    visible = hole[region.slices]
    own = visible
    if own_blocks is not None:
        rows = np.arange(region.top, region.bottom) // BLOCK_PX
        columns = np.arange(region.left, region.right) // BLOCK_PX
        own = visible & own_blocks[np.ix_(rows, columns)]
    _, labels, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(own).view(np.uint8), connectivity=8)
    labels = np.asarray(labels, np.int32)
    depth_px = distance_px(np.ascontiguousarray(visible))
    depths = np.zeros(len(stats), np.float32)
    for top in range(0, region.height, BLOCK_PX):  # in bands: the lists of pixels would outweigh the maps
        band = slice(top, top + BLOCK_PX)
        np.maximum.at(depths, np.asarray(labels[band][own[band]], np.intp), depth_px[band][own[band]])
    return [
        Hole(_box(each).shift(region.top, region.left), int(each[cv2.CC_STAT_AREA]), float(depth))
        for each, depth in zip(stats[1:], depths[1:], strict=True)
    ]


def _box(stats: np.ndarray[tuple[int, ...], np.dtype[np.int32]]) -> Box:
    return Box(
        int(stats[cv2.CC_STAT_TOP]),
        int(stats[cv2.CC_STAT_LEFT]),
        int(stats[cv2.CC_STAT_HEIGHT]),
        int(stats[cv2.CC_STAT_WIDTH]),
    )
