"""The second stage of a row: its windows are filled, and what was filled is put into the source's samples."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.imaging.colour import (
    has_simple_inks,
    is_bilevel,
    known_rgb,
    mend_rim,
    rgb_step,
    rgb_to_samples,
    samples_to_rgb,
)
from inpaint_batch.imaging.ink import AS_MUCH_AS_POSSIBLE, Black, surrounding_black
from inpaint_batch.tiling.boxes import Window
from inpaint_batch.tiling.dither import diffused, is_dithered
from inpaint_batch.tiling.fill import FillPiece, FillSteps, TileRequest, WindowFill, fill_window
from inpaint_batch.tiling.grain import Grain, add_grain, surrounding_grain
from inpaint_batch.types import Box, FloatArray, Patch

RowFill = Generator[Sequence[TileRequest], Sequence[FloatArray], None]


def row_fills(prepared: PreparedRow, tiling: TilingConfig) -> Iterator[RowFill]:
    """One fill for each window of the row; each leaves its patches, at the depth of the source, with the row."""
    return (_fill(prepared, number, window, tiling) for number, window in enumerate(prepared.windows))


def _fill(prepared: PreparedRow, number: int, window: Window, tiling: TilingConfig) -> RowFill:
    source, holes = prepared.source, prepared.holes

    def read_rgb(box: Box) -> FloatArray:
        return known_rgb(source.read(box), source.header)

    pieces = yield from _counted(fill_window(read_rgb, holes.hole, window, tiling), prepared)
    step = rgb_step(source.header) if prepared.task.config.grain else None
    grain = surrounding_grain(read_rgb, holes.hole, pieces, step) if step is not None else None
    is_dots = is_bilevel(source.header) and is_dithered(read_rgb, holes.hole, pieces)
    black = AS_MUCH_AS_POSSIBLE
    if has_simple_inks(source.header):
        black = surrounding_black(source, holes.hole, [piece.box for piece in pieces])
    for piece in pieces:
        if piece.hole.any():
            prepared.patches.add(number, _patch(piece, prepared, grain, black, is_dots))


def _counted(steps: FillSteps, prepared: PreparedRow) -> FillSteps:
    """The same steps, and what was filled is told."""
    seen: list[tuple[float, int, Box]] = []
    try:
        requests = next(steps)
        while True:
            filled = yield requests
            prepared.num_filled += len(filled)
            seen += ((each.spread, each.scale_log2, each.tile.core) for each in requests if each.spread is not None)
            requests = steps.send(filled)
    except StopIteration as end:
        if seen:
            total = sum(4.0**scale_log2 * spread for spread, scale_log2, _ in seen)
            _, place = max((spread, core) for spread, scale_log2, core in seen if not scale_log2)
            prepared.add_spread(total, place)
        pieces: WindowFill = end.value
        return pieces


def _patch(piece: FillPiece, prepared: PreparedRow, grain: Grain | None, black: Black, is_dots: bool) -> Patch:
    source, holes, task = prepared.source, prepared.holes, prepared.task
    opaque = task.config.mask_from == "alpha"  # what was transparent because it was a hole is no longer
    original = source.read(piece.box)
    rgb, weight = piece.rgb, holes.weight(piece.box)
    if holes.feather_px:
        share = weight[..., None]
        rgb = share * rgb + (np.float32(1) - share) * samples_to_rgb(original, source.header)
    if grain is not None:
        rgb = add_grain(rgb, piece.box, grain, task.row.id, weight)
    if is_dots:
        rgb = diffused(rgb, piece.hole)
    if opaque:
        original = original.copy()
        original[..., -1] = source.header.opaque
    samples = rgb_to_samples(rgb, original, source.header, piece.hole, black)
    if holes.feather_px:
        samples = mend_rim(samples, original, weight, source.header)
    return Patch(piece.box, samples, piece.hole, with_alpha=opaque)
