"""Log, sample grids, plot and TensorBoard."""

from __future__ import annotations

import json
import logging
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_training import CONFIG

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.training import monitor as monitor_module
from inpaint_batch.training.monitor import LOG, QUIET_S, Monitor
from inpaint_batch.training.photographs import list_photographs
from inpaint_batch.training.plot import CURVE, SMOOTH, draw_plot
from inpaint_batch.training.trainer import train
from inpaint_batch.training.validation import SIDE_PX, ValidationSet


class Board:
    """Stands in for TensorBoard's writer."""

    def __init__(self) -> None:
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.closed = True


def test_lines_go_to_the_log_and_to_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    board = Board()
    monkeypatch.setattr(monitor_module, "_tensorboard", lambda run: board)
    with caplog.at_level(logging.INFO), Monitor(tmp_path, 0, 100) as monitor:
        monitor.line(25, loss=0.123456789, left_s=3723.0)
    assert json.loads((tmp_path / LOG).read_text()) == {"step": 25, "loss": 0.123457, "left_s": 3723.0}
    assert board.scalars == [("loss", 0.123456789, 25), ("left_s", 3723.0, 25)]
    assert board.closed
    assert "left_s=1:02:03" in caplog.text


def test_what_is_no_number_is_null_to_programs(tmp_path: Path) -> None:
    with Monitor(tmp_path, 0, 100) as monitor:
        monitor.line(7, loss=float("nan"), hinge=float("inf"))
        monitor.plot()

    def refuse(word: str) -> None:
        raise AssertionError(word)

    assert json.loads((tmp_path / LOG).read_text(), parse_constant=refuse) == {"step": 7, "loss": None, "hinge": None}


def test_the_pace_counts_this_process_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(monitor_module.time, "monotonic", lambda: now[0])
    monitor = Monitor(tmp_path, first_step=40, steps=100)
    monitor.num_images = 320
    now[0] += 20.0
    assert monitor.pace(60) == {"images_per_s": 16.0, "left_s": 40}


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / LOG).mkdir()
    monitor = Monitor(tmp_path, 0, 10)
    with caplog.at_level(logging.WARNING):
        monitor.line(5, loss=1.0)
        monitor.plot()
    assert "could not be written" in caplog.text
    assert "no plot" in caplog.text


def test_a_full_disk_costs_tensorboard_its_curves_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """TensorBoard's writer fails when it is made, at any scalar from then on, or when it is closed."""

    class Full(Board):
        def __init__(self, where: str) -> None:
            super().__init__()
            self.where = where
            self.refuse("made")

        def refuse(self, where: str) -> None:
            if where == self.where:
                raise OSError(28, "No space left on device")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.refuse("told")
            super().add_scalar(name, value, step)

        def close(self) -> None:
            self.refuse("closed")
            super().close()

    for where in ("made", "told", "closed"):
        package = types.ModuleType("torch.utils.tensorboard")
        package.SummaryWriter = lambda _folder, where=where: Full(where)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, package.__name__, package)
        caplog.clear()
        with caplog.at_level(logging.WARNING), Monitor(tmp_path, 0, 10) as monitor:
            monitor.line(1, loss=1.0)
            monitor.line(2, loss=1.0)
        assert [record.message for record in caplog.records] == [
            "nothing more goes to TensorBoard in this run, whose files could not be written: [Errno 28] No space left "
            "on device"
        ]
    assert len((tmp_path / LOG).read_text().splitlines()) == 6


def test_a_silent_one_writes_nothing(tmp_path: Path) -> None:
    monitor = Monitor(tmp_path, 0, 10, silent=True)
    monitor.line(5, loss=1.0)
    monitor.plot()
    assert not list(tmp_path.iterdir())


def test_sample_grids_show_input_output_and_truth(photographs: Path, tmp_path: Path) -> None:
    validation = ValidationSet(list_photographs(photographs)[:3], CONFIG, None)
    generator = DcfGenerator(CONFIG.model).eval()
    Monitor(tmp_path, 0, 10).samples(7, generator, validation)
    grid = cv2.imread(str(tmp_path / "samples" / "step-000007.png"))[..., ::-1]
    assert grid.shape == (3 * SIDE_PX, 3 * SIDE_PX, 3)
    given, filled, truth = (grid[row * SIDE_PX : (row + 1) * SIDE_PX, :SIDE_PX] for row in range(3))
    hole = validation.holes[0, 0].numpy() == 1
    assert (given[hole] == 128).all()
    assert np.array_equal(given[~hole], truth[~hole])
    assert np.array_equal(filled[~hole], truth[~hole])
    assert not np.array_equal(filled[hole], truth[hole])
    assert np.array_equal(truth, (validation.images[0] * 255).round().byte().permute(1, 2, 0).numpy())


def test_sample_grids_show_many_photographs_where_each_has_many_crops(photographs: Path, tmp_path: Path) -> None:
    found = list_photographs(photographs)[:3]
    validation = ValidationSet(found, replace(CONFIG, validation_crops=8), None)
    assert len(validation.images) == 24
    Monitor(tmp_path, 0, 10).samples(1, DcfGenerator(CONFIG.model).eval(), validation)
    truths = cv2.imread(str(tmp_path / "samples" / "step-000001.png"))[2 * SIDE_PX :, :, ::-1]
    assert truths.shape[1] == 8 * SIDE_PX
    crops = (validation.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    shown = [truths[:, column * SIDE_PX : (column + 1) * SIDE_PX] for column in range(8)]
    places = [next(i for i, crop in enumerate(crops) if np.array_equal(crop, one)) for one in shown]
    assert {place // 8 for place in places} == {0, 1, 2}


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> bool:
    return bool((picture == colour).all(axis=2).any())


def test_the_plot_draws_both_curves_and_survives_what_is_not_finite() -> None:
    records: list[dict[str, Any]] = [{"step": step, "loss": 1.0 / step} for step in range(1, 40)]
    records += [{"step": 40, "loss": float("nan")}, {"step": 20, "validation_psnr_db": 18.5}]
    plot = draw_plot(records)
    half = plot.shape[0] // 2
    assert plot.dtype == np.uint8
    assert has(plot[:half], CURVE)
    assert has(plot[:half], SMOOTH)
    assert has(plot[half:], SMOOTH)
    falling = np.argwhere((plot[:half] == SMOOTH).all(axis=2))
    left, right = falling[falling[:, 1].argmin()], falling[falling[:, 1].argmax()]
    assert left[0] < right[0]  # a falling loss goes down: row numbers grow
    assert not has(draw_plot([]), SMOOTH)


def test_a_run_leaves_a_plot_and_samples(photographs: Path, tmp_path: Path) -> None:
    train(replace(CONFIG, steps=2, validate_every=1, sides_px=(64,), side_shares=(1.0,)), photographs, tmp_path)
    assert cv2.imread(str(tmp_path / "plot.png")) is not None
    assert sorted(p.name for p in (tmp_path / "samples").iterdir()) == ["step-000001.png", "step-000002.png"]


def test_slow_steps_are_told_between_the_usual_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("inpaint_batch.training.monitor.time.monotonic", lambda: now)
    monitor = Monitor(tmp_path, 0, 100)
    now += QUIET_S
    assert not monitor.is_quiet
    now += 0.5
    assert monitor.is_quiet
    monitor.line(1, loss=0.5)
    assert not monitor.is_quiet
