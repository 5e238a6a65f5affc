"""Workers as child processes of this one, spoken with through pipes.

What kills or hangs a worker costs a child and not the run, as with Ray, but without a cluster. A child that died is
started again when it is asked for its engine next.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from signal import SIGKILL
from typing import Any

from inpaint_batch.execution.transport import WorkerGoneError
from inpaint_batch.execution.worker import WorkerSettings
from inpaint_batch.signals import ASKING

_OOM_KILLS = Path("/proc/vmstat")
_FAREWELL_S = 5.0
"""How long a child may take to be gone once it was killed."""
_MAY_PASS = frozenset({None, 0, -SIGKILL, *(-number for number in ASKING)})
"""How a child may end before it was ever there without that being the end of each: want of memory, and our own end."""


@dataclasses.dataclass(slots=True, eq=False)
class _Call:
    """A token: a call that was made, and its answer once there is one."""

    child: _Child
    method: str
    answered: bool = False
    value: Any = None
    error: BaseException | None = None


class _Child:
    """A worker process, or none where it died."""

    def __init__(self, settings: WorkerSettings, gpu: str = "") -> None:
        self._settings = settings
        self._gpu = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
        self._process: subprocess.Popen[bytes] | None = None
        self.connection: Connection | None = None
        self._calls: dict[int, _Call] = {}
        self._num_calls = 0
        self._num_oom_kills = 0
        self._was_there = False

    def call(self, method: str, arguments: tuple[Any, ...]) -> _Call:
        call = _Call(self, method)
        self._num_calls += 1
        self._calls[self._num_calls] = call
        try:
            if self.connection is None and method == "start":
                self._spawn()
            if self.connection is None:
                raise BrokenPipeError
            self.connection.send((self._num_calls, method, arguments))
        except OSError:
            self._bury()
        return call

    def _spawn(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-P", "-m", "inpaint_batch.execution.process_worker", str(theirs.fileno())]
            # Modules come from where ours do, and not from the working folder, where a queue.py of somebody may lie.
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | self._gpu
            self._num_oom_kills = _num_oom_kills()
            # Not our stdout: what a library prints must not stand between the lines of JSON.
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=2, env=environment
            )
        with suppress(OSError):  # dead already: the next call finds out
            self.connection.send(self._settings)

    def receive(self) -> None:
        """Take one answer, or the news that it died."""
        assert self.connection is not None
        try:
            number, value, error = self.connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self._bury()
            return
        call = self._calls.pop(number)
        self._was_there = self._was_there or error is None
        call.answered, call.value, call.error = True, value, error

    def _bury(self) -> None:
        """Tell all who wait that it is gone."""
        code = self.end()
        of_memory = code == -SIGKILL and _num_oom_kills() > self._num_oom_kills
        for_good = not self._was_there and code not in _MAY_PASS
        reason = f"its process ended with code {code} as it began; look at what it wrote to stderr, above"
        for call in self._calls.values():
            call.answered = True
            call.error = WorkerGoneError(
                reason if for_good else f"it ended with {code}", of_memory=of_memory, for_good=for_good
            )
        self._calls.clear()

    def end(self) -> int | None:
        """Kill it where it still lives; returns how it ended."""
        process, self._process = self._process, None
        if self.connection is not None:
            self.connection.close()
            self.connection = None
        if process is None:
            return None
        with suppress(subprocess.TimeoutExpired):  # its pipe is closed before it is gone: let it tell by what it died
            return process.wait(0.5)
        process.kill()
        with suppress(subprocess.TimeoutExpired):  # in a system call that cannot be interrupted: not ours any more
            process.wait(_FAREWELL_S)
        return process.returncode

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process is not None:
            self._process.kill()
        self.end()


class ProcessTransport:
    """See `transport.Transport`; a handle is a child, which may die and come again."""

    def __init__(
        self, settings: WorkerSettings, *, num_processes: int = 0, num_cores: int, gpus: Sequence[str] = ()
    ) -> None:
        """`num_processes`: 0 for one, or one for each of `gpus`, names as CUDA_VISIBLE_DEVICES takes them. They share
        `num_cores`, and each sees one of the GPUs, in turn; all that there are where none is named."""
        self._gpus = gpus
        self._number = num_processes or len(gpus) or 1
        self._settings = settings.on(max(1, num_cores // self._number), self._number)
        self.rows_at_once = self._settings.workers
        self._children: list[_Child] = []

    def num_wanted(self) -> int:
        """See `transport.Transport`."""
        return self._number

    def hire(self) -> Any:
        """See `transport.Transport`."""
        gpu = self._gpus[len(self._children) % len(self._gpus)] if self._gpus else ""
        self._children.append(_Child(self._settings, gpu))
        return self._children[-1]

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        """See `transport.Transport`."""
        return handle.call(method, arguments)

    def wait(self, tokens: Sequence[Any], timeout_s: float) -> set[Any]:
        """See `transport.Transport`."""
        if any(token.answered for token in tokens):
            timeout_s = 0.0
        by_connection = {child.connection: child for child in self._children if child.connection is not None}
        for connection in wait(list(by_connection), timeout_s):
            by_connection[connection].receive()  # type: ignore[index]
        return {token for token in tokens if token.answered}

    def answer(self, token: Any) -> Any:
        """See `transport.Transport`."""
        if token.error is not None:
            raise token.error
        return token.value

    def was_its_machine(self, _handle: Any) -> bool | None:
        """See `transport.Transport`: we would be gone as well."""
        return False

    def take_away(self, handle: Any) -> None:
        """See `transport.Transport`."""
        handle.kill()

    def close(self) -> None:
        """See `transport.Transport`."""
        for child in self._children:
            child.kill()
        self._children = []


def _num_oom_kills() -> int:
    """How often the kernel has ended a process for want of memory since it started; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in _OOM_KILLS.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
