"""What a plan will cost, before anything is run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from inpaint_batch.tiling.boxes import Window
from inpaint_batch.tiling.fill import MAX_REQUESTS

BYTES_PER_FILLED_PX = 20
"""Kept for a hole pixel while its window is filled: position, three values, a weight."""
BYTES_PER_TILE_PX = (3 + 1 + 3 + 3) * 4
"""Image, hole, prior and result of a tile, float32."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of filling some windows."""

    num_tiles: Mapping[int, int]
    """Tiles by side in pixels, ascending; sides that do not occur are left out."""
    seconds: float
    """Time of the engine alone, on the machine on which `seconds_per_tile` was measured."""
    peak_bytes: int
    """Upper estimate of the memory for the largest window while it is filled: what is held of its levels and asked for
    in tiles. Neither the image's samples nor the engine's own memory are in it."""


def estimate(windows: Iterable[Window], *, seconds_per_tile: Mapping[int, float]) -> Cost:
    """Add up a plan.

    `seconds_per_tile` gives measured times by tile side; a side that is not in it is scaled by area from the nearest
    one that is (no times at all: 0 seconds).
    """
    num_tiles: Counter[int] = Counter()
    largest_window_bytes = 0
    for window in windows:
        level_bytes = []
        for level in window.levels:
            num_tiles.update(tile.side_px for tile in level.tiles)
            held = sum(tile.core.area_px for tile in level.tiles) * BYTES_PER_FILLED_PX
            asked = sum(sorted((tile.side_px**2 for tile in level.tiles), reverse=True)[:MAX_REQUESTS])
            level_bytes.append(held + asked * BYTES_PER_TILE_PX)
        # A level is filled while the coarser one is still held as its prior.
        pairs = zip([0, *level_bytes], level_bytes, strict=False)
        largest_window_bytes = max([largest_window_bytes, *(coarse + fine for coarse, fine in pairs)])
    sides = dict(sorted(num_tiles.items()))
    return Cost(
        num_tiles=sides,
        seconds=sum(count * _seconds(side, seconds_per_tile) for side, count in sides.items()),
        peak_bytes=largest_window_bytes,
    )


def _seconds(side: int, seconds_per_tile: Mapping[int, float]) -> float:
    if not seconds_per_tile:
        return 0.0
    nearest = min(seconds_per_tile, key=lambda known: (abs(known - side), known))
    return seconds_per_tile[nearest] * (side / nearest) ** 2
