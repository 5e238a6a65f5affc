"""What this machine, or the container on it, gives to a process: cores and memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


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
