"""A plot of losses and metric, drawn with OpenCV: nothing else has to be installed for two curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

WIDTH, HEIGHT = 960, 360
"""Pixels of one panel."""
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 40, 50
"""Margins of a panel, pixels."""
INK, GRID, CURVE, SMOOTH = (40, 40, 40), (225, 225, 225), (170, 195, 235), (30, 80, 190)
"""Colours, RGB."""
NUM_TICKS = 5
SMOOTHING = 0.9
"""Share of the past in the running mean that is drawn over a noisy curve."""


def draw_plot(records: Sequence[dict[str, Any]]) -> np.ndarray:
    """Log records -> (height, width, 3) uint8, RGB: a panel for the loss and one for the PSNR in the hole."""
    panels = [("loss", "loss"), ("validation_psnr_db", "PSNR inside the hole, validation (dB)")]
    drawn = []
    for name, title in panels:
        points = {r["step"]: float(r[name]) for r in records if isinstance(r.get(name), int | float)}
        finite = {step: value for step, value in sorted(points.items()) if np.isfinite(value)}
        drawn.append(_panel(np.array(list(finite)), np.array(list(finite.values())), title, smooth=name == "loss"))
    return np.concatenate(drawn)


def _panel(steps: np.ndarray, values: np.ndarray, title: str, smooth: bool) -> np.ndarray:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    _write(canvas, title, (LEFT, TOP - 14), 0.55)
    if not len(steps):
        _write(canvas, "nothing logged yet", (LEFT, HEIGHT // 2), 0.5)
        return canvas
    first, last = 0.0, max(1.0, float(steps.max()))
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    low, high = low - margin, high + margin
    for tick in np.linspace(0, 1, NUM_TICKS):
        x, y = round(LEFT + tick * (WIDTH - LEFT - RIGHT)), round(HEIGHT - BOTTOM - tick * (HEIGHT - TOP - BOTTOM))
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), GRID, 1)
        _write(canvas, f"{low + tick * (high - low):.4g}", (8, y + 4), 0.42)
        _write(canvas, f"{first + tick * (last - first):.0f}", (x - 18, HEIGHT - BOTTOM + 20), 0.42)
    _write(canvas, "step", (WIDTH // 2, HEIGHT - 10), 0.45)
    x = LEFT + (steps - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def curve(heights: np.ndarray, colour: tuple[int, int, int], thickness: int) -> None:
        y = HEIGHT - BOTTOM - (heights - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        line = np.stack([x, y], axis=1).round().astype(np.int32)
        cv2.polylines(canvas, [line[:, None]], False, colour, thickness, cv2.LINE_AA)
        if len(line) == 1:
            cv2.circle(canvas, (int(line[0, 0]), int(line[0, 1])), 3, colour, -1, cv2.LINE_AA)

    curve(values, CURVE if smooth else SMOOTH, 1 if smooth else 2)
    if smooth:
        curve(_running_mean(values), SMOOTH, 2)
    return canvas


def _running_mean(values: np.ndarray) -> np.ndarray:
    mean, weight, means = 0.0, 0.0, []
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(mean / weight)  # an unbiased start
    return np.array(means)


def _write(canvas: np.ndarray, text: str, place: tuple[int, int], size: float) -> None:
    cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)
