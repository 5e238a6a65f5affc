"""How a process is named where others read of it, and whether one of that name is there."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_TOKEN = secrets.token_hex(4)
_NAME = re.compile(r"process (?P<pid>\d+) on (?P<host>\S+) #(?P<kernel>[0-9a-f]+)-[0-9a-f]+")


def process_name() -> str:
    """This process as locks and reports name it: `process 4711 on node3 #9d41b7e0-5f0c9ab2`.

    Every container of a host can have a process 1 that goes by the name of the host; the digits tell them apart.
    """
    return f"process {os.getpid()} on {socket.gethostname()} #{_kernel_digits()}-{_TOKEN}"


def lives(name: str) -> bool | None:
    """Whether the process of that name is there; None where that cannot be told from here.

    That is so for other machines, other PID namespaces, and names without digits, which earlier versions wrote.
    """
    if name == process_name():
        return True
    match = _NAME.fullmatch(name)
    if match is None or match["host"] != socket.gethostname() or match["kernel"] != _kernel_digits():
        return None
    pid = int(match["pid"])
    return pid != os.getpid() and may_run(pid)  # our number, under another name: somebody had it before us


def may_run(pid: int) -> bool:
    """False only where no process of that number is there; it may be another one by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's, or no number of a process
        return True
    return True


def pid_and_host(name: str) -> tuple[int, str] | None:
    """What the name of a process tells of it; None where it is no such name."""
    match = _NAME.fullmatch(name)
    return (int(match["pid"]), match["host"]) if match is not None else None


@cache
def _kernel_digits() -> str:
    """What processes have in common that see each other by number: the same start of a kernel, and PID namespace."""
    about = hashlib.blake2b(digest_size=4)
    with suppress(OSError):  # elsewhere than on Linux the name of the host has to do
        about.update(Path("/proc/sys/kernel/random/boot_id").read_bytes())
    with suppress(OSError):
        about.update(str(Path("/proc/self/ns/pid").stat().st_ino).encode())
    return about.hexdigest()
