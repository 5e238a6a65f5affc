"""What a machine or container gives to a process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inpaint_batch import machine
from inpaint_batch.machine import gpus_alike, memory_bytes, num_cores, visible_gpus


@pytest.fixture
def control_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Makes the files in which Linux tells of control groups; all limits beside these are the machine's own."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(machine, "_OWN_CGROUPS", tmp_path / "own")

    def make(own: str, limits: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, limit in limits.items():
            (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "fs" / name).write_text(limit)

    return make


@pytest.mark.parametrize(
    ("own", "limits", "smallest"),
    [
        ("0::/\n", {"memory.max": "70000000\n"}, 70_000_000),
        ("0::/job/step\n", {"job/memory.max": "80000000", "job/step/memory.max": "max\n"}, 80_000_000),
        (
            "4:cpu:/a\n7:memory:/slurm/job\n3:pids:/b\n",
            {"memory/slurm/job/memory.limit_in_bytes": "90000000"},
            90_000_000,
        ),
        ("0::/box:7/step\n", {"box:7/memory.max": "85000000"}, 85_000_000),
        ("torn", {"memory.max": "95000000"}, 95_000_000),
    ],
)
def test_the_memory_of_a_control_group_counts(control_groups, own: str, limits: dict[str, str], smallest: int) -> None:
    control_groups(own, limits)
    assert memory_bytes.__wrapped__() == smallest


@pytest.mark.parametrize(
    ("own", "limits", "cores"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/pod/c\n", {"pod/cpu.max": "250000 100000", "pod/c/cpu.max": "max 100000"}, 3),
        ("3:cpu,cpuacct:/pod\n", {"cpu/pod/cpu.cfs_quota_us": "200000", "cpu/pod/cpu.cfs_period_us": "100000"}, 2),
        ("3:cpu:/pod\n", {"cpu/pod/cpu.cfs_quota_us": "-1\n", "cpu/pod/cpu.cfs_period_us": "100000\n"}, 16),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 16),
        ("0::/\n", {"cpu.max": ""}, 16),
        ("0::/\n", {}, 16),
    ],
)
def test_the_share_of_time_of_a_control_group_counts(
    control_groups, monkeypatch: pytest.MonkeyPatch, own: str, limits: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    control_groups(own, limits)
    assert num_cores.__wrapped__() == cores


def test_cores_are_those_that_the_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from inpaint_batch.machine import num_cores; print(num_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))


LISTED = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa)
GPU 1: NVIDIA T400 4GB (UUID: GPU-bbbb)
GPU 2: NVIDIA H100 80GB HBM3 (UUID: GPU-cccc)
GPU 3: NVIDIA H100 80GB HBM3 (UUID: GPU-dddd)
  MIG 3g.40gb     Device  0: (UUID: MIG-1111)
  MIG 1g.10gb     Device  1: (UUID: MIG-2222)
  MIG 1g.10gb     Device  2: (UUID: MIG-3333)
"""


@pytest.mark.parametrize(
    ("asked", "visible", "alike"),
    [
        (None, "GPU-aaaa GPU-bbbb GPU-cccc MIG-1111 MIG-2222 MIG-3333", "GPU-aaaa GPU-cccc"),
        ("", "", ""),
        ("-1", "", ""),
        ("NoDevFiles", "", ""),
        ("2,0", "2 0", "2 0"),  # as Slurm says it
        ("1,0", "1 0", "1"),
        ("0,2,-1,1", "0 2", "0 2"),
        ("GPU-c, GPU-aaaa", "GPU-c GPU-aaaa", "GPU-c GPU-aaaa"),
        ("MIG-3333,MIG-2222,MIG-1111", "MIG-3333 MIG-2222 MIG-1111", "MIG-3333 MIG-2222"),
        ("7,8", "7 8", "7 8"),  # nothing is known of them
    ],
)
def test_gpus_of_one_kind_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, visible: str, alike: str
) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{LISTED}END\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", asked or "")
    if asked is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [gpu.name for gpu in visible_gpus()] == visible.split()
    assert gpus_alike() == alike.split()


def test_without_nvidia_smi_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus() == gpus_alike() == []
