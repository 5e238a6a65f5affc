"""Does the doubt of a row tell how wrong its fill is? Through the whole command line, on photographs with known truth.

Usage: python benchmarks/doubt.py --data FOLDER... [--damage FOLDER] [--kinds KIND...] [--limit N] [--seed N]
                                  [-- OPTION...]   (options of `inpaint-batch run`)

Holes of each kind are drawn on every photograph and filled by `inpaint-batch run`. The error of a row is the root mean
square inside its hole, in steps of 255. Prints Markdown: how well doubt ranks the rows by error (Spearman's rank
correlation; beside it that of the share of the image that is hole), the error over the doubt (mean, and standard
deviation over the mean), and how many of the tenth with the largest errors are among the fifth with the largest doubts,
and with the largest holes; in the last line errors and doubts are those of the whole image, as `report` ranks them.
Everything runs at low priority.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from quality import NICENESS, restore

from inpaint_batch.evaluation import suites
from inpaint_batch.execution.ledger_lines import read_lines
from inpaint_batch.storage.paths import STATE_FOLDER

WORST, LOOKED_AT = 0.1, 0.2
"""Share of the rows that ought to be found, and share that a person looks at."""


class Row(NamedTuple):
    """One photograph with a hole."""

    doubt: float
    coverage: float
    """Share of it that is hole, 0..1."""
    error: float
    """Root mean square inside the hole, 0..255."""


def main() -> None:
    """Draw, fill, measure, print."""
    arguments = parse()
    os.nice(NICENESS)
    kinds = [kind for kind in arguments.kinds if kind != "damage" or arguments.damage]
    print("| holes | rows | ranked by doubt | by size | error / doubt | its spread | worst found by doubt | by size |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    by_kind = {kind: rows_of(kind, arguments) for kind in kinds}
    everything = [row for rows in by_kind.values() for row in rows]
    for kind, rows in (*by_kind.items(), ("all of them", everything)):
        print(line(kind, rows), flush=True)
    whole = [Row(row.doubt * row.coverage**0.5, row.coverage, row.error * row.coverage**0.5) for row in everything]
    print(line("all of them, over the whole image", whole))


def parse() -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders of undamaged photographs")
    parser.add_argument("--damage", type=Path, help="folder of damage elements; without it that kind is left out")
    parser.add_argument("--kinds", nargs="+", choices=suites.KINDS, default=["strokes_5_25", "boxes", "damage"])
    parser.add_argument("--limit", type=int, help="photographs per folder, evenly spread (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the holes (default 0)")
    parser.add_argument("run_options", nargs="*", help="after `--`: passed on to `inpaint-batch run`")
    return parser.parse_args()


def rows_of(kind: str, arguments: argparse.Namespace) -> list[Row]:
    """What became of all photographs with holes of that kind."""
    maker = suites.hole_maker(kind, arguments.damage)
    rows = []
    for data in arguments.data:
        photos = suites.find_photos(data, arguments.limit)
        with tempfile.TemporaryDirectory(prefix="doubt-") as folder:
            suite = suites.write_suite(kind, photos, Path(folder) / "suite", maker, seed=arguments.seed)
            restored = Path(folder) / "restored"
            restore(suite.manifest, restored, arguments.run_options)
            told = {each.output: each for each in read_lines(restored / STATE_FOLDER) if each.status == "done"}
            for item in suite.items:
                fill, truth = suites.read_rgb(restored / item.name), suites.read_rgb(item.truth)
                difference = fill[item.hole].astype(np.float64) - truth[item.hole]
                entry = told[item.name]
                if entry.doubt is None or entry.coverage is None:
                    raise SystemExit("the run tells no doubt: it takes --passes 2 or 4, and a real engine")
                rows.append(Row(entry.doubt, entry.coverage, float(np.sqrt(np.mean(difference**2)))))
    return rows


def line(name: str, rows: Sequence[Row]) -> str:
    """One line of the table."""
    doubt, coverage, error = np.array(rows).T
    ratio = error / np.maximum(doubt, 1e-9)
    worst = np.argsort(-error)[: max(1, round(WORST * len(rows)))]

    def found_by(order: NDArray[np.float64]) -> float:
        return float(np.isin(worst, np.argsort(-order)[: round(LOOKED_AT * len(rows))]).mean())

    return (
        f"| {name} | {len(rows)} | {rank_correlation(doubt, error):.2f} | {rank_correlation(coverage, error):.2f} "
        f"| {ratio.mean():.1f} | {ratio.std() / ratio.mean():.0%} | {found_by(doubt):.0%} | {found_by(coverage):.0%} |"
    )


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's: 1 where both put the rows in one order, 0 where neither tells of the other. Ties count by place."""
    ranks = [values.argsort(kind="stable").argsort(kind="stable") for values in (one, other)]
    return float(np.corrcoef(ranks)[0, 1])


if __name__ == "__main__":
    main()
