"""How strong texture is around each pixel."""

from __future__ import annotations

import cv2
import numpy as np

from inpaint_batch.types import FloatArray

_STEP = 4
"""Means over wide windows are taken at this part of the resolution, and are as smooth there as at the whole."""


def texture(response: FloatArray, sigma_px: float) -> FloatArray:
    """Root mean square (h, w) of a filter's response (h, w) in a Gaussian window of that standard deviation, which must
    be wide: 12 px and more.
    """
    height, width = response.shape
    down, across = -height % _STEP, -width % _STEP
    squares = cv2.copyMakeBorder(response * response, 0, down, 0, across, cv2.BORDER_REFLECT_101)
    size = (squares.shape[1] // _STEP, squares.shape[0] // _STEP)
    small = cv2.resize(squares, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / _STEP, borderType=cv2.BORDER_REFLECT_101)
    root = np.sqrt(np.maximum(small, 0), dtype=np.float32)
    return np.asarray(
        cv2.resize(root, squares.shape[::-1], interpolation=cv2.INTER_LINEAR)[:height, :width], np.float32
    )
