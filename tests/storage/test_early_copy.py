"""A file that is copied before it is asked for: whole or not at all, and nothing stays of what is not taken."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from inpaint_batch.storage import byte_ranges, early_copy
from inpaint_batch.storage.early_copy import EarlyCopy

pytestmark = pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are known to Linux alone")
CONTENT = os.urandom(300_007)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", len(CONTENT))
    monkeypatch.setattr(early_copy, "_PIECE_BYTES", 1 << 16)
    (tmp_path / "source").write_bytes(CONTENT)
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "unfinished").touch()
    return tmp_path / "out" / "unfinished"


@pytest.fixture(autouse=True)
def frees_its_room() -> Iterator[None]:
    descriptors = num_descriptors()
    yield
    assert early_copy._room.acquire(blocking=False)
    early_copy._room.release()
    assert num_descriptors() == descriptors


def num_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def begin(source: Path, folder: Path) -> EarlyCopy:
    copy = EarlyCopy.begin(source, folder)
    assert copy is not None
    return copy


@pytest.mark.parametrize("in_the_system", [True, False])
def test_it_takes_the_place_of_the_file(
    source: Path, out: Path, in_the_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_the_system:
        monkeypatch.delattr(byte_ranges.os, "copy_file_range")
    copy = begin(source, out.parent)
    assert list(out.parent.iterdir()) == [out]  # it has no name yet
    umask = os.umask(0o027)
    os.umask(umask)
    assert copy.take(out)
    assert out.read_bytes() == CONTENT
    assert list(out.parent.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == 0o666 & ~umask
    copy.close()
    assert out.read_bytes() == CONTENT


def test_nothing_stays_of_one_that_is_not_taken(source: Path, out: Path) -> None:
    copy = begin(source, out.parent)
    copy.close()
    copy.close()
    assert list(out.parent.iterdir()) == [out]


def test_it_stops_when_it_is_not_wanted_any_more(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), threading.Event()
    pieces: list[int] = []

    def slow(first: object, second: object, start: int, end: int) -> None:
        pieces.append(start)
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(early_copy, "copy_range", slow)
    copy = begin(source, out.parent)
    assert begun.wait(10)
    copy._unwanted.set()
    go_on.set()
    assert not copy.take(out)
    assert pieces == [0]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), EOFError("it ends before")])
def test_one_that_failed_is_none(source: Path, out: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(early_copy, "copy_range", fail)
    assert not begin(source, out.parent).take(out)
    assert out.read_bytes() == b""


def test_where_it_cannot_get_a_name_the_file_stays(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(early_copy.os, "link", fail)
    assert not begin(source, out.parent).take(out)
    assert out.read_bytes() == b""


def test_there_is_one_at_a_time(source: Path, out: Path) -> None:
    copy = begin(source, out.parent)
    assert EarlyCopy.begin(source, out.parent) is None
    copy.close()
    begin(source, out.parent).close()


def test_what_is_small_or_cannot_be_there_is_not_begun(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EarlyCopy.begin(source, out.parent / "not there") is None
    assert EarlyCopy.begin(out.parent / "not there", out.parent) is None
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", len(CONTENT) + 1)
    assert EarlyCopy.begin(source, out.parent) is None


def test_without_a_thread_to_be_had_there_is_none(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert EarlyCopy.begin(source, out.parent) is None
