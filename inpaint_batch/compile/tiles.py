"""Real tiles, as the planner cuts them: what quantisation is calibrated with and what the gate judges by."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from inpaint_batch.compile.quantise import Feed
from inpaint_batch.config import DEFAULT_MAX_IMAGE_BYTES, RowConfig, TilingConfig
from inpaint_batch.errors import FailureCode, ManifestError, RowError
from inpaint_batch.execution.prepare import mask_of
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.holes.components import find_holes
from inpaint_batch.holes.prepare import hole_map
from inpaint_batch.imaging.colour import known_rgb, samples_to_rgb
from inpaint_batch.imaging.read import open_image
from inpaint_batch.manifest.read import read_examples
from inpaint_batch.manifest.schema import RowProblem, row_config
from inpaint_batch.runtime.engine import Engine, stack_tiles
from inpaint_batch.tiling.boxes import Tile
from inpaint_batch.tiling.fill import TileInput, fill_window
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.tiling.pyramid import level_size
from inpaint_batch.types import Box, FloatArray, Row

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RealTile:
    """One tile of one row."""

    row: int
    """Ordinal of its row among those that could be read: rows are kept together when tiles are split in two sets."""
    input: TileInput
    judged: FloatArray
    """(1, s, s): 1 at hole pixels that lie inside the image; what is filled beyond it counts for nothing."""
    truth: FloatArray | None
    """(3, s, s): the undamaged pixels, where the manifest names them and the tile is at full resolution."""

    def feed(self) -> Feed:
        """The tile as a batch of one, by input name."""
        batch = stack_tiles([self.input])
        return {name: getattr(batch, name) for name in ("image", "hole", "prior", "prior_weight")}


def collect_tiles(manifest: Path, engine: Engine, max_tiles: int) -> list[RealTile]:
    """Plan and fill the rows of `manifest` with `engine`, writing nothing, and keep the inputs of the first
    `max_tiles` tiles.

    Rows that cannot be read are skipped and logged. Raises ManifestError where no tile is left.
    """
    tiling = TilingConfig(second_start_px=0)  # what is asked here is one pass of the network, without mirrors
    tiles = list(islice(_tiles(manifest, engine, tiling), max_tiles))
    if not tiles:
        raise ManifestError(
            f"not one row of {manifest} gave a tile; see the log, or try inpaint-batch check {manifest}"
        )
    return tiles


def _tiles(manifest: Path, engine: Engine, tiling: TilingConfig) -> Iterator[RealTile]:
    num_rows = 0
    for row in read_examples(manifest):
        if isinstance(row, RowProblem):
            log.warning("line %d skipped: %s", row.line, row.error.message)
            continue
        try:
            yield from _tiles_of(row, num_rows, engine, tiling)
        except RowError as error:
            log.warning("line %d skipped: %s", row.line, error.message)
            continue
        num_rows += 1


def _tiles_of(row: Row, ordinal: int, engine: Engine, tiling: TilingConfig) -> Iterator[RealTile]:
    config = row_config(row, RowConfig())
    files = RowFiles(RowTask(row, config, key="", output=row.output, destination=""))
    with closing(files), files.by_name():
        yield from _tiles_in(files, ordinal, engine, tiling)


def _tiles_in(files: RowFiles, ordinal: int, engine: Engine, tiling: TilingConfig) -> Iterator[RealTile]:
    config = files.task.config
    source = open_image(files.bring_image(), max_bytes=DEFAULT_MAX_IMAGE_BYTES, page=config.page or None)
    brought = files.bring_truth()
    truth = open_image(brought, max_bytes=DEFAULT_MAX_IMAGE_BYTES) if brought else None
    if truth is not None and truth.header.box != source.header.box:
        ours, theirs = (f"{each.header.width_px} × {each.header.height_px} px" for each in (source, truth))
        raise RowError(FailureCode.SIZE, f"the image is {ours}, its truth {theirs}; give the truth at the same size")
    mask = mask_of(files, source, DEFAULT_MAX_IMAGE_BYTES)
    holes = hole_map(mask.grey, mask.orientation, source.header, config)

    def read_rgb(box: Box) -> FloatArray:
        return known_rgb(source.read(box), source.header)

    def read_truth(tile: Tile) -> FloatArray:
        assert truth is not None
        inside = tile.box.intersect(truth.header.box)
        pixels = np.zeros((tile.side_px, tile.side_px, 3), np.float32)
        target = inside.shift(-tile.box.top, -tile.box.left).slices
        pixels[target] = samples_to_rgb(truth.read(inside), truth.header)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    height_px, width_px = holes.hole.shape
    for window in plan_windows(holes.hole, find_holes(holes.hole), tiling):
        steps = fill_window(read_rgb, holes.hole, window, tiling)
        scales = iter([level.scale_log2 for level in window.levels for _ in level.tiles])
        try:
            requests = next(steps)
            while True:
                inputs = [request.load() for request in requests]
                for request, scale_log2, each in zip(requests, scales, inputs, strict=False):
                    judged = each.hole * _inside(request.tile, level_size(height_px, width_px, scale_log2))
                    undamaged = read_truth(request.tile) if truth and scale_log2 == 0 else None
                    yield RealTile(ordinal, each, judged, undamaged)
                requests = steps.send([engine.fill(stack_tiles([each]))[0] for each in inputs])
        except StopIteration:
            pass


def _inside(tile: Tile, size: tuple[int, int]) -> FloatArray:
    """(1, s, s): 1 where the tile lies on the image of that size (height, width)."""
    inside = np.zeros((1, tile.side_px, tile.side_px), np.float32)
    rows, columns = tile.box.intersect(Box(0, 0, *size)).shift(-tile.box.top, -tile.box.left).slices
    inside[:, rows, columns] = 1
    return inside
