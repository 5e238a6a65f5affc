"""How far large rows are, told now and then while none ends: a scan of a gigapixel can take an hour."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from inpaint_batch.logids import Subject
from inpaint_batch.words import counted

LEAST_TILES = 64
"""A row of fewer is soon done, and not told of."""
MOST_ROWS = 3
"""Told of at a time, those with the most tiles left first."""


class RowTiles(NamedTuple):
    """How far one row is."""

    subject: Subject
    num_filled: int
    """Tiles that came back from the engine."""
    num_tiles: int
    """Tiles that were planned."""

    def __str__(self) -> str:
        told = f"{self.subject.row}: {self.num_filled} of {counted(self.num_tiles, 'tile')}"
        return told if self.num_filled < self.num_tiles else f"{told}, writing"


Look = Callable[[], Sequence[RowTiles]]


def worth_telling(rows: Sequence[RowTiles]) -> list[RowTiles]:
    """The large ones among rows that are being filled or written."""
    large = [row for row in rows if row.num_tiles >= LEAST_TILES]
    return sorted(large, key=lambda row: row.num_filled - row.num_tiles)[:MOST_ROWS]


class NowAndThen:
    """A thread that looks and tells, until it is ended."""

    def __init__(self, look: Look, tell: Callable[[list[RowTiles]], None], every_s: float) -> None:
        """`tell` is called every `every_s` seconds with what is worth telling, which may be nothing."""
        self._look = look
        self._tell = tell
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="large-rows", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Tell nothing any more."""
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            self._tell(worth_telling(self._look()))
