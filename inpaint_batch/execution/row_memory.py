"""How much memory a row takes, and whether it may take that much.

`--max-memory` is for one process. What is left of it beside the engine and the libraries is for the rows: small ones
together, a large one alone, and none that would take more than all of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from inpaint_batch.config import PROCESS_BYTES
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes.prepare import HoleMap
from inpaint_batch.holes.sparse import DENSE_MAP_PX
from inpaint_batch.imaging.jpeg import JpegSource
from inpaint_batch.imaging.side_by_side import AT_ONCE_BYTES
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import DEFAULT_CACHE_BYTES, TiffSource
from inpaint_batch.machine import memory_bytes
from inpaint_batch.tiling.boxes import Window
from inpaint_batch.tiling.cost import estimate

_DEFAULT_SHARE = 4
"""Of the memory of the machine one process takes this part at most."""
_DEFAULT_LEAST_BYTES = 1 << 30
_SEGMENT_COPIES = 5
"""Packed, unpacked, as samples, filled and packed again."""
_DENSE_BYTES_PER_PX = 8
"""Of an image with plain maps: hole, marked, labels and distances. What sparse maps take is seen once they are there.
"""
_OPENJPEG_BYTES = 10
"""For each sample of a JPEG 2000 while its code is packed: integers of 32 bits, twice, and the code."""
_PATCHES_BYTES = 64 << 20
_TO_TIFF = "convert it to a tiled TIFF, which is restored region by region"
_RAISE = "raise --max-memory, or use a machine with more"


def row_limit_bytes(max_memory_bytes: int = 0, num_processes: int = 1) -> int:
    """What the rows of a process may take together if the process may take `max_memory_bytes`.

    0 stands for a quarter of the machine's memory, or of the container's, and at least 1 GiB where there is so much;
    where more than three processes work on it, as `num_processes` says, for as much as leaves a share unused.
    """
    machine_bytes = memory_bytes()
    share = max(_DEFAULT_SHARE, num_processes + 1)
    default_bytes = max(machine_bytes // share, min(machine_bytes // num_processes, _DEFAULT_LEAST_BYTES))
    return max((max_memory_bytes or default_bytes) - PROCESS_BYTES, 0)


def dense_px(limit_bytes: int) -> int:
    """Images of up to so many pixels have plain hole maps (see `holes.sparse`)."""
    return min(DENSE_MAP_PX, limit_bytes // (8 * _DENSE_BYTES_PER_PX))


def needed_bytes(source: ImageSource, limit_bytes: int) -> int:
    """Estimate of the memory that one row takes at its worst moment, without the tiles.

    Of a TIFF, some decoded segments and patches; of all others the samples, once as source, once in the writer and
    once more while the output is compared; of a JPEG, the samples and the coefficients of both files that are compared.
    """
    header = source.header
    maps_bytes = header.num_pixels * _DENSE_BYTES_PER_PX if header.num_pixels <= dense_px(limit_bytes) else 0
    if isinstance(source, TiffSource):
        kept_bytes = min(cache_bytes(source, limit_bytes), header.decoded_bytes)
        kept_bytes *= 2 if source.reduced else 1  # see `tiff_levels.with_copies`
        patch_bytes = min(patches_bytes(limit_bytes), header.decoded_bytes + header.num_pixels)
        return kept_bytes + patch_bytes + _segment_bytes(source) + maps_bytes
    if isinstance(source, JpegSource):
        compared_bytes = header.decoded_bytes + 2 * source.coefficient_bytes
        return max(3 * header.decoded_bytes, compared_bytes) + maps_bytes
    codec_bytes = _OPENJPEG_BYTES * header.num_pixels * header.num_bands if header.format == "jp2" else 0
    return 3 * header.decoded_bytes + codec_bytes + maps_bytes


def cache_bytes(source: TiffSource, limit_bytes: int) -> int:
    """How many bytes of decoded segments to keep: a whole row of them, so that reading along it decodes none twice."""
    header = source.header
    pixel_bytes = header.num_bands * np.dtype(header.dtype).itemsize
    row_of_segments_bytes = (source.layout.segment_px[0] + 1) * header.width_px * pixel_bytes
    return min(max(DEFAULT_CACHE_BYTES, row_of_segments_bytes), limit_bytes // 4)


def patches_bytes(limit_bytes: int) -> int:
    """How many bytes of patches to keep in memory; the others go to a file (see `patch_store`)."""
    return min(_PATCHES_BYTES, limit_bytes // 8)


def check_source(image: str, source: ImageSource, limit_bytes: int) -> None:
    """Raise RowError(MEMORY) where the image cannot be restored within `limit_bytes`: the kernel might end the run."""
    needed = needed_bytes(source, limit_bytes)
    if needed <= limit_bytes:
        return
    header = source.header
    what = f"the image {image} ({header.width_px} × {header.height_px} px)"
    if isinstance(source, TiffSource) and _SEGMENT_COPIES * source.layout.segment_bytes > limit_bytes // 2:
        height_px, width_px = source.layout.segment_px
        what += f", whose segments of {width_px} × {height_px} px are decoded at once,"
        raise _too_much(what, needed, limit_bytes, f"save it with tiles (vips tiffsave in out --tile), {_RAISE}")
    raise _too_much(what, needed, limit_bytes, _RAISE if isinstance(source, TiffSource) else f"{_TO_TIFF}, {_RAISE}")


def check_mask(mask: str, whole_bytes: int, taken_bytes: int, limit_bytes: int) -> None:
    """Raise RowError(MEMORY) where a mask that is decoded at once has no room beside `taken_bytes`."""
    if whole_bytes + taken_bytes > limit_bytes:
        advice = f"save it as a tiled TIFF or as a PNG without interlacing, which are read piece by piece, {_RAISE}"
        raise _too_much(f"the mask {mask}, which is decoded at once,", whole_bytes + taken_bytes, limit_bytes, advice)


def check_plan(holes: HoleMap, windows: Iterable[Window], source: ImageSource, limit_bytes: int) -> None:
    """Raise RowError(MEMORY) where the hole maps and the largest window together are too much."""
    is_sparse = source.header.num_pixels > dense_px(limit_bytes)
    needed = needed_bytes(source, limit_bytes) + (holes.num_bytes if is_sparse else 0)
    needed += estimate(windows, seconds_per_tile={}).peak_bytes
    if needed > limit_bytes:
        raise _too_much("the largest of its holes, with what is filled along with it,", needed, limit_bytes, _RAISE)


def _segment_bytes(source: TiffSource) -> int:
    """Segments that are packed at a time: several small ones, or a single large one."""
    one_bytes = max(each.layout.segment_bytes for each in (source, *source.reduced))
    return _SEGMENT_COPIES * max(one_bytes, min(AT_ONCE_BYTES, source.header.decoded_bytes))


def _too_much(what: str, needed: int, limit_bytes: int, advice: str) -> RowError:
    return RowError(
        FailureCode.MEMORY,
        f"{what} would take about {needed / 1e9:.1f} GB of memory, of which --max-memory leaves "
        f"{limit_bytes / 1e9:.1f} GB for rows; {advice}",
    )
