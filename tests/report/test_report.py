"""What people and programs are told."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from pathlib import Path

import pytest

from inpaint_batch.config import RunConfig
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.report.failures import Failures
from inpaint_batch.report.json_lines import JsonProgress
from inpaint_batch.report.progress import MAX_TOLD, LineProgress, closing_sentence, make_progress
from inpaint_batch.report.summary import Summary
from inpaint_batch.report.tally import FailedRow, RowReport, Tally
from inpaint_batch.storage.paths import location

DONE = RowReport("a", "done", 2, "a.png", num_pixels=2_000_000, num_tiles={64: 3}, seconds={"read": 0.5, "infer": 1.0})
FAILED = RowReport("b", "failed", 3, code="read", message="no such file")
EARLIER = RowReport("c", "failed", 4, code="mask", message="empty", earlier=True)


def tally_of(*reports: RowReport, num_skipped: int = 0) -> Tally:
    tally = Tally(num_skipped=num_skipped)
    for report in reports:
        tally.add(report)
    return tally


def test_the_tally_adds_up():
    tally = tally_of(DONE, DONE, FAILED, EARLIER, num_skipped=1)
    assert (tally.num_done, tally.num_skipped, tally.num_failed, tally.num_failed_earlier) == (2, 1, 1, 1)
    assert tally.num_rows == 5
    assert tally.num_all_failed == 2
    assert tally.by_code == {"read": 1, "mask": 1}
    assert tally.num_tiles == {64: 6}
    assert tally.seconds == {"read": 1.0, "infer": 2.0}
    assert tally.num_pixels == 4_000_000


def test_lines_tell_failures_up_to_a_limit():
    stream = io.StringIO()
    progress = LineProgress(stream)
    progress.start(50, {"engine": "identity"})
    for _ in range(MAX_TOLD + 10):
        progress.row(FAILED, tally_of(FAILED))
    progress.row(EARLIER, tally_of(EARLIER))
    progress.finish(tally_of(DONE, FAILED), 8)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "inpaint-batch: 50 rows; engine identity"
    assert lines[1] == "inpaint-batch: failed: b (line 3): read: no such file"
    assert len(lines) == 1 + MAX_TOLD + 1 + 1
    assert "failures.csv" in lines[-2]
    assert "1 done, 1 failed in" in lines[-1]
    assert lines[-1].endswith("exit code 8")


@pytest.mark.parametrize(
    ("name", "has_lines", "row"), [("c", True, "c (line 4)"), ("c", False, "c"), ("line 4", True, "line 4")]
)
def test_a_row_is_told_by_its_name_and_line_once(name, has_lines, row):
    stream = io.StringIO()
    LineProgress(stream, has_lines=has_lines).row(RowReport(name, "failed", 4, code="read", message="gone"), Tally())
    assert stream.getvalue().splitlines()[0].startswith(f"inpaint-batch: failed: {row}: read: ")


def test_json_lines_are_json():
    stream = io.StringIO()
    progress = JsonProgress(stream)
    progress.start(3, {"engine": "identity"})
    for report in (DONE, FAILED, EARLIER):
        progress.row(report, tally_of(report))
    progress.note("hello")
    progress.finish(tally_of(DONE, FAILED, EARLIER, num_skipped=1), 8)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["start", "row", "row", "note", "end"]
    assert events[1]["tiles"] == {"64": 3}
    assert events[1]["megapixels"] == 2.0
    assert events[2]["code"] == "read"
    assert {name: events[4][name] for name in ("exit_code", "done", "skipped", "failed")} == {
        "exit_code": 8,
        "done": 1,
        "skipped": 1,
        "failed": 2,
    }


def test_the_kind_of_progress_follows_format_and_terminal(monkeypatch):
    assert isinstance(make_progress("json"), JsonProgress)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert isinstance(make_progress("text"), LineProgress)


def test_the_bar_runs_on_a_terminal(monkeypatch, capsys):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with make_progress("text") as progress:
        progress.start(2, {"engine": "identity"})
        progress.row(FAILED, tally_of(FAILED))
        progress.row(DONE, tally_of(FAILED, DONE))
        progress.finish(tally_of(FAILED, DONE), 8)
    told = terminal.getvalue()
    assert "no such file" in told
    assert "2/2" in told
    assert "megapixels/s" in told
    assert "1 failed" in told


def test_closing_sentence_counts_warnings_since_only_the_first_are_told():
    tally = Tally(num_skipped=2, num_warnings=31)
    assert closing_sentence(tally, 0, 1.0) == "0 done, 2 done before in 1.0 s; 31 warnings; exit code 0"


def test_closing_sentence_of_nothing_left_to_do():
    assert closing_sentence(tally_of(num_skipped=2), 0, 1.0) == "0 done, 2 done before in 1.0 s; exit code 0"


def test_summary(tmp_path):
    summary = Summary(RunConfig(output=tmp_path / "out"), "m.csv", 0.0, tally_of(DONE, FAILED, EARLIER, num_skipped=1))
    summary.notes.append("int8 is not there; fp32 is used")
    summary.write(tmp_path, 8, "2 rows failed")
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["exit_code"] == 8
    assert told["rows"] == {
        "done": 1,
        "copied": 0,
        "skipped": 1,
        "left": 0,
        "failed": 2,
        "failed_now": 1,
        "failed_by_code": {"mask": 1, "read": 1},
        "warnings": 0,
        "redone": {},
    }
    assert told["tiles_by_side_px"] == {"64": 3}
    assert told["started"] == "1970-01-01T00:00:00Z"
    assert told["options"]["output"] == str(tmp_path / "out")
    assert told["options"]["row"]["mask_threshold"] == 127
    assert told["versions"]["numpy"]
    assert told["peak_memory_bytes"] > 1 << 20


def write_failures(state: Path, rows: list[FailedRow]) -> None:
    with closing(Failures(state)) as failures:
        for row in rows:
            failures.add(row)
        failures.write()


def test_failures_are_a_manifest_of_paths_from_their_own_folder(tmp_path):
    state = tmp_path / "out" / ".inpaint-batch"
    state.mkdir(parents=True)
    cells = {"id": "a,1", "image": str(tmp_path / "in" / "a.png"), "mask": "s3://b/m.png", "output": "a.png"}
    write_failures(state, [FailedRow({**cells, "dilate": "3"}, "read", 'he said "no"')])
    with (state / "failures.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert lines == [
        {
            "id": "a,1",
            "image": "../../in/a.png",
            "mask": "s3://b/m.png",
            "output": "a.png",
            "dilate": "3",
            "code": "read",
            "message": 'he said "no"',
        }
    ]
    assert (state / lines[0]["image"]).resolve() == tmp_path / "in" / "a.png"
    write_failures(state, [])
    assert (state / "failures.csv").read_text() == "id,image,mask,output,code,message\n"
    assert sorted(path.name for path in Path(state).iterdir()) == ["failures.csv"]


def test_failures_of_any_name_are_read_back(tmp_path):
    state = tmp_path / "out" / ".inpaint-batch"
    state.mkdir(parents=True)
    rows = [
        {"id": f"{number}{name}", "image": f"/in/{name}.png", "mask": f"/masks/{name}", "output": f"{name}.png"}
        for number, name in enumerate(("a\rb", "c\r\nd", "e\nf", 'g"h', "i,j", "k;l", "\x0b", "m\u2028n", "o"))
    ]
    write_failures(state, [FailedRow(row, "read", "because") for row in rows])
    found = list(read_manifest(state / "failures.csv"))
    assert [(row.id, location(row.image), location(row.mask), row.output) for row in found] == [
        tuple(row.values()) for row in rows
    ]


def test_failures_stand_in_the_order_of_the_manifest(tmp_path: Path):
    failed = [FailedRow({"id": f"{line}", "image": "a.png", "mask": "m.png"}, "read", "no", line) for line in (9, 2, 5)]
    write_failures(tmp_path, failed)
    with (tmp_path / "failures.csv").open(newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)] == ["2", "5", "9"]


def test_a_thousand_failures_of_any_name_wait_on_the_disk(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("inpaint_batch.report.failures.MEMORY_BYTES", 1000)
    names = [f'{number:03d} caf\udce9 \n,".png' for number in range(1000)]
    rows = [
        FailedRow({"id": name, "image": f"/in/{name}", "mask": "", "page": "3"}, "read", name, line)
        for line, name in enumerate(names)
    ]
    write_failures(tmp_path, rows[500:] + rows[:500])
    with (tmp_path / "failures.csv").open(errors="surrogateescape", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["id"] for row in table] == names
    assert [row["message"] for row in table] == [name.replace("\udce9", r"\udce9") for name in names]
    assert {row["page"] for row in table} == {"3"}
    assert (tmp_path / table[7]["image"]).resolve() == Path(f"/in/{names[7]}")
    assert [path.name for path in tmp_path.iterdir()] == ["failures.csv"]
