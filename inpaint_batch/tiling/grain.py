"""Grain: a fill is smooth, a scan is not. The noise of the surroundings is measured and drawn again inside the hole.

Noise is told from structure in three ways. Its fourth differences are taken, which leave nothing of slopes and little
of soft shapes; only the flattest quarter of all blocks is looked at; and what is far out does not count. How the
channels go together is a 3 × 3 covariance, how neighbouring pixels do is the width of a Gaussian, found by comparing
differences of near pixels with those of farther ones. Where these go on growing with the distance they are texture,
such as fur, and only what near pixels tell is taken. Noise is also nearly the same in all blocks: where it is not,
only as much is taken as a quiet one has. What the fill has of its own is taken off.

The noise of one pixel depends on the row and the pixel's place, never on how the work was cut or shared.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.sampling import evenly
from inpaint_batch.tiling.pyramid import ReadRGB
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

RING_PX = 40
"""How far around a piece of the fill its surroundings reach."""
MAX_PIECES = 8
"""Pieces of one window that are looked at; more would not make the measure better, but a large hole slow."""
MIN_SAMPLES = 400
MIN_STEPS = 0.25
"""Noise of less than this part of a step of the file is none."""
_NEAR_PX, _FAR_PX, _BEYOND_PX = 1, 3, 5
"""Distances of the pixels whose differences are taken."""
_DIFFERENCE = (1.0, -4.0, 6.0, -4.0, 1.0)
_LAGS = (70.0, -112.0, 56.0, -16.0, 2.0)
"""Its variance for a unit of noise: these weights times the correlations at 0, 1, 2, 3 and 4 times the distance."""
_TEXTURE = 1.5
"""Variance beyond over that of far: noise of any spread that is told has levelled off there."""
_BLOCK_PX = 8
_FLAT_PART = 0.25
_QUIET_PART, _QUIET_NORMAL = 0.05, -1.6449
"""So many blocks are quiet; of a normal distribution so many lie below."""
_UNEVEN = 0.85
"""Quiet blocks of noise may have less than they should by this factor: few are seen, and film is not quite even."""
_CLIP = 3.0
_CLIPPED_VARIANCE = 0.9733
"""Of a unit normal distribution cut at +-3."""
_SPREADS_PX = np.linspace(0.0, 1.2, 49)
_NOISE_BLOCK_PX = 128


@dataclass(frozen=True, slots=True, eq=False)
class Grain:
    """Noise to be added."""

    mixing: FloatArray
    """(3, 3): times independent unit noise, it gives noise with the covariance that is wanted, in RGB of 0..1."""
    spread_px: float
    """Standard deviation of the Gaussian that white noise is blurred with; 0: white."""


def surrounding_grain(
    read_rgb: ReadRGB, hole: BoolMap, pieces: Sequence[tuple[Box, FloatArray, BoolArray]], step: float
) -> Grain | None:
    """The noise that the fill of a window lacks, compared with what surrounds it; None where that is none.

    `pieces` are box, RGB (h, w, 3) and hole (h, w) of the fill; `step` is one step of the file's samples in RGB of
    0..1, whose rounding is not noise.
    """
    image = Box(0, 0, hole.shape[0], hole.shape[1])
    known, filled = _Differences(), _Differences()
    for box, rgb, inside in evenly(pieces, MAX_PIECES):
        around = box.expand(RING_PX).intersect(image)
        seen = read_rgb(around)
        absent = np.isnan(seen[..., 0])
        known.add(np.where(absent[..., None], np.float32(0), seen), ~(np.asarray(hole[around.slices]) | absent))
        filled.add(rgb, inside)
    found = known.covariance()
    if found is None:
        return None
    covariance, spread_px = found
    rounding = step**2 / 12 * (np.ones((3, 3)) if _is_grey(covariance) else np.eye(3))
    own = filled.covariance()
    missing = covariance - rounding - (own[0] if own is not None else 0)
    strengths, directions = np.linalg.eigh(missing)
    strengths = np.maximum(strengths, 0)
    if math.sqrt(strengths.sum() / 3) < max(MIN_STEPS * step, 1e-9):
        return None
    return Grain((directions * np.sqrt(strengths)).astype(np.float32), spread_px)


def add_grain(rgb: FloatArray, box: Box, grain: Grain, row_id: str, weight: FloatArray) -> FloatArray:
    """`rgb` (h, w, 3), which lies at `box` in its image, with noise; `weight` (h, w) is the share of the fill in it.

    Where fill and source are mixed, the source brings a part of its own noise, and so much less is added.
    """
    amount = np.sqrt(np.maximum(0, 1 - np.square(1 - weight)))[..., None] * (weight > 0)[..., None]
    noise = _blurred(row_id, box, grain.spread_px) @ grain.mixing.T
    return np.asarray(rgb + amount * noise, np.float32)


class _Differences:
    """Fourth differences of one or more regions, near, far and beyond."""

    def __init__(self) -> None:
        self._found: dict[int, list[FloatArray]] = {_NEAR_PX: [], _FAR_PX: [], _BEYOND_PX: []}
        self._blocks: list[FloatArray] = []
        """Mean square of the near differences, one number a block."""

    def add(self, rgb: FloatArray, usable: BoolArray) -> None:
        """Take in those of the flattest part of a region (h, w, 3), of pixels that are all `usable` (h, w)."""
        flat = usable & _flattest(rgb, usable)
        for distance_px, kept in self._found.items():
            for axis in (0, 1):
                length = rgb.shape[axis] - 4 * distance_px
                if length <= 0:
                    continue
                parts = [np.arange(length) + index * distance_px for index in range(5)]
                values = np.asarray(
                    sum(weight * rgb.take(part, axis) for weight, part in zip(_DIFFERENCE, parts, strict=True))
                )
                whole = np.logical_and.reduce([flat.take(part, axis) for part in parts])
                kept.append(values[whole])
                if distance_px == _NEAR_PX:
                    self._blocks.append(_block_energies(values, whole))

    def covariance(self) -> tuple[NDArray[np.float64], float] | None:
        """Covariance (3, 3) of the noise and its spread in pixels; None where there is too little to tell."""
        found = [np.concatenate([np.empty((0, 3)), *kept]) for kept in self._found.values()]
        if len(found[0]) < MIN_SAMPLES:
            return None
        near, far, beyond = (_robust_covariance(values) if len(values) >= MIN_SAMPLES else None for values in found)
        assert near is not None
        blocks = np.concatenate(self._blocks)
        quiet = float(np.quantile(blocks, _QUIET_PART)) if blocks.size else 0.0
        if far is None or not np.trace(far) or (beyond is not None and np.trace(beyond) > _TEXTURE * np.trace(far)):
            return _evenness(quiet, near, 0.0) * near / _gain(0.0, _NEAR_PX), 0.0
        spread_px = _spread(np.trace(near) / np.trace(far))
        return _evenness(quiet, near, spread_px) * far / _gain(spread_px, _FAR_PX), spread_px


def _flattest(rgb: FloatArray, usable: BoolArray) -> BoolArray:
    """(h, w): true in those blocks whose mean differs least from those of their neighbours."""
    rows, columns = rgb.shape[0] // _BLOCK_PX, rgb.shape[1] // _BLOCK_PX
    flat = np.zeros(usable.shape, np.bool_)
    if rows < 2 or columns < 2:
        return ~flat
    cut = np.s_[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    shape = (rows, _BLOCK_PX, columns, _BLOCK_PX)
    known = usable[cut].reshape(shape).sum(axis=(1, 3))
    grey = np.where(usable, rgb.mean(axis=2), 0)[cut].reshape(shape).sum(axis=(1, 3)) / np.maximum(known, 1)
    change = np.zeros((rows, columns))
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        both = np.minimum(known[here], known[there]) > 0
        step = np.abs(grey[here] - grey[there]) * both
        change[here] = np.maximum(change[here], step)
        change[there] = np.maximum(change[there], step)
    limit = np.quantile(change[known > 0], _FLAT_PART) if known.any() else np.inf
    is_flat = change <= limit
    flat[cut] = np.repeat(np.repeat(is_flat, _BLOCK_PX, axis=0), _BLOCK_PX, axis=1)
    return flat


def _block_energies(values: FloatArray, usable: BoolArray) -> FloatArray:
    """Mean of the squares of (h, w, 3) differences, summed over channels, in each block that is mostly `usable`."""
    rows, columns = usable.shape[0] // _BLOCK_PX, usable.shape[1] // _BLOCK_PX
    cut = np.s_[: rows * _BLOCK_PX, : columns * _BLOCK_PX]
    shape = (rows, _BLOCK_PX, columns, _BLOCK_PX)
    counts = usable[cut].reshape(shape).sum(axis=(1, 3))
    energies = (np.square(values).sum(axis=2) * usable)[cut].reshape(shape).sum(axis=(1, 3))
    full = counts >= _BLOCK_PX**2 // 2
    return np.asarray(energies[full] / counts[full])


def _robust_covariance(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Covariance of (n, 3) values about zero, those that are far out left aside."""
    scale = np.quantile(np.abs(values), 0.6827, axis=0)
    for _ in range(3):
        kept = values[(np.abs(values) <= _CLIP * scale).all(axis=1)]
        if len(kept) < MIN_SAMPLES // 2:
            break
        covariance: NDArray[np.float64] = kept.T @ kept / len(kept) / _CLIPPED_VARIANCE
        scale = np.sqrt(np.diag(covariance))
    else:
        return covariance
    return np.zeros((3, 3))


def _evenness(quiet: float, covariance: NDArray[np.float64], spread_px: float) -> float:
    """0..1: how much of what is seen a quiet block has, whose mean square is `quiet`, of what it would have of noise of
    this covariance and spread. Noise in one channel, or coarse, differs more from block to block.
    """
    mean = float(np.trace(covariance))
    if mean <= 0:
        return 0.0
    num_channels = mean**2 / float(np.square(covariance).sum())  # that go their own ways, 1..3
    freedom = num_channels * _freedom(spread_px)
    step = 2 / (9 * freedom)  # chi-square by Wilson and Hilferty
    share = max(0.0, 1 - step + _QUIET_NORMAL * math.sqrt(step)) ** 3
    return min(1.0, quiet / mean / (_UNEVEN * share))


@cache
def _freedom(spread_px: float) -> float:
    """How many independent squares the mean over a block of near differences is worth, in one channel."""
    kernel = _kernel(spread_px)
    across = np.correlate(kernel, kernel, "full")
    along = np.convolve(across, np.correlate(_DIFFERENCE, _DIFFERENCE, "full"))
    pairs = 1.0
    for correlation in (across, along):
        lags = np.abs(np.arange(len(correlation)) - len(correlation) // 2)
        squares = np.square(correlation / correlation.max())
        pairs *= float((squares * np.maximum(0, _BLOCK_PX - lags)).sum())
    return _BLOCK_PX**4 / pairs


def _kernel(spread_px: float) -> NDArray[np.float64]:
    """Weights of the blur; the squares add up to 1, so that unit noise stays unit noise."""
    if spread_px <= 0:
        return np.ones(1)
    reach = math.ceil(3 * spread_px)
    weights = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / spread_px))
    return np.asarray(weights / np.sqrt(np.square(weights).sum()))


def _gain(spread_px: float, distance_px: int) -> float:
    """Variance of the fourth difference at this distance, for unit noise of this spread."""
    kernel = _kernel(spread_px)
    correlation = np.correlate(kernel, kernel, "full")[len(kernel) - 1 :]
    lags = [correlation[index * distance_px] if index * distance_px < len(kernel) else 0.0 for index in range(5)]
    return float(np.dot(_LAGS, lags))


_RATIOS = np.array([_gain(spread, _NEAR_PX) / _gain(spread, _FAR_PX) for spread in _SPREADS_PX])


def _spread(ratio: float) -> float:
    """The spread at which near differences are so much smaller than far ones; rounded, so that it is one number."""
    return round(float(np.interp(-ratio, -_RATIOS, _SPREADS_PX)), 2)


def _is_grey(covariance: NDArray[np.float64]) -> bool:
    """Whether all channels are one."""
    return bool(np.ptp(covariance) <= 1e-6 * max(float(np.abs(covariance).max()), 1e-30))


def _blurred(row_id: str, box: Box, spread_px: float) -> FloatArray:
    """(h, w, 3) unit noise at `box`, blurred; the same at every pixel whatever the box."""
    kernel = _kernel(spread_px).astype(np.float32)
    reach = len(kernel) // 2
    noise = _white(row_id, box.expand(reach))
    for axis, length in ((0, box.height), (1, box.width)):
        noise = sum(
            weight * noise.take(np.arange(index, index + length), axis) for index, weight in enumerate(kernel)
        )  # in this order everywhere: the same sum at every pixel
    return noise


def _white(row_id: str, box: Box) -> FloatArray:
    key = int.from_bytes(hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=16).digest(), "big")
    noise = np.empty((box.height, box.width, 3), np.float32)
    side = _NOISE_BLOCK_PX
    for row in range(box.top // side, -(-box.bottom // side)):
        for column in range(box.left // side, -(-box.right // side)):
            # Negative ones, beyond the image, are blocks like any other.
            place = [0, 0, row % (1 << 32), column % (1 << 32)]
            values = np.random.Generator(np.random.Philox(key=key, counter=place))
            block = Box(row * side, column * side, side, side)
            common = block.intersect(box)
            drawn = values.standard_normal((side, side, 3), np.float32)
            noise[common.shift(-box.top, -box.left).slices] = drawn[common.shift(-block.top, -block.left).slices]
    return noise
