"""Bytes that are copied and compared at their places, with the system's help and without."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from inpaint_batch.storage import byte_ranges
from inpaint_batch.storage.byte_ranges import copy_range, is_same_range

SIZE = 3 * byte_ranges._PIECE_BYTES + 7


@pytest.fixture(params=["by the system", "refused", "half way", "absent"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    system = getattr(os, "copy_file_range", None)

    def refused(*_: int) -> int:
        raise OSError(errno.EXDEV, "another file system")

    def half_way(source: int, target: int, count: int, at: int, to: int) -> int:
        return 0 if count < 1000 else system(source, target, count // 2, at, to)

    if request.param == "absent":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif request.param != "by the system":
        if system is None:
            pytest.skip("this system cannot copy ranges by itself")
        monkeypatch.setattr(os, "copy_file_range", refused if request.param == "refused" else half_way)
    return str(request.param)


@pytest.mark.usefixtures("how")
@pytest.mark.parametrize(("start", "end"), [(0, SIZE), (5, SIZE - 3), (100, 101), (9, 9), (SIZE, SIZE)])
def test_a_range_is_copied_and_nothing_else(tmp_path: Path, start: int, end: int) -> None:
    content, other = os.urandom(SIZE), os.urandom(SIZE)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(other)
    with (tmp_path / "a").open("rb") as source, (tmp_path / "b").open("r+b") as target:
        target.seek(SIZE)
        target.write(b"written just before, and not flushed")
        copy_range(source, target, start, end)
    expected = other[:start] + content[start:end] + other[end:] + b"written just before, and not flushed"
    assert (tmp_path / "b").read_bytes() == expected


@pytest.mark.usefixtures("how")
def test_a_file_that_ends_early_is_not_taken_for_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"short")
    (tmp_path / "b").write_bytes(b"")
    with (
        (tmp_path / "a").open("rb") as source,
        (tmp_path / "b").open("r+b") as target,
        pytest.raises(EOFError, match="ends before 9 bytes"),
    ):
        copy_range(source, target, 0, 9)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="there is no file here that cannot be read")
@pytest.mark.usefixtures("how")
def test_it_is_told_which_of_the_two_files_is_at_fault(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"long enough")
    with (
        Path("/proc/self/mem").open("rb") as unreadable,
        (tmp_path / "b").open("w+b") as target,
        pytest.raises(byte_ranges.UnreadableError, match="/proc/self/mem"),
    ):
        copy_range(unreadable, target, 0, 9)
    with (
        Path("/proc/self/mem").open("rb") as unreadable,
        (tmp_path / "a").open("rb") as copy,
        pytest.raises(byte_ranges.UnreadableError, match="/proc/self/mem"),
    ):
        is_same_range(unreadable, copy, 0, 9)
    with (
        (tmp_path / "a").open("rb") as source,
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left") as caught,
    ):
        copy_range(source, full, 0, 9)
    assert not isinstance(caught.value, byte_ranges.UnreadableError)


@pytest.mark.parametrize("changed", [0, 5, byte_ranges._PIECE_BYTES, SIZE - 1])
def test_one_byte_makes_a_difference(tmp_path: Path, changed: int) -> None:
    content = bytearray(os.urandom(SIZE))
    (tmp_path / "a").write_bytes(content)
    content[changed] ^= 1
    (tmp_path / "b").write_bytes(content)
    with (tmp_path / "a").open("rb") as first, (tmp_path / "b").open("rb") as second:
        assert not is_same_range(first, second, changed, changed + 1)
        assert not is_same_range(first, second, 0, SIZE)
        assert is_same_range(first, second, 0, changed)
        assert is_same_range(first, second, changed + 1, SIZE)
