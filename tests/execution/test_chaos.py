"""benchmarks/chaos.py in small: kill -9 at random moments, and that it would see a fault if there were one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import chaos  # noqa: E402


@pytest.fixture(scope="module")
def chaos_gallery(tmp_path_factory: pytest.TempPathFactory) -> chaos.Gallery:
    return chaos.make_gallery(tmp_path_factory.mktemp("chaos"), 48)


def test_kills_of_the_local_executor_cost_nothing(chaos_gallery, tmp_path):
    report = chaos.kill_local(chaos_gallery, tmp_path, num_kills=3, seed=4)
    assert (report.kills["process"], report.faults) == (3, [])
    assert report.num_starts > report.num_rounds > 0


def test_every_kind_of_fault_is_seen(chaos_gallery, tmp_path):
    names = sorted(chaos_gallery.expected)
    for name in names[2:]:
        (tmp_path / name).write_bytes((chaos_gallery.manifest.parent.parent / "whole" / name).read_bytes())
    (tmp_path / names[2]).write_bytes(b"other")
    (tmp_path / "more.tmp").touch()
    ledger = tmp_path / ".inpaint-batch" / "ledger" / "000001.jsonl"
    ledger.parent.mkdir(parents=True)
    lines = [json.dumps({"id": name, "status": "done"}) for name in (*names[1:], names[5])]
    ledger.write_text("\n".join([*lines, '{"id": "torn']))
    assert chaos.faults_of(chaos_gallery, tmp_path) == [
        f"1 rows were never done: {names[0]}",
        f"1 rows were done more than once: {names[5]}",
        f"2 results are missing: {names[0]}, {names[1]}",
        "1 files are left over: more.tmp",
        f"1 results differ: {names[2]}",
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_kills_of_workers_a_node_and_the_driver_cost_nothing():
    """In a process of its own: a cluster leaves variables and threads behind."""
    script = "import chaos, sys; sys.argv[1:] = ['--only', 'ray', '--rounds', '1', '--rows', '120']; chaos.main()"
    done = subprocess.run([sys.executable, "-c", script], cwd=BENCHMARKS, capture_output=True, text=True, timeout=250)
    if "RuntimeError" in done.stderr and "Ray" in done.stderr:
        pytest.skip("Ray is installed, but its own cluster does not start on this machine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| Ray, 3 nodes | 1 × 120 |" in done.stdout
