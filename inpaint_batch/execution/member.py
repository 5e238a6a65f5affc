"""A worker as the driver knows it: what it has, how fast it is, and how much it is given."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from inpaint_batch.execution.requeue import Chunk
from inpaint_batch.report.row_tiles import RowTiles

CHUNK_S = 1.0
"""How long a chunk shall keep a worker busy: so long that a call costs nothing beside it, and no longer, since all that
a worker has is done again when it dies, and since the last rows are to be shared out evenly."""
MAX_CHUNK_ROWS = 64
BACK_OFF_S = (0.5, 15.0)
"""First and longest pause before a worker that was lost is asked again."""


@dataclass(slots=True, eq=False)
class Member:
    """A worker as it is known here."""

    handle: Any
    ready: bool = False
    question: Any = None
    """The call that it must answer before it gets rows."""
    ask_at_s: float = 0.0
    unfit: str = ""
    """Why it cannot do rows where it is; empty where it can, as far as is known."""
    pause_s: float = field(default_factory=lambda: BACK_OFF_S[0])
    chunks: dict[Any, Chunk] = field(default_factory=dict)
    """In flight, by the call that brings them to their end."""
    since_s: float = 0.0
    """When it was last known to bring a row to its end, or began with the first chunk."""
    rows_per_s: float = 0.0
    """How fast it was with its last chunks; 0 where that is not known."""
    chunk_since_s: float = 0.0
    """When it last handed a chunk over, or began with the first."""
    num_rows: int = 0
    """How many rows it had brought to their end then, since it was started."""
    num_collected: int = 0
    """How many of these have come here."""
    pulse: Any = None
    """The call that asks how far it is, where it has been silent for a while."""
    pulse_at_s: float = 0.0
    """When it was last asked that."""
    filling: tuple[RowTiles, ...] = ()
    """What it then said of large rows."""

    def chunk_rows(self, least: int) -> int:
        """How many rows its next chunk shall have: as many as keep it busy for CHUNK_S, but `least` at least."""
        return max(least, min(round(self.rows_per_s * CHUNK_S), MAX_CHUNK_ROWS))

    def sent(self, token: Any, chunk: Chunk) -> None:
        """It was given a chunk."""
        if not self.chunks:
            self.since_s = self.chunk_since_s = time.monotonic()
        self.chunks[token] = chunk

    def handed_over(self, num_rows: int) -> None:
        """It has brought so many rows to their end, in one chunk or in two that came together."""
        now_s = time.monotonic()
        rows_per_s = num_rows / max(now_s - self.chunk_since_s, 1e-3)
        self.rows_per_s = (self.rows_per_s + rows_per_s) / 2 if self.rows_per_s else rows_per_s
        self.chunk_since_s = self.since_s = now_s
        self.pause_s = BACK_OFF_S[0]
        self.num_collected += num_rows
        self.num_rows = self.num_collected
        self.filling = ()

    def came(self) -> None:
        """It is there, for the first time or again."""
        self.ready = True
        self.unfit = ""
        self.num_rows = self.num_collected = 0

    def went(self) -> list[Chunk]:
        """It was lost; returns what it had. It is asked again after a pause, the longer the oftener it was lost."""
        chunks = list(self.chunks.values())
        self.chunks.clear()
        self.pulse = None
        self.filling = ()
        self.ready = False
        self.ask_at_s = time.monotonic() + self.pause_s
        self.pause_s = min(2 * self.pause_s, BACK_OFF_S[1])
        return chunks

    def has_room(self, num_in_flight: int) -> bool:
        """Whether it may get a chunk while it has so many."""
        alone = any(chunk.alone for chunk in self.chunks.values())
        return self.ready and not alone and len(self.chunks) <= num_in_flight
