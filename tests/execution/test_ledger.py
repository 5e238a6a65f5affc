"""The ledger: what was written is known again, torn lines are tolerated, parts are never mixed."""

from __future__ import annotations

import errno
import json
import os
import queue
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inpaint_batch.config import RowConfig, Shard, TilingConfig
from inpaint_batch.errors import StorageError
from inpaint_batch.execution import ledger as ledger_module
from inpaint_batch.execution.identity import row_key
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.ledger_index import Known
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.execution.lock import RunLock, hold_folder
from inpaint_batch.types import Row


def parts(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "ledger").iterdir())


def test_what_was_written_is_known_again(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(LedgerEntry(id="a", key="1", status="started", output="a.png"))
    ledger.append(
        LedgerEntry(
            id="a", key="1", status="done", output="a.png", num_tiles={64: 3}, seconds={"read": 0.5}, coverage=0.25
        )
    )
    ledger.append(LedgerEntry(id="b", key="2", status="failed", code="read", message="no file", retryable=True))
    ledger.close()
    again = Ledger(tmp_path)
    assert again.known("a") == Known("done", "1", "a.png")
    assert again.known("b") == Known("failed", "2", "", "read", True, place=again.known("b").place)
    assert again.known("c") is None
    assert len(again) == 2
    lines = [json.loads(line) for line in (tmp_path / "ledger" / "000001.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["started", "done", "failed"]
    assert lines[1]["tiles"] == {"64": 3}
    assert lines[1]["seconds"] == {"read": 0.5}
    assert lines[1]["coverage"] == 0.25
    assert 0 <= time.time() - lines[0]["at"] < 600


def failed(row_id: str, message: str) -> LedgerEntry:
    return LedgerEntry(id=row_id, key="", status="failed", code="read", message=message)


def test_messages_are_read_from_the_last_lines_of_their_rows(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(failed("a", "first"))
    ledger.append(failed("ü\n", "größer"))
    ledger.append(LedgerEntry(id="b", key="", status="done", output="b.png"))
    ledger.close()
    ledger = Ledger(tmp_path)
    ledger.append(failed("c", "new"))
    ledger.append(failed("a", "second"))
    assert [ledger.message(row_id) for row_id in ("a", "ü\n", "b", "c", "never")] == ["second", "größer", "", "new", ""]
    ledger.append(failed("d", "last"))
    assert ledger.message("d") == "last"
    ledger.close()
    for content in (b"", failed("z", "of another row").to_line()):
        reader = Ledger(tmp_path, read_only=True)
        part = tmp_path / "ledger" / "000002.jsonl"
        whole = part.read_bytes()
        part.write_bytes(content)  # while it is known
        assert reader.message("c") == ""
        reader.close()
        part.write_bytes(whole)


@settings(max_examples=40)
@given(cut=st.integers(0, 400))
def test_a_ledger_cut_anywhere_is_read_and_continued(tmp_path_factory, cut):
    state = tmp_path_factory.mktemp("state")
    ledger = Ledger(state)
    for number in range(4):
        ledger.append(LedgerEntry(id=f"ü{number}", key="k", status="done", output=f"{number}.png"))
    ledger.close()
    part = state / "ledger" / "000001.jsonl"
    whole = part.read_bytes()
    part.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n") + (not whole[:cut].endswith(b"\n") and whole[cut : cut + 1] == b"\n")
    again = Ledger(state)
    assert len(again) == kept
    again.append(LedgerEntry(id="new", key="k", status="done", output="new.png"))
    again.close()
    assert parts(state) == ["000001.jsonl", "000002.jsonl"]  # never glued to the torn line
    third = Ledger(state)
    assert len(third) == kept + 1
    assert third.known("new") == Known("done", "k", "new.png")
    is_torn = cut > 0 and not whole[:cut].endswith(b"\n") and not whole[cut:].startswith(b"\n")
    assert third.num_damaged == is_torn


def test_the_last_word_counts_and_an_output_stays_ours(tmp_path):
    ledger = Ledger(tmp_path)
    ledger.append(LedgerEntry(id="a", key="1", status="done", output="a.png"))
    ledger.append(LedgerEntry(id="a", key="2", status="failed", code="read", message="gone"))
    ledger.close()
    known = Ledger(tmp_path).known("a")
    assert known == Known("failed", "2", "a.png", "read", False, place=known.place)


def test_deaths_are_counted_until_a_row_comes_to_an_end(tmp_path):
    ledger = Ledger(tmp_path)

    def append(status, alone=False):
        ledger.append(LedgerEntry(id="a", key="1", status=status, alone=alone, output="a.png"))
        return ledger.in_flight_at_death("a"), ledger.num_deaths("a")

    assert (ledger.in_flight_at_death("a"), ledger.num_deaths("a")) == (False, 0)
    assert append("started") == (True, 0)
    assert append("started", alone=True) == (True, 1)
    assert append("started", alone=True) == (True, 2)
    again = Ledger(tmp_path)
    assert (again.in_flight_at_death("a"), again.num_deaths("a")) == (True, 2)
    assert append("dropped") == (False, 0)
    assert append("started", alone=True) == (True, 1)
    assert append("done") == (False, 0)
    ledger.close()


def test_lines_are_forced_to_the_disk_by_number_and_by_time(tmp_path, monkeypatch):
    clock = SimpleNamespace(now_s=50.0)
    monkeypatch.setattr(ledger_module, "time", SimpleNamespace(monotonic=lambda: clock.now_s, time=time.time))
    really, forced = os.fsync, queue.SimpleQueue()
    part = tmp_path / "ledger" / "000001.jsonl"

    def fsync(descriptor):
        really(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        forced.put("folder" if is_folder else part.read_bytes().count(b"\n"))

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(tmp_path)

    def append(count):
        for number in range(count):
            ledger.append(LedgerEntry(id=f"{number}", key="k", status="started"))

    append(63)
    clock.now_s += 0.99
    ledger.tick()
    assert forced.get(timeout=10) == "folder"
    assert forced.empty()
    append(1)
    assert forced.get(timeout=10) == 64
    ledger.flush()  # which waits for that, and has nothing more to do
    append(1)
    clock.now_s += 1.0
    ledger.tick()
    assert forced.get(timeout=10) == 65
    ledger.flush()
    clock.now_s += 5.0
    ledger.tick()
    assert forced.empty()
    append(1)
    assert forced.get(timeout=10) == 66
    ledger.flush()
    append(1)
    assert forced.empty()
    ledger.close()
    assert forced.get_nowait() == 67
    assert forced.empty()


def started(row_id: str) -> LedgerEntry:
    return LedgerEntry(id=row_id, key="k", status="started")


@pytest.mark.parametrize("then", [lambda ledger: ledger.append(started("c")), Ledger.flush, Ledger.close])
def test_what_the_disk_did_not_take_is_told_later(tmp_path, monkeypatch, then):
    ledger = Ledger(tmp_path)
    ledger.append(started("a"))
    monkeypatch.setattr(ledger_module, "FSYNC_LINES", 1)

    def fsync(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fsync)
        ledger.append(started("b"))  # forced to the disk in a thread of its own
        wait([ledger._sync])
    with pytest.raises(OSError, match="Input/output error") as caught:
        then(ledger)
    assert caught.value.filename == str(tmp_path / "ledger")
    ledger.close()


def test_a_slow_disk_is_given_one_thing_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "FSYNC_LINES", 1)
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)
    really = os.fsync

    def fsync(descriptor):
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            begun.release()
            assert go_on.acquire(timeout=60)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    ledger = Ledger(tmp_path)
    for name in "abc":
        ledger.append(started(name))  # which waits for none
    assert begun.acquire(timeout=60)
    go_on.release()
    wait([ledger._sync])
    assert not begun.acquire(blocking=False)
    ledger.tick()  # the other two lines
    assert begun.acquire(timeout=60)
    go_on.release()
    ledger.close()
    assert not begun.acquire(blocking=False)


def test_nothing_to_write_makes_no_part(tmp_path):
    Ledger(tmp_path).close()
    assert parts(tmp_path) == []


def test_fresh_archives_and_still_knows_our_outputs(tmp_path):
    for _ in range(3):
        ledger = Ledger(tmp_path, fresh=True)
        assert len(ledger) == 0
        ledger.append(LedgerEntry(id="a", key="1", status="done", image="/in/a.png", output="a.png"))
        ledger.close()
    fresh = Ledger(tmp_path, fresh=True)
    assert fresh.known("a") is None
    assert fresh.owns("a.png", "/in/a.png")
    assert not fresh.owns("a.png", "/elsewhere/a.png")
    assert not fresh.owns("b.png", "/in/b.png")
    fresh.append(LedgerEntry(id="b", key="1", status="started", image="/in/b.png", output="b.png"))
    assert fresh.owns("b.png", "/in/b.png")
    fresh.close()
    assert sorted(path.name for path in (tmp_path / "ledger-archive").iterdir()) == ["000001", "000002", "000003"]


def test_a_shard_knows_its_own_rows_and_forgets_no_others(tmp_path):
    names = [f"row {number}" for number in range(20)]
    own = [name for name in names if Shard(1, 2).has(name)]
    assert 0 < len(own) < len(names)
    ledger = Ledger(tmp_path)
    for name in names:
        ledger.append(LedgerEntry(id=name, key="1", status="done", output=f"{name}.png"))
    ledger.close()
    assert [name for name in names if Ledger(tmp_path, shard=Shard(1, 2)).known(name)] == own
    Ledger(tmp_path, fresh=True, shard=Shard(1, 2)).close()
    assert parts(tmp_path) == ["000001.jsonl", "000002.jsonl"]
    again = Ledger(tmp_path, read_only=True)
    assert [name for name in names if again.known(name).status == "dropped"] == own
    assert {known.key for known in map(again.known, names)} == {"1"}


def test_undecodable_names_survive(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    ledger = Ledger(tmp_path)
    ledger.append(LedgerEntry(id=name, key="1", status="done", output=name))
    ledger.close()
    assert Ledger(tmp_path).known(name) == Known("done", "1", name)


def test_key_changes_with_everything_that_changes_the_result(tmp_path):
    image, mask = tmp_path / "i.png", tmp_path / "m.png"
    row = Row("a", 2, str(image), str(mask), "a.png")

    def key(**changes):
        values = {"row": row, "config": RowConfig(), "tiling": TilingConfig(), "engine": "e"} | changes
        return row_key(values["row"], values["config"], values["tiling"], values["engine"])

    keys = [key()]
    assert key() == keys[0]
    image.write_bytes(b"1")
    keys.append(key())
    image.write_bytes(b"22")
    keys.append(key())
    mask.write_bytes(b"1")
    keys.append(key())
    keys.append(key(config=RowConfig(dilate_px=1)))
    keys.append(key(tiling=TilingConfig(margin_px=16)))
    keys.append(key(engine="f"))
    keys.append(key(row=Row("a", 2, str(image), str(mask), "b.png")))
    assert len(set(keys)) == len(keys)
    assert key(row=Row("other", 7, str(image), str(mask), "a.png")) == key()  # neither id nor line matters


def test_a_lock_that_could_not_be_written_is_free_again(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "lock"
    with monkeypatch.context() as patched:
        patched.setattr("os.pwrite", full)
        with pytest.raises(OSError, match="No space left"), RunLock(path):
            pass
    with RunLock(path):
        assert path.read_text().startswith("process ")


def test_lock_is_exclusive_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "out" / "lock"
    path.parent.mkdir()
    code = (
        "import sys, time; from pathlib import Path; from inpaint_batch.execution.lock import RunLock\n"
        "with RunLock(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"process {holder.pid}"), RunLock(path):
            pass
        holder.kill()
    with RunLock(path) as lock:
        assert lock.killed.startswith(f"process {holder.pid} on ")
    with RunLock(path) as lock:
        assert not lock.killed


def test_shards_that_start_together_do_not_keep_each_other_out_by_looking_for_older_ones(tmp_path):
    (tmp_path / "lock-1-of-2").write_text("process 1 on a machine that is gone\n")
    with RunLock(tmp_path / "lock-1-of-2", shared=True):  # as another shard of three does just now
        for index in (1, 2):
            with hold_folder(tmp_path, Shard(index, 3)):
                pass
    with (
        RunLock(tmp_path / "lock-1-of-2"),
        pytest.raises(StorageError, match="in use by another run"),
        hold_folder(tmp_path, Shard(1, 3)),
    ):
        pass
