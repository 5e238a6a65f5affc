"""Patch a JPEG: new coefficients for the blocks that hold a hole sample, everything else as it was.

A touched block is taken back to samples of its own plane in floating point, not from decoded RGB; the fill replaces
what lies under the hole; and the block is transformed and quantised again with the file's own table. So known samples
beside a hole move by quantisation only, those that share a sample of halved chroma with it take its colour, and chroma
is never re-sampled where nothing was filled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_segments, jpeg_stream
from inpaint_batch.imaging.file_errors import spoiled
from inpaint_batch.imaging.jpeg import JpegSource
from inpaint_batch.imaging.jpeg_coefficients import (
    DC_RANGE,
    LARGEST_AC,
    Coefficients,
    edit_coefficients,
    opened_coefficients,
)
from inpaint_batch.imaging.jpeg_pictures import relocate
from inpaint_batch.imaging.jpeg_segments import SOI
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.types import BoolArray, FloatArray, HasHole, Patch

_CHUNK_PIXELS = 1 << 19

# JFIF: full-range BT.601. Rows give Y, Cb, Cr from R, G, B; chroma is offset by 128.
_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_CHROMA_OFFSET = np.float32(128)
_LEVEL_SHIFT = np.float32(128)
_BLACK = 3
"""The component of CMYK that YCCK leaves alone."""


def _dct_matrix() -> FloatArray:
    frequency, position = np.mgrid[0:8, 0:8]
    matrix = np.cos((2 * position + 1) * frequency * np.pi / 16) / 2
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


_DCT = _dct_matrix()
_ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, (i // 8) if (i // 8 + i % 8) % 2 else (i % 8)))
"""Natural index of each entry of a table in the file."""


def write_jpeg(source: JpegSource, patches: Sequence[Patch], destination: Path) -> None:
    """Write `source` with `patches` as new coefficients; metadata, tables, sampling and what follows the picture are
    kept.

    Raises `RowError` (write) for the rare stream that libjpeg cannot write again.
    """
    data, stream = source.checked()
    advice = "run this row with jpeg=lossless, which writes a PNG"
    fresh = patched(data[: stream.end], stream, patches, source.path, advice)
    pixels = jpeg_segments.split_pixels(fresh)
    end = len(SOI) + sum(map(len, stream.metadata)) + len(pixels)
    with destination.open("wb") as file:
        file.write(SOI)
        file.writelines(relocate(stream.metadata, data, stream.end, end))
        file.write(pixels)
        file.write(data[stream.end :])


def patched(
    data: bytes,
    stream: JpegStream,
    patches: Sequence[Patch],
    path: Path,
    advice: str,
    *,
    has_own_tables: bool = True,
) -> bytes:
    """A sound JPEG with `patches` as new coefficients, as libjpeg writes it: without its metadata, and with Huffman
    tables as in `edit_coefficients`.

    Raises `RowError` (write) for the rare stream that libjpeg cannot write again; its message names `path` and gives
    `advice`.
    """
    if not stream.is_patchable:
        message = f"{path} has unusual sampling or tables, or lacks scans, and cannot be patched; {advice}"
        raise RowError(FailureCode.WRITE, message)

    def edit(planes: list[Coefficients]) -> None:
        if not all(_is_encodable(plane) for plane in planes):
            raise RowError(FailureCode.WRITE, f"{path} holds coefficients out of range and cannot be patched; {advice}")
        for index, plane in enumerate(planes):
            for patch in patches:
                patch_plane(plane, stream, index, patch)

    return edit_coefficients(data, stream, edit, has_own_tables=has_own_tables)


def _is_encodable(plane: Coefficients) -> bool:
    """Whether Huffman coding can express it; libjpeg would end the process rather than say no."""
    if plane.min() >= -LARGEST_AC and plane.max() <= LARGEST_AC:
        return True
    for row in plane:
        flat = row.reshape(-1, 64)
        if flat.min() < -LARGEST_AC - 1 or flat.max() > LARGEST_AC or flat[:, 1:].min() < -LARGEST_AC:
            return False
    return True


def touched_blocks(stream: JpegStream, index: int, holes: Iterable[HasHole]) -> BoolArray:
    """(block rows, block columns) of component `index`: true where a block stands for at least one hole pixel."""
    down_px, across_px = (8 * step for step in stream.subsampling(index))
    touched = np.zeros(stream.blocks(index), np.bool_)
    for each in holes:
        for first_row in range(0, each.box.height, down_px):  # in strips: indices of a large hole would fill memory
            rows, columns = np.nonzero(each.hole[first_row : first_row + down_px])
            touched[(rows + first_row + each.box.top) // down_px, (columns + each.box.left) // across_px] = True
    return touched


def patch_plane(plane: Coefficients, stream: JpegStream, index: int, patch: Patch) -> None:
    """Put `patch` into the coefficients of component `index`, in place; blocks without a hole sample stay."""
    down, across = stream.subsampling(index)
    table = quant_table(stream, index)
    for rows, columns, hole, fill in _touched_cells(stream, (8 * down, 8 * across), patch):
        values = _component_values(fill, stream, index)
        # The mean of what is filled in each cell. Where other pixels share it, they take the colour, too: what it held
        # is mixed with that of the damage, and filled pixels would keep a part of it.
        cell = (-1, 8, down, 8, across)
        weight = hole.reshape(cell).sum(axis=(2, 4), dtype=np.float32)
        total = np.where(hole, values, np.float32(0)).reshape(cell).sum(axis=(2, 4), dtype=np.float32)
        block = plane[rows, columns]
        before = _DCT.T @ (block * table) @ _DCT + _LEVEL_SHIFT
        after = np.where(weight > 0, total / np.maximum(weight, np.float32(1)), before)
        fresh = np.rint(_DCT @ (after - _LEVEL_SHIFT) @ _DCT.T / table)
        direct = np.clip(fresh[:, 0, 0], *DC_RANGE)
        fresh = np.clip(fresh, -LARGEST_AC, LARGEST_AC)
        fresh[:, 0, 0] = direct
        plane[rows, columns] = fresh.astype(np.int16)


def quant_table(stream: JpegStream, index: int) -> FloatArray:
    """(8, 8) float32 steps of component `index`, natural order."""
    in_file_order = np.frombuffer(stream.quant_tables[stream.components[index].quant_table], ">u2")
    table = np.empty(64, np.float32)
    table[_ZIGZAG] = in_file_order
    return table.reshape(8, 8)


def _touched_cells(
    stream: JpegStream, cell_px: tuple[int, int], patch: Patch
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], BoolArray, NDArray[np.uint8]]]:
    """Touched blocks, strip by strip: their rows and columns (n,), hole (n, h, w) and fill (n, h, w, bands).

    Pixels beyond the edge of the image repeat the last ones, so that the padding of edge blocks follows the fill.
    """
    down_px, across_px = cell_px
    box = patch.box
    first_column, end_column = box.left // across_px, -(-box.right // across_px)
    columns_px = np.arange(first_column * across_px, end_column * across_px)
    step = max(1, _CHUNK_PIXELS // (down_px * max(1, columns_px.size)))
    stop_row = -(-box.bottom // down_px)
    for first_row in range(box.top // down_px, stop_row, step):
        end_row = min(first_row + step, stop_row)
        rows_px = np.arange(first_row * down_px, end_row * down_px)
        in_patch = []
        for positions, size_px, start, length in (
            (rows_px, stream.height_px, box.top, box.height),
            (columns_px, stream.width_px, box.left, box.width),
        ):
            relative = np.minimum(positions, size_px - 1) - start
            in_patch.append((np.clip(relative, 0, length - 1), (relative >= 0) & (relative < length)))
        (row_index, row_inside), (column_index, column_inside) = in_patch
        shape = (end_row - first_row, down_px, end_column - first_column, across_px)
        hole = patch.hole[np.ix_(row_index, column_index)] & row_inside[:, None] & column_inside
        cells = hole.reshape(shape).transpose(0, 2, 1, 3)
        # Rows of pixels first: that goes over whole lines, and leaves an eighth or less for the short axis.
        lines = hole.reshape(shape[0], down_px, -1).any(axis=1)
        rows, columns = np.nonzero(lines.reshape(shape[0], shape[2], across_px).any(axis=2))
        if not rows.size:
            continue
        cell_rows = row_index.reshape(-1, down_px)[rows]
        cell_columns = column_index.reshape(-1, across_px)[columns]
        fill = patch.samples[cell_rows[:, :, None], cell_columns[:, None, :]]
        yield rows + first_row, columns + first_column, cells[rows, columns], fill


def _component_values(fill: NDArray[np.uint8], stream: JpegStream, index: int) -> FloatArray:
    """What component `index` holds for `fill` (n, h, w, bands): float32 (n, h, w), 0..255."""
    stored = np.invert(fill) if stream.is_inverted else fill
    if stream.colours not in ("ycbcr", "ycck") or index == _BLACK:
        return stored[..., index].astype(np.float32)
    light = np.invert(stored[..., :3]) if stream.colours == "ycck" else stored  # YCCK holds its inks as if they were
    values: FloatArray = light.astype(np.float32) @ _YCBCR[index]
    return values + _CHROMA_OFFSET if index else values


def verify_jpeg(source: JpegSource, patches: Sequence[Patch], destination: Path) -> None:
    """Raise `RowError` (write) unless `destination` is `source` with `patches`, and nothing else.

    Metadata, tables, sampling and every coefficient of every block without a hole sample must equal those of
    `source`; the other blocks must hold the fill.
    """
    data, stream = source.checked()
    written_data = destination.read_bytes()
    written = jpeg_stream.parse(written_data)
    problem = structural_difference(stream, written)
    if written.metadata != relocate(stream.metadata, data, stream.end, written.end):
        problem = "its metadata"
    if not problem and written_data[written.end :] != data[stream.end :]:
        problem = "what follows the picture"
    if problem:
        raise spoiled(destination, f"{problem} changed on the way")
    with ExitStack() as held, ThreadPoolExecutor(1) as beside:  # libjpeg takes most of the time, and lets others run
        reading = beside.submit(held.enter_context, opened_coefficients(data[: stream.end], stream))
        after = held.enter_context(opened_coefficients(written_data[: written.end], written))
        check_planes(reading.result(), after, stream, patches, destination)


def check_planes(
    before: Sequence[Coefficients],
    after: Sequence[Coefficients],
    stream: JpegStream,
    patches: Sequence[Patch],
    destination: Path,
) -> None:
    """Raise `RowError` (write) unless blocks without a hole sample equal those of the source and the others hold the
    fill, which takes the place of `before`.
    """
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        touched = touched_blocks(stream, index, patches)
        if (changed_blocks(old, new) & ~touched).any():
            raise spoiled(destination, "coefficients of known samples changed on the way")
        for patch in patches:
            patch_plane(old, stream, index, patch)
        # One step of grace: the last bit of a floating-point sum is nothing to fail a row over.
        if any((np.abs(old[row] - new[row]) > 1).any() for row in np.flatnonzero(touched.any(axis=1))):
            raise spoiled(destination, "the fill is not the one that was meant")


def changed_blocks(before: Coefficients, after: Coefficients) -> BoolArray:
    """(block rows, block columns) of one component: true where any coefficient differs."""
    changed = np.zeros(before.shape[:2], np.bool_)
    for row, differs in enumerate(changed):  # nothing as large as a plane: the planes are large enough
        unequal = before[row].view(np.int64) != after[row].view(np.int64)
        if unequal.any():
            differs[:] = unequal.any(axis=(1, 2))
    return changed


def structural_difference(before: JpegStream, after: JpegStream) -> str:
    """The first thing, as in "its size", in which the frames and tables of two streams differ; empty for none."""
    if (before.width_px, before.height_px, before.depth) != (after.width_px, after.height_px, after.depth):
        return "its size"
    if before.is_progressive != after.is_progressive:
        return "its kind of coding"
    for index, (old, new) in enumerate(zip(before.components, after.components, strict=True)):
        if old.id != new.id or before.subsampling(index) != after.subsampling(index):
            return "its sampling"
        if before.quant_tables[old.quant_table] != after.quant_tables[new.quant_table]:
            return "its quantisation"
    return ""
