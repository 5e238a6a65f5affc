"""The ledger: one JSON line for each row that was begun, done or failed, appended and never changed.

It lives in `DIR/.inpaint-batch/ledger/` as numbered parts, `000001.jsonl` and so on. Each run (of several shards, each
one) writes a part of its own, so the torn last line of a killed run is never continued by the next one. Parts are read
in order and the last line about a row counts. Plain lines work on any file system, and `grep` reads them.

A row's `started` line is written before its output can appear, and its `done` line after the output is visible under
its final name. So what has no `done` line is redone, and an output that a killed run left without one is known to be
ours. A run that ends in an orderly way says `dropped` of rows that it began and gave up; so a row whose last word is
`started` was in flight when the process died, and may be what killed it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from inpaint_batch.config import Shard
from inpaint_batch.execution.ledger_index import Known, LedgerIndex
from inpaint_batch.execution.ledger_lines import ARCHIVE_FOLDER, LEDGER_FOLDER, LedgerEntry, part_name, parts_of
from inpaint_batch.execution.places import Places
from inpaint_batch.manifest.seen import Seen
from inpaint_batch.storage.atomic import sync_folder

FSYNC_LINES = 64
"""Lines after which the part is forced to the disk."""
FSYNC_S = 1.0
"""Seconds after which it is forced to the disk, however few lines there are."""

PLACES_PER_PART = 1 << 48
"""More than any part has bytes: the place of a line is that of its part times this, and its first byte there."""


class Ledger:
    """The memory of an output folder. One process at a time may do the same rows (see `lock.hold_folder`)."""

    def __init__(
        self,
        state: Path,
        *,
        fresh: bool = False,
        read_only: bool = False,
        shard: Shard | None = None,
        is_copy: bool = False,
    ) -> None:
        """Read what is known. `state` is `DIR/.inpaint-batch`; with `fresh` all parts are archived first.

        With `read_only` nothing is made or written, and the folder need not exist. With `shard` only its rows are
        remembered, and `fresh` forgets only those. `is_copy`: what it is a ledger of lies elsewhere, in a store. Raises
        `OSError` where the folder cannot be read or made.
        """
        self._folder = state / LEDGER_FOLDER
        self._archive = state / ARCHIVE_FOLDER
        self._naming = _Naming(self._folder)
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._shard = shard
        self.places = Places(state, read_only=read_only or is_copy)
        if fresh and shard is None:
            self._archive_parts()
        self._rows = LedgerIndex()
        self._parts: list[Path] = []  # that hold these rows
        self._reader: tuple[Path, BinaryIO] | None = None
        self._claims = Seen()  # outputs, and what they are made of
        self._read_archive = False
        self.num_damaged = 0
        """Lines that could not be read: the torn ends of killed runs."""
        self._file: BinaryIO | None = None
        self._file_bytes = 0
        self._unsynced = 0
        self._synced_at_s = time.monotonic()
        self._syncs = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._sync: Future[None] | None = None
        ids: dict[str, None] = {}
        for part in parts_of(self._folder):
            self._parts.append(part)
            for start, line in self._lines(part):
                if shard is None or shard.has(line.id):
                    self._rows.add(line, self._place(start))
                    if fresh:
                        ids[line.id] = None
        if fresh:  # the parts belong to the other shards as well
            for row_id in ids:
                known = self._rows.get(row_id)
                self.append(LedgerEntry(id=row_id, key=known.key if known else "", status="dropped"))

    def __len__(self) -> int:
        return len(self._rows)

    def known(self, row_id: str) -> Known | None:
        """The last word about a row, or None where it was never begun."""
        return self._rows.get(row_id)

    def message(self, row_id: str) -> str:
        """Why a row failed and what to do next, as its line says; empty where it did not fail. Raises `OSError`."""
        known = self._rows.get(row_id)
        if known is None or known.status != "failed":
            return ""
        number, start = divmod(known.place, PLACES_PER_PART)
        part = self._parts[number]
        with self._naming:
            if self._reader is None or self._reader[0] != part:
                self._close_reader()
                self._reader = part, part.open("rb")
            self._reader[1].seek(start)
            line = LedgerEntry.parse(self._reader[1].readline())
        return line.message if line is not None and line.id == row_id else ""

    def in_flight_at_death(self, row_id: str) -> bool:
        """Whether the last that was heard of a row is that it was begun: its run did not live to say more."""
        known = self._rows.get(row_id)
        return known is not None and known.status == "started"

    def num_deaths(self, row_id: str) -> int:
        """How often in a row the process died while it worked on this row alone."""
        known = self._rows.get(row_id)
        return known.num_deaths if known else 0

    def owns(self, output: str, image: str) -> bool:
        """Whether the file `output` is ours, made of `image`, by this ledger or an archived one.

        An output that was made of another image is not: a second manifest must not replace the results of the first.
        An image that was moved along with the output folder is the same; where it was copied, nobody knows.
        """
        if self._claimed(output, image):
            return True
        before = self.places.were(image)
        return any(self._claimed(output, name) and not os.path.lexists(name) for name in before)

    def _claimed(self, output: str, image: str) -> bool:
        claim = (output, image)
        if claim not in self._claims and not self._read_archive:
            self._read_archive = True
            for folder in sorted(self._archive.glob("*/")):
                for part in parts_of(folder):
                    for _ in self._lines(part):
                        pass
        return claim in self._claims

    def append(self, entry: LedgerEntry) -> None:
        """Add a line, with the time in it.

        It survives the end of this process at once, and a power cut once the disk has it (see `tick`).
        Raises `OSError` where the disk does not take it.
        """
        if self._file is None:
            self._file = self._new_part()
        line = msgspec.structs.replace(entry, at_s=int(1e3 * time.time()) / 1e3).to_line()
        with self._naming:
            self._file.write(line)
            self._file.flush()
        self._unsynced += 1
        self._rows.add(entry, self._place(self._file_bytes))
        self._file_bytes += len(line)
        if entry.status == "started":  # before anything of that name can appear
            self._claims.add((entry.output, entry.image))
        self.tick()

    def tick(self) -> None:
        """Have lines forced to the disk if it is time: FSYNC_LINES or FSYNC_S after the last time, or once that ended.

        Call it now and then while nothing is appended. The disk takes its time in a thread of its own, which a row need
        not wait for. Raises `OSError` where the disk did not take what was given to it before.
        """
        if self._unsynced and (self._unsynced >= FSYNC_LINES or time.monotonic() - self._synced_at_s >= FSYNC_S):
            if self._sync is not None:
                if not self._sync.done():
                    return
                self._finish_sync()
            assert self._file is not None
            self._sync = self._syncs.submit(os.fsync, self._file.fileno())
            self._unsynced = 0
            self._synced_at_s = time.monotonic()

    def flush(self) -> None:
        """Force every line to the disk, and wait for it. Raises `OSError`."""
        self._finish_sync()
        if self._file is not None and self._unsynced:
            with self._naming:
                os.fsync(self._file.fileno())
        self._unsynced = 0
        self._synced_at_s = time.monotonic()

    def close(self) -> None:
        """Flush, and end this run's part."""
        try:
            self.flush()
        finally:
            self._syncs.shutdown()
            self._close_reader()
            file, self._file = self._file, None
            if file is not None:
                with self._naming:
                    file.close()  # a line that the disk did not take is still in its buffer

    def _place(self, start: int) -> int:
        """Of the line that begins at that byte of the last part."""
        return (len(self._parts) - 1) * PLACES_PER_PART + start

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader[1].close()
            self._reader = None

    def _finish_sync(self) -> None:
        sync, self._sync = self._sync, None
        if sync is not None:
            with self._naming:
                sync.result()

    def _new_part(self) -> BinaryIO:
        parts = parts_of(self._folder)
        number = int(parts[-1].stem) + 1 if parts else 1
        while True:
            try:
                part = self._folder / part_name(number)
                file = part.open("xb")
                break
            except FileExistsError:  # another shard was quicker
                number += 1
        self._parts.append(part)
        self._file_bytes = 0
        sync_folder(self._folder)  # the name of the part, not only its content
        return file

    def _archive_parts(self) -> None:
        if not parts_of(self._folder):
            return
        self._archive.mkdir(exist_ok=True)
        number = 1 + max((int(old.name) for old in self._archive.iterdir() if old.name.isdigit()), default=0)
        self._folder.rename(self._archive / f"{number:06d}")
        self._folder.mkdir()

    def _lines(self, part: Path) -> Iterator[tuple[int, LedgerEntry]]:
        """The lines of a part and where they begin; what they claim is remembered, and damaged ones are counted."""
        claims = self._claims
        start = 0
        with part.open("rb") as file:
            for text in file:
                line = LedgerEntry.parse(text)
                if line is None:
                    self.num_damaged += 1
                else:
                    if line.output:
                        claims.add((line.output, line.image))
                    yield start, line
                start += len(text)


class _Naming:
    """Puts a name into an OSError that lacks it, so that whoever catches it knows what the disk did not take."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            error.filename = error.filename or str(self._folder)
