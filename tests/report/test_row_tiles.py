"""How far large rows are: which are told of, and what every kind of progress makes of it."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from gallery import Gallery

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.logids import Subject
from inpaint_batch.pipeline.run import run_manifest
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.report import row_tiles
from inpaint_batch.report.json_lines import JsonProgress
from inpaint_batch.report.progress import BarProgress, LineProgress, Progress
from inpaint_batch.report.row_tiles import LEAST_TILES, MOST_ROWS, NowAndThen, RowTiles, worth_telling
from inpaint_batch.report.tally import Tally


def tiles(row: str, num_filled: int, num_tiles: int) -> RowTiles:
    return RowTiles(Subject(row, 1, "node7:4711"), num_filled, num_tiles)


def test_the_largest_rows_are_told_of() -> None:
    rows = [tiles(f"{left}", 1000, 1000 + left) for left in (5, 900, 70, 0, 30)]
    small = tiles("small", 0, LEAST_TILES - 1)
    told = worth_telling([small, *rows])
    assert [row.subject.row for row in told] == ["900", "70", "30"]
    assert len(told) == MOST_ROWS
    assert [str(row) for row in (told[0], rows[3])] == ["900: 1000 of 1900 tiles", "0: 1000 of 1000 tiles, writing"]
    assert worth_telling([small]) == []


class Waiting(io.StringIO):
    """A stream that says when some text has been written."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text
        self.is_there = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self.is_there.set()
        return written

    def isatty(self) -> bool:
        return True


def test_each_kind_of_progress_tells_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Progress, "tiles_every_s", 0.01)
    monkeypatch.setattr(BarProgress, "tiles_every_s", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    for kind, text in (("lines", "scan: 70 of 99 tiles"), ("json", '"filled": 70'), ("bar", "scan: 70 of 99 tiles")):
        stream = Waiting(text)
        monkeypatch.setattr("sys.stderr", stream)
        make: Any = {"lines": LineProgress, "json": JsonProgress, "bar": lambda _: BarProgress()}[kind]
        with make(stream) as told:
            told.start(1, {"engine": "identity"})
            told.watch(dict, lambda: [tiles("scan", 70, 99), tiles("stamp", 1, 2)])
            assert stream.is_there.wait(60)
            told.finish(Tally(), 0)
            before = stream.getvalue()
        assert "stamp" not in before
        if kind != "bar":
            threading.Event().wait(0.05)
            assert stream.getvalue() == before
        if kind == "json":
            events = [json.loads(line) for line in before.splitlines()]
            event = next(event for event in events if event["event"] == "tiles")
            subject = (event["row"], event["attempt"], event["worker"])
            assert (*subject, event["tiles"]) == ("scan", 1, "node7:4711", 99)
    assert not [thread for thread in threading.enumerate() if thread.name == "large-rows"]


def test_a_run_counts_the_tiles_of_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_tiles, "LEAST_TILES", 2)
    gallery = Gallery(tmp_path)
    gallery.add("long.png", side=1500, hole=(700, 3, 2, 1490))
    looks: list[Any] = []
    monkeypatch.setattr(NowAndThen, "__init__", lambda self, look, tell, every_s: looks.append(look))
    monkeypatch.setattr(NowAndThen, "end", lambda self: None)
    seen: list[RowTiles] = []
    told: dict[str, Any] = {}

    class Spy(LineProgress):
        def row(self, report: Any, tally: Tally) -> None:
            told["tiles"] = sum(report.num_tiles.values())

    from inpaint_batch.execution import stages

    write = stages.write_row

    def spied(*arguments: Any) -> None:
        seen.extend(looks[0]())
        write(*arguments)

    monkeypatch.setattr(stages, "write_row", spied)
    config = RunConfig(output=tmp_path / "out", row=RowConfig(), engine="identity", workers=2)
    with Spy(io.StringIO()) as spy:
        run_manifest(config, gallery.manifest(), masks=None, progress=spy, stop=Stop())
    (row,) = seen
    assert (row.subject.row, row.num_filled, row.num_tiles) == ("long.png", told["tiles"], told["tiles"])
    assert row.num_tiles >= 6
    assert looks[0]() == []
