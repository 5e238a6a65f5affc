"""How well does `inpaint-batch mask` find damage? Real elements of it drawn over photographs, and clean ones.

Usage: python benchmarks/detector.py --data FOLDER --damage FOLDER [--limit N] [--contrast C...] [--threshold T]

Every photograph gets one element of each kind, brighter or darker than what lies below by the contrast (0..1 of the
full range), with soft rims. Truth is what was changed by at least a quarter of the contrast. A found pixel is right if
truth lies within 2 px; a pixel of truth is found if the mask covers it. Prints Markdown; runs at low priority.
"""

from __future__ import annotations

import argparse
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.evaluation.suites import as_image, find_photos, read_rgb
from inpaint_batch.holes.detect import KINDS, DetectConfig, detect
from inpaint_batch.holes.distance import grow

NICENESS = 10
ELEMENTS = {
    "scratches": ("scratches", "hair", "hair-short", "lint"),
    "dust": ("dirt", "spots", "sprinkles"),
    "stains": ("dots", "smut", "stain"),
}
"""Kind -> folders of elements."""
CONTRASTS = (0.1, 0.2, 0.4)
BLUR_PX = 0.5
TOLERANCE_PX = 2
MIN_TRUTH_PX = 20
NUM_TRIES = 20

Luma = NDArray[np.float32]
Truth = NDArray[np.bool_]


@dataclass
class Score:
    """Counts of pixels, summed over photographs."""

    found: int = 0
    right: int = 0
    truth: int = 0
    covered: int = 0

    def add(self, hole: Truth, truth: Truth) -> None:
        """Count one photograph."""
        self.found += int(hole.sum())
        self.right += int((hole & grow(truth, TOLERANCE_PX)).sum())
        self.truth += int(truth.sum())
        self.covered += int((hole & truth).sum())

    @property
    def figures(self) -> tuple[float, float, float]:
        """Precision, recall, F1."""
        precision = self.right / self.found if self.found else 1.0
        recall = self.covered / self.truth if self.truth else 1.0
        return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def main() -> None:
    """Draw, detect, count, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of undamaged photographs")
    parser.add_argument("--damage", type=Path, required=True, help="folder of damage elements, a folder for each sort")
    parser.add_argument("--limit", type=int, help="photographs, evenly spread (default: all)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="drawn and looked for")
    parser.add_argument("--contrast", type=float, nargs="+", default=list(CONTRASTS), help="of 1, the full range")
    parser.add_argument("--threshold", type=float, default=DetectConfig().threshold, help="of the detector")
    arguments = parser.parse_args()
    os.nice(NICENESS)
    cv2.setNumThreads(1)
    photos = find_photos(arguments.data, arguments.limit)
    print(f"\n{arguments.data.name}: {len(photos)} photographs, threshold {arguments.threshold:g}\n")
    print("| kind | contrast | precision | recall | F1 |\n|---|---:|---:|---:|---:|")
    for kind in arguments.kinds:
        config = DetectConfig(kinds=(kind,), threshold=arguments.threshold)
        for contrast in arguments.contrast:
            score = score_of(photos, config, contrast, arguments.damage)
            print(f"| {kind} | {contrast:g} | {' | '.join(f'{each:.3f}' for each in score.figures)} |", flush=True)
    print("\n| clean photographs | mean | median | 95 % | worst | nothing found |\n|---|---:|---:|---:|---:|---:|")
    for kind in arguments.kinds:
        config = DetectConfig(kinds=(kind,), threshold=arguments.threshold)
        percent = [100 * detect(luma(read_rgb(photo)), config).coverage for photo in photos]
        spread = np.percentile(percent, (50, 95, 100))
        cells = " | ".join(f"{each:.2f} %" for each in (np.mean(percent), *spread))
        print(f"| {kind} | {cells} | {sum(each == 0 for each in percent)} of {len(percent)} |", flush=True)


def score_of(photos: Sequence[Path], config: DetectConfig, contrast: float, damage: Path) -> Score:
    """Draw elements of the first kind of `config` over every photograph and count what is found."""
    score = Score()
    kind = config.kinds[0]
    for photo in photos:
        rng = np.random.default_rng([zlib.crc32(kind.encode()), zlib.crc32(photo.read_bytes())])
        damaged, truth = damage_photo(luma(read_rgb(photo)), rng, kind, contrast, damage)
        score.add(detect(damaged, config).hole, truth)
    return score


def damage_photo(grey: Luma, rng: np.random.Generator, kind: str, contrast: float, damage: Path) -> tuple[Luma, Truth]:
    """`grey` (h, w) with one element of the kind, rounded to 8 bits, and what was changed (h, w)."""
    sign = rng.choice((-1.0, 1.0))
    for _ in range(NUM_TRIES):
        elements = sorted((damage / rng.choice(ELEMENTS[kind])).glob("*.png"))
        alpha = placed(read_rgb(elements[rng.integers(len(elements))])[..., 0], rng, grey.shape[0], grey.shape[1])
        alpha = np.asarray(cv2.GaussianBlur(alpha, (0, 0), BLUR_PX), np.float32)
        damaged = np.rint(255 * np.clip(grey + np.float32(sign * contrast) * alpha, 0, 1)) / np.float32(255)
        truth = np.abs(damaged - grey) >= 0.25 * contrast
        if truth.sum() >= MIN_TRUTH_PX:
            return damaged.astype(np.float32), truth
    return grey, np.zeros(grey.shape, np.bool_)


def placed(element: NDArray[np.uint8], rng: np.random.Generator, height: int, width: int) -> Luma:
    """An element turned, mirrored and laid somewhere over (height, width), at its own size."""
    turned = np.rot90(element, rng.integers(4))[:: rng.choice((-1, 1))]
    rows, columns = np.nonzero(turned > 64)
    canvas = np.zeros((height, width), np.float32)
    if not rows.size:
        return canvas
    cut = turned[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    at = [int(rng.integers(min(0, room), max(0, room) + 1)) for room in (height - cut.shape[0], width - cut.shape[1])]
    top, left = (max(0, each) for each in at)
    part = cut[max(0, -at[0]) :, max(0, -at[1]) :][: height - top, : width - left]
    canvas[top : top + part.shape[0], left : left + part.shape[1]] = part / np.float32(255)
    return canvas


def luma(samples: NDArray[np.uint8]) -> Luma:
    """Grey 0..1 of RGB samples, as the detector gets it."""
    return np.asarray(cv2.cvtColor(as_image(samples), cv2.COLOR_RGB2GRAY), np.float32)


if __name__ == "__main__":
    main()
