"""Disks that fill up, vanish or become read-only in the middle of a run: it stops with 7, and the next goes on."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gallery import Gallery, ledger_lines, run, tree

from inpaint_batch.errors import StorageError
from inpaint_batch.execution import ledger as ledger_module
from inpaint_batch.storage import atomic

NUM_ROWS = 9
IN_A_SMALL_DISK = """
import json, os, subprocess, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gallery import Gallery, ledger_lines, run, tree
from inpaint_batch.errors import InpaintBatchError

manifest, disk, seen = Path(sys.argv[2]), Path(sys.argv[3]), []

def attempt(output):
    try:
        return 0, run(manifest, output)["rows"]["done"]
    except InpaintBatchError as error:
        return error.exit_code, str(error)

def full(free_kib, output):
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
        file.truncate(file.tell() - file.tell() % 4096 - 1024 * free_kib)
    first = attempt(output)
    shown = tree(output) if output.exists() else {}
    ballast.unlink()
    return first, shown

for free_kib in map(int, sys.argv[4].split(",")):
    output = disk / f"out-{free_kib}"
    first, shown = full(free_kib, output)
    second = attempt(output)
    done = [line["id"] for line in ledger_lines(output) if line["status"] == "done"]
    seen.append({"first": first, "shown": shown, "second": second, "whole": tree(output), "done": sorted(done)})
    subprocess.run(["rm", "-r", str(output)], check=True)
output = disk / "out-closed"
attempt(output)
(output / "4.tif").unlink()
subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
print(json.dumps({"seen": seen, "closed": attempt(output)}))
"""


def small_files(gallery: Gallery) -> Gallery:
    """Nine TIFFs of 120 kB each."""
    for number in range(NUM_ROWS):
        gallery.add(f"{number}.tif", side=200)
    return gallery


def in_a_small_disk(manifest: Path, disk: Path, *free_kib: int) -> dict[str, Any]:
    """What happens on a disk of 2.5 MB of which so much is free; skips where none can be mounted."""
    unshare = shutil.which("unshare")
    mounting = [str(unshare), "-rm", "sh", "-c", 'mount -t tmpfs -o size=2500k tmpfs "$0" && exec "$@"', str(disk)]
    if unshare is None or subprocess.run([*mounting, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here, not even in a namespace of one's own")
    tests = str(Path(__file__).parents[1])
    words = [sys.executable, "-c", IN_A_SMALL_DISK, tests, str(manifest), str(disk), ",".join(map(str, free_kib))]
    done = subprocess.run([*mounting, *words], capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_disk_that_fills_up_and_gets_room_again(gallery: Gallery, tmp_path: Path) -> None:
    manifest = small_files(gallery).manifest()
    run(manifest, tmp_path / "elsewhere")
    whole = tree(tmp_path / "elsewhere")
    (tmp_path / "disk").mkdir()
    found = in_a_small_disk(manifest, tmp_path / "disk", 0, 4, 12, 32, 200, 700)
    for told in found["seen"]:
        code, message = told["first"]
        assert code == 7, message
        assert message.endswith("the disk is full; free some space and run again to go on")
        assert str(tmp_path / "disk") in message
        assert told["shown"].items() <= whole.items()  # whole or not there
        assert told["second"][0] == 0
        assert told["whole"] == whole
        assert told["done"] == sorted(set(told["done"])) == sorted(whole)
    assert len(found["seen"][-1]["shown"]) >= 2
    code, message = found["closed"]
    assert code == 7
    assert "read-only" in message


LOST = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.ESTALE: "the network file system has lost it (stale handle); mount it again",
    errno.ENOTCONN: "the file system it lies on is gone; mount it again",
}


class Trouble:
    """Lets a function of the system fail from its n-th call on, of those about paths that contain `about`."""

    def __init__(self, real: Any, number: int, after: int, about: str) -> None:
        self._real, self._number, self._left, self._about = real, number, after, about

    def __call__(self, target: Any, *arguments: Any, **options: Any) -> Any:
        path = Path(f"/proc/self/fd/{target}").readlink() if isinstance(target, int) else os.fspath(target)
        if self._about in os.fsdecode(path):
            self._left -= 1
            if self._left < 0:
                raise OSError(self._number, os.strerror(self._number))
        return self._real(target, *arguments, **options)


@pytest.mark.parametrize(
    ("number", "call"),
    [
        (errno.ENOSPC, "ledger"),
        (errno.EDQUOT, "fsync"),  # where network file systems tell it
        (errno.EROFS, "replace"),
        (errno.ESTALE, "open"),
        (errno.ESTALE, "ledger"),
        (errno.ENOTCONN, "replace"),
    ],
)
def test_whatever_takes_the_disk_away(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    for row in range(5):
        gallery.add(f"{row}.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    with monkeypatch.context() as broken:
        if call == "ledger":
            broken.setattr(ledger_module.os, "fsync", Trouble(os.fsync, number, 1, "ledger/0"))
            broken.setattr(ledger_module, "FSYNC_LINES", 3)
        elif call == "replace":
            rename = Path.replace
            trouble = Trouble(rename, number, 2, ".png")
            broken.setattr(Path, "replace", lambda path, target: trouble(path, target))
        else:
            broken.setattr(atomic.os, call, Trouble(getattr(os, call), number, 2, ".png.inpaint-batch-"))
        with pytest.raises(StorageError) as caught:
            run(manifest, output)
    assert LOST[number] in str(caught.value)
    assert str(output) in str(caught.value)
    assert json.loads((output / ".inpaint-batch" / "summary.json").read_text())["exit_code"] == 7
    shown = tree(output)
    assert run(manifest, output)["exit_code"] == 0
    assert len(tree(output)) == 5
    assert shown.items() <= tree(output).items()
    done = [line["id"] for line in ledger_lines(output) if line["status"] == "done"]
    assert len(set(done)) == 5


def test_a_ledger_on_a_failing_disk_is_no_bug(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add("a.png")
    monkeypatch.setattr(ledger_module.os, "fsync", Trouble(os.fsync, errno.EIO, 0, "ledger/0"))
    with pytest.raises(StorageError, match=r"cannot use .*/ledger: Input/output error; run again once"):
        run(gallery.manifest(), tmp_path / "out")
    monkeypatch.undo()
    assert run(gallery.manifest(), tmp_path / "out")["exit_code"] == 0


@pytest.mark.parametrize(("limit_bytes", "code"), [(200_000, 8), (900, 7)])
def test_a_limit_on_the_size_of_files(gallery: Gallery, tmp_path: Path, limit_bytes: int, code: int) -> None:
    """One file that is too large is the trouble of its row; where it is the ledger the run ends, and goes on later."""
    for number in range(4):
        gallery.add(f"{number}.png")
    gallery.add("large.tif", side=400)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "inpaint_batch", "run", str(gallery.manifest()), "--output", str(output)]
    command += ["--engine", "identity"]
    limit = (limit_bytes, limit_bytes)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert done.returncode == code, done.stderr
    assert "File too large" in done.stderr
    if code == 8:
        assert set(tree(output)) == {f"{number}.png" for number in range(4)}
    assert run(gallery.manifest(), output, retry_failed=True)["exit_code"] == 0
    assert len(tree(output)) == 5
