"""Connected parts found tile by tile become whole: those that touch across a border are one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.types import Box

Ids = NDArray[np.int32]
"""Which part each pixel belongs to, counted from 1; 0 for none."""


@dataclass(slots=True)
class Part:
    """What is known of one connected set of pixels, or of the share of it that one tile holds."""

    box: Box
    area_px: int
    depth_px: float


class UnionFind:
    """Numbers from 0 on, and which of them are one."""

    def __init__(self, count: int = 0) -> None:
        self._parents = list(range(count))

    def add(self, count: int) -> None:
        """So many more, each one for itself."""
        self._parents += range(len(self._parents), len(self._parents) + count)

    def join(self, number: int, other: int) -> None:
        """Make two, and all that are one with either, one."""
        self._parents[self.find(number)] = self.find(other)

    def find(self, number: int) -> int:
        """The number that stands for all that are one with this one."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


class Joined:
    """Parts and which of them are one."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._one = UnionFind()

    def add(self, parts: Sequence[Part]) -> Ids:
        """Take on the parts of one tile. Returns an id for each label of it: 0 for 0, then theirs, in order."""
        first = len(self._parts)
        self._parts += parts
        self._one.add(len(parts))
        ids = np.arange(first, len(self._parts) + 1, dtype=np.int32)
        ids[0] = 0
        return ids

    def deepen(self, part_id: int, depth_px: float) -> None:
        """Learn that a part is at least so deep."""
        part = self._parts[part_id - 1]
        part.depth_px = max(part.depth_px, depth_px)

    def touch(self, before: Ids, after: Ids) -> None:
        """Two lines of pixels that lie side by side: what touches, corners included, is one."""
        for one, other in (
            (before, after),
            (before[1:], after[:-1]),
            (before[:-1], after[1:]),
        ):
            both = (one > 0) & (other > 0)
            for first, second in np.unique(np.stack([one[both], other[both]], axis=1), axis=0).tolist():
                self._one.join(first - 1, second - 1)

    def whole(self) -> list[Part]:
        """The connected sets, in no particular order."""
        found: dict[int, Part] = {}
        for index, part in enumerate(self._parts):
            root = self._one.find(index)
            other = found.get(root)
            if other is None:
                found[root] = part
            else:
                deepest_px = max(other.depth_px, part.depth_px)
                found[root] = Part(other.box.union(part.box), other.area_px + part.area_px, deepest_px)
        return list(found.values())
