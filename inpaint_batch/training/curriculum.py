"""What changes over a run by plan: the sides that are drawn and the size of the holes. Functions of the step alone."""

from __future__ import annotations

import numpy as np

from inpaint_batch.training.config import TrainConfig


def part_of_run(step: int, config: TrainConfig, num_parts: int) -> int:
    """In which of `num_parts` equal parts of the run `step` lies, from 0."""
    return min(num_parts - 1, step * num_parts // config.steps)


def side_shares(step: int, config: TrainConfig) -> np.ndarray:
    """How often each of `sides_px` is drawn at `step`; sums to one."""
    shares = np.array(config.side_shares)
    if config.progressive:
        by_size = sorted(set(config.sides_px))
        largest = by_size[part_of_run(step, config, len(by_size))]
        allowed = np.array(config.sides_px) <= largest
        shares = np.where(allowed, shares, 0.0)
        if shares.sum() == 0:  # every allowed side has a share of zero: take the largest of them
            shares = (np.array(config.sides_px) == largest).astype(float)
    return np.asarray(shares / shares.sum())


def hole_area(step: int, config: TrainConfig) -> tuple[float, float] | None:
    """The share of the crop that holes cover at `step`; None where each kind has its own."""
    if not config.curriculum:
        return None
    return config.curriculum[part_of_run(step, config, len(config.curriculum))]
