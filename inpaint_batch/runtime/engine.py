"""What an engine is: something that fills batches of square tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inpaint_batch.types import FloatArray


@dataclass(frozen=True, slots=True)
class TileBatch:
    """Tiles of one side s; all float32."""

    image: FloatArray
    """(B, 3, s, s) RGB in [0, 1], zero in holes."""
    hole: FloatArray
    """(B, 1, s, s): 1 where pixels are missing."""
    prior: FloatArray
    """(B, 3, s, s): the enlarged fill of a coarser level; zeros where there is none."""
    prior_weight: FloatArray
    """(B, 1, 1, 1): 1 where the fill starts from the prior, else 0; 0.5 where only half of the passes do."""

    @property
    def side_px(self) -> int:
        """Side of the tiles."""
        return int(self.image.shape[-1])

    def __len__(self) -> int:
        return len(self.image)

    def only(self, index: int) -> TileBatch:
        """A batch of the one tile at `index`."""
        one = slice(index, index + 1)
        return TileBatch(self.image[one], self.hole[one], self.prior[one], self.prior_weight[one])


class TileArrays(Protocol):
    """One loaded tile, as `tiling` hands it out."""

    @property
    def image(self) -> FloatArray:
        """(3, s, s)."""

    @property
    def hole(self) -> FloatArray:
        """(1, s, s)."""

    @property
    def prior(self) -> FloatArray:
        """(3, s, s)."""

    @property
    def prior_weight(self) -> float:
        """0.0, 0.5 or 1.0."""


def stack_tiles(tiles: Sequence[TileArrays]) -> TileBatch:
    """Put loaded tiles of one side together."""
    return TileBatch(
        image=np.stack([tile.image for tile in tiles]),
        hole=np.stack([tile.hole for tile in tiles]),
        prior=np.stack([tile.prior for tile in tiles]),
        prior_weight=np.array([tile.prior_weight for tile in tiles], dtype=np.float32).reshape(-1, 1, 1, 1),
    )


def filled_up(batch: TileBatch, size: int) -> Iterator[tuple[TileBatch, int]]:
    """Batches of exactly `size` tiles, the last one filled up with zeros, and how many of each are real."""
    for start in range(0, len(batch), size):
        used = min(size, len(batch) - start)
        arrays = (batch.image, batch.hole, batch.prior, batch.prior_weight)
        parts = [np.zeros((size, *array.shape[1:]), np.float32) for array in arrays]
        for part, array in zip(parts, arrays, strict=True):
            part[:used] = array[start : start + used]
        yield TileBatch(*parts), used


class Engine(Protocol):
    """Fills batches. One thread at a time calls `fill`.

    What it returns for a tile must be the same bytes whatever other tiles share the batch, wherever it stands.
    """

    @property
    def name(self) -> str:
        """`onnxruntime`, `identity`, ..."""

    @property
    def model(self) -> str:
        """What the person calls the model: `default`, or the path of a file."""

    @property
    def model_hash(self) -> str:
        """SHA-256 of the model file, hexadecimal; empty where there is no file."""

    @property
    def precision(self) -> str:
        """`fp32` or `int8`; `none` where nothing is computed."""

    @property
    def buckets_px(self) -> tuple[int, ...]:
        """Sides of tiles it takes, ascending."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Fallbacks taken while it was chosen, one sentence each, for the summary."""

    def batch_size(self, side_px: int) -> int:
        """Most tiles of one side that are worth running at once."""

    def fill(self, batch: TileBatch) -> FloatArray:
        """The filled tiles, (B, 3, s, s) float32; known pixels are passed through.

        Raises RowError: `infer` where the engine failed (retryable), `nonfinite` where it returned NaN or infinity; and
        WorkerLostError where it will do nothing in this process any more.
        """

    def close(self) -> None:
        """Give memory and devices back. The engine cannot be used afterwards."""

    @property
    def identity(self) -> str:
        """Names what computes the fill: two engines of one identity give the same result."""
