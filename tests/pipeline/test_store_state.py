"""The state of an output in a store in memory: parts, locks, and what runs in this process make of them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from gallery import Gallery

from inpaint_batch import processes
from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.errors import RowError, StopRequestedError, StorageError
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.pipeline import store_copy, store_lock, store_state
from inpaint_batch.pipeline.report import write_report
from inpaint_batch.pipeline.rows import OutputNames
from inpaint_batch.pipeline.run import run_manifest
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.pipeline.store_copy import merge_in_store, state_copy, store_status
from inpaint_batch.pipeline.store_state import open_place
from inpaint_batch.processes import process_name
from inpaint_batch.report.progress import make_progress
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import names_below, read_bytes, remove, write_bytes
from inpaint_batch.types import Row

pytest.importorskip("fsspec")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/out"


def config(store: str, **changes: object) -> RunConfig:
    return replace(RunConfig(output=Path(), store=store, engine="identity", workers=1), **changes)


def restore(gallery: Gallery, store: str, **changes: object) -> dict[str, int]:
    with make_progress("text") as progress:
        run_manifest(config(store, **changes), gallery.manifest(), masks=None, progress=progress, stop=Stop())
    part = config(store, **changes).part
    name = f"summary-{part.name}.json" if part else "summary.json"
    return json.loads(read_bytes(f"{store}/.inpaint-batch/{name}"))["rows"]


def test_parts_are_put_together_and_read_back(store, monkeypatch):
    monkeypatch.setattr(store_state, "SMALL_PARTS", 5)
    for run in range(2):
        with open_place(config(store)) as (settings, state):
            ledger = Ledger(settings.output / ".inpaint-batch")
            assert len(ledger) == 23 * run
            for number in range(23):
                ledger.append(LedgerEntry(id=f"{number}", key=f"{run}", status="done", output=f"{number}"))
                assert state is not None
                list(state.announced([]))
                state._push_lines()
            ledger.close()
    parts = sorted(name for name in names_below(store) if "/ledger/" in name)
    assert len(parts) == 2 * 5  # four of five lines and one of three, for each run
    with state_copy(store) as root:
        ledger = Ledger(root / ".inpaint-batch", read_only=True)
        assert (len(ledger), ledger.num_damaged) == (23, 0)
        assert all(ledger.known(f"{number}").key == "1" for number in range(23))
        assert ledger.known("7").output == "7"


def test_a_second_run_is_kept_out_and_a_dead_one_is_not(store, monkeypatch):
    lock = f"{store}/.inpaint-batch/lock.json"
    with open_place(config(store)):
        monkeypatch.setattr("os.getpid", lambda: 1)  # as another process sees it
        second = open_place(config(store))
        with pytest.raises(StorageError, match="in use by another run"):
            second.__enter__()
    monkeypatch.undo()
    assert names_below(store) == []  # given back
    write_bytes(lock, json.dumps({"process": "process 4711 on elsewhere", "at": time.time() - 3600}).encode())
    with open_place(config(store)):
        assert json.loads(read_bytes(lock))["process"] != "process 4711 on elsewhere"


def test_the_first_process_of_another_container_is_kept_out_by_that_of_the_first(store, faults, monkeypatch):
    monkeypatch.setattr(store_lock, "POLL_S", 0.02)
    with open_place(config(store)):
        monkeypatch.setattr(processes, "_kernel_digits", lambda: "00000000")  # of the same number, on the same host
        monkeypatch.setattr(processes, "_TOKEN", "00000000")
        with pytest.raises(StorageError, match="in use by another run"):
            open_place(config(store)).__enter__()
        monkeypatch.undo()


@pytest.mark.parametrize("name", [process_name().partition(" #")[0], process_name().replace(" on ", " on not-")])
def test_a_lock_of_an_earlier_version_or_another_machine_holds_until_it_goes_stale(name):
    assert store_lock.may_live({"process": name, "at": time.time()})
    assert not store_lock.may_live({"process": name, "at": time.time() - store_lock.STALE_S})


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_lock_whose_number_another_process_has_by_now_is_waited_for_but_not_for_ever(store, monkeypatch, goes_on):
    name = process_name().replace(f"process {os.getpid()} ", f"process {os.getppid()} ")
    uri, slept = f"{store}/.inpaint-batch/lock.json", []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if goes_on:
            write_bytes(uri, json.dumps({"process": name, "at": time.time()}).encode())

    monkeypatch.setattr(store_lock.time, "sleep", sleep)
    monkeypatch.setattr(store_lock, "STALE_S", 0.2)
    write_bytes(uri, json.dumps({"process": name, "at": time.time() - 3600}).encode())
    with state_copy(store) as root:
        assert not (root / ".inpaint-batch" / "lock").exists()  # merge need not wait for it
    if goes_on:
        with pytest.raises(StorageError, match="in use by another run"):
            open_place(config(store)).__enter__()
    else:
        with open_place(config(store)):
            assert json.loads(read_bytes(uri))["process"] == process_name()
    assert slept


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"process": "process 1 on a"}', b'{"process": 1, "at": []}'])
def test_a_damaged_lock_holds_nobody_up(store, content):
    write_bytes(f"{store}/.inpaint-batch/lock.json", content)
    with state_copy(store) as root:
        assert not (root / ".inpaint-batch" / "lock").exists()
    with open_place(config(store)):
        assert json.loads(read_bytes(f"{store}/.inpaint-batch/lock.json"))["process"] == process_name()


class Faults:
    """Stands in for `write_bytes`: objects whose names hold a word of `failing` are not taken."""

    def __init__(self) -> None:
        self.failing: dict[str, Exception] = {}
        self.num_failed = 0

    def __call__(self, uri: str, content: bytes) -> None:
        for word, error in self.failing.items():
            if word in uri:
                self.num_failed += 1
                raise error
        write_bytes(uri, content)


@pytest.fixture
def faults(monkeypatch) -> Faults:
    """A store that is asked often, and may fail."""
    faults = Faults()
    for module in (store_state, store_lock):
        monkeypatch.setattr(module, "write_bytes", faults)
    monkeypatch.setattr(store_state, "PUSH_S", 0.005)
    monkeypatch.setattr(store_lock, "BEAT_S", 0.005)
    return faults


def wait_until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 60.0
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def beat(store: str) -> float:
    return json.loads(read_bytes(f"{store}/.inpaint-batch/lock.json"))["at"]


@pytest.mark.parametrize("error", [ObjectError("busy", "slow down"), OSError(28, "No space left on device")])
def test_the_lock_is_kept_and_the_run_goes_on_where_a_push_fails_for_a_while(store, faults, error):
    with open_place(config(store)) as (settings, state):
        assert state is not None
        ledger = Ledger(settings.output / ".inpaint-batch")
        faults.failing = {"/ledger/": error}
        ledger.append(LedgerEntry(id="a", key="", status="started"))
        wait_until(lambda: faults.num_failed > 1)
        before = beat(store)
        wait_until(lambda: beat(store) > before)
        with pytest.raises(StorageError):  # a row must not begin that the store does not know of
            next(state.announced(iter(["task"])))
        faults.failing = {}
        assert list(state.announced(iter(["task"]))) == ["task"]
        ledger.close()
    parts = [name for name in names_below(store) if "/ledger/" in name]
    assert b'"a"' in b"".join(read_bytes(f"{store}/{name}") for name in parts)
    assert not any("lock" in name for name in names_below(store))


@pytest.mark.parametrize("error", [ObjectError("busy", "slow down"), OSError(28, "No space left on device")])
def test_a_beat_that_failed_is_made_up_for(store, faults, error):
    with open_place(config(store)) as (_, state):
        assert state is not None
        faults.failing = {"lock": error}
        wait_until(lambda: faults.num_failed > 1)
        before = beat(store)
        faults.failing = {}
        wait_until(lambda: beat(store) > before)
        assert list(state.announced(iter(["task"]))) == ["task"]


def test_a_run_that_was_taken_for_dead_ends_and_leaves_the_lock_of_the_other(store, faults):
    lock = f"{store}/.inpaint-batch/lock.json"
    other = json.dumps({"process": "process 4711 on elsewhere", "at": time.time()}).encode()
    place = open_place(config(store))
    _, state = place.__enter__()
    assert state is not None
    faults.failing = {"lock": ObjectError("busy", "slow down")}
    wait_until(lambda: faults.num_failed > 0)
    write_bytes(lock, other)
    told = r"another run \(process 4711 on elsewhere\) has taken over"
    with pytest.raises(StorageError, match=told):
        next(state.announced(iter(["task"])))
    with pytest.raises(StorageError, match=told):
        place.__exit__(None, None, None)
    assert read_bytes(lock) == other


def test_of_two_runs_that_begin_at_once_one_ends_and_no_part_is_lost(store, monkeypatch):
    first, second = open_place(config(store)), open_place(config(store))
    settings, state = first.__enter__()
    monkeypatch.setattr(
        processes, "_TOKEN", "00000000"
    )  # as another process, which had looked before the lock was there
    monkeypatch.setattr(store_lock.StoreLock, "_wait_for", lambda *_: None)
    others_settings, others = second.__enter__()
    assert state is not None
    assert others is not None
    names = {}
    for name, (place, held) in {"a": (settings, state), "b": (others_settings, others)}.items():
        ledger = Ledger(place.output / ".inpaint-batch")
        ledger.append(LedgerEntry(id=name, key="", status="started"))
        held._push_lines()
        ledger.close()
        names[name] = set(names_below(f"{store}/.inpaint-batch/ledger"))
    assert len(names["b"]) == 2
    others.begin()
    with pytest.raises(StorageError, match="both began at once"):
        state.begin()
    with pytest.raises(StorageError, match="both began at once"):
        first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert not any("lock" in name for name in names_below(store))


def test_lists_and_logs_of_a_run_do_not_outlive_it(store, gallery):
    gallery.add("a.png")
    state = f"{store}/.inpaint-batch"
    write_bytes(f"{store}/a.png", b"somebody's")
    assert restore(gallery, store, on_conflict="skip")["left"] == 1
    assert b"a.png" in read_bytes(f"{state}/left.csv")
    write_bytes(f"{state}/run.log", b"a traceback")
    remove(f"{store}/a.png")
    assert restore(gallery, store, on_conflict="skip")["done"] == 1
    assert read_bytes(f"{state}/left.csv").decode().splitlines() == ["id,image,mask,output,code,message"]
    assert "run.log" not in names_below(state)


def test_the_lock_is_given_back_where_the_ledger_cannot_be_brought(store, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_state, "bring_ledger", full)
    with pytest.raises(StorageError, match="No space left"):
        open_place(config(store)).__enter__()
    assert names_below(store) == []


@pytest.mark.parametrize("look", ["status", "shard"])
def test_parts_that_another_run_puts_together_meanwhile_are_read_anew(store, monkeypatch, look):
    state = f"{store}/.inpaint-batch"
    lines = [LedgerEntry(id=f"{number}", key="", status="done", output=f"{number}").to_line() for number in range(40)]
    parts = [f"{state}/ledger/000001-2-of-2-{number:06d}.jsonl" for number in range(1, 41)]
    for part, line in zip(parts, lines, strict=True):
        write_bytes(part, line)
    write_bytes(f"{state}/run.json", json.dumps({"shard": "1/1", "at": 1.0}).encode())
    read = store_copy.read_bytes

    def late(uri: str) -> bytes:
        if uri in parts[:-1]:
            write_bytes(parts[-1], b"".join(lines))
            store_copy.remove_all(state, [part.removeprefix(f"{state}/") for part in parts[:-1]])
        return read(uri)

    monkeypatch.setattr(store_copy, "read_bytes", late)
    if look == "status":
        with state_copy(store) as root:
            assert len(Ledger(root / ".inpaint-batch", read_only=True)) == 40
        return
    with open_place(config(store, shard="1/2")) as (settings, _):
        assert len(Ledger(settings.output / ".inpaint-batch")) == 40


def test_runs_resume_and_shards_are_merged(store, gallery):
    for number in range(6):
        gallery.add(f"{number}.png")
    rows = [restore(gallery, store, shard=f"{index}/2") for index in (1, 2)]
    assert sum(row["done"] for row in rows) == 6
    assert merge_in_store(store)["rows"]["done"] == 6
    assert json.loads(read_bytes(f"{store}/.inpaint-batch/summary.json"))["exit_code"] == 0
    assert [status.state for status in store_status(store)] == ["ended", "ended"]
    assert restore(gallery, store)["skipped"] == 6
    gallery.add("7.png")
    assert restore(gallery, store) | {"failed_by_code": 0} == {
        "done": 1, "copied": 0, "skipped": 6, "left": 0, "failed": 0, "failed_now": 0, "failed_by_code": 0,
        "warnings": 0, "redone": {},
    }  # fmt: skip
    assert restore(gallery, store, fresh=True)["done"] == 7
    assert restore(gallery, store)["skipped"] == 7


def test_runs_that_begin_afresh_and_do_nothing_lose_no_name_of_an_earlier_one(store, gallery):
    """Where no part is left, a new one must not be called as one in the archive is."""

    def stopped(**changes: object) -> None:
        stop = Stop()
        stop.request("SIGTERM")
        with make_progress("text") as progress, pytest.raises(StopRequestedError):
            run_manifest(config(store, **changes), gallery.manifest(), masks=None, progress=progress, stop=stop)

    for number in range(3):
        gallery.add(f"{number}.png")
    lines = gallery.manifest().read_text().splitlines()
    assert restore(gallery, store)["done"] == 3
    stopped(fresh=True)
    first = gallery.manifest().with_name("first.csv")
    first.write_text("\n".join(lines[:2]) + "\n")
    with make_progress("text") as progress:
        run_manifest(config(store), first, masks=None, progress=progress, stop=Stop())
    stopped(fresh=True)
    assert restore(gallery, store)["done"] == 3  # results of ours are done anew, not taken for those of others


def test_names_are_kept_inside_and_apart(store, tmp_path):
    write_bytes(f"{store}/there.png", b"somebody's")
    row = Row("a", 2, f"{store}/a.png", "m.png", "a.png", None, {})

    def names(policy: str) -> OutputNames:
        return OutputNames(config(store, output=tmp_path / "here", on_conflict=policy), lambda output, image: False)

    with pytest.raises(RowError, match=r"is the image of this row"):
        names("overwrite").claim(row, "a.png")
    for name in ("../a.png", "/a.png", ".inpaint-batch/ledger/1", "a//b.png", "a\\b.png"):
        with pytest.raises(RowError):
            names("overwrite").claim(row, name)
    with pytest.raises(RowError, match=f"{store}/there.png exists"):
        names("error").claim(row, "there.png")
    assert names("skip").claim(row, "there.png") is None
    claimed = names("suffix").claim(row, "there.png")
    assert claimed is not None
    assert claimed[0] == "there-1.png"
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("wanted", ["", "sidecar", "premis"])
def test_a_key_leaves_room_for_what_is_wanted_beside_it(store, tmp_path, wanted):
    beside = {"": "", "sidecar": ".inpaint-batch.json", "premis": ".premis.xml"}[wanted]
    room = 1024 - len(f"{store}/".partition("://")[2].partition("/")[2]) - len(beside)
    settings = config(store, output=tmp_path, **({wanted: True} if wanted else {}))
    names = OutputNames(settings, lambda output, image: False)
    fits = ("d" * 200 + "/") * 4
    fits += "e" * (room - len(fits) - 4) + ".png"
    row = Row("a", 2, "a.png", "m.png", fits, None, {})
    assert names.claim(row, fits) is not None
    with pytest.raises(RowError, match="a key of more than 1024 bytes") as caught:
        names.claim(row, fits.replace("e", "ee", 1))
    assert ("--sidecar" in caught.value.message) == bool(wanted)


def test_shards_of_another_number_are_kept_out(store):
    with (
        open_place(config(store, shard="1/2")),
        open_place(config(store, shard="2/2")),
    ):
        held = [name for name in names_below(store) if "lock" in name]
        assert sorted(held) == [".inpaint-batch/lock-1-of-2.json", ".inpaint-batch/lock-2-of-2.json"]
    assert Shard(1, 2).name == "1-of-2"


def test_a_page_for_results_in_a_store(store, gallery, tmp_path):
    gallery.add("a.png", side=100, hole=(10, 10, 10, 20))
    restore(gallery, store)
    path = write_report(store, tmp_path / "page.html", num_rows=1, max_image_bytes=1 << 30)
    page = path.read_text("utf-8")
    assert f"<h1>{store}</h1>" in page
    assert "hole 2.00%, changed 2.00%" in page
    assert "<a href" not in page  # no link leads from this machine into a store
