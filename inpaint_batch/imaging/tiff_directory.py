"""The directories of a TIFF: what they say of a page and of its reduced copies, and where their segments lie."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import tifffile

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import exif, tiff_jpeg, tiff_kind
from inpaint_batch.imaging.file_errors import check_budget, damaged, refuse
from inpaint_batch.imaging.tiff_codec import has_predictor
from inpaint_batch.imaging.tiff_layout import ARRAY_FORMATS, ArrayTag, TiffLayout
from inpaint_batch.imaging.tiff_pages import SAVE_WITHOUT, choose_page, next_offset, reduced_copies, sub_images
from inpaint_batch.types import SampleType

# It logs every tag that it cannot read, each time; where nobody takes these lines they end on stderr, between ours.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_OFFSET_TAGS, _LENGTH_TAGS = (324, 273), (325, 279)
_CHROMA_TAG = 530
_CHROMA_STEPS = tuple(product((1, 2, 4), repeat=2))
_HALVED = 2, 2
_GDAL_NO_DATA_TAG, _PHOTOSHOP_TAG = 42113, 34377
_BYTE_TYPES = (1, 7)
"""BYTE, UNDEFINED."""
_INTERLEAVED, _PLANES = 1, 2
"""Values of PlanarConfiguration."""


def read_layouts(path: Path, max_bytes: int, page_number: int | None = None) -> list[TiffLayout]:
    """Layouts of page `page_number` (from 1) of a TIFF, or of its only page, and of its reduced copies, in file order.

    Pages that are a smaller version of another or its mask do not count as pages of their own. Raises `RowError`: read,
    naming what cannot be kept exactly; memory where one segment takes more than `max_bytes` decoded. How large the
    image is as a whole does not matter.
    """
    with tifffile.TiffFile(path) as file:
        page = choose_page(path, file, page_number)
        pages = [page, *reduced_copies(path, file, page)]
        shared = _shared_segments(path, file, pages)
        layouts = [_layout(path, file, page, page_number, max_bytes, shared=shared[0])]
        for copy, indices in zip(pages[1:], shared[1:], strict=True):
            try:
                layouts.append(_layout(path, file, copy, None, max_bytes, shared=indices))
            except RowError as error:
                if error.code != FailureCode.READ:
                    raise
                kind = "a TIFF with reduced copies of a kind that is not written"  # its page is of one that is
                raise refuse(path, kind, SAVE_WITHOUT) from error
        file_bytes = int(file.filehandle.size)
    for layout in layouts:
        _check_segments(path, layout, file_bytes)
        _check_copy(path, layouts[0], layout)
    return layouts


def _layout(
    path: Path,
    file: tifffile.TiffFile,
    page: tifffile.TiffPage,
    page_number: int | None,
    max_bytes: int,
    *,
    shared: frozenset[int],
) -> TiffLayout:
    kind = tiff_kind.recognise(path, page)
    width_px, height_px, num_bands = int(page.imagewidth), int(page.imagelength), int(page.samplesperpixel)
    is_tiled = bool(page.is_tiled)
    if is_tiled:
        segment_px = int(page.tilelength), int(page.tilewidth)
    else:
        segment_px = min(int(page.rowsperstrip), height_px), width_px
        if not segment_px[0]:
            raise damaged(path, "its strips have no rows")
    if num_bands > 1 and int(page.planarconfig) not in (_INTERLEAVED, _PLANES):
        raise damaged(path, "it does not say how its bands lie")
    check_budget(path, segment_px[1], segment_px[0], num_bands * max(1, kind.depth // 8), max_bytes)
    offsets_tag, lengths_tag = (_tag(page, codes) for codes in (_OFFSET_TAGS, _LENGTH_TAGS))
    return TiffLayout(
        kind=kind,
        page_number=page_number,
        byte_order=file.byteorder,
        is_big=file.is_bigtiff,
        width_px=width_px,
        height_px=height_px,
        num_bands=num_bands,
        orientation=exif.sensible(int(page.tags.valueof(274, default=1))),
        compression=int(page.compression),
        # Without one of the codecs that know predictors, readers ignore the tag.
        predictor=int(page.predictor) if has_predictor(int(page.compression)) else 1,
        is_planar=num_bands > 1 and int(page.planarconfig) == _PLANES,
        segment_px=segment_px,
        is_tiled=is_tiled,
        offsets=tuple(int(offset) for offset in page.dataoffsets),
        lengths=tuple(int(length) for length in page.databytecounts),
        offsets_tag=_require(path, offsets_tag),
        lengths_tag=lengths_tag,
        shared=shared,
        jpeg_tables=bytes(page.tags.valueof(347, default=b"")),
        block_px=_block_px(page, kind),
        no_data=_no_data(page, kind.dtype),
        photoshop=_photoshop(page),
    )


def _photoshop(page: tifffile.TiffPage) -> range:
    tag = page.tags.get(_PHOTOSHOP_TAG)
    if tag is None or int(tag.dtype) not in _BYTE_TYPES:
        return range(0)
    start, length = int(tag.valueoffset), int(tag.valuebytecount)
    segments = zip(page.dataoffsets, page.databytecounts, strict=False)
    is_alone = all(start + length <= offset or offset + size <= start for offset, size in segments)
    return range(start, start + length) if is_alone else range(0)


def _block_px(page: tifffile.TiffPage, kind: tiff_kind.TiffKind) -> tuple[int, int]:
    if int(page.compression) != tiff_jpeg.COMPRESSION:
        return 1, 1
    steps = page.tags.valueof(_CHROMA_TAG, default=_HALVED) if kind.is_ycbcr else (1, 1)
    across, down = steps if steps in _CHROMA_STEPS else _HALVED
    return 8 * down, 8 * across


def _no_data(page: tifffile.TiffPage, dtype: SampleType) -> float | None:
    try:
        value = float(str(page.tags.valueof(_GDAL_NO_DATA_TAG, default="")))
    except ValueError:
        return None
    if math.isnan(value):  # which never is one
        return None
    if dtype != "float32":
        return value
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))  # as the samples are
    return rounded if np.isfinite(rounded) else value


def _check_copy(path: Path, page: TiffLayout, copy: TiffLayout) -> None:
    """Raise `RowError` (read) for what is no smaller version of a page that can be made anew from its samples."""
    if copy is page:
        return
    if _meaning(page) != _meaning(copy) or page.kind.depth < 8 or page.kind.model == "palette":
        raise refuse(path, "a TIFF with reduced copies of another kind, which would go stale", SAVE_WITHOUT)
    if page.orientation != copy.orientation:
        raise refuse(path, "a TIFF with reduced copies that are turned, which would go stale", SAVE_WITHOUT)
    # Sides are rounded one way or the other.
    skew = abs(page.height_px * copy.width_px - page.width_px * copy.height_px)
    if copy.width_px > page.width_px or copy.height_px > page.height_px or skew > max(page.width_px, page.height_px):
        raise refuse(path, "a TIFF with reduced copies of another shape, which would go stale", SAVE_WITHOUT)


def _meaning(layout: TiffLayout) -> tuple[object, ...]:
    """What two pages must have in common for a mean of samples of one to be a sample of the other."""
    kind = layout.kind
    is_turned = kind.is_min_white and kind.has_free_range  # all others are turned when they are read
    alpha = kind.has_alpha, kind.is_premultiplied
    return kind.dtype, kind.depth, kind.model, alpha, layout.num_bands, is_turned


def _shared_segments(path: Path, file: tifffile.TiffFile, pages: Sequence[tifffile.TiffPage]) -> list[frozenset[int]]:
    """Which segments of each of `pages` lie, in part or as a whole, on bytes that something else lies on."""
    nobody = (-1, -1)
    spans = [(0, 16 if file.is_bigtiff else 8, nobody)]  # start, end, and the number of a page and of its segment
    spans.append((*_beyond_the_last(path, file), nobody))
    ours = {page.offset: number for number, page in enumerate(pages)}
    lists: Counter[int] = Counter()
    everybody = [each for page in file.pages for each in (page, *sub_images(page))]
    for page in everybody:
        if not isinstance(page, tifffile.TiffPage):
            continue
        lists.update(_address_lists(page))
        number = ours.get(page.offset, -1)
        spans.extend((start, start + length, nobody) for start, length in _directory_spans(page))
        spans.extend(
            (int(start), int(start) + int(length), nobody if number < 0 else (number, index))
            for index, (start, length) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False))
        )
    if any(lists[place] > 1 for page in pages for place in _address_lists(page)):
        raise refuse(path, "a TIFF whose pages share their address lists", "save it again with any current program")
    shared: set[tuple[int, int]] = set()
    farthest_end, holder = 0, nobody
    for start, end, who in sorted(spans):
        if start < farthest_end and start < end:
            shared |= {who, holder}
        if end > farthest_end:
            farthest_end, holder = end, who
    return [frozenset(index for number, index in shared if number == own) for own in range(len(pages))]


def _address_lists(page: tifffile.TiffPage) -> set[int]:
    """Where the lists of offsets and lengths of its segments stand."""
    return {tag.values for tag in (_tag(page, _OFFSET_TAGS), _tag(page, _LENGTH_TAGS)) if tag}


def _directory_spans(page: tifffile.TiffPage) -> list[tuple[int, int]]:
    """(start, length) of a page's directory and of all values that stand outside it."""
    order = page.parent.tiff
    length = order.tagnosize + len(page.tags) * order.tagsize + order.offsetsize
    values = [(int(tag.valueoffset), int(tag.valuebytecount)) for tag in page.tags]
    return [(int(page.offset), length), *values]


def _beyond_the_last(path: Path, file: tifffile.TiffFile) -> tuple[int, int]:
    """Where what follows the last page begins and ends: nothing, or what no reader takes for a page now; it must
    stay as it is, or somebody might. Raises `RowError` (read) where more pages should follow beyond the end.
    """
    order, handle = file.tiff, file.filehandle
    start = next_offset(file, file.pages[-1])
    if start + order.tagnosize > handle.size:
        raise damaged(path, "it is truncated: its next page lies beyond its end")
    return (start, start + order.tagnosize) if start else (0, 0)


def _tag(page: tifffile.TiffPage, codes: tuple[int, ...]) -> ArrayTag | None:
    for code in codes:
        tag = page.tags.get(code)
        if tag is not None:
            if int(tag.dtype) not in ARRAY_FORMATS:
                raise ValueError(f"tag {code} is of type {int(tag.dtype)}")
            return ArrayTag(int(tag.offset), int(tag.valueoffset), int(tag.dtype), int(tag.count))
    return None


def _require(path: Path, tag: ArrayTag | None) -> ArrayTag:
    if tag is None:
        raise damaged(path, "it does not say where its pixels are")
    return tag


def _check_segments(path: Path, layout: TiffLayout, file_bytes: int) -> None:
    rows, columns = layout.grid
    expected = rows * columns * (layout.num_bands if layout.is_planar else 1)
    if len(layout.offsets) != expected or len(layout.lengths) != expected or layout.offsets_tag.count != expected:
        raise damaged(path, f"it lists {len(layout.offsets)} segments where its size asks for {expected}")
    if layout.lengths_tag is None and layout.compression != 1:
        raise damaged(path, "it does not say how long its compressed segments are")
    if not all(layout.offsets):
        raise refuse(path, "a sparse TIFF (segments that were never written)", "save it again in full")
    ends = (offset + length for offset, length in zip(layout.offsets, layout.lengths, strict=True))
    if max(ends) > file_bytes:
        raise damaged(path, "it is truncated: pixels lie beyond its end")
