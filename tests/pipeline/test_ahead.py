"""What is asked ahead about the files of rows, and what is fetched ahead of a state in a store."""

from __future__ import annotations

import threading

import pytest

from inpaint_batch.config import RowConfig, Shard, TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution import identity
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.pipeline import ahead as module
from inpaint_batch.pipeline import store_copy
from inpaint_batch.pipeline.ahead import ahead
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.types import Row


@pytest.mark.parametrize(("folder", "by_content"), [("s3://bucket", False), ("/photos", True)])
def test_a_shard_asks_after_the_files_of_its_own_rows_only(folder, by_content, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(module, "ask_version", asked.append)
    monkeypatch.setattr(module, "look", lambda name: (1, 1))
    monkeypatch.setattr(module, "content_digest", lambda name, seen: asked.append(name))
    rows: list[Row | RowProblem] = [
        Row(f"{number}", number, f"{folder}/{number}.png", f"{folder}/m/{number}.png", f"{number}.png")
        for number in range(600)
    ]
    rows[100] = RowProblem(100, "100", RowError(FailureCode.READ, "no row"), {})
    part = Shard(2, 5)
    assert list(ahead(iter(rows), by_content=by_content, part=part)) == rows
    own = [row for row in rows if isinstance(row, Row) and part.has(row.id)]
    assert sorted(asked) == sorted(path for row in own for path in (row.image, row.mask))
    asked.clear()
    assert list(ahead(iter(rows), by_content=by_content)) == rows
    assert len(asked) == 2 * 599


def test_a_store_that_hangs_does_not_keep_a_run_that_shall_stop(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    answered, asked = threading.Event(), threading.Event()

    def hang(uri: str) -> None:
        if uri.endswith("/2.png"):
            asked.set()
            answered.wait(60)

    monkeypatch.setattr(module, "ask_version", hang)
    stop = Stop()
    rows = ahead((Row(f"{n}", n, f"s3://bucket/{n}.png", "m.png", f"{n}.png") for n in range(5)), stop=stop)
    assert [next(rows).id, next(rows).id] == ["0", "1"]
    assert asked.wait(60)
    stop.request("SIGTERM")
    assert list(rows) == []
    assert not answered.is_set()
    assert stop.left_threads  # the process shall not wait for them either
    answered.set()


def test_what_a_store_did_not_tell_ahead_is_not_waited_for_again(monkeypatch):
    asked: list[str] = []

    def busy(uri: str) -> str:
        asked.append(uri)
        raise ObjectError("busy", f"{uri}, after 5 attempts in 9 s: slow down")

    monkeypatch.setattr(identity, "describe", busy)
    identity.forget_looks()
    row = Row("a", 1, "s3://bucket/a.png", "/m.png", "a.png")
    for number in (1, 2):  # in a later run, or of a later row, it is asked anew
        for _ in ahead([row]):
            with pytest.raises(RowError, match="slow down"):
                identity.identify(row, RowConfig(), TilingConfig(), "")
        assert len(asked) == number
    monkeypatch.setattr(identity, "describe", lambda uri: "version")
    for _ in ahead([row]):
        identity.identify(row, RowConfig(), TilingConfig(), "")
    identity.forget_looks()


def test_parts_of_a_ledger_wait_for_the_one_before_them_in_bounded_number(monkeypatch):
    first, many = threading.Event(), threading.Event()
    begun: list[str] = []

    def read(uri: str) -> bytes:
        begun.append(uri)
        if uri.endswith("/0"):
            assert first.wait(60)
        elif len(begun) > 2 * store_copy.NUM_REQUESTS:
            many.set()
        return uri.encode()

    monkeypatch.setattr(store_copy, "read_bytes", read)
    names = [str(number) for number in range(200)]
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(store_copy.contents("s3://bucket", names)))
    reader.start()
    were_many = many.wait(1)
    first.set()
    reader.join()
    assert not were_many
    assert found == [f"s3://bucket/{name}".encode() for name in names]
