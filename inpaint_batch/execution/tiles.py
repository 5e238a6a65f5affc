"""Between the plan's tiles and the engine's batches."""

from __future__ import annotations

from collections.abc import Sequence

from inpaint_batch.runtime.engine import Engine, stack_tiles
from inpaint_batch.tiling.fill import TileRequest
from inpaint_batch.types import FloatArray


class EngineRunner:
    """Loads the pixels of tiles and has the engine fill them; not thread-safe, as the engine is not."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def batch_size(self, side_px: int) -> int:
        """How many tiles of that side to hand over at once, at most."""
        return self._engine.batch_size(side_px)

    def fill(self, tiles: Sequence[TileRequest]) -> Sequence[FloatArray]:
        """One (3, side, side) float32 array for each tile, all of one side.

        Raises what reading the pixels raises (RowError), and what the engine raises.
        """
        return list(self._engine.fill(stack_tiles([tile.load() for tile in tiles])))
