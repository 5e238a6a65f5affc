"""Loss scaling for half precision (Micikevicius et al., "Mixed Precision Training", ICLR 2018, section 3.2)."""

from __future__ import annotations

FIRST, SMALLEST, LARGEST = 2.0**12, 1.0, 2.0**20
GROW_AFTER_STEPS = 500
"""Good steps in a row before the scale is tried twice as large."""


class LossScale:
    """The factor that lifts small gradients into the range of half precision; 1 for all other precisions."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self.value = FIRST if enabled else 1.0
        self.num_good = 0

    def update(self, finite: bool) -> None:
        """Halve after an overflow, double after a long time without."""
        if not self.enabled:
            return
        self.num_good = self.num_good + 1 if finite else 0
        if not finite:
            self.value = max(SMALLEST, self.value / 2)
        elif self.num_good >= GROW_AFTER_STEPS:
            self.value, self.num_good = min(LARGEST, self.value * 2), 0
