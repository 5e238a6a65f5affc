"""The first of what happens to a row: its image is opened, its mask read, its holes found, its windows planned.

Like the stages after it (`fill`, `write`) it knows no threads, and does not choose when. Every executor runs these same
functions, so that where a row is done has no influence on its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from inpaint_batch.config import JpegMode, MaskPolarity, RowConfig, TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.identity import fingerprint
from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.execution.row_memory import (
    cache_bytes,
    check_mask,
    check_plan,
    check_source,
    dense_px,
    needed_bytes,
    patches_bytes,
)
from inpaint_batch.execution.stopwatch import Stopwatch
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.holes.components import find_holes
from inpaint_batch.holes.margin import lacks_margin
from inpaint_batch.holes.mask_errors import if_inverted, other_polarity
from inpaint_batch.holes.prepare import HoleMap, hole_map
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.mask_json import ForImage
from inpaint_batch.imaging.mask_pictures import MaskPieces, drawn_mask
from inpaint_batch.imaging.masks import Mask, read_mask
from inpaint_batch.imaging.patch_store import PatchStore
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.imaging.write import check_format, written_format
from inpaint_batch.imaging.xmp_files import check_xmp
from inpaint_batch.storage.early_copy import EarlyCopy
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.types import FORMAT_SUFFIXES, Box, FloatArray, Header
from inpaint_batch.words import counted

MARGIN_PX = 2
"""That a mask should leave around damage."""


def prepare_row(
    task: RowTask, tiling: TilingConfig, *, max_image_bytes: int, limit_bytes: int, reserve: Callable[[int], bool]
) -> PreparedRow | None:
    """Open the image, read its mask, find the holes, plan the windows. Decodes the image as far as the plan wants it.

    The row may take `limit_bytes` of memory (see `row_memory`). `reserve` is asked for what it takes once the header is
    known and before pixels are; where it says no, None is returned. Raises RowError (read, memory, size, mask, write).
    """
    files = RowFiles(task)
    try:
        with files.by_name():
            prepared = _prepared(files, tiling, max_image_bytes, limit_bytes, reserve)
    except BaseException:
        files.close()
        raise
    if prepared is None:
        files.close()
    return prepared


def look_at_header(task: RowTask, *, max_image_bytes: int, limit_bytes: int) -> Header:
    """What the image says of itself, pixels not decoded; whether its mask is there. Raises RowError as `prepare_row`.

    A mask in a store is only asked for.
    """
    files = RowFiles(task)
    try:
        with files.by_name():
            files.bring_image()
            source = open_source(files, max_image_bytes, limit_bytes)
            source.close()
            if task.config.mask_from == "file":
                files.find_mask()
            return source.header
    finally:
        files.close()


def open_source(files: RowFiles, max_image_bytes: int, limit_bytes: int) -> ImageSource:
    """The image of a row, with nothing in its header that speaks against doing it."""
    task = files.task
    source = open_image(files.image, max_bytes=max_image_bytes, page=task.config.page or None)
    try:
        check_format(files.image, source.header, task.config.jpeg)
        check_output_name(task.row.image, task.output, source.header, task.config.jpeg)
        check_source(task.row.image, source, limit_bytes)
        if task.config.xmp:
            check_xmp(files.image, source.header.format, task.config.page)
    except BaseException:
        source.close()
        raise
    return source


def _prepared(
    files: RowFiles, tiling: TilingConfig, max_image_bytes: int, limit_bytes: int, reserve: Callable[[int], bool]
) -> PreparedRow | None:
    watch = Stopwatch()
    task = files.task
    files.bring_image()
    watch.lap("read")
    source = open_source(files, max_image_bytes, limit_bytes)
    copy: EarlyCopy | None = None
    try:
        needed = needed_bytes(source, limit_bytes)
        if isinstance(source, TiffSource):
            source.cache_bytes = cache_bytes(source, limit_bytes)
        watch.lap("header")
        if not reserve(needed):
            source.close()
            return None
        watch.lap("")  # waiting is no work
        mask, holes = mask_and_holes(files, source, max_image_bytes, limit_bytes)
        watch.lap("read")
        if isinstance(source, TiffSource) and task.destination:  # a check has none
            copy = EarlyCopy.begin(source.path, Path(task.destination).parent)
        source.learn_levels(holes.hole)
        found = find_holes(holes.hole)
        windows = plan_windows(holes.hole, found, tiling)
        check_plan(holes, windows, source, limit_bytes)
        watch.lap("plan")
        # Decoded here, in a reader's thread, and not while the engine waits.
        cores = [tile.core for window in windows for tile in window.levels[-1].tiles]
        source.anticipate(cores)
        warnings = [
            *hole_warnings(holes, task.config.mask_polarity),
            *_polygon_warnings(mask),
            *_margin_warnings(source, holes, cores, task.config),
            *_source_warnings(source, task.config),
        ]
    except BaseException:
        source.close()
        if copy is not None:
            copy.close()
        raise
    watch.lap("read")
    boxes = [hole.box for hole in found]
    checksums: dict[str, dict[str, Any]] = {}
    if mask.checksum is not None:  # of a file that serves many rows, and need not be here any more
        checksums["mask"] = mask.checksum
    patches = PatchStore(patches_bytes(limit_bytes))
    return PreparedRow(task, files, source, holes, windows, warnings, boxes, watch, checksums, needed, patches, copy)


def mask_and_holes(
    files: RowFiles, source: ImageSource, max_image_bytes: int, limit_bytes: int
) -> tuple[Mask, HoleMap]:
    """The mask of the row whose image `source` is, and what it marks. Raises RowError (read, memory, size, mask)."""
    row, config = files.task.row, files.task.config
    mask = mask_of(files, source, min(max_image_bytes, limit_bytes))
    if isinstance(mask.grey, MaskPieces):
        check_mask(row.mask, mask.grey.whole_bytes, needed_bytes(source, limit_bytes), limit_bytes)
    dense = dense_px(limit_bytes)
    return mask, hole_map(mask.grey, mask.orientation, source.header, config, dense_px=dense)


def mask_of(files: RowFiles, source: ImageSource, max_bytes: int) -> Mask:
    """The mask of the row whose image `source` is: that of a file, or what is drawn in the image. Raises RowError."""
    row, config = files.task.row, files.task.config
    if config.mask_from != "file":
        files.mask = files.image
        drawn = drawn_mask(source, config.mask_from)
        return Mask(drawn, drawn.orientation)
    may_be_empty = config.empty_mask == "copy"
    image = ForImage(source.header, row.image, config.mask_image, max_bytes, may_be_empty)
    return read_mask(files.bring_mask, image, shown=row.mask, version=lambda: fingerprint(row.mask, "mask"))


def hole_warnings(holes: HoleMap, polarity: MaskPolarity) -> list[str]:
    """Sentences about a hole map that may not be what its owner meant; it was marked by `polarity`."""
    warnings = []
    if holes.suspected_inversion:
        part = holes.num_marked_px / holes.num_pixels
        warnings.append(f"the mask marks {part:.0%} of the image; {if_inverted(polarity, by_alpha=holes.by_alpha)}")
    if holes.num_unseen_px:
        part = holes.num_unseen_px / holes.num_marked_px
        warnings.append(
            f"{part:.1%} of what the mask marks is transparent there, and filled by its colour nevertheless; paint "
            f"{other_polarity(polarity)} what shall stay, since an eraser may keep the colour or leave white"
        )
    if (tone := holes.stray_tone) is not None:
        warnings.append(
            f"a part of the mask is painted in a grey or colour of {tone} to {tone + 7} of 255 in brightness, which is "
            "too dark to mark anything (pure red has 76, blue 29); paint it white, or, where it is meant, say "
            f"--mask-threshold {tone - 1}"
        )
    if holes.orientation_by_rule:
        warnings.append(
            "the mask fits the image stored and upright; it was taken as drawn on the upright view. If it was not, "
            "turn it, or give it the orientation tag of the image"
        )
    return warnings


def _polygon_warnings(mask: Mask) -> Iterator[str]:
    if mask.num_without_px:
        yield (
            f"{mask.num_without_px} of {counted(mask.num_polygons, 'polygon')} of the mask hold no pixel, as they are "
            "thinner than one or outside of the image, and mark nothing; draw them wider, or take them out"
        )


def _margin_warnings(source: ImageSource, holes: HoleMap, cores: Sequence[Box], config: RowConfig) -> Iterator[str]:
    """A sentence about damage that seems to go on beside its mask."""

    def read_rgb(box: Box) -> FloatArray:
        return samples_to_rgb(source.read(box), source.header)

    # What an image shows where it is transparent is nobody's damage.
    if config.mask_from != "alpha" and lacks_margin(read_rgb, holes.hole, cores):
        yield (
            "the mask seems to leave no margin: right beside it the image still shows a part of what it covers, which "
            f"stays and leads the fill astray; --dilate {config.dilate_px + MARGIN_PX} takes it in"
        )


def _source_warnings(source: ImageSource, config: RowConfig) -> Iterator[str]:
    """Sentences about what of an image will not be as its owner may expect."""
    if not isinstance(source, TiffSource):
        return
    if config.jpeg == "lossless" and source.header.has_coefficients:
        yield (
            "jpeg=lossless is for JPEG files; this TIFF stays compressed with JPEG, and known pixels close to a hole "
            "change a little. Where they must not, save it with LZW, Deflate or ZSTD first"
        )
    if source.layout.kind.has_unknown_band and config.mask_from != "alpha":
        yield (
            f"the TIFF does not say what its band {source.header.num_bands} is; it stays as it is, also in the holes. "
            "Where it is no alpha but a picture, such as near infrared, restore it as an image of its own"
        )


def check_output_name(image: str, output: str, header: Header, jpeg: JpegMode) -> None:
    """Raise RowError(WRITE) where the output's name promises another format than will be written."""
    written = written_format(header.format, jpeg)
    suffix = Path(output).suffix.lower()
    promised = FORMAT_SUFFIXES.get(suffix)
    as_the_source = suffix == Path(image).suffix.lower() and written == header.format
    if promised in (None, written) or as_the_source:
        return
    usual = next(suffix for suffix, kind in FORMAT_SUFFIXES.items() if kind == written)
    raise RowError(
        FailureCode.WRITE,
        f"the output {output} would hold a {written.upper()} file, since results keep the format of their source; "
        f"give it a name that ends in {usual}",
    )
