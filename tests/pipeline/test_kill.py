"""Runs that are killed or asked to stop, as processes of their own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from gallery import Gallery, ledger_lines, run, tree, wait_for_text, wait_until

from inpaint_batch.errors import StorageError
from inpaint_batch.pipeline.stop import stop_on_signals

SLOW = "faulty:s@0.15"
"""An engine that takes its time and does what `identity` does."""
VERY_SLOW = "faulty:s@1.5"
FOR_EVER = "faulty:s@600"
AT_ONCE = "faulty:s@0"
NUM_ROWS = 14
PATIENCE_S = 120


@pytest.fixture
def slow_rows(gallery: Gallery) -> Gallery:
    """Rows of one large tile each, so that a batch takes four of them."""
    for number in range(NUM_ROWS):
        suffix = ("png", "jpg", "tif", "webp")[number % 4]
        gallery.add(f"{number:02d}.{suffix}", side=260, mode="RGB", hole=(60, 50, 18, 110))
    return gallery


def start(manifest: Path, output: Path, engine: str = SLOW) -> subprocess.Popen[str]:
    """The same run as `run(manifest, output, engine=engine)`, as a program."""
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("INPAINT_BATCH_")}
    return subprocess.Popen(
        [*command, "--engine", engine, "--workers", "2"], stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(process: subprocess.Popen[str], output: Path, status: str, num_lines: int) -> None:
    """Until the ledger has so many lines of that status, or the process has ended."""
    wait_until(process, lambda: sum(line["status"] == status for line in ledger_lines(output)) >= num_lines, PATIENCE_S)


def done_lines(output: Path) -> Counter[str]:
    return Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")


def test_kill_9_at_any_moment_loses_nothing_that_was_done(slow_rows, tmp_path):
    manifest, output = slow_rows.manifest(), tmp_path / "out"
    assert run(manifest, tmp_path / "whole", engine=AT_ONCE)["exit_code"] == 0
    chance = random.Random(7)
    for status, num_lines in (("started", 3), ("done", 1), ("done", 6)):
        with start(manifest, output) as process:
            wait_for(process, output, status, num_lines)
            time.sleep(chance.uniform(0, 0.15))
            process.kill()
        for name, digest in tree(output).items():  # what is visible under its own name is whole
            assert name.endswith(".tmp") or digest == tree(tmp_path / "whole")[name]
    summary = run(manifest, output, engine=AT_ONCE)
    assert summary["exit_code"] == 0
    assert 0 < summary["rows"]["skipped"] < NUM_ROWS
    assert tree(output) == tree(tmp_path / "whole")  # no temporary file is left either
    assert done_lines(output) == Counter({row["id"]: 1 for row in slow_rows.rows})
    assert run(manifest, output, engine=AT_ONCE)["rows"]["skipped"] == NUM_ROWS


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_in_sixty_rows(gallery, tmp_path):
    """Any moment will do: before the first line, between two, or a while after one."""
    for number in range(60):
        gallery.add(f"{number:02d}.{('png', 'jpg', 'tif', 'webp')[number % 4]}", side=260, hole=(60, 50, 80, 110))
    manifest, output = gallery.manifest(), tmp_path / "out"
    whole = tmp_path / "whole"
    assert run(manifest, whole, engine=AT_ONCE, workers=1)["exit_code"] == 0
    expected, chance, num_killed = tree(whole), random.Random(11), 0
    while num_killed < 20:
        wanted = len(ledger_lines(output)) + chance.choice([0, 1, 1, 2, 3, 5, 8])
        with start(manifest, output) as process:
            until = time.monotonic() + PATIENCE_S
            while process.poll() is None and len(ledger_lines(output)) < wanted and time.monotonic() < until:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.3))
            assert process.poll() is None, "it ended before it could be killed: make the engine slower"
            process.kill()
        num_killed += 1
        for name, digest in tree(output).items():
            assert name.endswith(".tmp") or digest == expected[name]
    summary = run(manifest, output, engine=AT_ONCE, workers=4)
    assert summary["exit_code"] == 0
    assert summary["rows"]["skipped"] > 0
    assert tree(output) == expected


def test_a_row_that_kills_the_process_every_time_is_given_up(gallery, tmp_path):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    for _ in range(3):  # once with others in flight, as far as anybody knows, and twice alone
        with start(manifest, output, "faulty:k") as process:
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGKILL
    given_up = run(manifest, output, engine="faulty:k")
    assert given_up["rows"]["failed_by_code"] == {"crash": 1}
    assert run(manifest, output, engine="faulty:k")["rows"]["failed_now"] == 0
    assert run(manifest, output)["exit_code"] == 0  # with another engine it is another work
    assert set(tree(output)) == {"a.png"}


@pytest.mark.parametrize(("number", "exit_code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_drains_the_run(slow_rows, tmp_path, number, exit_code):
    manifest, output = slow_rows.manifest(), tmp_path / "out"
    with start(manifest, output, VERY_SLOW) as process:
        wait_for(process, output, "done", 1)
        process.send_signal(getattr(signal, number))
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == exit_code, told
    assert "run again to go on" in told
    assert "Traceback" not in told
    summary = json.loads((output / ".inpaint-batch" / "summary.json").read_text())
    assert summary["exit_code"] == exit_code
    num_done = summary["rows"]["done"]
    assert 0 < num_done < NUM_ROWS
    assert len(done_lines(output)) == len(tree(output)) == num_done  # everything visible is in the ledger
    rest = run(manifest, output, engine=AT_ONCE)
    assert (rest["exit_code"], rest["rows"]["done"], rest["rows"]["skipped"]) == (0, NUM_ROWS - num_done, num_done)
    assert set(done_lines(output).values()) == {1}


@pytest.mark.parametrize(("number", "exit_code"), [("SIGTERM", 75), ("SIGINT", 130)])
def test_who_is_asked_again_while_leaving_keeps_its_exit_code(number, exit_code):
    program = f"""
import os, signal, sys
from inpaint_batch.errors import exit_code_of
from inpaint_batch.pipeline.stop import stop_on_signals
with stop_on_signals() as stop:
    os.kill(os.getpid(), signal.{number})
for asked_again in (signal.SIGTERM, signal.SIGINT, signal.{number}):
    os.kill(os.getpid(), asked_again)
sys.exit(exit_code_of(stop.error()))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE_S).returncode == exit_code


def test_handlers_are_put_back_if_nothing_was_asked():
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_interrupt_ends_at_once(slow_rows, tmp_path):
    manifest, output = slow_rows.manifest(), tmp_path / "out"
    with start(manifest, output, FOR_EVER) as process:
        wait_for_text(process, output / ".inpaint-batch" / "run.log", "sleeps")  # rows no engine has seen are dropped
        with pytest.raises(StorageError, match=f"process {process.pid}"):  # two runs in one folder
            run(manifest, output)
        until = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < until:  # two at nearly one time would be heard as one
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        _, told = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "ended at once" in told
    assert run(manifest, output, engine=AT_ONCE)["exit_code"] == 0
    assert set(done_lines(output).values()) == {1}
