"""Fill a preview as its picture was filled: what stood for damage becomes the mean of what it stands for now.

Previews are JPEGs, and are patched as such: what no hole touches keeps its coefficients. The result takes just as many
bytes as before, so that nothing around it moves; where it would take more, touched blocks lose their finest detail.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import RowError
from inpaint_batch.imaging import jpeg_segments, jpeg_stream
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.jpeg_coefficients import Coefficients, edit_coefficients
from inpaint_batch.imaging.jpeg_patch import patched, touched_blocks
from inpaint_batch.imaging.jpeg_segments import SOI
from inpaint_batch.imaging.jpeg_stream import JpegStream
from inpaint_batch.imaging.source import ImageSource, filled_samples
from inpaint_batch.types import BoolArray, Box, FloatArray, Header, Patch

_MAX_PREVIEW_PIXELS = 1 << 22
"""Those in metadata have a few ten thousand, those of full HD two million."""
_CHUNK_PIXELS = 1 << 20
"""Of the picture that are read at a time."""
_SOFT_PX = 1
"""How much farther than its own pixel a scaled-down detail may be seen."""
_AROUND_PX = 3
"""How far around what is filled preview and picture are compared."""
_ALIKE = 0.08
"""How much preview and picture may differ around the hole, as a mean over channels in [0, 1], and still be one picture:
more than sharpening and another colour space do, less than another picture does."""
_ON_THEIR_SIDE = range(5, 9)
"""Orientations of pictures of which some programs store an upright preview."""
_PADDING = b"\0\xff"
"""With which cameras fill up what they have set aside for a preview."""
_KEPT_FREQUENCIES = (6, 4, 2, 1)
"""How many frequencies a side of a block keeps, where it must take fewer bytes."""


def fill_preview(preview: bytes, source: ImageSource, patches: Sequence[Patch]) -> bytes | None:
    """`preview`, a JPEG, as it is once `patches` are filled in `source`, in as many bytes; unchanged where no hole
    touches it.

    None where it is no preview of this picture, or of a kind that is not patched. Raises `RowError` as reading the
    source does.
    """
    try:
        stream = jpeg_stream.parse(preview)
        if not _is_usable(stream, source.header):
            return None
        decoded = imagecodecs.jpeg8_decode(preview)  # libjpeg must not see what nobody has decoded
    except (ValueError, imagecodecs.Jpeg8Error):
        return None
    before = decoded.reshape(*decoded.shape[:2], -1)
    shown = min(
        (_shown(source, patches, frame, before) for frame in _frames(source.header, stream)),
        key=lambda shown: shown.difference,
    )
    if shown.difference > _ALIKE:
        return None
    if not shown.hole.any():
        return preview
    try:
        return _fitted(preview, stream, _as_patch(shown, len(stream.components)), source.path)
    except (ValueError, RowError):  # a stream that libjpeg cannot write
        return None


def _is_usable(stream: JpegStream, picture: Header) -> bool:
    is_other_way = (stream.width_px - stream.height_px) * (picture.width_px - picture.height_px) < 0
    return (
        stream.depth == 8
        and stream.is_huffman_dct
        and stream.is_patchable
        and len(stream.components) in (1, 3)
        and stream.width_px * stream.height_px <= _MAX_PREVIEW_PIXELS
        and stream.width_px <= picture.width_px
        and stream.height_px <= picture.height_px
        and not (picture.orientation in _ON_THEIR_SIDE and is_other_way)
    )


def _frames(picture: Header, preview: JpegStream) -> Iterator[Box]:
    """Where in the preview the picture may stand: all over it, or between bars that keep its shape."""
    width_px, height_px = preview.width_px, preview.height_px
    yield Box(0, 0, height_px, width_px)
    inner_height_px = round(width_px * picture.height_px / picture.width_px)
    inner_width_px = round(height_px * picture.width_px / picture.height_px)
    if 0 < inner_height_px < height_px - 1:
        yield Box((height_px - inner_height_px) // 2, 0, inner_height_px, width_px)
    elif 0 < inner_width_px < width_px - 1:
        yield Box(0, (width_px - inner_width_px) // 2, height_px, inner_width_px)


class _Shown(NamedTuple):
    """A filled picture as a preview shows it within `frame`."""

    frame: Box
    rgb: FloatArray
    """(h, w, 3) in [0, 1], of meaning at the hole and around it."""
    hole: BoolArray
    """(h, w), what the hole touches."""
    difference: float
    """How much preview and picture differ around the hole (see `_ALIKE`); 0 where the hole is all there is."""


def _as_patch(shown: _Shown, num_bands: int) -> Patch:
    """What is filled of a preview, in the smallest box that holds it."""
    (top, bottom), (left, right) = (np.flatnonzero(shown.hole.any(axis=axis))[[0, -1]].tolist() for axis in (1, 0))
    box = Box(top, left, bottom + 1 - top, right + 1 - left)
    rgb = shown.rgb[box.slices]
    samples = rgb.mean(axis=2, keepdims=True) if num_bands == 1 else rgb
    inside = box.shift(shown.frame.top, shown.frame.left)
    return Patch(inside, np.rint(samples * 255).astype(np.uint8), shown.hole[box.slices])


def _shown(source: ImageSource, patches: Sequence[Patch], frame: Box, before: NDArray[np.uint8]) -> _Shown:
    rows = _edges(source.header.height_px, frame.height)
    columns = _edges(source.header.width_px, frame.width)
    in_row: defaultdict[int, dict[int, Box]] = defaultdict(dict)
    hole = np.zeros((frame.height, frame.width), np.bool_)
    for number, patch in enumerate(patches):
        for row, touched in _touched(patch, rows, columns):
            in_row[row][number] = patch.box
            hole[row, touched] = True
    hole = _grown(hole, _SOFT_PX)
    near = _grown(hole, _AROUND_PX)
    rgb = np.zeros((frame.height, frame.width, 3), np.float32)
    for row, run, box in _pieces(source, near, rows, columns):
        own = [patches[number] for number, each in in_row[row].items() if each.intersect(box).area_px]
        areas_px = (rows[row + 1] - rows[row]) * np.diff(columns[run.start : run.stop + 1])[:, None]
        sums = _sums(source, own, box, columns[run.start : run.stop])
        rgb[row, run.start : run.stop] += np.divide(sums, areas_px, dtype=np.float32)
    around = near & ~hole
    known = np.divide(before[frame.slices][around], 255, dtype=np.float32)
    difference = float(np.abs(rgb[around] - known).mean()) if known.size else 0.0
    return _Shown(frame, rgb, hole, difference)


def _edges(length_px: int, num_cells: int) -> NDArray[np.intp]:
    """Where each pixel of a preview begins in its picture, and where the last one ends; (num_cells + 1,)."""
    return np.arange(num_cells + 1) * length_px // num_cells


def _touched(patch: Patch, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Rows of a preview in which a patch lies, each with the columns that hold some of its hole."""
    box = patch.box
    first, last = np.searchsorted(rows, [box.top, box.bottom - 1], "right") - 1
    for row in range(int(first), int(last) + 1):
        lines = patch.hole[max(0, rows[row] - box.top) : rows[row + 1] - box.top]
        pixels = np.flatnonzero(lines.any(axis=0)) + box.left
        yield row, np.searchsorted(columns, pixels, "right") - 1


def _pieces(
    source: ImageSource, near: BoolArray, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> Iterator[tuple[int, range, Box]]:
    """Where the picture is to be read for the cells that are `near`: a row of the preview, cells in it side by side,
    and where some or all of their pixels lie. In an order in which nothing is decoded twice, however large it is.
    """
    for part in source.parts():
        first, last = (np.searchsorted(rows, [part.top, part.bottom - 1], "right") - 1).tolist()
        start, end = (np.searchsorted(columns, [part.left, part.right - 1], "right") - 1).tolist()
        has_any = near[first : last + 1, start : end + 1].any(axis=1)
        for row in (first + np.flatnonzero(has_any)).tolist():
            inside = Box(int(rows[row]), 0, int(rows[row + 1] - rows[row]), int(columns[-1])).intersect(part)
            longest = max(1, _CHUNK_PIXELS // (inside.height * int(columns[1])))
            for run in _runs(near[row, start : end + 1], longest):
                cells = range(start + run.start, start + run.stop)
                left, right = int(columns[cells.start]), int(columns[cells.stop])
                yield row, cells, Box(inside.top, left, inside.height, right - left).intersect(part)


def _sums(source: ImageSource, patches: Sequence[Patch], box: Box, columns: NDArray[np.intp]) -> FloatArray:
    """The sums (n, 3) of the colours in `box` after filling, for each of the n cells that begin at `columns`."""
    in_columns = samples_to_rgb(filled_samples(source, box, patches), source.header).sum(axis=0, dtype=np.float32)
    return np.add.reduceat(in_columns, np.maximum(columns - box.left, 0), axis=0)


def _grown(flags: BoolArray, margin_px: int) -> BoolArray:
    """Flags (h, w), set too where one is at most so far away in both directions."""
    side_px = 2 * margin_px + 1
    return cv2.dilate(flags.view(np.uint8), np.ones((side_px, side_px), np.uint8)).view(np.bool_)


def _runs(flags: BoolArray, longest: int) -> Iterator[range]:
    """Where flags (n,) are set one after the other, in pieces of at most so many."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)).tolist()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        for first in range(start, stop, longest):
            yield range(first, min(first + longest, stop))


def _fitted(preview: bytes, stream: JpegStream, patch: Patch, path: Path) -> bytes | None:
    """`preview` with `patch`, in as many bytes; None where that cannot be.

    What stands behind its picture may be somebody else's, where its length is noted wrong: only padding is room.
    """
    is_padded = not preview[stream.end :].strip(_PADDING)
    room_bytes = len(preview) if is_padded else stream.end

    def whole(fresh: bytes) -> bytes:
        return SOI + b"".join(stream.metadata) + jpeg_segments.split_pixels(fresh)

    fresh = whole(patched(preview[: stream.end], stream, [patch], path, ""))
    for kept in _KEPT_FREQUENCIES:
        if len(fresh) <= room_bytes:
            break

        def soften(planes: list[Coefficients], kept: int = kept) -> None:
            for index, plane in enumerate(planes):
                touched = touched_blocks(stream, index, [patch])
                plane[touched, kept:] = 0
                plane[touched, :, kept:] = 0

        fresh = whole(edit_coefficients(fresh, jpeg_stream.parse(fresh), soften))
    if len(fresh) > room_bytes:
        return None
    return fresh.ljust(stream.end, b"\0") + preview[max(len(fresh), stream.end) :]
