import errno
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.storage import atomic
from inpaint_batch.storage.atomic import (
    atomic_write,
    final_path,
    is_temporary,
    probe_folder,
    remove_stale_temporaries,
    storage_error,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_and_fail(destination: Path, error: BaseException, cause: BaseException | None = None) -> None:
    with atomic_write(destination) as temporary:
        temporary.write_bytes(b"half")
        raise error from cause


def test_writes_and_leaves_nothing_else(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "er" / "a.jpg"
    with atomic_write(destination) as temporary:
        assert temporary.parent == destination.parent
        assert is_temporary(temporary.name)
        assert temporary.name.startswith(f".a.jpg.inpaint-batch-{os.getpid()}-")
        assert not destination.exists()
        temporary.write_bytes(b"new")
    assert destination.read_bytes() == b"new"
    assert names(destination.parent) == ["a.jpg"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), RowError(FailureCode.INFER, "x")])
def test_an_error_keeps_the_old_file(tmp_path: Path, error: BaseException) -> None:
    destination = tmp_path / "a.jpg"
    destination.write_bytes(b"old")
    with pytest.raises(type(error)) as caught:
        write_and_fail(destination, error)
    assert caught.value is error
    assert destination.read_bytes() == b"old"
    assert names(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("error", [None, ValueError("x")])
def test_nothing_is_held_of_a_file_that_is_through(tmp_path: Path, error: Exception | None) -> None:
    def lowest_free_descriptor() -> int:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        os.close(descriptor)
        return descriptor

    before = lowest_free_descriptor()
    with suppress(ValueError), atomic_write(tmp_path / "a.jpg") as temporary:
        temporary.write_bytes(b"new")
        if error is not None:
            raise error
    assert lowest_free_descriptor() == before
    assert not atomic._in_flight


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_mode_is_that_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "a.jpg") as temporary:
            temporary.write_bytes(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.jpg").stat().st_mode) == 0o666 & ~umask


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"target")
    (tmp_path / "a.jpg").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "a.jpg") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "target").read_bytes() == b"target"
    assert not (tmp_path / "a.jpg").is_symlink()


@pytest.mark.parametrize("name", ["x" * 251 + ".jpg", "é" * 125 + ".jpg"])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as temporary:
        temporary.write_bytes(b"x")
        assert is_temporary(temporary.name)
    assert names(tmp_path) == [name]


def test_data_and_folder_are_synced_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    with atomic_write(tmp_path / "a.jpg") as temporary:
        temporary.write_bytes(b"x")
    assert events == ["file", "rename", "folder"]
    events.clear()
    with atomic_write(tmp_path / "b" / "c" / "a.jpg") as temporary:
        temporary.write_bytes(b"x")
    assert events == ["file", "rename", "folder", "folder", "folder"]  # c, and b and the root, which got new entries


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_the_run(tmp_path: Path, number: int) -> None:
    error = OSError(number, os.strerror(number))
    with pytest.raises(StorageError, match=r"a\.jpg"), atomic_write(tmp_path / "a.jpg"):
        raise error
    assert names(tmp_path) == []


def test_a_full_disk_is_seen_through_other_errors(tmp_path: Path) -> None:
    class CodecError(Exception):
        pass

    with pytest.raises(StorageError, match="disk is full"), atomic_write(tmp_path / "a.jpg"):
        raise CodecError("wbuffer_write: write failed\nunix error: No space left on device")
    with pytest.raises(StorageError, match="disk is full"):
        write_and_fail(tmp_path / "a.jpg", RowError(FailureCode.WRITE, "could not encode"), OSError(errno.ENOSPC, "x"))
    assert storage_error(OSError(errno.EIO, "Input/output error"), tmp_path / "a") is None
    # the folder is writable: the permission that lacks is that of a source
    assert storage_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "a") is None


@pytest.mark.parametrize(("number", "is_told"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_folder_need_not_be_synced_where_none_can_be(
    tmp_path: Path, number: int, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    told = pytest.raises(RowError, match=os.strerror(number)) if is_told else nullcontext()
    with told, atomic_write(tmp_path / "a.jpg") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "a.jpg").read_bytes() == b"new"


def test_a_source_that_is_lost_is_no_lost_output(tmp_path: Path) -> None:
    unreadable = RowError(FailureCode.READ, "the image could not be read")
    with pytest.raises(RowError) as caught:
        write_and_fail(tmp_path / "a.jpg", unreadable, OSError(errno.ESTALE, "Stale file handle"))
    assert caught.value is unreadable
    assert names(tmp_path) == []


def test_a_closed_folder_as_the_system_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setattr(os, "open", raise_permission_error)
    with pytest.raises(StorageError, match=f"cannot write in {tmp_path}"), atomic_write(tmp_path / "a.jpg"):
        pass


def raise_permission_error(*args: object) -> int:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_errors_of_one_file_fail_one_row(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for bad in ("folder", "file/below.jpg", "x" * 300):
        with pytest.raises(RowError) as caught, atomic_write(tmp_path / bad) as temporary:
            temporary.write_bytes(b"x")
        assert caught.value.code is FailureCode.WRITE
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(StorageError, match="permissions"), atomic_write(tmp_path / "closed" / "sub" / "a.jpg"):
        pass
    with pytest.raises(StorageError, match="permissions"):
        probe_folder(tmp_path / "closed")


KILLED = """
import sys, time
from pathlib import Path
from inpaint_batch.storage.atomic import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half of the new fi")
    print("written", flush=True)
    time.sleep(60)
"""


def test_sigkill_leaves_the_old_file_and_a_temporary_that_the_next_run_removes(tmp_path: Path) -> None:
    destination = tmp_path / "deep" / "a.jpg"
    destination.parent.mkdir()
    destination.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(destination)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        assert remove_stale_temporaries(tmp_path) == 0  # its writer lives
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert destination.read_bytes() == b"old"
    left = [name for name in names(destination.parent) if name != "a.jpg"]
    assert len(left) == 1
    assert is_temporary(left[0])
    assert remove_stale_temporaries(tmp_path) == 1
    assert names(destination.parent) == ["a.jpg"]


def test_only_stale_temporaries_are_removed(tmp_path: Path) -> None:
    mine = f"-{os.getpid()}-{atomic._HOST}01234567.tmp"
    other_host = "0000" if atomic._HOST != "0000" else "1111"
    foreign = (
        tmp_path / f".b.jpg.inpaint-batch-{os.getpid()}-{other_host}01234567.tmp"
    )  # the same pid means nothing there
    for name in (f".a.jpg.inpaint-batch{mine}", "user.tmp", ".a.jpg.tmp", foreign.name):
        (tmp_path / name).write_bytes(b"")
    with atomic_write(tmp_path / "c.jpg") as temporary:
        assert remove_stale_temporaries(tmp_path) == 1
        assert temporary.exists()
    assert names(tmp_path) == sorted([".a.jpg.tmp", foreign.name, "c.jpg", "user.tmp"])
    long_ago = time.time() - atomic.STALE_AFTER_S - 10
    os.utime(foreign, (long_ago, long_ago))
    assert remove_stale_temporaries(tmp_path) == 1
    assert not foreign.exists()
    assert remove_stale_temporaries(tmp_path / "missing") == 0


def test_what_a_run_left_that_was_killed_on_another_machine_is_removed(tmp_path: Path) -> None:
    """Who holds its lock knows its name. Others of that machine, and other numbers there, may be at work."""
    pid = os.getpid()
    kept = [f".b.jpg.inpaint-batch-{pid}-{atomic._digits(writer, host)}01234567.tmp" for writer, host in OTHERS]
    kept.append(f".c.jpg.inpaint-batch-{pid + 1}-{atomic._digits('2-of-3', 'node9')}01234567.tmp")
    left = f".a.jpg.inpaint-batch-{pid}-{atomic._digits('2-of-3', 'node9')}01234567.tmp"
    for name in (*kept, left):
        (tmp_path / name).touch()
    killed = {"2-of-3": f"process {pid} on node9 #49a09904-a813abe8", "": "somebody"}
    assert remove_stale_temporaries(tmp_path, killed) == 1
    assert names(tmp_path) == sorted(kept)


OTHERS = [("1-of-3", "node9"), ("", "node9"), ("2-of-3", "node8")]


def test_people_are_told_of_the_output_and_not_of_its_temporary(tmp_path: Path) -> None:
    for name in ("a.png", ".hidden.tif", "ü b.jpg"):
        with atomic_write(tmp_path / name) as temporary:
            assert final_path(temporary) == tmp_path / name
    assert final_path(tmp_path / "a.tmp") == tmp_path / "a.tmp"
