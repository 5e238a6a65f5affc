"""The file for Prometheus, read by Prometheus' own parser."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gallery import Gallery
from prometheus_client.parser import text_string_to_metric_families

from inpaint_batch.errors import ConfigError, FailureCode, ManifestError, StorageError
from inpaint_batch.report.metrics import MetricsProgress
from inpaint_batch.report.progress import Progress, make_progress
from inpaint_batch.report.tally import RowReport, Tally
from inpaint_batch.types import STAGES

DONE = RowReport("a", "done", 2, "a.png", num_pixels=2_000_000, num_tiles={64: 3}, seconds={"read": 0.5, "infer": 1.0})
FAILED = RowReport("b", "failed", 3, code="read", message="no such file")


class Told(Progress):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def start(self, num_rows: int, about: dict[str, object]) -> None:
        self.told.append(("start", num_rows))

    def row(self, report: RowReport, tally: Tally) -> None:
        self.told.append(("row", report.id))

    def note(self, text: str) -> None:
        self.told.append(("note", text))

    def finish(self, tally: Tally, exit_code: int) -> None:
        self.told.append(("finish", exit_code))


def values(path: Path) -> dict[tuple[str, ...], float]:
    """By name and values of the labels; all must be gauges with a word of help."""
    found = {}
    for family in text_string_to_metric_families(path.read_text()):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            found[(sample.name.removeprefix("inpaint_batch_"), *sample.labels.values())] = sample.value
    return found


def do(progress: Progress, exit_code: int, *reports: RowReport) -> None:
    tally = Tally()
    with progress:
        progress.start(5, {"engine": "identity", "output": 'a "quoted"\nname'})
        for report in reports:
            tally.add(report)
            progress.row(report, tally)
        progress.finish(tally, exit_code)


def test_the_numbers_of_a_run(tmp_path: Path) -> None:
    path, inner = tmp_path / "run.prom", Told()
    before_s = time.time()
    do(MetricsProgress(inner, path), 8, DONE, DONE, FAILED)
    assert inner.told == [("start", 5), ("row", "a"), ("row", "a"), ("row", "b"), ("finish", 8)]
    found = values(path)
    assert before_s <= found.pop(("start_time_seconds",)) <= time.time()
    (info,) = (key for key in found if key[0] == "run_info")
    assert info[1:3] == ("identity", 'a "quoted"\nname')
    assert found[info] == 1
    assert {key: value for key, value in found.items() if key != info} == {
        ("rows_expected",): 5,
        ("rows", "done"): 2,
        ("rows", "skipped"): 0,
        ("rows", "left"): 0,
        ("rows", "failed"): 1,
        ("rows_in_flight",): 0,
        **{("failures", str(code)): int(code == "read") for code in FailureCode},
        ("warnings",): 0,
        ("pixels",): 4_000_000,
        ("tiles", "64"): 6,
        **{("stage_seconds", stage): 0 for stage in STAGES},
        ("stage_seconds", "read"): 1.0,
        ("stage_seconds", "infer"): 2.0,
        ("running",): 0,
        ("exit_code",): 8,
    }


def test_the_last_success_outlives_a_failure(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    do(MetricsProgress(Told(), path), 8, FAILED)
    assert ("last_success_time_seconds",) not in values(path)
    before_s = time.time()
    do(MetricsProgress(Told(), path), 0, DONE)
    success_s = values(path)[("last_success_time_seconds",)]
    assert before_s <= success_s <= time.time()
    do(MetricsProgress(Told(), path), 75, DONE)
    assert values(path)[("last_success_time_seconds",)] == success_s
    assert values(path)[("exit_code",)] == 75


def soon(path: Path, name: tuple[str, ...], value: float) -> dict[tuple[str, ...], float]:
    """The numbers, once this one is what it should be; how soon does not matter."""
    until_s = time.monotonic() + 60
    while (found := values(path)).get(name) != value and time.monotonic() < until_s:
        time.sleep(0.01)
    assert found.get(name) == value
    return found


def test_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inpaint_batch.report.metrics.WRITE_EVERY_S", 0.02)
    path = tmp_path / "run.prom"
    tally = Tally()
    queues = {"flight": 7, "read": 3, "infer": 2, "write": 1}
    with MetricsProgress(Told(), path) as progress:
        assert values(path)[("running",)] == 1  # before the manifest is counted
        progress.start(9, {"engine": "identity"})
        assert (values(path)[("running",)], values(path)[("rows_expected",)]) == (1, 9)
        progress.watch(lambda: queues, tuple)
        found = soon(path, ("rows_in_flight",), 7)
        assert [found[("queue_rows", name)] for name in ("read", "infer", "write")] == [3, 2, 1]
        tally.add(DONE)
        progress.row(DONE, tally)
        found = soon(path, ("rows", "done"), 1)
        queues["flight"] = 8
        found = soon(path, ("rows_in_flight",), 8)  # no row has ended, yet the file is fresh
        assert ("exit_code",) not in found
        progress.finish(tally, 75)
        assert (values(path)[("rows_in_flight",)], values(path)[("running",)]) == (0, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["run.prom"]


def test_a_run_that_could_not_begin_or_broke_down_is_told_too(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    do(MetricsProgress(Told(), path), 0, DONE)
    success_s = values(path)[("last_success_time_seconds",)]
    for error, code in ((ManifestError("none"), 4), (StorageError("full"), 7), (ZeroDivisionError(), 1)):
        with pytest.raises(type(error)), MetricsProgress(Told(), path):
            raise error
        found = values(path)
        assert (found[("exit_code",)], found[("running",)], found[("rows", "done")]) == (code, 0, 0)
        assert found[("last_success_time_seconds",)] == success_s


def test_the_numbers_are_named_as_prometheus_advises(tmp_path: Path) -> None:
    """The rules of `promtool check metrics`, as far as they touch gauges."""
    path = tmp_path / "run.prom"
    do(MetricsProgress(Told(), path), 0, DONE, FAILED)
    families = list(text_string_to_metric_families(path.read_text()))
    names = [family.name for family in families]
    assert len(set(names)) == len(names) > 10
    not_base_units = {"milliseconds", "minutes", "hours", "days", "kilobytes", "megabytes", "megapixels", "percent"}
    abbreviated = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "m", "h", "d"}
    for family in families:
        words = family.name.split("_")
        assert re.fullmatch("inpaint_batch(_[a-z]+)+", family.name)
        assert not {"gauge", "counter", "histogram", "summary"} & set(words)
        assert words[-1] not in {"total", "count", "sum", "bucket"} | not_base_units | abbreviated
        assert family.documentation.endswith((".", "1."))
        labels = [tuple(sample.labels.items()) for sample in family.samples]
        assert len(set(labels)) == len(labels)
        assert all(re.fullmatch("[a-z][a-z_]*", name) for sample in family.samples for name in sample.labels)


def test_a_file_that_cannot_be_written_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    inner = Told()
    progress = MetricsProgress(inner, folder / "run.prom")
    folder.rmdir()
    do(progress, 0, DONE)
    notes = [what for what in inner.told if what[0] == "note"]
    assert len(notes) == 1
    assert "cannot be written" in str(notes[0])
    assert inner.told[-1] == ("finish", 0)


def test_a_folder_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        make_progress("text", tmp_path / "nowhere" / "run.prom")


def test_a_file_of_something_else_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    path.write_bytes(b"{ not prometheus\n")
    do(MetricsProgress(Told(), path), 0, DONE)
    assert values(path)[("exit_code",)] == 0


@pytest.mark.parametrize("installed", [True, False])
def test_through_the_command_line(tmp_path: Path, installed: bool) -> None:
    gallery = Gallery(tmp_path / "in")
    gallery.add("a.png")
    path = tmp_path / "run.prom"
    hide = "" if installed else "sys.modules['prometheus_client'] = None; "
    command = [sys.executable, "-c", f"import sys; {hide}from inpaint_batch.cli.main import main; main()"]
    command += ["run", str(gallery.manifest()), "--output", str(tmp_path / "out"), "--engine", "identity"]
    done = subprocess.run([*command, "--metrics", str(path)], capture_output=True, text=True, check=False, timeout=120)
    if installed:
        assert done.returncode == 0, done.stderr
        found = values(path)
        assert found[("rows", "done")] == found[("rows_expected",)] == 1
        assert any(key[:2] == ("run_info", "identity") for key in found)
        assert all(found[("stage_seconds", stage)] > 0 for stage in STAGES)
        assert ("queue_rows", "infer") not in found  # nothing waits any more
    else:
        assert done.returncode == 5
        assert "pip install 'inpaint-batch[metrics]'" in done.stderr
