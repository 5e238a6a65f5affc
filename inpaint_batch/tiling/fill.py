"""Fill one window: a generator that asks for tiles and is sent them filled.

It knows no engine, no queue and no file. Whoever drives it decides which windows share a batch::

    steps = fill_window(read_rgb, hole, window, config)
    requests = next(steps)
    while True:
        filled = [engine_fills(request.load()) for request in requests]
        try:
            requests = steps.send(filled)
        except StopIteration as stop:
            pieces = stop.value
            break
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.tiling.blend import LevelFill
from inpaint_batch.tiling.boxes import Level, Tile, Window
from inpaint_batch.tiling.pyramid import ReadRGB, coarse_box, enlarge, fill_smoothly, level_size, reduce_image
from inpaint_batch.types import BoolArray, BoolMap, Box, FloatArray

MAX_REQUESTS = 16
"""Tiles asked for at once: enough to fill a batch, few enough to keep memory small (2.6 MB each at 256 px)."""


@dataclass(frozen=True, slots=True)
class TileInput:
    """What the engine is given for one tile of side s; everything float32."""

    image: FloatArray
    """(3, s, s) RGB in [0, 1], zero in holes and beyond the image."""
    hole: FloatArray
    """(1, s, s): 1 where pixels are missing, also for holes of other windows and beyond the image."""
    prior: FloatArray
    """(3, s, s): the enlarged fill of the coarser level (known pixels included); zeros where there is none."""
    prior_weight: float
    """Share of the passes that start from the prior: 1, 0.5, or 0 where there is none."""


class FillPiece(NamedTuple):
    """The finished fill of one core."""

    box: Box
    """In pixels of the image."""
    rgb: FloatArray
    """(box.height, box.width, 3), zero outside the hole."""
    hole: BoolArray
    """(box.height, box.width): the pixels to write."""


class TileRequest:
    """A tile that is to be filled. Small; its pixels are read only by `load`, which may be called from any thread."""

    def __init__(self, source: _LevelSource, tile: Tile) -> None:
        self._source = source
        self.tile = tile
        self.spread: float | None = None
        """Set by who fills it: variance from pass to pass, mean of the bands, summed over the holes that it answers
        for; None where there was one pass. The fill takes no notice of it."""

    @property
    def scale_log2(self) -> int:
        """The image is reduced by 2**scale_log2 here."""
        return self._source.scale_log2

    @property
    def own_slices(self) -> tuple[slice, slice]:
        """The pixels that it answers for, within the square."""
        return self.tile.core.shift(-self.tile.box.top, -self.tile.box.left).slices

    @property
    def side_px(self) -> int:
        """Side of the square."""
        return self.tile.side_px

    def load(self) -> TileInput:
        """Read and reduce the pixels of this tile. Raises what `read_rgb` raises."""
        return self._source.load(self.tile)


class WindowFill(Sequence[FillPiece]):
    """The fill of a window as disjoint pieces in image coordinates, each built when it is asked for."""

    def __init__(self, fill: LevelFill) -> None:
        self._fill = fill

    def __len__(self) -> int:
        return len(self._fill)

    def __getitem__(self, index: int) -> FillPiece:  # type: ignore[override]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return FillPiece(*self._fill.piece(index % len(self)))

    def __iter__(self) -> Iterator[FillPiece]:
        return (self[index] for index in range(len(self)))


FillSteps = Generator[list[TileRequest], Sequence[FloatArray], WindowFill]


def fill_window(
    read_rgb: ReadRGB,
    hole: BoolMap,
    window: Window,
    config: TilingConfig,
    *,
    max_requests: int = MAX_REQUESTS,
) -> FillSteps:
    """Fill the holes of one window, level by level.

    `read_rgb` gives any box of the image as (h, w, 3) float32; `hole` is the hole map (H, W) of the whole image. Yields
    lists of at most `max_requests` tiles of one level and expects to be sent their fills, (3, side, side) float32 each,
    in the same order. Returns the fill. How the requests are cut in lists, and whatever happens to other windows, has
    no influence on the result.
    """
    coarser: _LevelSource | None = None
    for level in window.levels:
        image_box = Box(0, 0, *level_size(hole.shape[0], hole.shape[1], level.scale_log2))
        fill = LevelFill(level.tiles, hole, level.scale_log2, image_box, config.margin_px)
        source = _LevelSource(read_rgb, hole, level, image_box, coarser)
        for start in range(0, len(level.tiles), max_requests):
            tiles = level.tiles[start : start + max_requests]
            filled = yield [TileRequest(source, tile) for tile in tiles]
            if len(filled) != len(tiles):
                raise ValueError(f"{len(tiles)} tiles were asked for, {len(filled)} came back")
            for offset, values in enumerate(filled):
                fill.add(start + offset, values)
        source.finish(fill)
        coarser = source
    return WindowFill(fill)


class _LevelSource:
    """Where the tiles of one level get their pixels from: the reduced image, the hole map, and the level below."""

    def __init__(
        self,
        read_rgb: ReadRGB,
        hole: BoolMap,
        level: Level,
        image_box: Box,
        coarser: _LevelSource | None,
    ) -> None:
        self._read_rgb = read_rgb
        self._hole = hole
        self.scale_log2 = level.scale_log2
        self._prior_weight = level.prior_weight
        self._image_box = image_box
        self._coarser = coarser
        self._fill: LevelFill | None = None

    def finish(self, fill: LevelFill) -> None:
        """From now on this level can serve as a prior; what is coarser still is no longer needed."""
        self._fill = fill
        self._coarser = None

    def load(self, tile: Tile) -> TileInput:
        side = tile.side_px
        image = np.zeros((side, side, 3), dtype=np.float32)
        hole = np.ones((side, side), dtype=np.float32)
        inside = tile.box.intersect(self._image_box)
        target = inside.shift(-tile.box.top, -tile.box.left).slices
        image[target], hole[target] = reduce_image(self._read_rgb, self._hole, inside, self.scale_log2)
        if self._coarser is None:
            prior = np.zeros((3, side, side), dtype=np.float32)
        else:
            prior = np.ascontiguousarray(self._coarser.prior(tile.box).transpose(2, 0, 1))
        return TileInput(
            image=np.ascontiguousarray(image.transpose(2, 0, 1)),
            hole=hole[None],
            prior=prior,
            prior_weight=self._prior_weight,
        )

    def prior(self, box: Box) -> FloatArray:
        """This level, filled and enlarged by two, under `box` of the next finer level: (box.height, box.width, 3).

        Holes that belong to other windows have no fill here; they are smoothed over from what surrounds them, so that
        the result depends on this window alone. Beyond the image its outermost pixels go on.
        """
        assert self._fill is not None, "a level serves as a prior only once it is filled"
        below = coarse_box(box, 1).expand(1).intersect(self._image_box)
        image, hole = reduce_image(self._read_rgb, self._hole, below, self.scale_log2)
        filled = self._fill.paste_into(image, below)
        return enlarge(fill_smoothly(image, hole & ~filled), (below.top, below.left), box)
