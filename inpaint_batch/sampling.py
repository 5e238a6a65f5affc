"""A few of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

ItemT = TypeVar("ItemT")


def evenly(items: Sequence[ItemT], most: int) -> list[ItemT]:
    """At most so many of `items`, evenly chosen and in their order, with the first and the last of them."""
    if not items:
        return []
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, most).astype(int))]
