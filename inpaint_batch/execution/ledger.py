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

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from inpaint_batch.config import Shard
from inpaint_batch.errors import FailureCode

Status = Literal["started", "dropped", "done", "failed"]

FSYNC_LINES = 64
"""Lines after which the part is forced to the disk."""
FSYNC_S = 1.0
"""Seconds after which it is forced to the disk, however few lines there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One line of the ledger."""

    id: str
    """The row's id."""
    key: str
    """Identity of the work (`identity.row_key`); empty for a row that was refused before any work."""
    status: Status
    alone: bool = False
    """Of `started`: no other row was in flight with it."""
    image: str = ""
    """Absolute path or URI of the source."""
    output: str = ""
    """Name of the result relative to the output folder."""
    code: str = ""
    """Failure code, empty unless failed."""
    message: str = ""
    """What happened and what to do next, empty unless failed."""
    retryable: bool = False
    num_tiles: Mapping[int, int] = field(default_factory=dict)
    """Tiles by side in pixels."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage."""
    coverage: float | None = None
    """Part of the image that is hole, 0..1."""
    num_pixels: int = 0
    warnings: tuple[str, ...] = ()
    run: str = ""
    """Id of the run (`logids.in_run`), as its log has it."""
    worker: str = ""
    """Process that did it, `node7:4711`."""
    attempt: int = 1
    """How often that run had begun it."""

    def to_line(self, now_s: float) -> bytes:
        """This entry as one line of JSON with the time in it; fields that say nothing are left out."""
        values: dict[str, Any] = {"id": self.id, "key": self.key, "status": self.status, "output": self.output}
        values["at"] = round(now_s, 3)
        if self.alone:
            values["alone"] = True
        if self.image:
            values["image"] = self.image
        if self.status == "failed":
            values |= {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.num_tiles:
            values["tiles"] = {str(side): count for side, count in sorted(self.num_tiles.items())}
        if self.seconds:
            spent = {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}
            values["seconds"] = {stage: seconds for stage, seconds in spent.items() if seconds}
        if self.coverage is not None:
            values["coverage"] = round(self.coverage, 6)
        if self.num_pixels:
            values["num_pixels"] = self.num_pixels
        if self.warnings:
            values["warnings"] = list(self.warnings)
        if self.run:
            values["run"] = self.run
        if self.worker:
            values["worker"] = self.worker
        if self.attempt > 1:
            values["attempt"] = self.attempt
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") + b"\n"


class Known(NamedTuple):
    """What the ledger remembers of a row."""

    status: Status
    key: str
    output: str
    """The name under which this row's result was, or was about to be, written; empty where it never came so far."""
    code: str = ""
    message: str = ""
    retryable: bool = False
    num_deaths: int = 0
    """How often in a row the process died while it worked on this row alone."""


class Ledger:
    """The memory of an output folder. One process at a time may do the same rows (see `lock.hold_folder`)."""

    def __init__(
        self, state: Path, *, fresh: bool = False, read_only: bool = False, shard: Shard | None = None
    ) -> None:
        """Read what is known. `state` is `DIR/.inpaint-batch`; with `fresh` all parts are archived first.

        With `read_only` nothing is made or written, and the folder need not exist. With `shard` only the its rows
        are remembered, and `fresh` forgets only those. Raises `OSError` where the folder
        cannot be read or made.
        """
        self._folder = state / "ledger"
        self._archive = state / "ledger-archive"
        if not read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._shard = shard
        if fresh and shard is None:
            self._archive_parts()
        self._rows: dict[str, Known] = {}
        self.num_damaged = 0
        """Lines that could not be read: the torn ends of killed runs."""
        for part in _parts(self._folder):
            for line in self._lines(part):
                self._remember(line)
        self._file: BinaryIO | None = None
        self._unsynced = 0
        self._synced_at_s = time.monotonic()
        self._owned: set[int] | None = None
        if fresh and shard is not None:  # the parts belong to the other shards as well
            for row_id, known in list(self._rows.items()):
                self.append(LedgerEntry(id=row_id, key=known.key, status="dropped"))

    def __len__(self) -> int:
        return len(self._rows)

    def known(self, row_id: str) -> Known | None:
        """The last word about a row, or None where it was never begun."""
        return self._rows.get(row_id)

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
        """
        if self._owned is None:
            self._owned = set()
            for folder in (*sorted(self._archive.glob("*/")), self._folder):
                for part in _parts(folder):
                    self._owned.update(_claim(line.get("output"), line.get("image")) for line in self._lines(part))
        return _claim(output, image) in self._owned

    def append(self, entry: LedgerEntry) -> None:
        """Add a line. It survives the end of this process at once, and a power cut within a second or 64 lines.

        Raises `OSError` where the disk does not take it.
        """
        if self._file is None:
            self._file = self._new_part()
        with _naming(self._folder):
            self._file.write(entry.to_line(time.time()))
            self._file.flush()
        self._unsynced += 1
        self._rows[entry.id] = _merge(self._rows.get(entry.id), entry)
        if self._owned is not None:
            self._owned.add(_claim(entry.output, entry.image))
        self.tick()

    def tick(self) -> None:
        """Force lines to the disk if it is time. Call it now and then while nothing is appended."""
        if self._unsynced >= FSYNC_LINES or (self._unsynced and time.monotonic() - self._synced_at_s >= FSYNC_S):
            self.flush()

    def flush(self) -> None:
        """Force every line to the disk."""
        if self._file is not None and self._unsynced:
            with _naming(self._folder):
                os.fsync(self._file.fileno())
        self._unsynced = 0
        self._synced_at_s = time.monotonic()

    def close(self) -> None:
        """Flush, and end this run's part."""
        if self._file is not None:
            try:
                self.flush()
            finally:
                file, self._file = self._file, None
                with _naming(self._folder):
                    file.close()  # a line that the disk did not take is still in its buffer

    def _new_part(self) -> BinaryIO:
        parts = _parts(self._folder)
        number = int(parts[-1].stem) + 1 if parts else 1
        while True:
            try:
                file = (self._folder / f"{number:06d}.jsonl").open("xb")
                break
            except FileExistsError:  # another shard was quicker
                number += 1
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # the name of the part, not only its content
        finally:
            os.close(descriptor)
        return file

    def _archive_parts(self) -> None:
        if not _parts(self._folder):
            return
        self._archive.mkdir(exist_ok=True)
        number = 1 + max((int(old.name) for old in self._archive.iterdir() if old.name.isdigit()), default=0)
        self._folder.rename(self._archive / f"{number:06d}")
        self._folder.mkdir()

    def _lines(self, part: Path) -> Iterator[dict[str, Any]]:
        with part.open("rb") as file:
            for text in file:
                try:
                    line = json.loads(text.decode("utf-8", "surrogatepass"))
                except ValueError:
                    line = None
                if _is_sound(line):
                    yield line
                else:
                    self.num_damaged += 1

    def _remember(self, line: Mapping[str, Any]) -> None:
        entry = LedgerEntry(
            id=str(line["id"]),
            key=str(line.get("key", "")),
            status=line["status"],
            alone=bool(line.get("alone", False)),
            output=str(line.get("output", "")),
            code=str(line.get("code", "")),
            message=str(line.get("message", "")),
            retryable=bool(line.get("retryable", False)),
        )
        if self._shard is None or self._shard.has(entry.id):
            self._rows[entry.id] = _merge(self._rows.get(entry.id), entry)


def read_lines(state: Path) -> Iterator[dict[str, Any]]:
    """Every sound line of the ledger of `state`, part by part, also while runs are adding to it."""
    for part in _parts(state / "ledger"):
        with part.open("rb") as file:
            for text in file:
                with suppress(ValueError):
                    line = json.loads(text.decode("utf-8", "surrogatepass"))
                    if _is_sound(line):
                        yield line


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Put the name into an OSError that lacks it, so that whoever catches it knows what the disk did not take."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise


def _is_sound(line: object) -> bool:
    if not isinstance(line, dict) or "id" not in line:
        return False
    status = line.get("status")
    return status in ("started", "dropped", "done") or (status == "failed" and line.get("code") in list(FailureCode))


def _parts(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("*.jsonl") if path.stem.isdigit()), key=lambda path: int(path.stem))


def _claim(output: object, image: object) -> int:
    return hash((output, image))  # a number each: there may be millions


def _merge(before: Known | None, entry: LedgerEntry) -> Known:
    # A row that failed before it had a name for its output still owns the output of an earlier, better day.
    output = entry.output or (before.output if before else "")
    num_deaths = 0
    if entry.status == "started":
        num_deaths = (before.num_deaths if before else 0) + entry.alone
    return Known(entry.status, entry.key, output, entry.code, entry.message, entry.retryable, num_deaths)
