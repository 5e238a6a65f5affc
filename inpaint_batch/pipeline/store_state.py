"""The state of an output in a store while a run is at work: its ledger as immutable parts, and small files beside it.

A run works on a copy in a folder of its own machine, `DIR/.inpaint-batch` as everywhere, which may be lost at any time.
Objects cannot be appended to, so new lines of the ledger go to the store as parts::

    prefix/.inpaint-batch/ledger/000003-whole-9f3c-000017.jsonl      third run, all rows, 17th part; read in order of
                                                                     names. 9f3c: of no other run that began with it

What the ledger promises holds for the parts: the line that says `started` is in the store before the row is worked on,
so that a result without a `done` line is known to be ours. `done` and `failed` follow within PUSH_S seconds; what a
killed run did in the last of them is done again, to the same bytes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from secrets import token_hex
from tempfile import mkdtemp

from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.errors import StorageError
from inpaint_batch.execution.ledger_lines import part_name
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.pipeline.store_copy import (
    ARCHIVE,
    LEDGER,
    as_storage_error,
    bring_all,
    bring_ledger,
    contents,
    remove_all,
)
from inpaint_batch.pipeline.store_lock import StoreLock
from inpaint_batch.report.summary import state_ending
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import names_below, read_bytes, write_bytes
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.scratch import scratch_folder
from inpaint_batch.storage.uris import joined

PUSH_S = 5.0
"""Seconds after which new lines of the ledger go to the store."""
BLOCK_ROWS = 32
"""Rows that are announced in the store together, before the first of them is worked on."""
SMALL_PARTS = 64
"""Parts of one run that are put together to one."""


@contextmanager
def open_place(config: RunConfig) -> Iterator[tuple[RunConfig, StoreState | None]]:
    """The settings with a folder to work in: the output itself, or where it is in a store one that stands for it.

    Raises StorageError where the store cannot be used, or another run is at work there.
    """
    if not config.store:
        yield config, None
        return
    root = Path(mkdtemp(prefix="output-", dir=scratch_folder()))
    state = StoreState(config.store, root / STATE_FOLDER, config.part)
    with as_storage_error():
        state.open(fresh=config.fresh and config.part is None)
    try:
        yield replace(config, output=root), state
    except BaseException:
        with suppress(ObjectError, StorageError, OSError):  # what ends the run is told already
            state.close()
        raise
    with as_storage_error():
        state.close()


class StoreState:
    """The state folder of one run, here and in the store."""

    def __init__(self, store: str, folder: Path, part: Shard | None) -> None:
        self._uri = joined(store, STATE_FOLDER)
        self._store, self._folder, self._part = store, folder, part
        self._lock = StoreLock(store, part)
        self._prefix = ""
        self._own_part = self._folder / LEDGER
        self._pushed: list[str] = []  # small parts of this run, by name
        self._num_parts = 0
        self._done_bytes = self._group_bytes = 0  # of this run's lines: in the store; and in parts that stay
        self._sent: dict[str, bytes] = {}
        self._outdated: list[str] = []  # files of the run before
        self._pushing = threading.Lock()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_up, args=(step,), name=name, daemon=True)
            for name, step in (("store-lock", self._lock.keep), ("store-ledger", self._push_lines))
        ]

    def open(self, *, fresh: bool) -> None:
        """Take the lock, and bring the ledger here; with `fresh` it is archived. Raises ObjectError, StorageError."""
        self._lock.take(names_below(self._uri))
        try:
            bring_all(self._uri, self._folder, partial(self._bring, fresh=fresh))
            for thread in self._threads:
                thread.start()
        except BaseException:
            with suppress(ObjectError, OSError):  # else it goes stale
                self._lock.give_back()
            raise

    def _bring(self, names: list[str], *, fresh: bool) -> None:
        """Make the ledger here of the one in the store, whose state has these names, in order."""
        parts = [name for name in names if name.startswith(LEDGER)]
        archived = [name for name in names if name.startswith(ARCHIVE)]
        # Archived ones count: a part that is called as one of them would replace it once it is archived itself.
        numbered = [name.rpartition("/")[2][:6] for name in (*parts, *archived)]
        numbers = [int(number) for number in numbered if number.isdigit()]
        if fresh:
            for name, content in zip(parts, contents(self._uri, parts), strict=True):
                write_bytes(joined(self._uri, ARCHIVE + name[len(LEDGER) :]), content)
                archived.append(ARCHIVE + name[len(LEDGER) :])
            remove_all(self._uri, parts)
            parts = []
        of = self._part.name if self._part else "whole"
        self._prefix = f"{max(numbers, default=0) + 1:06d}-{of}-{token_hex(2)}"
        bring_ledger(self._uri, parts, archived, self._folder)
        ending = state_ending(self._part)
        self._outdated = [name for name in (f"summary{ending}.json", f"run{ending}.log") if name in names]
        if (left := f"left{ending}.csv") in names:  # it shall be emptied where no row is left any more
            self._sent[left] = read_bytes(joined(self._uri, left))
            (self._folder / left).write_bytes(self._sent[left])
        self._own_part = self._folder / LEDGER / part_name(2 if parts else 1)  # that `Ledger` will begin

    def begin(self) -> None:
        """Show that the run has begun: its small files are there, and summary and log of the one before are not.

        Raises StorageError also where another run began with this one, and has the lock.
        """
        with as_storage_error():
            self._lock.keep(at_once=True)
            remove_all(self._uri, self._outdated)
            self._push_files()

    def announced(self, tasks: Iterable[RowTask]) -> Iterator[RowTask]:
        """The same tasks, each once the store knows that it was begun. Raises StorageError where it cannot be told."""
        tasks = iter(tasks)
        while block := list(islice(tasks, BLOCK_ROWS)):
            with as_storage_error():
                self._lock.keep()
                self._push_lines()
            yield from block

    def close(self) -> None:
        """Bring everything into the store and give the lock back. Raises ObjectError, StorageError, OSError."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        try:
            self._lock.keep()
            self._push_lines()
            self._put_together()
            self._push_files()
        finally:
            self._lock.give_back()

    # ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _push_lines(self) -> None:
        with self._pushing:
            lines = self._lines(self._done_bytes)
            if lines:
                self._num_parts += 1
                name = f"{LEDGER}{self._prefix}-{self._num_parts:06d}.jsonl"
                write_bytes(joined(self._uri, name), lines)
                self._pushed.append(name)
                self._done_bytes += len(lines)
            if len(self._pushed) >= SMALL_PARTS:
                self._put_together()

    def _lines(self, start: int) -> bytes:
        """Whole lines of this run's part of the ledger, from that byte on."""
        if not self._own_part.exists():
            return b""
        with self._own_part.open("rb") as file:
            file.seek(start)
            lines = file.read()
        return lines[: lines.rfind(b"\n") + 1]

    def _put_together(self) -> None:
        """Make one part of the small ones, under the name of the last: reading them twice in between does no harm."""
        if len(self._pushed) < 2:
            return
        *others, last = self._pushed
        write_bytes(joined(self._uri, last), self._lines(self._group_bytes)[: self._done_bytes - self._group_bytes])
        remove_all(self._uri, others)
        self._pushed = []
        self._group_bytes = self._done_bytes

    def _keep_up(self, step: Callable[[], None]) -> None:
        """Do one thing every PUSH_S seconds, in a thread of its own: a slow push must not hold up the lock.

        What fails is tried again the next time, and by the run itself before it begins more rows; that is told.
        """
        while not self._ended.wait(PUSH_S):
            with suppress(ObjectError, StorageError, OSError):
                step()

    # ── the small files ─────────────────────────────────────────────────────────────────────────────────────────────

    def _push_files(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.suffix in (".json", ".csv", ".log") and path.is_file():
                content = path.read_bytes()
                if self._sent.get(path.name) != content:
                    write_bytes(joined(self._uri, path.name), content)
                    self._sent[path.name] = content
