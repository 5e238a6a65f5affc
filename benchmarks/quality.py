"""How good are the fills? The whole command line against OpenCV's classical methods, on photographs with known truth.

Usage: python benchmarks/quality.py --data FOLDER... [--damage FOLDER] [--limit N] [--json FILE] [--sheet FILE]
                                     [-- OPTION...]   (options of `inpaint-batch run`)

For each folder of photographs and each kind of hole a suite is written to a temporary folder, with the hole painted
mid-grey; `inpaint-batch run` restores it in a process of its own; Telea and Navier-Stokes (radius 3) fill the same
holes. Prints Markdown. Everything runs at low priority.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import contact_sheet
import cv2
import numpy as np

from inpaint_batch.evaluation import suites
from inpaint_batch.evaluation.metrics import FillMetrics, measure
from inpaint_batch.evaluation.tables import Results, markdown, mean_metrics

OURS = "inpaint-batch"
RADIUS_PX = 3
NICENESS = 15
NUM_ON_SHEET = 40
PANELS = ("hole", "OpenCV NS", OURS, "truth")
SHEET_PANEL_PX = 192
SHEET_GROUPS = 2

CLASSICAL: Mapping[str, int] = {"OpenCV Telea": cv2.INPAINT_TELEA, "OpenCV NS": cv2.INPAINT_NS}


def main() -> None:
    """Build the suites, run, measure, print."""
    arguments = parse()
    os.nice(NICENESS)
    kinds = [kind for kind in arguments.kinds if kind != "damage" or arguments.damage]
    num_on_sheet = math.ceil(NUM_ON_SHEET / (len(kinds) * len(arguments.data))) if arguments.sheet else 0
    report: dict[str, Results] = {}
    panels: list[list[contact_sheet.Samples]] = []
    for data in arguments.data:
        photos = suites.find_photos(data, arguments.limit)
        per_kind: dict[str, dict[str, list[FillMetrics]]] = {}
        for number, kind in enumerate(kinds):
            maker = suites.hole_maker(kind, arguments.damage)
            with tempfile.TemporaryDirectory(prefix="quality-") as folder:
                suite = suites.write_suite(kind, photos, Path(folder) / "suite", maker, seed=arguments.seed)
                restore(suite.manifest, Path(folder) / "restored", arguments.run_options)
                per_kind[kind], fills = compare(suite, Path(folder) / "restored", num_on_sheet, number)
                panels += fills
        report[data.name] = per_kind
        print(f"\n### {data.name}: {len(photos)} photographs, seed {arguments.seed}\n\n{markdown(per_kind, OURS)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(report, arguments), indent=1) + "\n")
    if arguments.sheet:
        sheet = contact_sheet.compose(panels[:NUM_ON_SHEET], PANELS, SHEET_PANEL_PX, SHEET_GROUPS)
        contact_sheet.write_sheet(arguments.sheet, sheet)


def parse() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of undamaged photographs")
    parser.add_argument("--damage", type=Path, help="folder of damage elements; without it that kind is left out")
    parser.add_argument("--kinds", nargs="+", choices=suites.KINDS, default=list(suites.KINDS))
    parser.add_argument("--limit", type=int, help="photographs per folder, evenly spread (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the holes (default 0)")
    parser.add_argument("--json", type=Path, help="also write every number to this file")
    parser.add_argument("--sheet", type=Path, help=f"also write a contact sheet of {NUM_ON_SHEET} (.jpg or .png)")
    parser.add_argument("run_options", nargs="*", help="after `--`: passed on to `inpaint-batch run`")
    return parser.parse_args()


def restore(manifest: Path, output: Path, options: Sequence[str]) -> None:
    """Run the real command line; ends this script with its exit code where it fails."""
    start = "import sys; from inpaint_batch.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-c", start, "run", str(manifest), "--output", str(output), *options]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise SystemExit(done.returncode)
    print(f"{manifest.parent}: restored in {time.perf_counter() - begun:.1f} s", file=sys.stderr)


def compare(
    suite: suites.Suite, restored: Path, num_panels: int = 0, first_panel: int = 0
) -> tuple[dict[str, list[FillMetrics]], list[list[contact_sheet.Samples]]]:
    """Metrics per method, in the order of the items, and panels for the sheet of `num_panels` items, evenly spread from
    item `first_panel` on."""
    measured: dict[str, list[FillMetrics]] = {name: [] for name in (*CLASSICAL, OURS)}
    panels = []
    num_items = len(suite.items)
    on_sheet = {(first_panel + index * num_items // num_panels) % num_items for index in range(num_panels)}
    for index, item in enumerate(suite.items):
        damaged = suites.read_rgb(suite.manifest.parent / "images" / item.name)
        fills = {name: classical(damaged, item, method) for name, method in CLASSICAL.items()}
        fills[OURS] = suites.read_rgb(restored / item.name)
        truth = suites.read_rgb(item.truth)
        if (fills[OURS][~item.hole] != truth[~item.hole]).any():
            raise SystemExit(f"{item.name}: a known sample was changed")
        for name, fill in fills.items():
            measured[name].append(measure(suites.as_image(fill), suites.as_image(truth), item.hole))
        if index in on_sheet:
            panels.append([contact_sheet.painted(truth, item.hole), fills["OpenCV NS"], fills[OURS], truth])
    return measured, panels


def classical(damaged: contact_sheet.Samples, item: suites.SuiteItem, method: int) -> contact_sheet.Samples:
    """The hole filled by OpenCV."""
    return np.asarray(cv2.inpaint(damaged, item.hole.astype(np.uint8), RADIUS_PX, method), np.uint8)


def as_json(report: Mapping[str, Results], arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that was measured; infinities and missing values become null."""

    def numbers(metrics: FillMetrics) -> dict[str, float | None]:
        return {name: value if math.isfinite(value) else None for name, value in asdict(metrics).items()}

    return {
        "settings": {"seed": arguments.seed, "limit": arguments.limit, "run_options": arguments.run_options},
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__},
        "results": {
            data: {
                kind: {
                    method: {"mean": numbers(mean_metrics(all_of)), "images": [numbers(one) for one in all_of]}
                    for method, all_of in methods.items()
                }
                for kind, methods in kinds.items()
            }
            for data, kinds in report.items()
        },
    }


if __name__ == "__main__":
    main()
