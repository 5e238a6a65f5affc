"""What was found is filled on trial: marks whose fills agree are taken, whatever the others look like."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from inpaint_batch.config import TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.trial_fill import TrialFill, _add
from inpaint_batch.holes.detect import DetectConfig, detect_in
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.mirrors import MirroredEngine
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.types import Box, FloatArray

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared photographs are not here")


class Columns(IdentityEngine):
    """Fills a hole with the number of its column in the tile, in steps of 255."""

    def fill(self, batch: TileBatch) -> FloatArray:
        columns = np.arange(batch.side_px, dtype=np.float32) / 255
        return np.where(batch.hole > 0, columns, batch.image)


def grey(box: Box) -> FloatArray:
    return np.full((box.height, box.width, 3), 0.5, np.float32)


def test_marks_are_taken_whose_fills_agree() -> None:
    """Column c is filled with c and 63 - c: a standard deviation of |c - 31.5|."""
    marks = np.zeros((64, 64), np.bool_)
    for column in (10, 29, 33, 40):
        marks[20:40, column] = True
    for limit, columns in ((2.6, [29, 33]), (2.4, [33]), (8.6, [29, 33, 40]), (30, [10, 29, 33, 40]), (1, [])):
        taken = TrialFill(MirroredEngine(Columns(), 2), TilingConfig(), limit).credible(grey, marks)
        assert np.flatnonzero(taken.any(axis=0)).tolist() == columns
        assert (taken == (marks & taken.any(axis=0))).all()


def test_a_mark_is_judged_as_a_whole() -> None:
    """Columns 30 to 37 agree within 5.5, root mean square 2.65."""
    marks = np.zeros((64, 64), np.bool_)
    marks[20:40, 30:38] = True
    for limit, is_taken in ((3.1, True), (2.9, False)):
        taken = TrialFill(MirroredEngine(Columns(), 2), TilingConfig(), limit).credible(grey, marks)
        assert taken.any() == is_taken
    apart = np.sqrt(np.mean((np.arange(30, 38) - 31.5) ** 2))
    assert 2.9 < apart < 3.1


def test_pixels_of_a_coarse_tile_stand_for_several() -> None:
    apart = np.ones((5, 7), np.float32)
    own = np.array([[1, 2], [3, 4]], np.float32)
    request = SimpleNamespace(scale_log2=1, tile=SimpleNamespace(core=Box(1, 2, 2, 2)))
    _add(apart, own, request)  # type: ignore[arg-type]
    added = apart - 1
    np.testing.assert_array_equal(added[2:5, 4:7], [[1, 1, 2], [1, 1, 2], [3, 3, 4]])
    assert added.sum() == 18


def test_what_goes_wrong_is_raised() -> None:
    class Broken(IdentityEngine):
        def fill(self, batch: TileBatch) -> FloatArray:
            raise RowError(FailureCode.INFER, "no")

    marks = np.zeros((64, 64), np.bool_)
    marks[30:33, 30:33] = True
    with pytest.raises(RowError, match="no"):
        TrialFill(MirroredEngine(Broken(), 2), TilingConfig(), 2).credible(grey, marks)


def test_a_judge_has_the_last_word_and_sees_marks_as_they_will_be_filled() -> None:
    samples = np.full((200, 300), 0.4, np.float32)
    samples += np.random.default_rng(0).normal(0, 0.01, samples.shape).astype(np.float32)
    samples[20:180, 100:102] = 0.9
    samples[20:180, 200:202] = 0.9
    config = DetectConfig(kinds=("scratches",), dilate_px=2)
    seen = []

    def judge(tile: Box, marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        seen.append((tile, marks))
        taken = marks.copy()
        taken[:, :150] = False
        return taken

    every = detect_in(lambda box: samples[box.slices], 200, 300, config)
    judged = detect_in(lambda box: samples[box.slices], 200, 300, config, judge)
    ((tile, marks),) = seen
    assert tile == Box(0, 0, 200, 300)
    np.testing.assert_array_equal(marks, every.hole)
    assert every.hole[:, 100].any()
    np.testing.assert_array_equal(judged.hole[:, 150:], every.hole[:, 150:])
    assert not judged.hole[:, :150].any()
    assert judged.coverage == judged.hole.mean()
    assert 0 < judged.num_px["scratches"] < every.num_px["scratches"]

    stains = detect_in(lambda box: samples[box.slices], 200, 300, DetectConfig(kinds=("stains",)), judge)
    assert (len(seen), stains.num_px["stains"]) == (2 - 1, 0)

    too_much = DetectConfig(kinds=("scratches",), dilate_px=2, max_area=float(every.coverage) * 0.9)
    limited = detect_in(lambda box: samples[box.slices], 200, 300, too_much, judge)
    assert (limited.hole.any(), limited.coverage) == (False, every.coverage)  # before the judge


@needs_shared
@pytest.mark.parametrize(
    ("name", "place", "is_taken"),
    [
        ("scratched_b.png", (0.42, 0.17), True),  # a crack on the wall
        ("vintage_1864UnionSoldier.jpg", (0.4, 0.325), False),  # the bar of a window
    ],
)
def test_cracks_are_found_and_window_bars_are_not(
    tmp_path: Path, name: str, place: tuple[float, float], is_taken: bool
) -> None:
    from typer.testing import CliRunner

    from inpaint_batch.cli.main import app

    masks = []
    for doubt in ("2.5", "0"):
        words = ["mask", str(SHARED / "archive" / name), "--output", str(tmp_path / doubt), "--max-doubt", doubt]
        assert CliRunner().invoke(app, words).exit_code == 0
        masks.append(cv2.imread(str(tmp_path / doubt / f"{name}.png"), cv2.IMREAD_GRAYSCALE) > 0)
    judged, every = masks
    row, column = (round(part * side) for part, side in zip(place, judged.shape, strict=True))
    around = (slice(row - 12, row + 12), slice(column - 12, column + 12))
    assert every[around].any()
    assert judged[around].any() == is_taken
    assert not (judged & ~every).any()
