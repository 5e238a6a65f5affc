"""How far a filled image is from the truth: PSNR, SSIM, L1, whole and inside the hole.

All images are RGB, float32 in [0, 1], shape (height, width, 3); a hole is boolean, shape (height, width). Sums run in
float64. Values are per image; means over a suite are the caller's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.types import BoolArray, FloatArray

RIM_PX = 5.0
"""Width of the rim: hole pixels at most this far from the nearest known pixel."""

SSIM_WINDOW_PX = 11
SSIM_SIGMA_PX = 1.5
SSIM_K1 = 0.01
SSIM_K2 = 0.03


@dataclass(frozen=True, slots=True)
class FillMetrics:
    """One fill against its truth. PSNR is infinite where nothing differs."""

    psnr_db: float
    """Over the whole image."""
    hole_psnr_db: float
    """Over hole pixels only."""
    rim_psnr_db: float
    """Over hole pixels within `RIM_PX` of a known one: seams show here first. NaN where nothing is known."""
    ssim: float
    """Mean over the whole image, less a border of half a window."""
    hole_ssim: float
    """Mean over hole pixels."""
    l1: float
    """Mean absolute difference over the whole image."""
    hole_l1: float
    """Mean absolute difference over hole pixels."""


def measure(filled: FloatArray, truth: FloatArray, hole: BoolArray) -> FillMetrics:
    """All metrics of one fill.

    Raises ValueError where shapes do not fit, the image is smaller than the SSIM window, or the hole is empty.
    """
    if filled.shape != truth.shape or filled.ndim != 3 or filled.shape[2] != 3:
        raise ValueError(f"filled {filled.shape} and truth {truth.shape} must both be (height, width, 3)")
    if hole.shape != truth.shape[:2] or hole.dtype != np.bool_:
        raise ValueError(f"hole must be boolean with shape {truth.shape[:2]}, not {hole.dtype} {hole.shape}")
    if not hole.any():
        raise ValueError("the hole is empty: there is nothing to measure")
    error = filled.astype(np.float64) - truth
    similarity = ssim_map(filled, truth)
    border = SSIM_WINDOW_PX // 2
    return FillMetrics(
        psnr_db=psnr(error),
        hole_psnr_db=psnr(error[hole]),
        rim_psnr_db=psnr(error[rim(hole)]),
        ssim=float(similarity[border:-border, border:-border].mean()),
        hole_ssim=float(similarity[hole].mean()),
        l1=float(np.abs(error).mean()),
        hole_l1=float(np.abs(error[hole]).mean()),
    )


def psnr(error: NDArray[np.floating]) -> float:
    """Peak signal-to-noise ratio in dB for differences of samples in [0, 1]; infinite for none, NaN for no samples."""
    if error.size == 0:
        return math.nan
    mean_square = float(np.square(error, dtype=np.float64).mean())
    return math.inf if mean_square == 0.0 else -10.0 * math.log10(mean_square)


def rim(hole: BoolArray) -> BoolArray:
    """Hole pixels whose centre lies within `RIM_PX` of a known pixel's centre; none where nothing is known."""
    if hole.all():
        return np.zeros_like(hole)
    depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return hole & (depth <= RIM_PX)


def ssim_map(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    """Structural similarity at every pixel (height, width), mean of the three channels.

    Wang et al. 2004: Gaussian window of 11×11, sigma 1.5, K1 = 0.01, K2 = 0.03, range 1. At the image border the
    window sees the image mirrored. Raises ValueError where a side is smaller than the window.
    """
    if min(first.shape[:2]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs at least {SSIM_WINDOW_PX} pixels on each side, not {first.shape[:2]}")
    x, y = first.astype(np.float64), second.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    likeness = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    scale = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    similarity: NDArray[np.float64] = (likeness / scale).mean(axis=2)
    return similarity


def _windowed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    window = (SSIM_WINDOW_PX, SSIM_WINDOW_PX)
    return np.asarray(cv2.GaussianBlur(values, window, SSIM_SIGMA_PX, borderType=cv2.BORDER_REFLECT), dtype=np.float64)
