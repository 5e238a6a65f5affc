"""Folders whose names are no UTF-8, as old archives have them, where the terminal takes nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gallery import Gallery

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")


def program(*arguments: object) -> tuple[int, bytes]:
    """The exit code of the program and what it said on standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "inpaint_batch", *map(str, arguments)],
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"},
    )
    return done.returncode, done.stdout


def test_a_folder_whose_name_is_no_utf_8_can_be_worked_in(tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    gallery = Gallery(folder)
    gallery.add("a.png")
    gallery.add_row("missing.png", "a.png.mask.png")
    manifest, output = gallery.manifest(), folder / "out"
    assert program("check", manifest)[0] == 8
    basics = ("--output", output, "--engine", "identity", "--metrics", folder / "run.prom")
    assert program("run", manifest, *basics)[0] == 8
    assert 'caf\\\\udce9/out"' in (folder / "run.prom").read_text("utf-8")
    code, told = program("status", output)
    assert (code, os.fsencode(manifest) in told) == (0, True)
    assert program("report", output) == (0, os.fsencode(output / ".inpaint-batch" / "report.html") + b"\n")
    assert program("report", output, "--html", tmp_path / "page.html")[0] == 0
    assert 'href="caf%E9/out/a.png"' in (tmp_path / "page.html").read_text("utf-8")
    (folder / "a.png").rename(folder / "missing.png")
    failures = output / ".inpaint-batch" / "failures.csv"
    assert "caf\\udce9/missing.png does not exist" in failures.read_text("utf-8")
    assert program("run", failures, *basics, "--retry-failed")[0] == 0
