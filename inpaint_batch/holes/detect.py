"""Find scratches, dust and stains in an image by itself: classical filters, rather too little than too much.

What counts is how much a mark stands out against the texture around it, measured in the other polarity: a bright
scratch against what is darker than its surroundings there. Photographs have both, damage is mostly of one kind.

A judge may look at what was found (`execution.trial_fill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import ConfigError
from inpaint_batch.holes.distance import grow
from inpaint_batch.holes.lines import Lines, find_lines
from inpaint_batch.holes.specks import BLACK, WHITE, SpeckLimits, find_specks
from inpaint_batch.types import BoolArray, Box, FloatArray

KINDS = ("scratches", "dust", "stains")
"""Everything that can be found."""
JUDGED = ("scratches", "dust")
"""What a judge may look at: fills of holes as wide as stains are in doubt, whatever lies there."""
POLARITIES = ("bright", "dark", "both")
Polarity = Literal["bright", "dark", "both"]

MIN_CONTRAST = 0.006
"""Texture and noise below this count as this, 0..1."""
NOISE_OF_LINES = 0.25
"""Standard deviation of a line filter's response to white noise of 1."""
MAD_TO_SIGMA = 1.4826
WEAK = 0.65
"""A scratch goes on as far as this part of the threshold."""
MIN_ELONGATION = 6.0
"""Length over mean width, for scratches."""
MAX_WIDTH_PX = 4.0
MAX_WIDTH_PART = 1 / 64
"""Mean width of the widest scratch: the greater of so many pixels and so much of the shorter side of the image. What is
wider is mostly an object."""
MAX_OTHERS = 0.08
"""Lines of the other polarity that score as high, in length, over the lines that are taken."""
SPECK_FACTOR = 0.6
"""Threshold of specks over that of lines."""
MIN_DUST_AREA_PX = 4
STAIN_STEP = 4
"""Stains are sought at this part of the resolution, up to so many times the size of dust."""
PEAK_PART = 0.4
"""A pixel beside the middle of a scratch belongs to it if it has this part of its contrast."""
PEAK_REACH_PX = 9
GROUND_WINDOW_PX = 31
BORDER_PX = 4
MIN_SIDE_PX = 32
"""Nothing is found in an image that is smaller: there is nothing to compare with."""
TILE_PX = 2048
OVERLAP_PX = 160
"""How far tiles reach beyond their own part: a multiple of 4, so that halving twice meets the same pixels in each."""

Read = Callable[[Box], FloatArray]
"""Box of an image -> its grey (h, w), float32 0..1."""
Judge = Callable[[Box, BoolArray], BoolArray]
"""Box of an image, and what was found in it (h, w) -> what of that is taken."""


@dataclass(frozen=True, slots=True)
class DetectConfig:
    """What to look for. Raises ConfigError for values that cannot be."""

    kinds: tuple[str, ...] = ("scratches", "dust")
    """Some of KINDS."""
    threshold: float = 8.0
    """How often the contrast of a mark exceeds the texture and noise around it; higher finds less."""
    max_size_px: int = 12
    """Longest side of a speck of dust; stains are from this to four times as long."""
    min_length_px: int = 40
    """Length of the shortest scratch."""
    polarity: Polarity = "both"
    """Marks brighter than their surroundings, darker, or both."""
    dilate_px: int = 1
    """Grow what was found by so many pixels: marks have soft rims."""
    max_doubt: float = 2.5
    """Leave scratches and dust out whose fill is more in doubt than so many steps of 255; 0 leaves none out."""
    max_area: float = 0.2
    """More than this part of an image, 0..1, is rather what it shows: nothing is taken where more was found."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(f"kinds must be some of {', '.join(KINDS)}, not {', '.join(unknown) or 'nothing'}")
        if self.polarity not in POLARITIES:
            raise ConfigError(f"polarity must be one of {', '.join(POLARITIES)}, not {self.polarity!r}")
        for name, low, high in (
            ("threshold", 1, 100),
            ("max_size_px", 3, 60),
            ("min_length_px", 8, 10_000),
            ("dilate_px", 0, 64),
            ("max_doubt", 0, 255),
            ("max_area", 0.0001, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name.removesuffix('_px')} must be in {low}..{high}, not {value}")


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """What was found in one image."""

    hole: BoolArray
    """(h, w): everything found, grown by `dilate_px`; nothing where that is more than `max_area`."""
    coverage: float
    """Part of the image that was taken, grown, 0..1; where that is more than `max_area`, what was found."""
    num_px: dict[str, int]
    """Pixels of each kind that was looked for, before growing."""


def detect(grey: FloatArray, config: DetectConfig, judge: Judge | None = None) -> Detection:
    """Find damage in `grey` (h, w), float32 0..1."""
    return detect_in(lambda box: grey[box.slices], grey.shape[0], grey.shape[1], config, judge)


def detect_in(read: Read, height: int, width: int, config: DetectConfig, judge: Judge | None = None) -> Detection:
    """Find damage in an image of which only a tile of at most 2048 px a side is read at a time.

    Besides the map of what is found, a byte a pixel and as much again while it grows, the peak is some 350 MB.
    """
    hole = np.zeros((height, width), np.bool_)
    num_px = dict.fromkeys(config.kinds, 0)
    num_found_px = 0
    side_px = min(height, width)
    if side_px >= MIN_SIDE_PX:
        for tile, inner in _tiles(height, width):
            grey = read(tile)
            own = inner.shift(-tile.top, -tile.left).slices
            found = {kind: _FINDERS[kind](grey, side_px, config) for kind in config.kinds}
            everything = _grown(np.logical_or.reduce(list(found.values())), config.dilate_px)
            num_found_px += int(np.count_nonzero(everything[own]))
            if judge is not None:
                _have_judged(found, partial(judge, tile), config.dilate_px)
            for kind, pixels in found.items():
                num_px[kind] += int(np.count_nonzero(pixels[own]))
                hole[inner.slices] |= pixels[own]
    if num_found_px > config.max_area * hole.size:
        return Detection(np.zeros_like(hole), num_found_px / hole.size, num_px)
    hole = _grown(hole, config.dilate_px)
    return Detection(hole, float(np.count_nonzero(hole)) / hole.size, num_px)


def _have_judged(found: Mapping[str, BoolArray], judge: Callable[[BoolArray], BoolArray], dilate_px: int) -> None:
    """Leave in `found` only what `judge` takes of the marks as they will be filled."""
    judged = [found[kind] for kind in JUDGED if kind in found]
    marks = _grown(np.logical_or.reduce(judged), dilate_px) if judged else np.zeros((0, 0), np.bool_)
    if marks.any():
        taken = judge(marks)
        for pixels in judged:
            pixels &= taken


def _grown(found: BoolArray, by_px: int) -> BoolArray:
    return np.asarray(grow(found, by_px)) if by_px else found


def noise_sigma(grey: FloatArray) -> float:
    """Standard deviation of the noise of `grey` (h, w), by the median absolute second difference; 0 if it is tiny."""
    if min(grey.shape) < 3:
        return 0.0
    step = max(1, grey.shape[0] // 1000)
    rows = grey[::step]
    second = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(MAD_TO_SIGMA * np.median(np.abs(second)) / np.sqrt(6))


def _scratches(grey: FloatArray, side_px: int, config: DetectConfig) -> BoolArray:
    floor = max(MIN_CONTRAST, NOISE_OF_LINES * noise_sigma(grey))
    lines = find_lines(grey, floor, side_px)
    ground = np.asarray(cv2.medianBlur(np.rint(grey * 255).astype(np.uint8), GROUND_WINDOW_PX), np.uint8)
    # In paper that is clipped to white nothing brighter can tell how much of what is darker is texture.
    for each, unclipped in zip(lines, (ground > 255 * BLACK, ground < 255 * WHITE), strict=True):
        each.ridge[...] &= unclipped
        _clear_border(each.ridge, BORDER_PX)  # there only one side of a line is known
    bright, dark = (_candidates(each, config) for each in lines)
    found = np.zeros(grey.shape, np.bool_)
    for number in _polarities(config):
        long = _credible(*((bright, dark), (dark, bright))[number])
        if long.any():
            ridge = lines[number].ridge
            trimmed = _trimmed(long, ridge, grey, ground, bright=number == 0)
            found |= _thin(trimmed, long & ridge, max(MAX_WIDTH_PX, side_px * MAX_WIDTH_PART))
    return found


def _clear_border(ridge: BoolArray, width_px: int) -> None:
    ridge[:width_px] = ridge[-width_px:] = False
    ridge[:, :width_px] = ridge[:, -width_px:] = False


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Lines of one polarity, each a label from 1 on."""

    labels: NDArray[np.int32]
    lengths: NDArray[np.int64]
    scores: NDArray[np.float64]
    """0 where a label is not a line."""


def _candidates(lines: Lines, config: DetectConfig) -> _Candidates:
    """Hysteresis: connected pixels above the weak threshold that are long, thin, and in part above the threshold."""
    weak = lines.prominence >= WEAK * config.threshold
    num, labels = cv2.connectedComponents(weak.view(np.uint8), connectivity=8)
    spine = weak & lines.ridge
    strong = lines.ridge & (lines.prominence >= config.threshold)
    areas, lengths, strong_lengths = (np.bincount(labels[pixels], minlength=num) for pixels in (weak, spine, strong))
    sums = np.bincount(labels[spine], lines.prominence[spine], minlength=num)
    wanted = (
        (lengths >= config.min_length_px)
        & (strong_lengths >= config.min_length_px / 2)
        & (lengths * lengths >= MIN_ELONGATION * areas)
    )
    wanted[0] = False
    scores = np.where(wanted, sums / np.sqrt(np.maximum(lengths, 1)), 0)  # mean prominence times root of length
    return _Candidates(np.asarray(labels, np.int32), lengths, scores)


def _credible(own: _Candidates, other: _Candidates) -> BoolArray:
    """The pixels of the lines in `own` that `other` cannot explain.

    Branches, wires and wrinkles come bright and dark. So lines of the other polarity tell how many of ours are no
    damage: as many of ours are taken, best first, as leave the others a part of MAX_OTHERS in length.
    """
    order = np.argsort(-own.scores, kind="stable")
    order = order[own.scores[order] > 0]
    num_own_px = np.cumsum(own.lengths[order])
    by_score = np.sort(other.scores)
    rank = np.argsort(other.scores, kind="stable")
    others_px = np.concatenate([np.cumsum(other.lengths[rank][::-1])[::-1], [0]])
    num_other_px = others_px[np.searchsorted(by_score, own.scores[order])]
    good = np.flatnonzero(num_other_px <= MAX_OTHERS * num_own_px)
    wanted = np.zeros(len(own.scores), np.bool_)
    if good.size:
        wanted[order[: good[-1] + 1]] = True
    return np.asarray(wanted[own.labels], np.bool_)


def _trimmed(
    long: BoolArray, ridge: BoolArray, grey: FloatArray, ground: NDArray[np.uint8], *, bright: bool
) -> BoolArray:
    """The pixels of and beside `long` that have enough of its contrast. The filters are wider than what they find."""
    kernel = np.ones((PEAK_REACH_PX, PEAK_REACH_PX), np.uint8)
    near = cv2.dilate(long.view(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    contrast = grey - ground.astype(np.float32) / np.float32(255)
    if not bright:
        np.negative(contrast, out=contrast)
    middle = long & ridge
    peak = cv2.dilate(np.where(middle, contrast, np.float32(-1)), kernel)
    trimmed = (near & (contrast >= PEAK_PART * peak) & (peak > 0)) | middle
    closed = cv2.morphologyEx(trimmed.view(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    return closed.astype(np.bool_)


def _thin(trimmed: BoolArray, spine: BoolArray, max_width_px: float) -> BoolArray:
    """The components of `trimmed` that are on average no wider than `max_width_px`."""
    num, labels = cv2.connectedComponents(trimmed.view(np.uint8), connectivity=8)
    areas, lengths = (np.bincount(labels[pixels], minlength=num) for pixels in (trimmed, trimmed & spine))
    wanted = areas <= max_width_px * lengths
    wanted[0] = False
    return np.asarray(wanted[labels], np.bool_)


def _dust(grey: FloatArray, side_px: int, config: DetectConfig) -> BoolArray:
    del side_px
    floor = max(MIN_CONTRAST, noise_sigma(grey))
    limits = SpeckLimits(SPECK_FACTOR * config.threshold, floor, MIN_DUST_AREA_PX, 1, config.max_size_px)
    return _specks(grey, config, limits)


def _stains(grey: FloatArray, side_px: int, config: DetectConfig) -> BoolArray:
    del side_px
    size = (max(1, grey.shape[1] // STAIN_STEP), max(1, grey.shape[0] // STAIN_STEP))
    small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.float32)
    least_px = max(2, config.max_size_px // STAIN_STEP)
    limits = SpeckLimits(
        SPECK_FACTOR * config.threshold, MIN_CONTRAST, least_px * least_px // 2, least_px, config.max_size_px
    )
    found = _specks(small, config, limits).astype(np.float32)
    return np.asarray(cv2.resize(found, grey.shape[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5, np.bool_)


_FINDERS = {"scratches": _scratches, "dust": _dust, "stains": _stains}


def _specks(grey: FloatArray, config: DetectConfig, limits: SpeckLimits) -> BoolArray:
    specks = find_specks(grey, limits)
    return np.asarray(np.logical_or.reduce([specks[number] for number in _polarities(config)]), np.bool_)


def _polarities(config: DetectConfig) -> tuple[int, ...]:
    return {"bright": (0,), "dark": (1,), "both": (0, 1)}[config.polarity]


def _tiles(height: int, width: int) -> Iterator[tuple[Box, Box]]:
    """Tiles that overlap, and the part of each that is its own."""
    image = Box(0, 0, height, width)
    for top, bottom in _spans(height):
        for left, right in _spans(width):
            inner = Box(top, left, bottom - top, right - left)
            yield inner.expand(OVERLAP_PX).intersect(image), inner


def _spans(length: int) -> Iterator[tuple[int, int]]:
    step = TILE_PX if length <= TILE_PX else TILE_PX - 2 * OVERLAP_PX
    for start in range(0, length, step):
        yield start, min(length, start + step)
