"""From many measured fills to a table: means, and what one method gains over the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

import numpy as np

from inpaint_batch.evaluation.metrics import FillMetrics

Results = Mapping[str, Mapping[str, Sequence[FillMetrics]]]
"""Kind of hole -> method -> one entry per image, the images in the same order for every method."""

HEADINGS = ("holes", "method", "images", "PSNR in hole, dB", "rim, dB", "SSIM", "L1 in hole", "gain in hole, dB")


@dataclass(frozen=True, slots=True)
class Gain:
    """How much better one method is than another, image by image, in dB of PSNR inside the hole."""

    mean_db: float
    standard_error_db: float
    """Of that mean; NaN for fewer than two images."""


def mean_metrics(metrics: Sequence[FillMetrics]) -> FillMetrics:
    """The mean of each metric; an image without a value (NaN, no rim) is left out of that mean.

    Raises ValueError for no images.
    """
    if not metrics:
        raise ValueError("no images: there is no mean")
    values = np.array([astuple(one) for one in metrics], dtype=np.float64)
    columns = [column[~np.isnan(column)] for column in values.T]
    return FillMetrics(*(float(column.mean()) if column.size else math.nan for column in columns))


def gain(ours: Sequence[FillMetrics], others: Sequence[FillMetrics]) -> Gain:
    """The paired difference of `hole_psnr_db`. Raises ValueError where the two do not have the same images."""
    if len(ours) != len(others):
        raise ValueError(f"{len(ours)} and {len(others)} images cannot be paired")
    pairs = [(a.hole_psnr_db, b.hole_psnr_db) for a, b in zip(ours, others, strict=True)]
    differences = np.array([a - b if a != b else 0.0 for a, b in pairs])  # both may be infinite
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else math.nan
    return Gain(float(differences.mean()), spread / math.sqrt(len(differences)))


def best_other(methods: Mapping[str, Sequence[FillMetrics]], ours: str) -> str:
    """The method other than `ours` with the highest mean PSNR inside the hole."""
    others = [name for name in methods if name != ours]
    return max(others, key=lambda name: mean_metrics(methods[name]).hole_psnr_db)


def markdown(results: Results, ours: str) -> str:
    """A Markdown table, one line per kind and method; the line of `ours` ends with its gain over the best other one."""
    lines = [_line(HEADINGS), _line(["---"] * 2 + ["---:"] * (len(HEADINGS) - 2))]
    for kind, methods in results.items():
        for name, metrics in methods.items():
            mean = mean_metrics(metrics)
            cells = [kind, name, str(len(metrics)), f"{mean.hole_psnr_db:.2f}", f"{mean.rim_psnr_db:.2f}"]
            cells += [f"{mean.ssim:.4f}", f"{mean.hole_l1:.4f}"]
            if name == ours and len(methods) > 1:
                other = best_other(methods, ours)
                advantage = gain(metrics, methods[other])
                cells.append(f"{advantage.mean_db:+.2f} ± {advantage.standard_error_db:.2f} over {other}")
            else:
                cells.append("")
            lines.append(_line(cells))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
