"""Names of processes, and whether they are there."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

from inpaint_batch import processes
from inpaint_batch.processes import lives, process_name


def test_a_process_knows_itself_and_sees_another_end() -> None:
    here = re.escape(socket.gethostname())
    assert re.fullmatch(rf"process {os.getpid()} on {here} #[0-9a-f]{{8}}-[0-9a-f]{{8}}", process_name())
    assert lives(process_name()) is True
    code = "from inpaint_batch.processes import process_name; print(process_name(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert name.startswith(f"process {other.pid} on ")
        assert lives(name) is True
        other.communicate("\n")
    assert lives(name) is False


def test_of_other_machines_nothing_is_known() -> None:
    name = process_name()
    assert lives(name.replace(socket.gethostname(), "elsewhere")) is None
    assert lives("") is None
    assert lives(f"process x on {socket.gethostname()}") is None


def test_of_other_containers_and_earlier_versions_nothing_is_known(monkeypatch) -> None:
    name = process_name()
    assert lives(name.partition(" #")[0]) is None
    monkeypatch.setattr(processes, "_kernel_digits", lambda: "00000000")
    assert lives(name) is None
    assert lives(process_name()) is True


def test_what_had_the_number_of_this_process_before_it_is_gone(monkeypatch) -> None:
    name = process_name()
    monkeypatch.setattr(processes, "_TOKEN", "00000000")
    assert lives(name) is False
