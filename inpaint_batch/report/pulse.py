"""How far work is that prints nothing as long as all is well."""

from __future__ import annotations

import sys
import time

from inpaint_batch.report.progress import LINE_EVERY_S


class Pulse:
    """A line on stderr now and then."""

    def __init__(self) -> None:
        self._told_s = time.monotonic()

    def beat(self, text: str) -> None:
        """`text` says how far the work is; most calls tell nobody."""
        now_s = time.monotonic()
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            print(f"inpaint-batch: {text}", file=sys.stderr, flush=True)
