"""Between the plan's tiles and the engine's batches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from weakref import WeakKeyDictionary

import numpy as np

from inpaint_batch.machine import num_cores
from inpaint_batch.runtime.engine import Engine, stack_tiles
from inpaint_batch.runtime.mirrors import fill_each, mean, variance_of
from inpaint_batch.tiling.fill import TileInput, TileRequest
from inpaint_batch.types import FloatArray

MAX_LOADERS = 8


class EngineRunner:
    """Loads the pixels of tiles and has the engine fill them; not thread-safe, as the engine is not.

    Tiles are loaded by threads of their own, those of the next batch while the engine fills this one: one thread that
    did both would have a GPU wait for most of the time.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loaders = ThreadPoolExecutor(min(MAX_LOADERS, num_cores()), thread_name_prefix="loader")
        # Weak: nobody says so when a tile is not wanted any more, because its row has failed.
        self._loading: WeakKeyDictionary[TileRequest, Future[TileInput]] = WeakKeyDictionary()

    def batch_size(self, side_px: int) -> int:
        """How many tiles of that side to hand over at once, at most."""
        return self._engine.batch_size(side_px)

    def anticipate(self, tiles: Sequence[TileRequest]) -> None:
        """Begin to load tiles that will be handed over next."""
        for tile in tiles:
            if tile not in self._loading:
                self._loading[tile] = self._loaders.submit(tile.load)

    def fill(self, tiles: Sequence[TileRequest]) -> Sequence[FloatArray]:
        """One (3, side, side) float32 array for each tile, all of one side. Tiles are told their `spread`.

        Raises what reading the pixels raises (RowError), and what the engine raises.
        """
        self.anticipate(tiles)
        loading = [self._loading.pop(tile) for tile in tiles]
        batch = stack_tiles([each.result() for each in loading])
        fills = fill_each(self._engine, batch)
        if len(fills) > 1:
            for index, tile in enumerate(tiles):
                own = tile.own_slices
                tile.spread = float(np.vdot(variance_of(fills, index, own), batch.hole[index, 0][own]))
        return list(mean(fills))
