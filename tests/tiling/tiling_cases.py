"""Hole maps for the tiling tests."""

import cv2
import numpy as np
from hypothesis import strategies as st

from inpaint_batch.types import BoolArray


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
