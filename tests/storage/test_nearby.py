"""Objects as files of this machine, and what is told where that cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.storage import nearby, objects, scratch
from inpaint_batch.storage.nearby import on_this_machine
from inpaint_batch.storage.object_errors import ObjectError

pytest.importorskip("fsspec")


def test_a_file_is_itself_and_an_object_a_copy_for_a_while(tmp_path: Path) -> None:
    with on_this_machine(str(tmp_path / "a.png"), "image") as path:
        assert path == tmp_path / "a.png"
    objects.write_bytes("memory://nearby/b.tif", b"pixels")
    with on_this_machine("memory://nearby/b.tif", "image") as path:
        assert (path.suffix, path.read_bytes()) == (".tif", b"pixels")
    assert not path.exists()


def test_what_fails_within_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    objects.write_bytes("memory://nearby/b.tif", b"pixels")
    with pytest.raises(OSError, match="of the reader"), on_this_machine("memory://nearby/b.tif", "image"):
        raise OSError("of the reader")


@pytest.mark.parametrize("place", ["scratch_file", "fetch"])
def test_no_room_for_a_copy_is_the_trouble_of_one_row(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((nearby, "fetch") if place == "fetch" else (scratch, "scratch_folder")), full)
    with (
        pytest.raises(
            RowError, match=r"no room for a copy of the mask memory://nearby/m\.png .*No space.*TMPDIR"
        ) as caught,
        on_this_machine("memory://nearby/m.png", "mask"),
    ):
        pass
    assert (caught.value.code, caught.value.retryable) == (FailureCode.READ, True)


def test_what_the_store_says_is_told_of_the_row_or_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(RowError, match="the image memory://nearby/none does not exist"),
        on_this_machine("memory://nearby/none", "image"),
    ):
        pass

    def refused(*_: object) -> None:
        raise ObjectError("refused", "credentials expired")

    monkeypatch.setattr(nearby, "fetch", refused)
    with (
        pytest.raises(StorageError, match="credentials expired"),
        on_this_machine("memory://nearby/b.tif", "image"),
    ):
        pass
