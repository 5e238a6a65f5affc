"""Put before, hole and after side by side: one line per row of a manifest.

Usage: python benchmarks/contact_sheet.py manifests/demo.csv restored --sheet docs/images/demo.jpg

Finds results where the run put them (`output` column, else the path of the image). The suffix of the sheet decides its
format. Shows 8 bits; it is for looking, not for measuring.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.evaluation.suites import read_rgb

Samples = NDArray[np.uint8]
"""RGB, (height, width, 3)."""

GAP_PX = 6
LABEL_HEIGHT_PX = 24
HOLE_COLOUR = (214, 40, 120)
PAPER = 250
INK = 40
JPEG_QUALITY = 88


def main() -> None:
    """Read the manifest, find the results, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path, help="the folder that was given to `inpaint-batch run --output`")
    parser.add_argument("--sheet", type=Path, required=True, help="file to write, .jpg or .png")
    parser.add_argument("--width", type=int, default=300, help="width of a panel in pixels (default 300)")
    parser.add_argument("--limit", type=int, default=40, help="at most this many rows (default 40)")
    arguments = parser.parse_args()

    with arguments.manifest.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))[: arguments.limit]
    panels = [panels_of(row, arguments.manifest.parent, arguments.output) for row in rows]
    write_sheet(arguments.sheet, compose(panels, ("before", "hole", "after"), arguments.width))


def panels_of(row: dict[str, str], base: Path, output: Path) -> list[Samples]:
    """Before, hole and after of one row of a manifest that lies in `base`."""
    before = read_rgb(base / row["image"])
    marked = read_rgb(base / row["mask"])[..., 0] > int(row.get("mask_threshold") or 127)
    hole = ~marked if row.get("mask_polarity") == "black" else marked
    return [before, painted(before, hole), read_rgb(output / (row.get("output") or row["image"]))]


def painted(samples: Samples, hole: NDArray[np.bool_]) -> Samples:
    """A copy in which the hole stands out."""
    return np.where(hole[..., None], np.array(HOLE_COLOUR, np.uint8), samples)


def compose(rows: Sequence[Sequence[Samples]], labels: Sequence[str], width_px: int, num_groups: int = 1) -> Samples:
    """One sheet: every panel scaled to `width_px`, `num_groups` rows beside each other, labels on top."""
    starts = range(0, len(rows), num_groups)
    lines = [[fitted(panel, width_px) for row in rows[at : at + num_groups] for panel in row] for at in starts]
    num_columns = max(len(line) for line in lines)
    blank = np.full((1, width_px, 3), PAPER, np.uint8)
    header = [label(text, width_px) for text in list(labels) * num_groups][:num_columns]
    parts = [beside(line + [blank] * (num_columns - len(line))) for line in [header, *lines]]
    return np.vstack(parts)


def fitted(samples: Samples, width_px: int) -> Samples:
    """`samples` scaled to a width, keeping its shape."""
    height_px = max(1, round(samples.shape[0] * width_px / samples.shape[1]))
    method = cv2.INTER_AREA if width_px < samples.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(samples, (width_px, height_px), interpolation=method), np.uint8)


def label(text: str, width_px: int) -> Samples:
    """A strip of paper with a word on it."""
    strip = np.full((LABEL_HEIGHT_PX, width_px, 3), PAPER, np.uint8)
    cv2.putText(strip, text, (2, LABEL_HEIGHT_PX - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (INK,) * 3, 1, cv2.LINE_AA)
    return strip


def beside(panels: Sequence[Samples]) -> Samples:
    """Panels of one width in a line, on paper, aligned at the top."""
    height_px = max(panel.shape[0] for panel in panels)
    width_px = panels[0].shape[1]
    line = np.full((height_px + GAP_PX, len(panels) * (width_px + GAP_PX), 3), PAPER, np.uint8)
    for index, panel in enumerate(panels):
        left = index * (width_px + GAP_PX)
        line[: panel.shape[0], left : left + width_px] = panel
    return line


def write_sheet(path: Path, sheet: Samples) -> None:
    """Write the sheet in the format that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if path.suffix.lower() in (".jpg", ".jpeg") else []
    written, data = cv2.imencode(path.suffix, cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), options)
    if not written:
        raise SystemExit(f"cannot write {path}")
    path.write_bytes(data.tobytes())


if __name__ == "__main__":
    main()
