"""The local executor on its own: which rows come back, in what state, and what they may hold at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, tree

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.errors import EngineError, FailureCode, RowError
from inpaint_batch.execution import prepare, stages
from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.execution.tasks import RowOutcome, RowTask
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.storage import early_copy
from inpaint_batch.storage.early_copy import EarlyCopy
from inpaint_batch.tiling.fill import TileRequest
from inpaint_batch.types import FloatArray, Row


class Runner:
    """Fills holes with a grey that depends on the tile, and fails where it is told to."""

    def __init__(self, fail: Callable[[FloatArray], Exception | None] = lambda image: None) -> None:
        self.fail = fail
        self.batches: list[int] = []

    def batch_size(self, side_px: int) -> int:
        return 4

    def anticipate(self, tiles: Sequence[TileRequest]) -> None:
        pass

    def fill(self, tiles: Sequence[TileRequest]) -> Sequence[FloatArray]:
        self.batches.append(len(tiles))
        filled = []
        for tile in tiles:
            loaded = tile.load()
            error = self.fail(loaded.image)
            if error is not None:
                raise error
            grey = np.float32(loaded.image.mean())
            filled.append(np.where(loaded.hole > 0, grey, loaded.image))
        return filled


def tasks(gallery: Gallery, output: Path) -> list[RowTask]:
    rows = [row for row in read_manifest(gallery.manifest()) if isinstance(row, Row)]
    return [RowTask(row, RowConfig(), "key", row.output, str(output / row.output)) for row in rows]


def our_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("reader", "writer", "infer"))]


def execute(work: list[RowTask], runner: Runner, workers: int = 2, **limits: int) -> dict[str, RowOutcome]:
    executor = LocalExecutor(runner, TilingConfig(), workers=workers, max_image_bytes=1 << 30, **limits)
    outcomes = list(executor.run(iter(work), lambda: False))
    assert sorted(outcome.task.row.id for outcome in outcomes) == sorted(task.row.id for task in work)
    return {outcome.task.row.id: outcome for outcome in outcomes}


@pytest.fixture
def rows(gallery: Gallery) -> Gallery:
    for number in range(9):
        gallery.add(f"{number}.png", side=70 + number)
    return gallery


@pytest.mark.parametrize("error", [RowError(FailureCode.INFER, "no"), ValueError("no"), MemoryError()])
def test_one_poisonous_row_fails_alone(rows, tmp_path, error):
    execute(tasks(rows, tmp_path / "clean"), Runner())
    white = rows.add("white.png", side=80)
    from PIL import Image

    Image.fromarray(np.full((80, 80, 3), 255, np.uint8)).save(white)
    runner = Runner(lambda image: error if image[:, 0, 0].min() == 1 else None)
    outcomes = execute(tasks(rows, tmp_path / "out"), runner)
    failed = {name for name, outcome in outcomes.items() if outcome.failure}
    assert failed == {"white.png"}
    expected = FailureCode.MEMORY if isinstance(error, MemoryError) else FailureCode.INFER
    assert outcomes["white.png"].failure.code is expected
    assert tree(tmp_path / "out") == tree(tmp_path / "clean")


@pytest.mark.parametrize("limits", [{"max_rows": 1}, {"budget_bytes": 1}, {"max_rows": 3, "budget_bytes": 200_000}])
@pytest.mark.parametrize("workers", [1, 4])
def test_limits_and_workers_change_neither_rows_nor_bytes(rows, tmp_path, limits, workers):
    execute(tasks(rows, tmp_path / "plain"), Runner())
    outcomes = execute(tasks(rows, tmp_path / "out"), Runner(), workers, **limits)
    assert not any(outcome.failure for outcome in outcomes.values())
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_rows_share_batches(rows, tmp_path):
    runner = Runner()
    execute(tasks(rows, tmp_path / "out"), runner)
    assert sum(runner.batches) == 9
    assert len(runner.batches) < 9


def test_no_more_rows_in_flight_than_allowed(rows, tmp_path, monkeypatch):
    lock = threading.Lock()
    now = peak = 0
    prepare, write = stages.prepare_row, stages.write_row

    def counted_prepare(*arguments: object, **named: object) -> object:
        nonlocal now, peak
        with lock:
            now += 1
            peak = max(peak, now)
        return prepare(*arguments, **named)

    def counted_write(*arguments: object) -> None:
        nonlocal now
        write(*arguments)
        with lock:
            now -= 1

    monkeypatch.setattr(stages, "prepare_row", counted_prepare)
    monkeypatch.setattr(stages, "write_row", counted_write)
    execute(tasks(rows, tmp_path / "out"), Runner(), 4, max_rows=2)
    assert 1 <= peak <= 2


def test_a_run_level_error_ends_it_and_leaves_nothing_behind(rows, tmp_path):
    executor = LocalExecutor(
        Runner(lambda image: EngineError("the device is gone")), TilingConfig(), workers=2, max_image_bytes=1 << 30
    )
    with pytest.raises(EngineError, match="device is gone"):
        list(executor.run(tasks(rows, tmp_path / "out"), lambda: False))
    assert tree(tmp_path / "out") == {}
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("reader", "writer", "infer"))
    ]


def test_a_run_level_error_frees_what_rows_on_their_way_hold(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", 1)
    (tmp_path / "out").mkdir()
    for number in range(4):
        gallery.add(f"{number}.tif")
    executor = LocalExecutor(
        Runner(lambda image: EngineError("the device is gone")), TilingConfig(), workers=2, max_image_bytes=1 << 30
    )
    with pytest.raises(EngineError, match="device is gone"):
        list(executor.run(tasks(gallery, tmp_path / "out"), lambda: False))
    assert not executor.filling()
    assert early_copy._room.acquire(blocking=False)
    early_copy._room.release()


def test_a_caller_that_leaves_ends_it_too(rows, tmp_path):
    executor = LocalExecutor(Runner(), TilingConfig(), workers=2, max_image_bytes=1 << 30)
    outcomes = executor.run(tasks(rows, tmp_path / "out"), lambda: False)
    next(outcomes)
    assert our_threads()
    outcomes.close()
    assert not [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("reader", "writer", "infer"))
    ]
    # and it can be used again
    assert len(list(executor.run(tasks(rows, tmp_path / "out"), lambda: False))) == 9


def test_stopping_brings_what_the_engine_has_seen_to_its_end(rows, tmp_path):
    seen = threading.Event()
    runner = Runner(lambda image: seen.set())
    executor = LocalExecutor(runner, TilingConfig(), workers=1, max_image_bytes=1 << 30, max_rows=2)
    outcomes = list(executor.run(tasks(rows, tmp_path / "out"), seen.is_set))
    assert 0 < len(outcomes) < 9
    assert len(tree(tmp_path / "out")) == len(outcomes)


def test_an_unexpected_error_while_reading_names_itself(rows, tmp_path, monkeypatch, caplog):
    from inpaint_batch.execution import prepare

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(prepare, "find_holes", broken)
    outcomes = execute(tasks(rows, tmp_path / "out"), Runner())
    failure = outcomes["0.png"].failure
    assert failure.code is FailureCode.READ
    assert "ZeroDivisionError: by zero" in failure.message
    assert "Traceback" in caplog.text


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are known to Linux alone")
def test_a_result_made_of_an_early_copy_is_the_same(gallery, tmp_path, monkeypatch):
    for number in range(4):
        gallery.add(f"{number}.tif", side=90 + number)
    gallery.add("whole.tif", hole=(0, 0, 0, 0))
    execute(tasks(gallery, tmp_path / "plain"), Runner())
    taken: list[bool] = []
    take = EarlyCopy.take
    monkeypatch.setattr(EarlyCopy, "take", lambda *arguments: taken.append(take(*arguments)) or taken[-1])
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", 1)
    (tmp_path / "out").mkdir()
    execute(tasks(gallery, tmp_path / "out"), Runner())
    assert True in taken
    assert tree(tmp_path / "out") == tree(tmp_path / "plain")


def test_a_row_that_fails_frees_its_early_copy(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", 1)
    (tmp_path / "out").mkdir()
    gallery.add("0.tif")
    for error in (None, ValueError("no")):  # while it is planned, and while it is filled
        if error is None:
            monkeypatch.setattr(prepare, "find_holes", lambda hole: 1 / 0)
        outcomes = execute(tasks(gallery, tmp_path / "out"), Runner(lambda image, error=error: error))
        assert outcomes["0.tif"].failure is not None
        monkeypatch.undo()
        monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", 1)
        assert early_copy._room.acquire(blocking=False)
        early_copy._room.release()
    assert tree(tmp_path / "out") == {}
