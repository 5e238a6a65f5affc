"""Which holes are filled together: neighbours share a window where one tile for all costs no more than tiles apart.

Specks are packed bucket by bucket: first into the smallest tiles, then those groups into larger ones, as long as the
larger tile costs no more than what it replaces. A spatial hash keeps the search local, so that time grows with the
number of holes; the order of work is fixed by position, so that the same holes give the same groups.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.holes.components import Hole
from inpaint_batch.holes.joining import UnionFind
from inpaint_batch.tiling.boxes import bucket_side, needed_box
from inpaint_batch.types import Box


class Group(NamedTuple):
    """Holes that share a window."""

    box: Box
    """Tight box of all of them."""
    depth_px: float
    """Depth of the deepest."""


class _Item(NamedTuple):
    """A group on its way, with its margin and its price."""

    needed: Box
    box: Box
    depth_px: float
    cost: int

    def join(self, other: _Item) -> _Item:
        return _Item(
            self.needed.union(other.needed),
            self.box.union(other.box),
            max(self.depth_px, other.depth_px),
            self.cost + other.cost,
        )


def group_holes(holes: Sequence[Hole], image_box: Box, config: TilingConfig) -> list[Group]:
    """Group holes into windows with disjoint boxes, sorted by position."""
    items: list[_Item] = []
    too_large: list[_Item] = []
    for hole in holes:
        side = bucket_side(hole.box, image_box, config)
        item = _Item(needed_box(hole.box, image_box, config), hole.box, float(hole.depth_px), (side or 0) ** 2)
        (items if side else too_large).append(item)
    for side in config.buckets_px:
        items = _pack(items, side, config)
    groups = [Group(item.box, item.depth_px) for item in items + too_large]
    return _join_overlapping(groups)


def _pack(items: list[_Item], side: int, config: TilingConfig) -> list[_Item]:
    """Join items that fit one tile of `side` together where that tile costs no more than theirs."""
    order = sorted(items, key=lambda item: (item.needed.top, item.needed.left, item.box))
    cells: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for index, item in enumerate(order):
        cells[item.needed.top // side, item.needed.left // side].append(index)
    settled = [False] * len(order)
    packed: list[_Item] = []
    for index, seed in enumerate(order):
        if settled[index]:
            continue
        row, column = seed.needed.top // side, seed.needed.left // side
        nearby = []
        for cell in ((row + down, column + across) for down in (0, 1) for across in (-1, 0, 1)):
            if cell in cells:
                cells[cell] = waiting = [i for i in cells[cell] if not settled[i]]
                nearby += [i for i in waiting if order[i].needed.bottom <= seed.needed.top + side]
        chosen = _best_run(order, nearby, index, side)
        joined = seed
        for i in chosen:
            settled[i] = True
            if i != index:
                joined = joined.join(order[i])
        settled[index] = True
        if len(chosen) > 1:
            longest = max(joined.needed.height, joined.needed.width)
            joined = joined._replace(cost=next(s for s in config.buckets_px if s >= longest) ** 2)
        packed.append(joined)
    return packed


def _best_run(order: list[_Item], nearby: list[int], seed: int, side: int) -> list[int]:
    """Of the items beside and below the seed, those in the best span of `side` columns that holds the seed.

    Best means: replaces the greatest cost; only the seed itself where one tile of `side` would cost more.
    """
    if sum(order[i].cost for i in nearby) < side**2 or len(nearby) < 2:
        return [seed]
    seed_left, seed_right = order[seed].needed.left, order[seed].needed.right
    starts = sorted({order[i].needed.left for i in nearby if seed_right - side <= order[i].needed.left <= seed_left})
    best: list[int] = [seed]
    best_cost = side**2 - 1
    for start in starts[:: max(1, len(starts) // 8)]:
        run = [i for i in nearby if order[i].needed.left >= start and order[i].needed.right <= start + side]
        cost = sum(order[i].cost for i in run)
        if cost > best_cost:
            best, best_cost = run, cost
    return best


def _join_overlapping(groups: Iterable[Group]) -> list[Group]:
    """Join groups until no two boxes overlap: a hole pixel must belong to one window only."""
    current = sorted(groups)
    while True:
        parents = _overlapping(np.array([group.box for group in current], dtype=np.int64).reshape(-1, 4))
        joined: dict[int, Group] = {}
        for parent, group in zip(parents, current, strict=True):
            other = joined.get(parent)
            joined[parent] = (
                group if other is None else Group(other.box.union(group.box), max(other.depth_px, group.depth_px))
            )
        if len(joined) == len(current):
            return current
        current = sorted(joined.values())


def _overlapping(boxes: np.ndarray) -> list[int]:
    """For boxes sorted by top (n, 4): the representative of the cluster of overlapping boxes that each belongs to."""
    clusters = UnionFind(len(boxes))
    top, left = boxes[:, 0], boxes[:, 1]
    bottom, right = top + boxes[:, 2], left + boxes[:, 3]
    ends = np.searchsorted(top, bottom, side="left")
    for index, end in enumerate(ends.tolist()):
        later = slice(index + 1, end)
        hits = np.flatnonzero((left[later] < right[index]) & (right[later] > left[index]))
        for other in (hits + index + 1).tolist():
            clusters.join(other, index)
    return [clusters.find(index) for index in range(len(boxes))]
