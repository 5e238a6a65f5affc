"""The one translator from exception to exit code, and the commands as a person types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from gallery import tree

import inpaint_batch.errors
from inpaint_batch import __version__
from inpaint_batch.cli import exits
from inpaint_batch.cli.main import COMMANDS, main
from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.runtime.store import default_folder

RUN_LEVEL = [
    error
    for error in vars(inpaint_batch.errors).values()
    if isinstance(error, type) and issubclass(error, InpaintBatchError) and error is not InpaintBatchError
]
CODES = {
    "UsageError": 2,
    "ConfigError": 3,
    "ManifestError": 4,
    "MissingDependencyError": 5,
    "EngineError": 6,
    "StorageError": 7,
    "RowsFailedError": 8,
    "FailureLimitError": 9,
    "WorkerLostError": 10,
    "StopRequestedError": 75,
}


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of the program, run in this process."""
    monkeypatch.setattr(sys, "argv", ["inpaint-batch", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_on_windows_one_sentence_ends_it() -> None:
    program = "import sys; sys.platform = 'win32'; import inpaint_batch.cli.main"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "inpaint-batch: this program does not run on Windows itself; run it in WSL\n"


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("run a.jpg b.jpg --output out", "or one image; its mask stands behind --masks"),
        ("mask a.jpg b.jpg --output out", "or one image"),
        ("run photos --masks #ff0000 --output out", "in the column mask: image,mask and below it photo.png,#ff0000"),
        ("check photos --masks alpha", "in the column mask: image,mask and below it photo.png,alpha"),
    ],
)
def test_what_newcomers_type_is_answered(monkeypatch, tmp_path, capsys, command, advice) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert call(monkeypatch, *command.split()) == 2
    assert capsys.readouterr().err.endswith(f"{advice}\n")


def test_a_system_without_utf_8_ends_it(gallery, tmp_path) -> None:
    gallery.add("a.png")
    command = [sys.executable, "-m", "inpaint_batch", "run", gallery.manifest(), "--output", tmp_path / "out"]
    ascii_names = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=ascii_names, capture_output=True, text=True)
    assert done.returncode == 3
    assert "in ascii here, not in UTF-8; set PYTHONUTF8=1" in done.stderr
    assert not (tmp_path / "out").exists()
    plain = {**os.environ, "LC_ALL": "C"}  # Python itself turns to UTF-8 there
    assert subprocess.run([*command, "--engine", "identity"], env=plain, capture_output=True).returncode == 0


@pytest.fixture
def broken_run(monkeypatch, gallery):
    """Call `run` so that it ends by an exception."""
    gallery.add("a.png")

    def call_with(error: BaseException) -> int:
        def raising(*_: object, **__: object) -> None:
            raise error

        monkeypatch.setattr("inpaint_batch.pipeline.run.run_manifest", raising)
        return call(monkeypatch, "run", gallery.manifest(), "--output", gallery.folder / "out")

    return call_with


def test_the_table_is_complete():
    assert {error.__name__: error.exit_code for error in RUN_LEVEL} == CODES


@pytest.mark.parametrize("error", RUN_LEVEL)
def test_every_error_has_its_code_and_one_line(broken_run, capsys, error):
    assert broken_run(error("first line\nsecond line")) == CODES[error.__name__]
    captured = capsys.readouterr()
    assert captured.err == "inpaint-batch: first line second line\n"
    assert captured.out == ""


def test_an_interrupt_is_130(broken_run, capsys):
    assert broken_run(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "inpaint-batch: interrupted; run again to go on\n"


def test_programs_hear_of_an_interrupt_what_people_hear(broken_run, capsys, monkeypatch):
    monkeypatch.setenv("INPAINT_BATCH_LOG_FORMAT", "json")
    assert broken_run(KeyboardInterrupt()) == 130
    (event,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (event["event"], event["exit_code"], event["message"]) == ("error", 130, "interrupted; run again to go on")


def test_a_bug_is_1_and_leaves_a_traceback(broken_run, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(exits.tempfile, "tempdir", str(tmp_path))
    assert broken_run(ZeroDivisionError("by zero")) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: by zero" in told
    assert told.count("\n") == 1
    (log,) = tmp_path.glob("inpaint-batch-*.log")
    assert str(log) in told
    assert "Traceback" in log.read_text()


def test_a_bug_with_no_place_for_its_traceback(broken_run, capsys, monkeypatch):
    monkeypatch.setattr(exits.tempfile, "tempdir", "/nonexistent")
    assert broken_run(ZeroDivisionError("by zero")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_codes_as_they_really_come_about(monkeypatch, gallery, tmp_path, capsys):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    basics = ("run", manifest, "--output", output, "--engine", "identity")
    assert call(monkeypatch, "run", manifest) == 2
    assert call(monkeypatch, "run", manifest, "--no-such-flag") == 2
    assert call(monkeypatch, "run") == 2
    assert call(monkeypatch, "fly") == 2
    assert call(monkeypatch, "run", manifest, "--output", output, "--workers", "many") == 2
    assert call(monkeypatch, *basics, "--masks", gallery.folder) == 2
    assert call(monkeypatch, *basics, "--dilate", "999") == 3
    assert call(monkeypatch, *basics, "--config", tmp_path / "none.toml") == 3
    monkeypatch.setenv("INPAINT_BATCH_DILAET", "1")
    assert call(monkeypatch, *basics) == 3
    assert "did you mean INPAINT_BATCH_DILATE" in capsys.readouterr().err
    monkeypatch.delenv("INPAINT_BATCH_DILAET")
    assert call(monkeypatch, "run", tmp_path / "none.csv", "--output", output) == 4
    assert call(monkeypatch, "check", tmp_path / "none.csv") == 4
    assert call(monkeypatch, "run", manifest, "--output", output, "--model", tmp_path / "none.onnx") == 6
    assert call(monkeypatch, "check", manifest, "--model", tmp_path / "none.onnx") == 6
    assert call(monkeypatch, "check", manifest, "--engine", "none") == 2
    assert call(monkeypatch, "run", manifest, "--output", manifest, "--engine", "identity") == 7
    gallery.add_row("missing.png", "none.png")
    gallery.manifest()
    assert call(monkeypatch, "check", manifest) == 8
    assert call(monkeypatch, *basics, "--max-failures", "0") == 9
    assert call(monkeypatch, *basics) == 8
    assert call(monkeypatch, *basics, "--retry-failed", "--max-failures", "0") == 9
    gallery.rows.pop()
    gallery.manifest()
    assert call(monkeypatch, *basics) == 0
    assert call(monkeypatch, "check", manifest, "--output", output) == 0
    assert set(tree(output)) == {"a.png"}


def test_a_path_that_cannot_be_is_no_bug(monkeypatch, gallery, tmp_path, capsys):
    gallery.add("a.png")
    manifest, output, file = gallery.manifest(), tmp_path / "out", tmp_path / "file"
    file.touch()
    too_long = tmp_path / ("n" * 300)
    assert call(monkeypatch, "run", manifest, "--output", output, "--engine", "identity") == 0
    wanted = {
        ("compile", tmp_path / "none.safetensors", "--output", output): (6, "there is no model"),
        ("compile", gallery.folder, "--output", output): (6, "there is no model"),
        ("compile", file, "--output", output, "--calibrate", file): (4, "is empty"),
        ("compile", file, "--output", file): (7, "is not a folder"),
        ("compile", file, "--output", output, "--name", "a/b"): (2, "without a folder"),
        ("compile", file, "--output", "s3://bucket/engines"): (2, "a path of this machine"),
        ("train", gallery.folder, "--output", file): (7, "is not a folder"),
        ("train", gallery.folder, "--output", gallery.folder / "run"): (7, "lies inside the input folder"),
        ("train", gallery.folder, "--output", "s3://bucket/run"): (2, "a path of this machine"),
        ("report", output, "--html", output): (7, "is a folder"),
        ("report", output, "--html", too_long): (7, "File name too long"),
        ("mask", gallery.folder, "--output", file): (7, "is not a folder"),
        ("mask", too_long, "--output", output): (7, "File name too long"),
        ("status", too_long): (7, too_long.name),  # what is wrong with it, Python tells no more from 3.13 on
        ("merge", file): (7, "file"),
        ("check", too_long): (7, "File name too long"),
        ("run", manifest, "--output", ""): (2, "a path is empty"),
        ("mask", gallery.folder, "--output", ""): (2, "a path is empty"),
        ("report", ""): (2, "a path is empty"),
        ("run", manifest, "--output", output, "--model", "/"): (6, "not '/'"),
    }
    for arguments, (code, message) in wanted.items():
        capsys.readouterr()
        assert call(monkeypatch, *arguments) == code, arguments
        told = capsys.readouterr().err
        assert message in told
        assert "bug" not in told


def test_a_folder_in_the_place_of_a_list_is_no_bug(broken_run, capsys):
    assert broken_run(RowError(FailureCode.WRITE, "cannot write masks/manifest.csv: Is a directory")) == 7
    assert "cannot write masks/manifest.csv: Is a directory" in capsys.readouterr().err
    assert broken_run(RowError(FailureCode.READ, "no row may end a run")) == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--engine", "foo"), 2, "unknown engine 'foo'"),
        (("--model", "none.onnx"), 6, "there is no model none.onnx"),
        (("--engine", "torch", "--model", "none.safetensors"), 6, "there are no weights none.safetensors"),
        (("--row-timeout", 5, "--executor", "local"), 2, "--row-timeout needs workers"),
        (("--metrics", "run.txt"), 3, "only names that end in .prom; call it run.prom"),
        (("--metrics", ""), 3, "only names that end in .prom; call it inpaint_batch.prom"),
        (("--model", "w.safetensors"), 6, "inpaint-batch compile w.safetensors --output DIR, or say --engine torch"),
        (("--model", ""), 6, "or the path of an .onnx file, not ''"),
    ],
)
def test_what_cannot_begin_says_only_why_and_leaves_nothing(
    monkeypatch, gallery, tmp_path, capsys, flags, code, message
):
    gallery.add("a.png")
    output = tmp_path / "out"
    assert call(monkeypatch, "run", gallery.manifest(), "--output", output, *flags) == code
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not output.exists()


def test_a_folder_of_images_that_is_not_there(monkeypatch, tmp_path, capsys):
    assert call(monkeypatch, "run", f"{tmp_path}/scans/", "--masks", tmp_path, "--output", tmp_path / "out") == 4
    assert f"{tmp_path}/scans does not exist" in capsys.readouterr().err


def test_help_version_and_nothing(monkeypatch, capsys):
    assert call(monkeypatch, "--help") == 0
    told = capsys.readouterr().out
    assert "run" in told
    assert "check" in told
    assert call(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"inpaint-batch {__version__}\n"
    for command in ("run", "check"):
        assert call(monkeypatch, command, "--help") == 0
        assert "--mask-polarity" in capsys.readouterr().out
    assert call(monkeypatch) == 2  # without a command there is only help


def program(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Call `main` in a process of its own and print which of the modules named in `code` it has imported."""
    script = f"""
import sys
from inpaint_batch.cli.main import main
try:
    main()
finally:
    print(sorted({{name.partition(".")[0] for name in sys.modules}} & set({code!r}.split())), file=sys.stderr)
"""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)])
def test_help_is_light(arguments):
    done = program("numpy cv2 pyvips onnxruntime tifffile imagecodecs jpeglib torch onnx ray tensorrt", *arguments)
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert "[default" not in done.stdout  # it stands in words already


@pytest.mark.parametrize("command", ["run", "check"])
def test_the_embedded_engine_needs_no_heavy_package(gallery, tmp_path, command):
    gallery.add("a.png")
    engine = () if command == "check" or list(default_folder().glob("*.onnx")) else ("--engine", "identity")
    output = ("--output", tmp_path / "out")
    done = program("torch onnx ray tensorrt fsspec pyarrow", command, gallery.manifest(), *output, *engine)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"


def test_json_lines_on_stdout_and_nothing_on_stderr(monkeypatch, gallery, tmp_path, capsys):
    gallery.add("a.png")
    gallery.add_row("missing.png", "none.png")
    flags = ("--output", tmp_path / "out", "--engine", "identity", "--log-format", "json")
    assert call(monkeypatch, "run", gallery.manifest(), *flags) == 8
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "row", "row", "end", "error"]
    assert events[-1]["exit_code"] == 8
    assert captured.err.count("\n") == 1  # only why it ends


def test_every_end_is_told_to_programs_once(monkeypatch, gallery, tmp_path, capsys):
    gallery.add("a.png")
    manifest = gallery.manifest()
    basics = ("run", manifest, "--output", tmp_path / "out", "--engine", "identity")
    in_file = tmp_path / "s.toml"
    in_file.write_text('log_format = "json"\n')
    wanted = {
        (*basics, "--log-format", "json", "--dilate", 900): (3, "ConfigError"),
        (*basics, "--log-format=json", "--dilate", "x"): (2, "UsageError"),
        (*basics, "--log-format", "json", "--no-such-flag"): (2, "UsageError"),
        ("run", manifest, "--log-format", "json"): (2, "UsageError"),
        ("run", tmp_path / "none.csv", *basics[2:], "--log-format", "json"): (4, "ManifestError"),
        ("run", tmp_path / "none.csv", *basics[2:], "--config", in_file): (4, "ManifestError"),
        ("check", tmp_path / "none.csv", "--log-format", "json"): (4, "ManifestError"),
        ("check", manifest, "--config", in_file, "--depth", "none"): (2, "UsageError"),
        ("check", manifest, "--config", in_file, "--log-format", "text", "--depth", "none"): None,
        ("mask", tmp_path / "none.csv", "--output", tmp_path / "masks"): None,
    }
    for arguments, told in wanted.items():
        code = call(monkeypatch, *arguments)
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(event["event"], event["exit_code"], event["kind"]) for event in events] == (
            [("error", *told)] if told else []
        )
        assert told is None or code == told[0]
        assert all(event["message"] for event in events)
    monkeypatch.setenv("INPAINT_BATCH_LOG_FORMAT", "json")
    assert call(monkeypatch, *basics, "--workers", -1) == 3
    assert json.loads(capsys.readouterr().out)["exit_code"] == 3


def test_a_reader_that_leaves_does_not_end_the_run(gallery, tmp_path):
    for number in range(3):
        gallery.add(f"{number}.png")
    command = [sys.executable, "-m", "inpaint_batch", "run", str(gallery.manifest()), "--output"]
    command += [str(tmp_path / "out"), "--engine", "identity", "--log-format", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
    assert (process.returncode, told) == (0, "")
    assert len(tree(tmp_path / "out")) == 3
