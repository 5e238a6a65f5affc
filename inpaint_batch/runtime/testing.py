"""Engines that compute nothing: for tests and for rehearsals of a run.

`identity` leaves known pixels as they are and puts the prior, or zeros, into holes. `faulty:...` does the same and
fails on schedule; it is how the package shows that it survives a bad engine.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import time

import numpy as np

from inpaint_batch.config import BUCKETS_PX
from inpaint_batch.errors import EngineError, FailureCode, RowError, WorkerLostError
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import checked
from inpaint_batch.types import FloatArray

log = logging.getLogger(__name__)


class IdentityEngine:
    """Known pixels unchanged; the prior in holes, zeros where there is none."""

    name = "identity"
    model = "none"
    model_hash = ""
    precision = "none"
    buckets_px = BUCKETS_PX
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.num_calls = 0
        """How often `fill` was called."""

    @property
    def identity(self) -> str:
        """The name: there is nothing else."""
        return self.name

    def batch_size(self, side_px: int) -> int:
        """As the CPU engine, so that rehearsals batch alike."""
        return max(1, min(16, (1 << 18) // side_px**2))

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`. A prior that may be left out is."""
        self.num_calls += 1
        return np.where(batch.hole > 0, batch.prior * (batch.prior_weight == 1), batch.image).astype(np.float32)

    def close(self) -> None:
        """Nothing to give back."""


class FaultyEngine(IdentityEngine):
    """Fails on schedule: one letter for each call, starting again at the end.

    `.` works · `x` raises RowError `infer`, retryable · `e` raises an unexpected RuntimeError · `n` returns NaN, which
    ends as RowError `nonfinite` · `s` works after `sleep_s` seconds · `k` kills the process (SIGKILL), as the
    out-of-memory killer does · `m` finds no memory · `b` finds none for more than two tiles at a time · `t` finds none
    for tiles above 64 px · `p` works, but is particular about plain pictures: of white ones it dies like `k`, of red
    ones by a segmentation fault; over black ones it sleeps like `s`; for green ones it finds no memory; at blue ones it
    loses its device, for good. Written as the name of an engine: `faulty:..x.k`, `faulty:s@0.5`.
    """

    KINDS = ".xenskmpbt"

    def __init__(self, schedule: str, *, sleep_s: float = 0.1) -> None:
        super().__init__()
        if not schedule or set(schedule) - set(self.KINDS):
            raise EngineError(f"a faulty engine's schedule is made of the letters {self.KINDS}, not {schedule!r}")
        if not 0 <= sleep_s <= 3600:
            raise EngineError(f"a faulty engine sleeps 0 to 3600 seconds, not {sleep_s}")
        self.name = f"faulty:{schedule}"
        self._schedule = schedule
        self._sleep_s = sleep_s

    @classmethod
    def parse(cls, name: str) -> FaultyEngine:
        """From `faulty:SCHEDULE` or `faulty:SCHEDULE@SECONDS`. Raises EngineError where that is not understood."""
        schedule, _, seconds = name.removeprefix("faulty:").partition("@")
        try:
            sleep_s = float(seconds or "0.1")
        except ValueError as error:
            raise EngineError(f"after @ stands a number of seconds, not {seconds!r}") from error
        return cls(schedule, sleep_s=sleep_s)

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill` and the class."""
        kind = self._schedule[self.num_calls % len(self._schedule)]
        filled = super().fill(batch)
        if kind == "x":
            raise RowError(FailureCode.INFER, "the faulty engine failed as it was told to", retryable=True)
        if kind == "e":
            raise RuntimeError("the faulty engine broke as it was told to")
        if kind == "n":
            filled = np.full_like(filled, np.nan)
        if kind == "m" or (kind == "b" and len(batch) > 2) or (kind == "t" and batch.side_px > 64):
            _find_no_memory()
        if kind == "s":
            self._sleep()
        if kind == "k":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "p":
            self._look_at(batch)
        return checked(filled, batch.image.shape)

    def _look_at(self, batch: TileBatch) -> None:
        """Be particular about plain pictures."""
        if _has_plain(batch, (0, 0, 0)):
            self._sleep()
        if _has_plain(batch, (0, 1, 0)):
            _find_no_memory()
        if _has_plain(batch, (0, 0, 1)):
            raise WorkerLostError("the faulty engine lost its device as it was told to")
        if _has_plain(batch, (1, 0, 0)):
            ctypes.string_at(0)
        if _has_plain(batch, (1, 1, 1)):
            os.kill(os.getpid(), signal.SIGKILL)

    def _sleep(self) -> None:
        log.warning("the faulty engine sleeps for %g s as it was told to", self._sleep_s)
        time.sleep(self._sleep_s)


def _has_plain(batch: TileBatch, colour: tuple[int, int, int]) -> bool:
    """Whether a tile of the batch has that colour in every known pixel."""
    wanted = np.array(colour, np.float32).reshape(1, 3, 1, 1)
    return bool(((batch.image == wanted) | (batch.hole > 0)).all(axis=(1, 2, 3)).any())


def _find_no_memory() -> None:
    """Ask the system for more than any machine has."""
    np.empty(1 << 55, np.uint8)
