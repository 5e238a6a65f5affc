"""A run that finds nothing changed looks at files only; and whatever changes is found, and named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gallery import Gallery, ledger_lines, run, tree
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.execution.identity import Identity
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.pipeline import manifest_rows, settled, settling, work
from inpaint_batch.pipeline.executors import open_executor
from inpaint_batch.pipeline.rows import RowPlanner
from inpaint_batch.pipeline.settled import _unpacked, packed, settled_path
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.report.tally import FailedRow
from inpaint_batch.types import Row

NOTHING = "nothing has changed since the last run"


@pytest.fixture
def done(gallery: Gallery, tmp_path: Path) -> tuple[Gallery, Path]:
    """Six rows that are done, and the output folder."""
    for number in range(6):
        gallery.add(f"box{number % 2}/{number}.png")
    output = tmp_path / "out"
    assert run(gallery.manifest(), output)["rows"]["done"] == 6
    return gallery, output


def stands(summary: dict) -> bool:
    return NOTHING in summary["notes"]


def touch(path: Path) -> None:
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@contextmanager
def with_another_model(*arguments: Any, **options: Any) -> Iterator[Any]:
    with open_executor(*arguments, **options) as (engine, executor):
        yield replace(engine, identity="another"), executor


def test_nothing_to_do_is_found_without_ledger_and_rows(done, monkeypatch):
    gallery, output = done
    before = tree(output)
    lines = len(ledger_lines(output))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this shall not be needed")

    monkeypatch.setattr(work, "Ledger", refuse)
    monkeypatch.setattr(manifest_rows, "count_rows", refuse)
    monkeypatch.setattr(manifest_rows.ManifestRows, "read", lambda _: (row for row in ()))
    for _ in range(2):
        summary = run(gallery.folder / "manifest.csv", output)
        assert stands(summary)
        assert summary["rows"]["skipped"] == 6
        assert summary["exit_code"] == 0
    assert tree(output) == before
    assert len(ledger_lines(output)) == lines


@pytest.mark.parametrize("change", ["image", "mask", "missing", "options", "model", "output"])
def test_a_change_redoes_what_it_touches_and_is_named(done, change, monkeypatch):
    gallery, output = done
    settings: dict = {}
    num_redone = 1
    match change:
        case "image":
            touch(gallery.folder / "box1/3.png")
        case "mask":
            touch(gallery.folder / "box0/2.png.mask.png")
        case "missing":
            (output / "box0/4.png").unlink()
        case "options":
            settings["row"] = {"dilate_px": 3}
            num_redone = 6
        case "model":
            monkeypatch.setattr(work, "open_executor", with_another_model)
            num_redone = 6
        case "output":
            gallery.rows[5]["output"] = "elsewhere.png"
    summary = run(gallery.manifest(), output, **settings)
    assert not stands(summary)
    assert summary["rows"]["redone"] == {change: num_redone}
    assert summary["rows"]["done"] == num_redone
    assert any(f"rows done again: {num_redone} " in note for note in summary["notes"])
    whys = [line.get("why") for line in ledger_lines(output) if line["status"] == "started"]
    assert whys == [None] * 6 + [change] * num_redone
    again = run(gallery.folder / "manifest.csv", output, **settings)
    assert stands(again)
    assert again["rows"]["redone"] == {}


def test_a_longer_manifest_a_moved_one_and_a_fresh_run_are_looked_at_row_by_row(done, tmp_path):
    gallery, output = done
    gallery.add("new.png")
    longer = run(gallery.manifest(), output)
    assert not stands(longer)
    assert (longer["rows"]["done"], longer["rows"]["skipped"], longer["rows"]["redone"]) == (1, 6, {})
    assert not stands(run(gallery.manifest("other.csv"), tmp_path / "other"))
    fresh = run(gallery.folder / "manifest.csv", output, fresh=True)
    assert fresh["rows"]["done"] == 7
    assert not stands(fresh)
    assert stands(run(gallery.folder / "manifest.csv", output))


def test_what_is_wanted_beside_a_result_must_be_there(done):
    gallery, output = done
    manifest = gallery.folder / "manifest.csv"
    assert run(manifest, output, sidecar=True)["rows"]["redone"] == {"missing": 6}
    assert stands(run(manifest, output, sidecar=True))
    (output / "box0/0.png.inpaint-batch.json").unlink()
    assert run(manifest, output, sidecar=True)["rows"]["redone"] == {"missing": 1}


def test_failures_stand_until_mended_or_asked_for(done):
    gallery, output = done
    gallery.add_row("gone.png", "box0/0.png.mask.png")
    gallery.rows.append({"id": "bad", "image": "box0/0.png", "mask": "", "output": "bad.png"})
    first = run(gallery.manifest(), output)
    assert (first["exit_code"], first["rows"]["failed_now"]) == (8, 2)
    listed = (output / ".inpaint-batch/failures.csv").read_text()
    second = run(gallery.folder / "manifest.csv", output)
    assert stands(second)
    assert (second["exit_code"], second["rows"]["failed"], second["rows"]["failed_now"]) == (8, 2, 0)
    assert (output / ".inpaint-batch/failures.csv").read_text() == listed
    asked = run(gallery.folder / "manifest.csv", output, retry_failed=True)
    assert asked["rows"]["failed_now"] == 2  # the manifest is still wrong about one of them, and says so again
    assert asked["rows"]["redone"] == {"failed": 1}
    (gallery.folder / "gone.png").write_bytes((gallery.folder / "box1/1.png").read_bytes())
    mended = run(gallery.folder / "manifest.csv", output)
    assert (mended["rows"]["done"], mended["rows"]["redone"]) == (1, {"image": 1})


def test_a_line_more_in_the_ledger_counts(done):
    gallery, output = done
    assert stands(run(gallery.folder / "manifest.csv", output))
    entry = LedgerEntry(id="box0/0.png", key="", status="dropped", output="box0/0.png")
    with (output / ".inpaint-batch/ledger/000001.jsonl").open("ab") as part:
        part.write(entry.to_line())
    summary = run(gallery.folder / "manifest.csv", output)
    assert not stands(summary)
    assert summary["rows"]["done"] == 1
    (output / ".inpaint-batch/ledger/000001.jsonl").unlink()
    assert not stands(run(gallery.folder / "manifest.csv", output, on_conflict="overwrite"))


def test_a_line_less_in_the_ledger_counts(done):
    gallery, output = done
    part = output / ".inpaint-batch/ledger/000001.jsonl"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:-1]))
    summary = run(gallery.folder / "manifest.csv", output)
    assert not stands(summary)
    assert (summary["rows"]["skipped"], summary["rows"]["done"]) == (5, 1)


def test_what_another_version_left_says_nothing(done, monkeypatch):
    gallery, output = done
    assert stands(run(gallery.folder / "manifest.csv", output))
    monkeypatch.setattr(settled, "FORMAT", "inpaint-batch settled 1, of another version")
    assert not stands(run(gallery.folder / "manifest.csv", output))


def test_each_shard_has_its_own_and_others_may_go_on(done):
    gallery, output = done
    manifest = gallery.folder / "manifest.csv"

    def shard(text: str) -> dict:
        run(manifest, output, shard=text)
        path = output / ".inpaint-batch" / f"summary-{Shard.parse(text).name}.json"
        return json.loads(path.read_text())

    assert not any(stands(shard(f"{index}/2")) for index in (1, 2))
    assert all(stands(shard(f"{index}/2")) for index in (1, 2))
    touch(gallery.folder / "box1/3.png")
    told = [shard(f"{index}/2") for index in (1, 2)]
    assert sorted(stands(summary) for summary in told) == [False, True]
    assert all(stands(shard(f"{index}/2")) for index in (1, 2))
    whole = run(manifest, output)
    assert not stands(whole)  # the ledger has lines that the whole did not write
    assert whole["rows"]["skipped"] == 6
    assert run(manifest, output, row={"dilate_px": 3})["rows"]["done"] == 6
    assert [shard(f"{index}/2")["rows"]["redone"] for index in (1, 2)] == [{"options": 3}] * 2


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
@example(at=0.5, flip=1, cut=True)
def test_a_damaged_cache_is_no_cache(done, at, flip, cut):
    gallery, output = done
    path = settled_path(output / ".inpaint-batch", None)
    whole = path.read_bytes()
    where = int(at * len(whole))
    path.write_bytes(whole[:where] if cut else whole[:where] + bytes([whole[where] ^ flip]) + whole[where + 1 :])
    summary = run(gallery.folder / "manifest.csv", output)
    assert not stands(summary)
    assert summary["rows"]["skipped"] == 6
    assert stands(run(gallery.folder / "manifest.csv", output))  # made anew


def test_many_blocks_also_where_looks_are_slow(done, monkeypatch):
    gallery, output = done
    monkeypatch.setattr(settling, "BLOCK_ROWS", 4)
    monkeypatch.setattr(settled, "BLOCK_ROWS", 4)
    monkeypatch.setattr(settled, "NUM_LOOKS", 4)
    monkeypatch.setattr(settled, "SLOW_LOOK_S", -1.0)
    manifest = gallery.folder / "manifest.csv"
    settled_path(output / ".inpaint-batch", None).unlink()
    assert not stands(run(manifest, output))
    assert stands(run(manifest, output))
    touch(gallery.folder / "box1/5.png")
    assert run(manifest, output)["rows"]["redone"] == {"image": 1}


def test_what_cannot_be_kept_is_left_out_and_fails_no_run(tmp_path, monkeypatch):
    """Files that were gone when they were looked at, a name that cannot be told from two, and no folder to write in."""
    monkeypatch.setattr(settling, "BLOCK_ROWS", 1)
    row, seen, kept = Row("a", 2, "/in/a.png", "/in/m.png", "a.png"), (70, 1), settled_path(tmp_path, None)
    for state, image, mask, output, is_kept in (
        (tmp_path, seen, seen, "a.png", True),
        (tmp_path, None, seen, "a.png", False),
        (tmp_path, seen, None, "a.png", False),
        (tmp_path, seen, seen, "a\0.png", False),
        (tmp_path, seen, seen, "a.png", True),
        (tmp_path / "gone", seen, seen, "a.png", False),
    ):
        kept.unlink(missing_ok=True)
        writer = settling.Settling(state, RunConfig(output=tmp_path), "engine", "digest")
        writer.begin(row, Identity("key", (row.image, image), (row.mask, mask)))
        writer.done(row.id, output)
        writer.failed("b", FailedRow({}, "read", "no"), of_manifest=True)
        writer.close(2)
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [kept] * is_kept


def test_a_stopped_run_leaves_none(done):
    gallery, output = done
    gallery.add_row("never.png", "none.png")

    class Soon(Stop):
        num_calls = 0

        def __call__(self) -> bool:
            self.num_calls += 1
            if self.num_calls > 3:
                self.request("SIGTERM")
            return super().__call__()

    run(gallery.manifest(), output, stop=Soon())
    assert not settled_path(output / ".inpaint-batch", None).exists()


def test_what_was_not_looked_at_does_not_stand(done):
    gallery, output = done
    touch(gallery.folder / "box1/3.png")
    stop = Stop()
    stop.request("SIGTERM")
    summary = run(gallery.folder / "manifest.csv", output, stop=stop)
    assert not stands(summary)
    assert summary["rows"]["skipped"] < 6


def test_a_stop_is_heard_while_rows_are_passed_over(done, monkeypatch):
    """Of a million rows that are done none gets as far as a worker, where a stop is heard as well."""
    gallery, output = done
    settled_path(output / ".inpaint-batch", None).unlink()
    stop, planned, really = Stop(), [], RowPlanner.plan

    def plan(self: RowPlanner, row: Row) -> object:
        planned.append(row.id)
        if len(planned) == 2:
            stop.request("SIGTERM")
        return really(self, row)

    monkeypatch.setattr(RowPlanner, "plan", plan)
    run(gallery.folder / "manifest.csv", output, stop=stop)
    assert planned == ["box0/0.png", "box1/1.png"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", categories=["L", "N", "P", "Cs"])), min_size=1))
def test_columns_survive(texts):
    assert _unpacked(packed(tuple(texts))) == texts


def test_by_content_a_touched_or_moved_file_is_the_same_and_a_changed_one_is_not(done, tmp_path):
    gallery, output = done
    manifest = gallery.folder / "manifest.csv"
    output = tmp_path / "by-content"
    assert run(manifest, output, content_hash=True)["rows"]["done"] == 6
    touch(gallery.folder / "box1/3.png")
    touched = run(manifest, output, content_hash=True)
    assert (touched["rows"]["skipped"], touched["rows"]["redone"]) == (6, {})
    image = gallery.folder / "box0/0.png"
    status = image.stat()
    content = bytearray(image.read_bytes())
    other = (gallery.folder / "box0/2.png").read_bytes()
    image.write_bytes(other[: len(content)].ljust(len(content), b"\0"))
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))  # size and time say nothing
    changed = run(manifest, output, content_hash=True)
    assert changed["rows"]["redone"] == {"image": 1}
    moved = gallery.folder.rename(gallery.folder.with_name("moved"))
    summary = run(moved / "manifest.csv", output)  # rows stay what they were recorded as
    assert summary["rows"]["skipped"] + summary["rows"]["failed"] == 6
    assert summary["rows"]["redone"] == {}
