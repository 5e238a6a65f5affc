"""The Ray executor with real Ray, on CPUs: the same bytes, and workers that die, hang and are told to go."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, ledger_lines, run, tree
from PIL import Image
from ray_runs import PATIENCE_S, finish, start

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import UsageError
from inpaint_batch.pipeline import executors
from inpaint_batch.pipeline.executors import choose_executor, num_visible_gpus

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'inpaint-batch[ray]'"
)


def add_white(gallery: Gallery, name: str) -> None:
    path = gallery.add(name, side=72)
    Image.fromarray(np.full((72, 72, 3), 255, np.uint8)).save(path)


@needs_ray
def test_one_deadly_row_among_good_ones(every_format, tmp_path):
    """Also that all others have the bytes of a local run, and that stdout is ours alone."""
    gallery, output = every_format, tmp_path / "out"
    run(gallery.manifest(), tmp_path / "local")
    add_white(gallery, "deadly.png")
    for number in range(12):
        gallery.add(f"more/{number}.png")
    manifest = gallery.manifest()
    with start(manifest, output, tmp_path / "home", "--log-format", "json", engine="faulty:w") as process:
        summary, stdout, _ = finish(process, output)
    assert summary["exit_code"] == process.returncode == 8
    assert summary["rows"]["failed_by_code"] == {"crash": 1}
    assert summary["rows"]["done"] == len(gallery.rows) - 1
    run(manifest, tmp_path / "local")
    local = tree(tmp_path / "local")
    del local["deadly.png"]
    assert tree(output) == local  # no temporary file of a dead worker either
    events = [json.loads(line) for line in stdout.splitlines()]  # nothing of Ray's among them
    assert [event["event"] for event in events][-1] == "end"
    assert [event["id"] for event in events if event.get("status") == "failed"] == ["deadly.png"]
    done = Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")
    assert set(done.values()) == {1}
    log = (output / ".inpaint-batch" / "run.log").read_text()
    assert log.count("a worker died while it worked on") == 3


@needs_ray
def test_a_row_that_hangs_is_given_up_and_a_signal_drains(gallery, tmp_path):
    for number in range(7):
        gallery.add(f"{number}.png")
    add_white(gallery, "hangs.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    with start(manifest, output, tmp_path / "home", "--row-timeout", "2", engine="faulty:h@3000") as process:
        summary, _, _ = finish(process, output)
    assert process.returncode == 8
    assert summary["rows"]["failed_by_code"] == {"timeout": 1}
    assert summary["rows"]["done"] == 7

    drained = tmp_path / "drained"
    for number in range(40):
        gallery.add(f"slow/{number}.png", side=260, hole=(60, 50, 40, 150))
    manifest = gallery.manifest()
    with start(manifest, drained, tmp_path / "home", engine="faulty:s@0.5") as process:
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until and not any(line["status"] == "done" for line in ledger_lines(drained)):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        summary, _, stderr = finish(process, drained)
    assert process.returncode == summary["exit_code"] == 75
    assert "run again to go on" in stderr
    num_done = summary["rows"]["done"]
    assert 0 < num_done < len(gallery.rows)
    assert len(tree(drained)) == num_done
    rest = run(manifest, drained, engine="faulty:s@0")
    assert (rest["exit_code"], rest["rows"]["skipped"]) == (0, num_done)
    run(manifest, tmp_path / "whole")
    assert tree(drained) == tree(tmp_path / "whole")


@needs_ray
def test_errors_of_the_engine_arrive_as_they_are(gallery, tmp_path):
    gallery.add("a.png")
    model = tmp_path / "model.onnx"
    model.write_text("not a model")
    flags = ("--model", str(model))
    with start(gallery.manifest(), tmp_path / "out", tmp_path / "home", *flags, engine="onnxruntime") as process:
        summary, _, stderr = finish(process, tmp_path / "out")
    assert process.returncode == summary["exit_code"] == 6
    assert "is not a model that ONNX Runtime can run" in stderr
    assert "Traceback" not in stderr


def test_without_ray_it_says_what_to_install(gallery, tmp_path):
    gallery.add("a.png")
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from inpaint_batch.cli.main import main\n"
        f"sys.argv = ['inpaint-batch', 'run', {str(gallery.manifest())!r}, '--output', {str(tmp_path / 'out')!r},"
        " '--engine', 'identity', '--executor', 'ray']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert "pip install 'inpaint-batch[ray]'" in done.stderr


def test_nothing_of_ray_is_imported_by_a_local_run(gallery, tmp_path):
    gallery.add("a.png")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); from gallery import run\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2])); print('ray' in sys.modules, 'pyarrow' in sys.modules)"
    )
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", script, str(gallery.manifest()), str(tmp_path / "out"), tests]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False False\n"


def test_who_does_the_rows(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert num_visible_gpus() == 0
    assert choose_executor(RunConfig(output=tmp_path)) == "local"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert num_visible_gpus() == 2
    monkeypatch.setattr(executors, "find_spec", lambda name: object())
    assert choose_executor(RunConfig(output=tmp_path)) == "ray"
    assert choose_executor(RunConfig(output=tmp_path, engine="onnxruntime")) == "local"
    assert choose_executor(RunConfig(output=tmp_path, executor="local")) == "local"
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    assert choose_executor(RunConfig(output=tmp_path)) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_executor(RunConfig(output=tmp_path)) == "ray"
    with pytest.raises(UsageError, match="--executor ray"):
        choose_executor(RunConfig(output=tmp_path, executor="local", row_timeout_s=3))
