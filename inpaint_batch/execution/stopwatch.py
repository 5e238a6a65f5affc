"""Where the time of a row goes, by stage (`types.STAGES`)."""

from __future__ import annotations

import time


class Stopwatch:
    """Gives the time since the last lap to one stage after the other."""

    def __init__(self) -> None:
        """It runs from now on."""
        self.seconds: dict[str, float] = {}
        """Time by stage so far."""
        self._since_s = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What has passed since the last lap belongs to `stage`; with an empty name, to none."""
        now_s = time.perf_counter()
        if stage:
            self.add(stage, now_s - self._since_s)
        self._since_s = now_s

    def add(self, stage: str, seconds: float) -> None:
        """Time that was taken elsewhere."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
