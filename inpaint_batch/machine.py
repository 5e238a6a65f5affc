"""What this machine, or the container on it, gives to a process: cores, memory, GPUs."""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CARD = re.compile(r"GPU (\d+): (.+) \(UUID: (\S+)\)")
_SLICE = re.compile(r"\s+MIG (\S+)\s+Device\s+\d+: \(UUID: (\S+)\)")
"""Lines of `nvidia-smi -L`; a card that is cut in slices (MIG) has one for each."""


@cache
def num_cores() -> int:
    """Cores that this process may use: those it is bound to, or as many as its share of time is worth, rounded up."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [float(bound)]
    for generation, folder in _own_groups("cpu"):
        with suppress(OSError, ValueError):  # ValueError: "max"
            files = ["cpu.max"] if generation == 2 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            quota, period = " ".join((folder / name).read_text() for name in files).split()
            limits.append(int(quota) / int(period))
    return max(1, math.ceil(min(limit for limit in limits if limit > 0)))  # a quota of -1 is none


@cache
def memory_bytes() -> int:
    """Memory that a process may take at most; a very large number where that is unknown."""
    limits = [1 << 62]
    with suppress(AttributeError, ValueError, OSError):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for generation, folder in _own_groups("memory"):
        with suppress(OSError, ValueError):
            file = folder / ("memory.max" if generation == 2 else "memory.limit_in_bytes")
            limits.append(int(file.read_text()))
    return min(limit for limit in limits if limit > 0)


class Gpu(NamedTuple):
    """An NVIDIA GPU, or a slice of one (MIG)."""

    name: str
    """As CUDA_VISIBLE_DEVICES takes it."""
    kind: str
    """`NVIDIA H100 80GB HBM3`, of a slice with ` MIG 1g.10gb`; empty where nvidia-smi does not know it."""
    card: str
    """Number of the card, as nvidia-smi has it; empty likewise."""


def visible_gpus() -> list[Gpu]:
    """NVIDIA GPUs that this process may use, as CUDA would number them in it."""
    there = _all_gpus(os.environ.get("PATH", ""))
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return list(there)
    found = []
    for name in (each.strip() for each in asked.split(",")):
        if not name.isdigit() and not name.startswith(("GPU-", "MIG-")):
            break  # CUDA takes none from here on: "", "-1", "NoDevFiles"
        known = (gpu for gpu in there if gpu.card == name or gpu.name.startswith(name))
        found.append(next(known, Gpu(name, "", ""))._replace(name=name))
    return found


def gpus_alike() -> list[str]:
    """Names of the GPUs that this process may use and that are of the same kind as the first: work that is shared
    among several must come out the same on each."""
    visible = visible_gpus()
    return [gpu.name for gpu in visible if gpu.kind == visible[0].kind]


@cache
def _all_gpus(_path: str) -> tuple[Gpu, ...]:
    """All of this machine; none without an nvidia-smi on that PATH."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()
    found: list[Gpu] = []
    card = Gpu("", "", "")
    for line in told.splitlines():
        if match := _CARD.match(line):
            card = Gpu(name=match[3], kind=match[2], card=match[1])
            found.append(card)
        elif match := _SLICE.match(line):
            if found[-1:] == [card]:
                found.pop()
            found.append(Gpu(name=match[2], kind=f"{card.kind} MIG {match[1]}", card=card.card))
    return tuple(found)


def number_gpus_as_nvidia_smi() -> None:
    """From here on, and before anything of CUDA is used: by itself it would put the fastest first, and plans for one
    GPU would be kept as those of another. What the environment says stays."""
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")


def _own_groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Where Linux says what our control group may take of something, and those that it lies in (Slurm, systemd,
    containers): the generation of control groups, 1 or 2, and a folder."""
    own = {1: "", 2: ""}
    with suppress(OSError, ValueError):
        for line in _OWN_CGROUPS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                own[1 if controllers else 2] = path.strip("/")
    for generation, path in own.items():
        root = _CGROUPS if generation == 2 else _CGROUPS / controller
        for below in (Path(path), *Path(path).parents):
            yield generation, root / below
