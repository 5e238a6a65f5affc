"""Hole maps for the tiling tests, and a plain way to find their connected holes."""

from typing import NamedTuple

import cv2
import numpy as np
from hypothesis import strategies as st

from inpaint_batch.types import BoolArray, Box


class Hole(NamedTuple):
    box: Box
    area_px: int
    depth_px: float


def holes_of(hole: BoolArray) -> list[Hole]:
    count, labels, stats, _ = cv2.connectedComponentsWithStats(hole.astype(np.uint8), connectivity=8)
    # beyond the image nothing is known, so the distance is taken to known pixels inside it only
    distance = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    found = []
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        box = Box(top, left, height, width)
        depth = float(distance[box.slices][labels[box.slices] == label].max())
        found.append(Hole(box, area, depth))
    return found


@st.composite
def hole_maps(draw: st.DrawFn, max_side: int = 700) -> BoolArray:
    """Maps with rectangles, strokes and specks, never empty."""
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    hole = np.zeros((height, width), dtype=np.uint8)
    row, column = st.integers(0, height - 1), st.integers(0, width - 1)
    for _ in range(draw(st.integers(0, 3))):
        first = draw(column), draw(row)
        cv2.rectangle(hole, first, (draw(column), draw(row)), 1, thickness=-1)
    for _ in range(draw(st.integers(0, 4))):
        first = draw(column), draw(row)
        cv2.line(hole, first, (draw(column), draw(row)), 1, thickness=draw(st.integers(1, 9)))
    for _ in range(draw(st.integers(0, 12))):
        cv2.circle(hole, (draw(column), draw(row)), draw(st.integers(0, 3)), 1, thickness=-1)
    hole[draw(row), draw(column)] = 1
    return hole.astype(np.bool_)
