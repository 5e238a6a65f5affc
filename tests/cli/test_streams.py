"""Output that nobody reads, and output for which there is no space, in every kind of command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from gallery import noise, tree

from inpaint_batch.cli.main import COMMANDS

NO_SPACE = "inpaint-batch: standard output cannot be written: No space left on device; what it was to say is lost\n"


def program(*arguments: object, stdout: str) -> tuple[int, str]:
    """The exit code of the program and what it said on stderr; `stdout` is what the shell does with its output."""
    words = shlex.join([sys.executable, "-m", "inpaint_batch", *map(str, arguments)])
    command = ["bash", "-c", f"{words} {stdout}; exit ${{PIPESTATUS[0]}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr


@pytest.fixture
def done(gallery, tmp_path) -> Path:
    """The output folder of a run with one row done and one that failed."""
    gallery.add("a.png")
    gallery.add_row("missing.png", "none.png")
    basics = ("--output", tmp_path / "out", "--engine", "identity")
    assert program("run", gallery.manifest(), *basics, stdout="2>/dev/null")[0] == 8
    return tmp_path / "out"


def test_a_reader_that_leaves_changes_no_exit_code(gallery, done, tmp_path):
    manifest = gallery.manifest()
    wanted = {
        ("check", manifest): 8,
        ("check", manifest, "--log-format", "json"): 8,
        ("status", done): 0,
        ("merge", done): 7,  # it has no shards
        ("report", done, "--html", tmp_path / "page.html"): 0,
        ("engines", "list"): 0,
        ("run", tmp_path / "none.csv", "--output", done): 4,
        ("run", "--no-such-flag"): 2,
        ("--help",): 0,
    }
    for arguments, code in wanted.items():
        assert program(*arguments, stdout="2>&1 | true") == (code, ""), arguments
    assert (tmp_path / "page.html").is_file()


def test_masks_are_made_though_nobody_reads_which(gallery, tmp_path):
    for number in range(6):
        gallery.add(f"{number}.png")
    assert program("mask", gallery.folder, "--output", tmp_path / "masks", stdout="| true") == (0, "")
    assert "manifest.csv" in tree(tmp_path / "masks")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_told(gallery, done):
    manifest = gallery.manifest()
    assert program("status", done, stdout=">/dev/full") == (7, NO_SPACE)
    assert program("--help", stdout=">/dev/full") == (7, NO_SPACE)
    code, told = program("check", manifest, stdout=">/dev/full")
    assert code == 8  # the worse news
    assert told.endswith(NO_SPACE)
    code, _ = program("check", manifest, stdout=">/dev/full 2>&1")  # nowhere to tell it
    assert code == 8


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "engines"])
def test_streams_that_are_closed(command):
    assert program(command, "--help", stdout=">&- 2>&-") == (0, "")


def test_nothing_else_speaks_on_standard_error(gallery, tmp_path):
    gallery.add("a.tif")
    # As GDAL writes it for elevation models: more digits than the reader of tags wants to take.
    no_data = (42113, 2, 0, "-3.4028234663852886e+38", True)
    samples = noise(0, 72, "L").astype("float32")
    tifffile.imwrite(gallery.folder / "a.tif", samples, metadata=None, extratags=[no_data])
    manifest, output = gallery.manifest(), tmp_path / "out"
    flags = ("--output", output, "--engine", "identity", "--log-format", "json")
    assert program("run", manifest, *flags, stdout=">/dev/null") == (0, "")
    assert program("check", manifest, stdout=">/dev/null") == (0, "")
    assert program("report", output, stdout=">/dev/null") == (0, "")


@pytest.mark.parametrize(
    ("closed", "more"), [(">&-", ("--log-format", "json")), ("2>&-", ()), ("<&- >&- 2>&-", ("--actors", 1))]
)
def test_a_run_does_without_streams(gallery, tmp_path, closed, more):
    gallery.add("a.png")
    arguments = ("run", gallery.manifest(), "--output", tmp_path / "out", "--engine", "identity", *more)
    assert program(*arguments, stdout=closed) == (0, "")
    assert "a.png" in tree(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_takes_the_number_of_a_stream_that_is_closed(tmp_path):
    script = tmp_path / "tell.py"
    script.write_text(
        "import os, sys\n"
        "from inpaint_batch.cli.streams import lasting_streams\n"
        "with lasting_streams(), open(sys.argv[1], 'w') as file:\n"
        "    file.write(' '.join(os.readlink(f'/proc/self/fd/{number}') for number in range(3)))\n"
    )
    words = shlex.join([sys.executable, str(script), str(tmp_path / "told")])
    subprocess.run(["bash", "-c", f"{words} <&- >&- 2>&-"], check=True, timeout=120)
    assert (tmp_path / "told").read_text() == "/dev/null /dev/null /dev/null"
