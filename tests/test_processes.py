"""Names of processes, and whether they are there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from inpaint_batch.processes import lives, num_cores, process_name


def test_a_process_knows_itself_and_sees_another_end() -> None:
    assert process_name() == f"process {os.getpid()} on {socket.gethostname()}"
    assert lives(process_name()) is True
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        name = f"process {other.pid} on {socket.gethostname()}"
        assert lives(name) is True
        other.communicate(b"\n")
    assert lives(name) is False


def test_of_other_machines_nothing_is_known() -> None:
    assert lives(f"process {os.getpid()} on elsewhere") is None
    assert lives("") is None
    assert lives(f"process x on {socket.gethostname()}") is None


def test_cores_are_those_that_the_process_may_use() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from inpaint_batch.processes import num_cores; print(num_cores())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"
    assert num_cores() == len(os.sched_getaffinity(0))
