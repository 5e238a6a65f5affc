"""A worker that two calls ask at a time."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from execution_cases import worker_settings

from inpaint_batch.errors import EngineError, StorageError
from inpaint_batch.execution import worker
from inpaint_batch.execution.worker import LogLine, OutputMark, RowWorker, _Lines

NUM_THREADS, NUM_EACH = 4, 3000


@pytest.fixture
def _hasty() -> Iterator[None]:
    """Threads change as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_hasty")
def test_every_line_that_is_logged_is_told_once() -> None:
    lines = _Lines()
    logger = logging.Logger("apart")
    logger.addHandler(lines)
    told: list[LogLine] = []
    done = threading.Event()

    def log(number: int) -> None:
        for each in range(NUM_EACH):
            logger.warning("%d", number * NUM_EACH + each)

    def take() -> None:
        while not done.is_set():
            told.extend(lines.take())

    takers = [threading.Thread(target=take) for _ in range(2)]
    writers = [threading.Thread(target=log, args=(number,)) for number in range(NUM_THREADS)]
    for thread in [*takers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in takers:
        thread.join()
    told += lines.take()
    assert sorted(int(line.text) for line in told) == list(range(NUM_THREADS * NUM_EACH))


@pytest.fixture
def mark(tmp_path: Path) -> OutputMark:
    """In an output folder in which a run is at work."""
    path = tmp_path / "out" / ".inpaint-batch" / "run.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"run": "one"}')
    return OutputMark(str(path), b'{"run": "one"}')


def _worker_of(mark: OutputMark) -> RowWorker:
    return RowWorker(worker_settings(output_mark=mark))


@pytest.mark.parametrize("there", [None, b'{"run": "another"}'])
def test_a_worker_that_does_not_see_the_output_folder_takes_no_rows(
    mark: OutputMark, there: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node where it is not mounted: results would go to a folder that is called the same."""
    monkeypatch.setattr(worker, "FIND_OUTPUT_S", 0.3)
    Path(mark.path).unlink()
    if there is not None:
        Path(mark.path).write_bytes(there)
    with pytest.raises(StorageError, match=r"does not see the output folder \S+/out of the run; mount it there"):
        _worker_of(mark).start()


def test_a_worker_of_another_version_takes_no_rows(mark: OutputMark) -> None:
    with pytest.raises(EngineError, match=r"a worker has inpaint-batch \S+, the run 99\.0; install the same there"):
        _worker_of(mark).start("99.0")


def test_a_worker_waits_for_a_folder_that_is_seen_a_little_later(mark: OutputMark) -> None:
    path = Path(mark.path)
    hidden = path.rename(path.with_suffix(".hidden"))
    later = threading.Timer(0.3, hidden.rename, [path])
    later.start()
    assert _worker_of(mark).start().name == "identity"
    later.join()


def test_a_worker_that_loses_sight_of_the_output_folder_ends(
    mark: OutputMark, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class EndedError(Exception):
        pass

    def leave(code: int) -> None:
        raise EndedError(code)

    monkeypatch.setattr(worker.os, "_exit", leave)
    one = _worker_of(mark)
    one.start()
    one.leave(1)
    assert one.do(1, []).outcomes == []
    Path(mark.path).unlink()
    with pytest.raises(EndedError, match="10"):
        one.do(1, [])
    assert "a worker ends: the output folder of the run is gone here" in capfd.readouterr().err
