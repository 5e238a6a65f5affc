"""The doubt of a row: the same wherever it is done, told beside its result, and more where fills can only guess."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gallery import Gallery, ledger_lines, run

from inpaint_batch.execution.fill import _counted
from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.tiling.fill import FillSteps, TileRequest
from inpaint_batch.types import Box

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import doubt  # noqa: E402


def doubts(output: Path) -> dict[str, float | None]:
    return {line["id"]: line.get("doubt") for line in ledger_lines(output) if line["status"] == "done"}


def test_it_is_the_same_however_a_row_is_done(gallery: Gallery, tmp_path: Path) -> None:
    for number in range(3):
        gallery.add(f"{number}.png", side=96, hole=(10, 10, 20 + 20 * number, 30))
    manifest = gallery.manifest()
    run(manifest, tmp_path / "together", engine="auto", passes=2, sidecar=True)
    told = doubts(tmp_path / "together")
    assert all(value > 1 for value in told.values())
    run(manifest, tmp_path / "alone", engine="auto", passes=2, workers=1, executor="process", actors=2)
    assert doubts(tmp_path / "alone") == told
    beside = tmp_path / "together" / "0.png.inpaint-batch.json"
    assert json.loads(beside.read_text())["doubt"] == told["0.png"]


def test_a_row_that_is_filled_once_has_none(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    run(gallery.manifest(), tmp_path / "out", engine="auto", passes=1, sidecar=True)
    assert doubts(tmp_path / "out") == {"a.png": None}
    assert json.loads((tmp_path / "out" / "a.png.inpaint-batch.json").read_text())["doubt"] is None


class Holes:
    num_hole_px = 100


def test_levels_add_up_by_the_pixels_that_they_stand_for() -> None:
    """100 pixels of variance 0.01, and 25 of half the resolution with 0.02: (1 + 4 * 0.5) / 100 = 0.03."""
    row = PreparedRow.__new__(PreparedRow)
    row.holes, row.spread, row.largest_spread, row.num_filled = Holes(), None, -1.0, 0  # type: ignore[assignment]
    assert row.doubt is None

    def steps() -> FillSteps:
        yield [request(25 * 0.02, 1, 0)]
        yield [request(60 * 0.01, 0, 8), request(40 * 0.01, 0, 9)]
        return None  # type: ignore[return-value]

    drive(_counted(steps(), row))
    assert row.doubt == pytest.approx(255 * 0.03**0.5)
    assert (row.doubtful, row.num_filled) == (Box(8, 8, 4, 4), 3)

    row.add_spread(2.9, Box(1, 2, 3, 4))
    assert row.doubtful == Box(8, 8, 4, 4)
    row.add_spread(3.1, Box(1, 2, 3, 4))
    assert row.doubtful == Box(1, 2, 3, 4)


def request(spread: float, scale_log2: int, place: int) -> TileRequest:
    return SimpleNamespace(  # type: ignore[return-value]
        spread=spread, scale_log2=scale_log2, tile=SimpleNamespace(core=Box(place, place, 4, 4))
    )


def drive(steps: FillSteps) -> None:
    with suppress(StopIteration):
        requests = next(steps)
        while True:
            requests = steps.send([np.zeros(0, np.float32)] * len(requests))


def test_the_benchmark_ranks() -> None:
    rows = [doubt.Row(number, (7 * number % 10) / 10, 4.0 * number + 4) for number in range(10)]
    assert doubt.rank_correlation(*(doubt.np.array(each) for each in ([1.0, 2, 3], [10.0, 30, 20]))) == 0.5
    assert doubt.line("strokes", rows[1:]).split(" | ")[:3] == ["| strokes", "9", "1.00"]
    assert doubt.line("strokes", rows[1:]).split(" | ")[6] == "100%"
    assert doubt.line("all", [doubt.Row(2, 0.1, 6.0), doubt.Row(4, 0.2, 20.0)]).split(" | ")[4:6] == ["4.0", "25%"]
