"""Worker processes: rows that kill, hang and find no memory, and a run that is asked to stop, through the program."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from execution_cases import worker_settings
from gallery import Gallery, ledger_lines, run, tree, wait_for_text, wait_until_done
from PIL import Image

from inpaint_batch.errors import WorkerLostError
from inpaint_batch.execution import process_transport
from inpaint_batch.execution.pool_executor import PoolExecutor
from inpaint_batch.execution.process_transport import ProcessTransport
from inpaint_batch.execution.transport import WorkerGoneError

PATIENCE_S = 150
PLAIN = {"deadly.png": (255, 0, 0), "killed.png": (255, 255, 255), "hangs.png": (0, 0, 0), "hungry.png": (0, 255, 0)}


def add_plain(gallery: Gallery, name: str, colour: tuple[int, int, int]) -> None:
    Image.fromarray(np.full((72, 72, 3), colour, np.uint8)).save(gallery.add(name))


def start(manifest: Path, output: Path, *flags: str, engine: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    hidden = ("INPAINT_BATCH_", "RAY_")
    return subprocess.Popen(
        [*command, "--engine", engine, "--workers", "2", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if not name.startswith(hidden)},
    )


def summary_of(output: Path) -> dict[str, Any]:
    return json.loads((output / ".inpaint-batch" / "summary.json").read_text())


def test_each_bad_row_fails_alone_with_its_code(every_format, tmp_path):
    gallery, output = every_format, tmp_path / "out"
    for name, colour in PLAIN.items():
        add_plain(gallery, name, colour)
    manifest = gallery.manifest()
    flags = ("--row-timeout", "5", "--actors", "2", "--log-format", "json")
    with start(manifest, output, *flags, engine="faulty:p@3000") as process:
        stdout, told = process.communicate(timeout=PATIENCE_S)
    rows = summary_of(output)["rows"]
    assert process.returncode == 8, told
    assert rows["failed_by_code"] == {"crash": 2, "timeout": 1, "memory": 1}
    assert rows["done"] == len(gallery.rows) - 4
    assert run(manifest, tmp_path / "local")["exit_code"] == 0
    local = tree(tmp_path / "local")
    assert tree(output) == {name: digest for name, digest in local.items() if name not in PLAIN}
    done = Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")
    assert set(done.values()) == {1}
    assert all(json.loads(line) for line in stdout.splitlines())  # nothing of the workers among them
    assert run(manifest, output)["exit_code"] == 0  # with an engine that is not particular
    assert tree(output) == local


def test_a_device_that_is_lost_costs_a_worker_or_ends_the_run(gallery, tmp_path):
    """A new process could use it again; in this one every other row would fail for nothing."""
    whole = run(gallery.manifest(), tmp_path / "whole")
    add_plain(gallery, "lost.png", (0, 0, 255))
    manifest = gallery.manifest()
    for executor, code in (("local", 10), ("process", 8)):
        output = tmp_path / executor
        with start(manifest, output, "--executor", executor, engine="faulty:p") as process:
            _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, told
        assert "lost its device" in told
        assert summary_of(output)["rows"]["failed_by_code"] == ({"crash": 1} if executor == "process" else {})
    assert summary_of(tmp_path / "process")["rows"]["done"] == whole["rows"]["done"]


def test_a_hanging_row_does_not_hold_up_the_end_for_longer_than_the_grace(gallery, tmp_path):
    """In worker processes and in threads, which cannot be ended."""
    add_plain(gallery, "hangs.png", (0, 0, 0))
    for number in range(12):
        gallery.add(f"{number}.png")
    manifest = gallery.manifest()
    run(manifest, tmp_path / "whole")
    for executor, flags in (("process", ("--actors", "2")), ("local", ())):
        output = tmp_path / executor
        grace = ("--executor", executor, "--grace", "1")
        with start(manifest, output, *flags, *grace, engine="faulty:p@3000") as process:
            if executor == "process":
                wait_until_done(process, output, 13 - 4)  # all but the two chunks of the worker that hangs since long
            else:
                wait_for_text(process, output / ".inpaint-batch" / "run.log", "the faulty engine sleeps")
            children = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGTERM)
            _, told = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == summary_of(output)["exit_code"] == 75, told
        assert "did not end within --grace 1 s" in told
        assert "Traceback" not in told
        assert (executor == "process") == bool(children)
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
        assert not [name for name in tree(output) if name.endswith(".tmp")]
        assert run(manifest, output)["exit_code"] == 0  # the rest, with an engine that does not hang
        assert tree(output) == tree(tmp_path / "whole")


def test_a_signal_drains_the_workers_and_spares_them(gallery, tmp_path):
    """It comes to all processes of a job; only ours heeds it."""
    for number in range(30):
        gallery.add(f"{number}.png", side=260, hole=(60, 50, 18, 150))
    manifest, output = gallery.manifest(), tmp_path / "out"
    with start(manifest, output, "--executor", "process", engine="faulty:s@0.5") as process:
        wait_until_done(process, output, 1)
        for child in psutil.Process(process.pid).children():
            child.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=PATIENCE_S)
    summary = summary_of(output)
    assert process.returncode == summary["exit_code"] == 75, told
    assert "what was begun is done" in told
    assert 0 < summary["rows"]["done"] < 30
    log = (output / ".inpaint-batch" / "run.log").read_text().splitlines()
    assert all("the faulty engine sleeps" in line for line in log)  # no worker died
    rest = run(manifest, output, engine="faulty:s@0")
    assert (rest["exit_code"], rest["rows"]["skipped"]) == (0, summary["rows"]["done"])


def answer(transport: ProcessTransport, token: object) -> object:
    until = time.monotonic() + PATIENCE_S
    while token not in transport.wait([token], 1.0):
        assert time.monotonic() < until
    return transport.answer(token)


def test_a_child_that_died_says_of_what_and_comes_again(monkeypatch):
    transport = ProcessTransport(worker_settings(), num_processes=1, num_cores=1)
    child = transport.hire()
    with pytest.raises(WorkerGoneError):
        answer(transport, transport.call(child, "pulse"))  # nobody is there yet
    kills = iter([0, 0, 0, 1])
    monkeypatch.setattr(process_transport, "_num_oom_kills", lambda: next(kills))
    for of_memory in (False, True):
        assert answer(transport, transport.call(child, "start")).identity == "identity"
        assert answer(transport, transport.call(child, "pulse")) == (0, ())
        (process,) = psutil.Process().children()
        pulse = transport.call(child, "pulse")
        assert answer(transport, pulse) == (0, ())
        process.kill()
        waiting = transport.call(child, "start")
        with pytest.raises(WorkerGoneError, match="ended with -9") as gone:
            answer(transport, waiting)
        assert gone.value.of_memory is of_memory
    transport.close()
    assert not psutil.Process().children()


def test_gpus_are_dealt_out_among_the_children():
    """Before anything of CUDA is there; a child that comes again gets the same one."""
    transport = ProcessTransport(worker_settings(), num_processes=3, num_cores=1, gpus=["GPU-a", "MIG-b"])
    children = [transport.hire() for _ in range(3)]

    def named() -> list[str]:
        for child in children:
            answer(transport, transport.call(child, "start"))
        processes = sorted(psutil.Process().children(), key=lambda each: each.create_time())
        return [each.environ()["CUDA_VISIBLE_DEVICES"] for each in processes]

    try:
        assert named() == ["GPU-a", "MIG-b", "GPU-a"]
        transport.take_away(children[1])
        assert named() == ["GPU-a", "GPU-a", "MIG-b"]
        assert ProcessTransport(worker_settings(), num_cores=4, gpus=["0", "1"]).num_wanted() == 2
    finally:
        transport.close()


def at_its_start(monkeypatch: pytest.MonkeyPatch, folder: Path, does: str) -> None:
    """Have every worker process do something before all else."""
    script = f"import os, sys, time\nif 'process_worker' in ' '.join(sys.orig_argv):\n    {does}\n"
    (folder / "sitecustomize.py").write_text(script)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )


def test_a_module_in_the_working_folder_is_not_taken_for_one_of_ours(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    transport = ProcessTransport(worker_settings(), num_processes=1, num_cores=1)
    try:
        assert answer(transport, transport.call(transport.hire(), "start")).identity == "identity"
    finally:
        transport.close()


def test_a_child_that_ends_as_it_begins_is_not_started_over_and_over(tmp_path, monkeypatch, caplog):
    at_its_start(monkeypatch, tmp_path, "os._exit(3)")
    with pytest.raises(WorkerLostError, match="no worker can be started: its process ended with code 3 as it began"):
        PoolExecutor(ProcessTransport(worker_settings(), num_processes=2, num_cores=1))
    assert "goes on with 1 others" in caplog.text
    at_its_start(monkeypatch, tmp_path, "os.kill(os.getpid(), 9)")  # of want of memory, as it may be
    transport = ProcessTransport(worker_settings(), num_processes=1, num_cores=1)
    with pytest.raises(WorkerGoneError, match="ended with -9") as gone:
        answer(transport, transport.call(transport.hire(), "start"))
    assert not gone.value.for_good


def test_a_child_for_which_the_system_has_no_room_is_asked_for_again(monkeypatch):
    def refuses(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    transport = ProcessTransport(worker_settings(), num_processes=1, num_cores=1)
    child = transport.hire()
    with monkeypatch.context() as patch:
        patch.setattr(process_transport.subprocess, "Popen", refuses)
        with pytest.raises(WorkerGoneError) as gone:
            answer(transport, transport.call(child, "start"))
    assert not gone.value.for_good
    assert answer(transport, transport.call(child, "start")).identity == "identity"
    transport.close()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_run_without_a_worker_yet_ends_by_the_code_of_its_signal(gallery, tmp_path, monkeypatch, number, code):
    gallery.add("a.png")
    at_its_start(monkeypatch, tmp_path, "time.sleep(3000)")
    output = tmp_path / "out"
    with start(gallery.manifest(), output, "--executor", "process", engine="identity") as process:
        wait_for_text(process, output / ".inpaint-batch" / "run.json", "run")
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == summary_of(output)["exit_code"] == code, told
    assert "run again to go on" in told


def test_the_kernel_says_how_often_memory_ran_out(tmp_path, monkeypatch):
    assert process_transport._num_oom_kills() >= 0
    (tmp_path / "vmstat").write_text("nr_free_pages 7\noom_kill 12\n")
    monkeypatch.setattr(process_transport, "_OOM_KILLS", tmp_path / "vmstat")
    assert process_transport._num_oom_kills() == 12
    (tmp_path / "vmstat").write_text("nr_free_pages 7\n")
    assert process_transport._num_oom_kills() == 0
