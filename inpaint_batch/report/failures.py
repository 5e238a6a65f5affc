"""`failures.csv`: the rows of a run that failed, as a manifest to run again, however many there are.

So is `left.csv`, of rows whose outputs were left as they were.
"""

from __future__ import annotations

import csv
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TextIO

import numpy as np

from inpaint_batch.config import Shard
from inpaint_batch.manifest.schema import COLUMNS, LOCATION_COLUMNS
from inpaint_batch.report.summary import state_ending
from inpaint_batch.report.tally import FailedRow
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.paths import relative_to
from inpaint_batch.words import writable

MEMORY_BYTES = 1 << 20
"""Rows that take more than this wait in a file."""
ALWAYS = ("id", "image", "mask", "output")
"""Columns that are there whether or not a row fills them."""


class PlainLines:
    """A text file for `csv.writer` whose lines end in a line feed alone. Asked for that end itself, it leaves a
    carriage return in a cell without quotes, and who reads the file takes it for the end of a row.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """One row, as the writer hands it over."""
        return self._file.write(row.removesuffix("\r\n") + "\n")


class Failures:
    """Rows of one run that were not done. A file without a name holds them; in memory there are 16 bytes for each."""

    def __init__(self, state: Path, part: Shard | None = None, *, name: str = "failures") -> None:
        """`state` is the folder in which `failures.csv` (of a shard `failures-i-of-n.csv`) shall stand; the file
        without a name is there, too.

        `name` is that of another list.
        """
        self.path = state / f"{name}{state_ending(part)}.csv"
        """Where `write` puts it."""
        self._rows = SpooledTemporaryFile(MEMORY_BYTES, dir=str(state))  # noqa: SIM115  (`close` does it)
        self._lines = array("q")  # in the manifest
        self._starts = array("q")  # in the file
        self._columns: set[str] = set(ALWAYS)

    def add(self, failed: FailedRow) -> None:
        """One row more, in any order. Raises OSError where the disk does not take it."""
        self._lines.append(failed.line)
        self._starts.append(self._rows.tell())
        self._columns.update(failed.cells)
        self._rows.write(json.dumps([dict(failed.cells), failed.code, failed.message]).encode() + b"\n")

    def write(self, *, absolute: bool = False) -> None:
        """Write a manifest of these rows, in the order of the manifest, with the columns code and message.

        Its paths count from its own location, so `run DIR/.inpaint-batch/failures.csv --output DIR --retry-failed` does
        those rows again; they are absolute where links lead to a file, and with `absolute`, as where the state goes to
        a store. It is there after every run; without failures it holds only the header. Raises what `atomic_write`
        raises.
        """
        columns = [name for name in COLUMNS if name in self._columns]
        relative = relative_to(self.path.parent)
        with (
            atomic_write(self.path) as temporary,
            temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            writer = csv.writer(PlainLines(file))
            writer.writerow([*columns, "code", "message"])
            for cells, code, message in self._sorted():
                if not absolute:
                    cells |= {name: relative(cells[name]) for name in LOCATION_COLUMNS if cells.get(name)}
                writer.writerow([*(cells.get(column, "") for column in columns), code, writable(message)])

    def close(self) -> None:
        """Let go of the file."""
        self._rows.close()

    def _sorted(self) -> Iterator[tuple[dict[str, str], str, str]]:
        for number in np.argsort(np.array(self._lines, np.int64), kind="stable"):
            self._rows.seek(self._starts[number])
            cells, code, message = json.loads(self._rows.readline())
            yield cells, code, message
        self._rows.seek(0, os.SEEK_END)
