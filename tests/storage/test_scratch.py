"""The folder of a process for what is on its way: it stays while the process lives, and no longer."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inpaint_batch.storage import scratch


@pytest.fixture
def parent(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(scratch, "_folders", {})
    monkeypatch.setattr("atexit.register", lambda *_: None)
    return tmp_path


def test_a_folder_that_is_being_made_is_no_stale_one(parent, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX:  # another process starts and looks, before ours has its lock
            scratch._remove_stale(parent)
        real(descriptor, operation)

    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    with scratch.scratch_file("a.png") as path:
        path.write_bytes(b"")
    assert [folder.name for folder in parent.iterdir()] == [scratch.scratch_folder().name]
    scratch._remove_stale(parent)
    assert scratch.scratch_folder().is_dir()


def test_the_folder_of_a_killed_process_goes_with_the_next_one(parent):
    code = "import os, signal; from inpaint_batch.storage.scratch import scratch_folder; "
    code += "print(scratch_folder(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"TMPDIR": str(parent)} | _python_path()
    )
    left = Path(done.stdout.strip())
    assert left.is_dir()
    assert scratch.scratch_folder() != left
    assert not left.exists()


def test_nothing_is_left_where_there_is_no_room(parent, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fcntl, "flock", full)
    with pytest.raises(OSError, match="No space"):
        scratch.scratch_folder()
    assert list(parent.iterdir()) == []


def _python_path() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(sys.path)}
