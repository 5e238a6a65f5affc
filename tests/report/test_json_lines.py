"""The ids in the lines of a log, and that log, ledger and summary have the same."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from gallery import Gallery, ledger_lines

from inpaint_batch import logids
from inpaint_batch.errors import ManifestError
from inpaint_batch.report.json_lines import JsonProgress
from inpaint_batch.report.tally import RowReport, Tally

IDS = ("run", "shard", "worker", "row", "attempt")


def restore(gallery: Gallery, output: Path, *flags: str, engine: str = "identity") -> tuple[int, str]:
    command = [sys.executable, "-m", "inpaint_batch", "run", str(gallery.manifest()), "--output", str(output)]
    done = subprocess.run(
        [*command, "--engine", engine, *flags], capture_output=True, text=True, check=False, timeout=120
    )
    return done.returncode, done.stdout


def events_of(text: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in text.splitlines()]
    assert all(set(IDS) <= set(event) for event in events)
    return events


def test_log_ledger_and_summary_name_the_same_run(gallery: Gallery, tmp_path: Path) -> None:
    for number in range(5):
        gallery.add(f"{number}.png")
    gallery.add_row("absent.png", "0.png.mask.png")
    output = tmp_path / "out"
    code, text = restore(gallery, output, "--shard", "1/2", "--log-format", "json")
    events, lines = events_of(text), ledger_lines(output)
    summary = json.loads((output / ".inpaint-batch" / "summary-1-of-2.json").read_text())
    assert code == summary["exit_code"] == events[-1]["exit_code"]
    assert re.fullmatch("[0-9a-f]{12}", summary["run"])
    about = json.loads((output / ".inpaint-batch" / "run-1-of-2.json").read_text())
    assert {event["run"] for event in events} | {line["run"] for line in lines} | {about["run"]} == {summary["run"]}
    assert {event["shard"] for event in events} == {"1/2"}
    worker = re.compile(re.escape(socket.gethostname()) + r":\d+")
    rows = {event["row"]: event for event in events if event["event"] == "row"}
    assert rows
    assert all(event["attempt"] == 1 and worker.fullmatch(event["worker"]) for event in rows.values())
    ended = {line["id"]: line["worker"] for line in lines if line["status"] in ("done", "failed")}
    assert ended == {row: event["worker"] for row, event in rows.items()}
    others = [event for event in events if event["event"] != "row"]
    assert all(event[name] is None for event in others for name in ("worker", "row", "attempt"))
    code, text = restore(gallery, output, "--shard", "2/2", "--log-format", "json")
    assert {event["run"] for event in events_of(text)}.isdisjoint({summary["run"]})


def test_a_traceback_is_a_line_about_its_row_and_words_for_people(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("broken.png", hole=(0, 0, 3, 3))
    output = tmp_path / "out"
    code, text = restore(gallery, output, "--log-format", "json", engine="faulty:e")
    assert code == 8
    (logged,) = (event for event in events_of(text) if event["event"] == "log")
    assert (logged["level"], logged["row"], logged["attempt"]) == ("error", "broken.png", 1)
    assert "RuntimeError: the faulty engine broke" in logged["traceback"]
    (first, *rest) = (output / ".inpaint-batch" / "run.log").read_text().splitlines()
    assert re.search(rf" ERROR writer-\d \[broken\.png on {re.escape(logged['worker'])}\] row broken\.png", first)
    assert rest[0] == "Traceback (most recent call last):"


def test_what_a_run_ends_by_is_its_last_line(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add_row("absent.png", "absent.png")
    code, text = restore(gallery, tmp_path / "out", "--log-format", "json")
    assert code == 8
    *_, end, error = events_of(text)
    assert (end["event"], end["exit_code"]) == ("end", 8)
    assert (error["event"], error["exit_code"], error["kind"]) == ("error", 8, "RowsFailedError")
    assert "1 of 1 row failed" in error["message"]
    (gallery.folder / "manifest.csv").unlink()
    stream = io.StringIO()
    with pytest.raises(ManifestError), logids.in_run(""), JsonProgress(stream):
        raise ManifestError("there is no\nmanifest")
    (only,) = events_of(stream.getvalue())
    assert (only["event"], only["exit_code"], only["message"]) == ("error", 4, "there is no manifest")
    assert (only["shard"], len(only["run"])) == ("1/1", 12)


def test_ids_hold_for_a_thread_and_a_run(tmp_path: Path) -> None:
    log = logging.getLogger("inpaint_batch.test")
    stream = io.StringIO()
    with JsonProgress(stream) as progress, logids.in_run("3/7") as run:

        def work(number: int) -> None:
            with logids.on_row(f"row {number}", number + 1):
                barrier.wait()
                log.warning("in the middle of %d", number)
                with logids.about(None):
                    log.warning("aside")

        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with logids.in_run("1/2") as inner:
            assert inner == run
            progress.row(RowReport("a", "done", 2, worker="node7:1", attempt=3), Tally())
    log.warning("nobody hears this")
    events = events_of(stream.getvalue())
    assert {(event["run"], event["shard"]) for event in events} == {(run, "3/7")}
    here = f"{socket.gethostname()}:{os.getpid()}"
    told = {(event["row"], event["attempt"], event["worker"]) for event in events if event["event"] == "log"}
    assert told == {(f"row {number}", number + 1, here) for number in range(4)} | {(None, None, None)}
    assert [events[-1][name] for name in ("row", "attempt", "worker")] == ["a", 3, "node7:1"]
    assert logids.ids(None) == dict.fromkeys(IDS)
