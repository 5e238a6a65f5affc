"""What `status` and `report` make of any ledger at all, against the plainest way to count it."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.config import Shard
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.pipeline import report
from inpaint_batch.pipeline.report import write_report
from inpaint_batch.pipeline.status import folder_status
from inpaint_batch.storage.paths import STATE_FOLDER

IDS = st.sampled_from(["a.png", "b.png", "c/d.png", "ü.png", "e"])
LINES = st.builds(LedgerEntry, id=IDS, key=st.just(""), status=st.sampled_from(["started", "dropped", "done"])) | (
    st.builds(
        LedgerEntry,
        id=IDS,
        key=st.just(""),
        status=st.just("failed"),
        code=st.sampled_from(["read", "mask"]),
        retryable=st.booleans(),
    )
)


def output_of_shards(folder: Path, lines: list[LedgerEntry], count: int) -> Path:
    """An output folder in which so many shards have begun, in processes that are gone, and left this ledger."""
    ledger = folder / STATE_FOLDER / "ledger"
    ledger.mkdir(parents=True)
    (ledger / "000001.jsonl").write_bytes(b"".join(line.to_line() for line in lines))
    for index in range(1, count + 1):
        about = {"shard": f"{index}/{count}", "manifest": "m.csv", "rows": 9, "at": 1.0, "process": "elsewhere:1:2"}
        name = f"run-{index}-of-{count}.json" if count > 1 else "run.json"
        (folder / STATE_FOLDER / name).write_text(json.dumps(about))
    return folder


@given(st.lists(LINES, max_size=12), st.sampled_from([1, 3]))
def test_each_row_counts_once_by_its_last_word_and_for_its_shard(lines, count):
    last = {line.id: line.code or line.status for line in lines}
    with tempfile.TemporaryDirectory() as folder:
        found = folder_status(output_of_shards(Path(folder), lines, count))
    assert len(found) == count
    for index, status in enumerate(found, start=1):
        words = Counter(word for row_id, word in last.items() if Shard(index, count).has(row_id))
        assert status.num_done == words["done"]
        assert status.by_code == {code: words[code] for code in ("read", "mask") if words[code]}
        assert status.num_in_flight == 0  # their processes are gone


def test_failures_are_listed_by_their_last_word_up_to_a_limit(tmp_path, monkeypatch):
    def failed(row_id: str, message: str) -> LedgerEntry:
        return LedgerEntry(id=row_id, key="", status="failed", code="read", message=message, retryable=False)

    lines = [
        failed("mended", "of old"),
        failed("1", "first"),
        failed("2", "second"),
        LedgerEntry(id="mended", key="", status="done"),
        failed("1", "first again"),
        failed("3", "third"),
        LedgerEntry(id="2", key="", status="started"),
    ]
    output = output_of_shards(tmp_path, lines, 1)
    for limit, listed in ((500, ["first again", "second", "third"]), (2, ["first again", "second"])):
        monkeypatch.setattr(report, "MAX_FAILED", limit)
        page = write_report(output, None, num_rows=1, max_image_bytes=1 << 20).read_text("utf-8")
        assert "<h2>Failed: 3</h2>" in page
        messages = ("of old", "first again", "second", "third")
        assert [message for message in messages if f"<td>{message}</td>" in page] == listed


@pytest.mark.parametrize("alone", [False, True])
def test_a_row_that_was_in_flight_is_none_once_its_process_is_gone(tmp_path, alone):
    line = LedgerEntry(id="a.png", key="", status="started", alone=alone)
    (status,) = folder_status(output_of_shards(tmp_path, [line], 1))
    assert (status.state, status.num_in_flight, status.num_waiting) == ("killed", 0, 9)


@pytest.mark.parametrize("closed", [STATE_FOLDER, "ledger"])
def test_a_folder_that_may_not_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch, closed):
    output = output_of_shards(tmp_path, [LedgerEntry(id="a.png", key="", status="done")], 2)

    def refusing(call):
        def refused(folder="."):
            if Path(folder).name == closed:  # root, as whom tests may run, is refused nothing
                raise PermissionError(errno.EACCES, "Permission denied", str(folder))
            return call(folder)

        return refused

    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    with pytest.raises(PermissionError):
        folder_status(output)
