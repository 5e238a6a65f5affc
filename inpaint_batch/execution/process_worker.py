"""The program of a child process: `python -m inpaint_batch.execution.process_worker FD`, FD being its end of a pipe.

It first receives its settings, then calls (number, method, arguments), and answers each with (number, value, error).
Rows are done in threads of their own, so that it can say that it lives meanwhile. It ends when the pipe does, however
its parent ended.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from inpaint_batch.execution.worker import RowWorker
from inpaint_batch.signals import ASKING

_PR_SET_PDEATHSIG = 1
_AT_ONCE = frozenset({"pulse", "leave"})


def main() -> None:
    """Serve until nobody asks any more."""
    for number in ASKING:  # they come to all processes of a job; our parent decides
        signal.signal(number, signal.SIG_IGN)
    with suppress(OSError, AttributeError):  # Linux: also where a library that hangs keeps us from seeing the pipe end
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    connection = Connection(int(sys.argv[1]))
    with suppress(EOFError, OSError):
        worker = RowWorker(connection.recv())
        lock = threading.Lock()
        while True:
            number, method, arguments = connection.recv()
            call = (worker, connection, lock, number, method, arguments)
            if method in _AT_ONCE:
                _answer(*call)
            else:
                threading.Thread(target=_answer, args=call, daemon=True).start()
    os._exit(0)  # whatever threads are still doing is for nobody


def _answer(
    worker: RowWorker,
    connection: Connection,
    lock: threading.Lock,
    number: int,
    method: str,
    arguments: tuple[Any, ...],
) -> None:
    value, error = None, None
    try:
        value = getattr(worker, method)(*arguments)
    except BaseException as raised:
        error = _that_pickles(raised)
    with lock, suppress(OSError):  # nobody listens any more: the loop finds out
        connection.send((number, value, error))


def _that_pickles(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main()
