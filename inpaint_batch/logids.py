"""What a line of a log is about: the ids of run, shard, worker, row and attempt.

A run and its shard hold for the process; worker, row and attempt for what a thread is doing just now. Lines in JSON
carry all five, those in words the last three; the ledger has them too, so that a line of either leads to the other.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple


class Subject(NamedTuple):
    """What is being worked on."""

    row: str
    """Id of the row."""
    attempt: int
    """How often this run has begun it, 1 for the first time: more where a worker was lost with it."""
    worker: str
    """Process that does it, `node7:4711`."""


_run = _shard = ""
_thread = threading.local()


def worker_id() -> str:
    """This process as a worker: its host and pid."""
    return f"{socket.gethostname()}:{os.getpid()}"


@contextlib.contextmanager
def in_run(shard: str) -> Iterator[str]:
    """Within it, all threads of this process log for one run; yields its id, twelve digits that no other run has.

    `shard` is `i/n`, or empty for the whole manifest (`1/1`). Within another one it changes nothing.
    """
    global _run, _shard
    before = _run, _shard
    if not _run:
        _run, _shard = secrets.token_hex(6), shard or "1/1"
    try:
        yield _run
    finally:
        _run, _shard = before


@contextlib.contextmanager
def on_row(row: str, attempt: int) -> Iterator[None]:
    """Within it, what this thread logs is about that row, and its worker is this process."""
    with about(Subject(row, attempt, worker_id())):
        yield


@contextlib.contextmanager
def about(subject: Subject | None) -> Iterator[None]:
    """The same for what was said elsewhere; None where it is about no row."""
    before, _thread.subject = current(), subject
    try:
        yield
    finally:
        _thread.subject = before


def current() -> Subject | None:
    """What this thread is working on."""
    subject: Subject | None = getattr(_thread, "subject", None)
    return subject


def ids(subject: Subject | None) -> dict[str, str | int | None]:
    """The five ids by name; None where one does not apply."""
    row, attempt, worker = subject or (None, None, None)
    return {"run": _run or None, "shard": _shard or None, "worker": worker, "row": row, "attempt": attempt}


class HumanFormatter(logging.Formatter):
    """One line in words, with the row that it is about, then the traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(threadName)s%(subject)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        subject = current()
        record.subject = ""
        if subject is not None:
            again = f", attempt {subject.attempt}" if subject.attempt > 1 else ""
            record.subject = f" [{subject.row} on {subject.worker}{again}]"
        return super().format(record)
