"""How well does `inpaint-batch mask` find damage? Real elements of it drawn over photographs, and clean ones.

Usage: python benchmarks/detector.py --data FOLDER --damage FOLDER [--limit N] [--crop PX] [--elements N]
       [--contrast C...] [--threshold T] [--max-doubt X]

Every photograph, or every piece cut from one, gets elements of each kind, which move samples by up to the contrast
(0..1 of the full range) towards white or black, all in one direction, with soft rims. They are a quarter of those in
the folder; the others are for tuning. Truth is what was changed by at least a quarter of the contrast. A found pixel is
right if truth lies within 2 px; a pixel of truth is found if the mask covers it. A mark is found, or right, if half of
it is. Prints Markdown; runs at low priority.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.evaluation.marks import MarkLibrary, count_marks, draw_marks, luma
from inpaint_batch.evaluation.suites import as_image, find_photos, read_rgb
from inpaint_batch.execution.trial_fill import TrialFill
from inpaint_batch.holes.detect import KINDS, DetectConfig, Detection, detect
from inpaint_batch.holes.distance import grow
from inpaint_batch.runtime.engine import Engine
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.types import BoolArray, Box, FloatArray

NICENESS = 10
CONTRASTS = (0.1, 0.2, 0.4)
TOLERANCE_PX = 2
CROPS = 9
"""Pieces of a photograph, three by three, evenly spread."""


@dataclass
class Score:
    """Counts of pixels and of marks, summed over photographs."""

    found: int = 0
    right: int = 0
    truth: int = 0
    covered: int = 0
    marks: int = 0
    marks_right: int = 0
    elements: int = 0
    elements_found: int = 0

    def add(self, hole: BoolArray, truth: BoolArray) -> None:
        """Count one photograph."""
        near = grow(truth, TOLERANCE_PX)
        self.found += int(hole.sum())
        self.right += int((hole & near).sum())
        self.truth += int(truth.sum())
        self.covered += int((hole & truth).sum())
        marks, marks_right = count_marks(hole, near)
        elements, elements_found = count_marks(truth, hole)
        self.marks, self.marks_right = self.marks + marks, self.marks_right + marks_right
        self.elements, self.elements_found = self.elements + elements, self.elements_found + elements_found

    @property
    def figures(self) -> tuple[float, float, float, float, float]:
        """Precision, recall and F1 of pixels; precision and recall of marks."""
        precision = self.right / self.found if self.found else 1.0
        recall = self.covered / self.truth if self.truth else 1.0
        f1 = 2 * precision * recall / max(precision + recall, 1e-9)
        return precision, recall, f1, self.marks_right / max(1, self.marks), self.elements_found / max(1, self.elements)


def main() -> None:
    """Draw, detect, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of undamaged photographs")
    parser.add_argument("--damage", type=Path, required=True, help="folder of damage elements, a folder for each sort")
    parser.add_argument("--limit", type=int, help="photographs, evenly spread (default: all)")
    parser.add_argument(
        "--crop", type=int, help=f"side in px of {CROPS} pieces of each photograph (default: all of it)"
    )
    parser.add_argument("--elements", type=int, default=1, help="of damage, in each picture (default 1)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="drawn and looked for")
    parser.add_argument("--contrast", type=float, nargs="+", default=list(CONTRASTS), help="of 1, the full range")
    parser.add_argument("--threshold", type=float, default=DetectConfig().threshold, help="of the detector")
    parser.add_argument("--max-doubt", type=float, default=DetectConfig().max_doubt, help="of a mark; 0: any")
    arguments = parser.parse_args()
    os.nice(NICENESS)
    cv2.setNumThreads(1)
    photos = find_photos(arguments.data, arguments.limit)
    library = MarkLibrary(arguments.damage, "test")
    pictures = list(pictures_of(photos, arguments.crop))
    settings = {"threshold": arguments.threshold, "max_doubt": arguments.max_doubt}
    told = f"threshold {arguments.threshold:g}, doubt up to {arguments.max_doubt or 255:g}"
    print(f"\n{arguments.data.name}: {len(pictures)} pictures, {told}\n")
    print(
        "| kind | contrast | precision | recall | F1 | marks right | marks found |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for kind in arguments.kinds:
        config = DetectConfig(kinds=(kind,), **settings)
        for contrast in arguments.contrast:
            score = score_of(pictures, config, contrast, library, arguments.elements)
            print(f"| {kind} | {contrast:g} | {' | '.join(f'{each:.3f}' for each in score.figures)} |", flush=True)
    print("\n| clean photographs | mean | median | 95 % | worst | nothing found | marks a megapixel | s a megapixel |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for kind in arguments.kinds:
        print(
            f"| {kind} | {clean_line(pictures, DetectConfig(kinds=(kind,), **settings))} |",
            flush=True,
        )


def pictures_of(photos: Sequence[Path], crop_px: int | None) -> Iterator[tuple[int, FloatArray]]:
    """A number that is always the same for it, and the samples of each photograph or of each of its pieces."""
    for photo in photos:
        number = zlib.crc32(photo.read_bytes())
        rgb = as_image(read_rgb(photo))
        if crop_px is None:
            yield number, rgb
            continue
        per_side = round(CROPS**0.5)
        for at in range(CROPS):
            top, left = (
                max(0, side - crop_px) * place // (per_side - 1)
                for side, place in zip(rgb.shape, divmod(at, per_side), strict=False)
            )
            yield number + at, rgb[top : top + crop_px, left : left + crop_px].copy()


def found_in(rgb: FloatArray, config: DetectConfig) -> Detection:
    """What `mask` finds in `rgb` (h, w, 3)."""
    if not config.max_doubt:
        return detect(luma(rgb), config)
    trial = TrialFill(engine(), TilingConfig(), config.max_doubt)

    def judge(tile: Box, marks: BoolArray) -> BoolArray:
        return trial.credible(lambda box: rgb[box.shift(tile.top, tile.left).slices], marks)

    return detect(luma(rgb), config, judge)


@cache
def engine() -> Engine:
    """That which `mask` fills on trial with, on one thread as the filters."""
    return select_engine("onnxruntime", passes=2, threads=1)


def score_of(
    pictures: Sequence[tuple[int, FloatArray]],
    config: DetectConfig,
    contrast: float,
    library: MarkLibrary,
    num_elements: int,
) -> Score:
    """Draw elements of the first kind of `config` over every picture and count what is found."""
    score = Score()
    kind = config.kinds[0]
    for number, rgb in pictures:
        rng = np.random.default_rng([zlib.crc32(kind.encode()), number])
        bright = bool(rng.integers(2))
        truth = np.zeros(rgb.shape[:2], np.bool_)
        for _ in range(num_elements):
            damaged = draw_marks(rgb, rng, library, kind, contrast, bright=bright)
            rgb, truth = damaged.rgb, truth | damaged.truth
        score.add(found_in(rgb, config).hole, truth)
    return score


def clean_line(pictures: Sequence[tuple[int, FloatArray]], config: DetectConfig) -> str:
    """The cells of a table: what is found where nothing was drawn."""
    percent = []
    num_marks = num_pixels = 0
    took_s = 0.0
    for _, rgb in pictures:
        start_s = time.process_time()
        found = found_in(rgb, config)
        took_s += time.process_time() - start_s
        percent.append(100 * found.coverage)
        num_marks += count_marks(found.hole, found.hole)[0]
        num_pixels += found.hole.size
    spread = (np.mean(percent), *np.percentile(percent, (50, 95, 100)))
    shares = " | ".join(f"{each:.2f} %" for each in spread)
    nothing = f"{sum(each == 0 for each in percent)} of {len(percent)}"
    return f"{shares} | {nothing} | {num_marks * 1e6 / num_pixels:.0f} | {took_s * 1e6 / num_pixels:.2f}"


if __name__ == "__main__":
    main()
