"""A batch through the engine, without one tile or a want of memory spoiling it for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np

from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.execution.shortage import is_out_of_memory
from inpaint_batch.types import FloatArray

TileT = TypeVar("TileT")


class CarefulRunner(Generic[TileT]):
    """Halves a batch that memory does not suffice for, and runs tiles alone where one of them makes the engine fail."""

    def __init__(
        self, run: Callable[[Sequence[TileT]], Sequence[FloatArray]], batch_size: Callable[[int], int]
    ) -> None:
        """`run` fills tiles of one side, one (3, side, side) array for each; `batch_size` says how many at once."""
        self._run_tiles = run
        self._batch_size = batch_size
        self._fits: dict[int, int] = {}  # by side, how many tiles memory sufficed for, where it did not for a batch

    def batch_size(self, side_px: int) -> int:
        """How many tiles of that side to hand over at once, at most."""
        largest = self._batch_size(side_px)
        return min(largest, self._fits.get(side_px, largest))

    def run(self, side_px: int, tiles: Sequence[TileT]) -> Sequence[FloatArray | Exception]:
        """What the engine makes of each tile: finite numbers, or the exception that it raises for this one even alone.

        Raises `InpaintBatchError` where the engine does: it concerns the whole run.
        """
        try:
            return [pixels if np.isfinite(pixels).all() else _not_finite() for pixels in self._run_tiles(tiles)]
        except InpaintBatchError:
            raise
        except Exception as error:
            if len(tiles) == 1:
                return [error]
            if not is_out_of_memory(error):
                return [self.run(side_px, [tile])[0] for tile in tiles]
            half = (len(tiles) + 1) // 2
            parts = [*self.run(side_px, tiles[:half]), *self.run(side_px, tiles[half:])]
            if not any(isinstance(part, Exception) for part in parts):  # it was the batch, not one of its tiles
                self._fits[side_px] = min(half, self._fits.get(side_px, half))
            return parts


def _not_finite() -> RowError:
    message = "the engine returned NaN or infinity for a tile of this image; run it with another --precision or --model"
    return RowError(FailureCode.NONFINITE, message)
