"""What a process may use, how it is named where others read of it, and whether one of that name is there."""

from __future__ import annotations

import os
import socket


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def process_name() -> str:
    """This process as locks and reports name it: `process 4711 on node3`."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def lives(name: str) -> bool | None:
    """Whether the process of that name is there; None where only another machine could tell."""
    words = name.split()
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdigit():
        return None
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
