"""What happens to one row, stage by stage: prepare, fill, write. No threads here, and no choice of when.

Every executor runs these same functions, so that where a row is done has no influence on its result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inpaint_batch.config import TilingConfig
from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.execution.identity import fingerprint
from inpaint_batch.execution.needs import (
    cache_bytes,
    check_mask,
    check_plan,
    check_source,
    dense_px,
    needed_bytes,
    patches_bytes,
)
from inpaint_batch.execution.patch_store import PatchStore
from inpaint_batch.execution.shortage import is_out_of_memory
from inpaint_batch.execution.sidecar import checksum, paths_beside, write_beside, written_format, xmp_mark
from inpaint_batch.execution.stopwatch import Stopwatch
from inpaint_batch.execution.tasks import Failure, RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.holes.components import find_holes
from inpaint_batch.holes.prepare import HoleMap, hole_map
from inpaint_batch.imaging.colour import rgb_step, rgb_to_samples, samples_to_rgb
from inpaint_batch.imaging.mask_json import ForImage
from inpaint_batch.imaging.mask_pictures import MaskPieces, drawn_mask
from inpaint_batch.imaging.masks import Mask, read_mask
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.imaging.xmp_files import check_xmp, mark_file
from inpaint_batch.logids import Subject, worker_id
from inpaint_batch.report.inside import RowTiles
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.tiling.boxes import Window
from inpaint_batch.tiling.fill import FillPiece, FillSteps, TileRequest, WindowFill, fill_window
from inpaint_batch.tiling.grain import Grain, add_grain, surrounding_grain
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.types import Box, FloatArray, Header, ImageFormat, Patch

log = logging.getLogger(__name__)

FORMAT_SUFFIXES: dict[str, ImageFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".jp2": "jp2",
}
"""What a file name promises about its format."""

_USUAL_SUFFIX: dict[ImageFormat, str] = {
    "jpeg": "jpg",
    "png": "png",
    "tiff": "tif",
    "webp": "webp",
    "jp2": "jp2",
}

RowFill = Generator[Sequence[TileRequest], Sequence[FloatArray], None]


@dataclass(slots=True, eq=False)
class PreparedRow:
    """A row that is read and planned, and holds memory until it is written."""

    task: RowTask
    files: RowFiles
    source: ImageSource
    holes: HoleMap
    windows: list[Window]
    warnings: list[str]
    hole_boxes: list[Box]
    """Smallest boxes of the holes, ordered by top, then left."""
    watch: Stopwatch
    """Time that the row took so far."""
    checksums: dict[str, dict[str, Any]]
    """Sizes and SHA-256 as far as they are known (see `checksum`)."""
    needed_bytes: int
    """Memory that was reserved for it."""
    patches: PatchStore
    """What was filled of it."""
    num_filled: int = 0
    """Tiles that the engine has filled."""

    def progress(self) -> RowTiles:
        """How far it is; may be asked from any thread."""
        num_tiles = sum(len(level.tiles) for window in self.windows for level in window.levels)
        return RowTiles(Subject(self.task.row.id, self.task.attempt, worker_id()), self.num_filled, num_tiles)

    def checksum(self, role: Literal["source", "mask"]) -> dict[str, Any]:
        """Size and SHA-256 of a file that the result is made of; read once."""
        if role not in self.checksums:
            self.checksums[role] = checksum(self.files.image if role == "source" else self.files.mask)
        return self.checksums[role]

    def close(self) -> None:
        """Let go of the samples and of copies of its files."""
        self.patches.close()
        self.source.close()
        self.files.close()


def prepare_row(
    task: RowTask, tiling: TilingConfig, *, max_image_bytes: int, limit_bytes: int, reserve: Callable[[int], bool]
) -> PreparedRow | None:
    """Open the image, read its mask, find the holes, plan the windows. Decodes the image as far as the plan wants it.

    The row may take `limit_bytes` of memory (see `needs`). `reserve` is asked for what it takes once the header is
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
            source = _opened(files, max_image_bytes, limit_bytes)
            source.close()
            if task.config.mask_from == "file":
                files.find_mask()
            return source.header
    finally:
        files.close()


def _opened(files: RowFiles, max_image_bytes: int, limit_bytes: int) -> ImageSource:
    """The image of a row, with nothing in its header that speaks against doing it."""
    task = files.task
    source = open_image(files.image, max_bytes=max_image_bytes, page=task.config.page or None)
    try:
        check_output_name(task.row.image, task.output, source.header, lossless=task.config.jpeg == "lossless")
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
    source = _opened(files, max_image_bytes, limit_bytes)
    try:
        needed = needed_bytes(source, limit_bytes)
        if isinstance(source, TiffSource):
            source.cache_bytes = cache_bytes(source, limit_bytes)
        watch.lap("header")
        if not reserve(needed):
            source.close()
            return None
        watch.lap("")  # waiting is no work
        mask = _mask(files, source, min(max_image_bytes, limit_bytes))
        if isinstance(mask.grey, MaskPieces):
            check_mask(task.row.mask, mask.grey.whole_bytes, needed, limit_bytes)
        dense = dense_px(limit_bytes)
        holes = hole_map(mask.grey, mask.orientation, source.header, task.config, dense_px=dense)
        watch.lap("read")
        source.learn_levels(holes.hole)
        found = find_holes(holes.hole)
        windows = plan_windows(holes.hole, found, tiling)
        check_plan(holes, windows, source, limit_bytes)
        watch.lap("plan")
        # Decoded here, in a reader's thread, and not while the engine waits.
        source.anticipate(tile.core for window in windows for tile in window.levels[-1].tiles)
    except BaseException:
        source.close()
        raise
    watch.lap("read")
    boxes = [hole.box for hole in found]
    checksums: dict[str, dict[str, Any]] = {}
    if mask.checksum is not None:  # of a file that serves many rows, and need not be here any more
        checksums["mask"] = dict(zip(("bytes", "sha256"), mask.checksum, strict=True))
    warnings = hole_warnings(holes)
    patches = PatchStore(patches_bytes(limit_bytes))
    return PreparedRow(task, files, source, holes, windows, warnings, boxes, watch, checksums, needed, patches)


def _mask(files: RowFiles, source: ImageSource, max_bytes: int) -> Mask:
    row, config = files.task.row, files.task.config
    if config.mask_from != "file":
        files.mask = files.image
        drawn = drawn_mask(source, config.mask_from)
        return Mask(drawn, drawn.orientation)
    image = ForImage(source.header, row.image, config.mask_image, max_bytes)
    return read_mask(files.bring_mask, image, shown=row.mask, version=lambda: fingerprint(row.mask))


def hole_warnings(holes: HoleMap) -> list[str]:
    """Sentences about a hole map that may not be what its owner meant."""
    warnings = []
    if holes.suspected_inversion:
        part = holes.num_marked_px / holes.num_pixels
        warnings.append(f"the mask marks {part:.0%} of the image; if that is inverted, turn --mask-polarity around")
    if holes.orientation_by_rule:
        warnings.append("the mask fits the image stored and upright; it was taken as drawn on the upright view")
    return warnings


def check_output_name(image: str, output: str, header: Header, *, lossless: bool) -> None:
    """Raise RowError(WRITE) where the output's name promises another format than will be written."""
    written = written_format(header.format, "lossless" if lossless else "patch")
    suffix = Path(output).suffix.lower()
    promised = FORMAT_SUFFIXES.get(suffix)
    as_the_source = suffix == Path(image).suffix.lower() and written == header.format
    if promised in (None, written) or as_the_source:
        return
    raise RowError(
        FailureCode.WRITE,
        f"the output {output} would hold a {written.upper()} file, since results keep the format of their source; "
        f"give it a name that ends in .{_USUAL_SUFFIX[written]}",
    )


def row_fills(prepared: PreparedRow, tiling: TilingConfig) -> Iterator[RowFill]:
    """One fill for each window of the row; each leaves its patches, at the depth of the source, with the row."""
    return (_fill(prepared, number, window, tiling) for number, window in enumerate(prepared.windows))


def _fill(prepared: PreparedRow, number: int, window: Window, tiling: TilingConfig) -> RowFill:
    source, holes = prepared.source, prepared.holes

    def read_rgb(box: Box) -> FloatArray:
        return samples_to_rgb(source.read(box), source.header)

    pieces = yield from _counted(fill_window(read_rgb, holes.hole, window, tiling), prepared)
    step = rgb_step(source.header) if prepared.task.config.grain else None
    grain = surrounding_grain(read_rgb, holes.hole, pieces, step) if step is not None else None
    for piece in pieces:
        if piece.hole.any():
            prepared.patches.add(number, _patch(piece, prepared, grain))


def _counted(steps: FillSteps, prepared: PreparedRow) -> FillSteps:
    """The same steps, and what was filled is told."""
    try:
        requests = next(steps)
        while True:
            filled = yield requests
            prepared.num_filled += len(filled)
            requests = steps.send(filled)
    except StopIteration as end:
        pieces: WindowFill = end.value
        return pieces


def _patch(piece: FillPiece, prepared: PreparedRow, grain: Grain | None) -> Patch:
    source, holes, task = prepared.source, prepared.holes, prepared.task
    opaque = task.config.mask_from == "alpha"  # what was transparent because it was a hole is no longer
    original = source.read(piece.box)
    rgb = piece.rgb
    if holes.feather_px:
        weight = holes.weight(piece.box)[..., None]
        rgb = weight * rgb + (np.float32(1) - weight) * samples_to_rgb(original, source.header)
    if grain is not None:
        rgb = add_grain(rgb, piece.box, grain, task.row.id, holes.weight(piece.box))
    samples = rgb_to_samples(rgb, original, source.header)
    if opaque:
        samples[..., -1] = 255 if source.header.dtype == "uint8" else 65535
    return Patch(piece.box, samples, piece.hole, with_alpha=opaque)


def write_row(prepared: PreparedRow, num_tiles: Mapping[int, int]) -> None:
    """Write the result under a temporary name, compare it with the source, and only then give it its own name.

    What is wanted beside it comes first; `num_tiles` by side in pixels is what it says of the work.

    With a store it is then sent there. Raises RowError(WRITE), and StorageError where nothing at all can be written any
    more.
    """
    task, watch, patches = prepared.task, prepared.watch, prepared.patches
    watch.lap("")
    with prepared.files.by_name():
        with atomic_write(task.destination) as temporary:
            write_filled(prepared.source, patches, temporary, jpeg=task.config.jpeg)
            watch.lap("write")
            verify_written(prepared.source, patches, temporary, jpeg=task.config.jpeg)
            watch.lap("verify")
            if task.facts is not None:
                if task.config.xmp:
                    kind = written_format(prepared.source.header.format, task.config.jpeg)
                    mark_file(temporary, kind, xmp_mark(prepared, task.facts), task.config.page)
                # Before the result has its name: a result never stands without what is wanted beside it.
                write_beside(prepared, task.facts, num_tiles, temporary)
        prepared.files.deliver(*paths_beside(task.destination, task.facts.suffixes if task.facts else ()))
    watch.lap("write")


_STAGE_CODES = {"read": FailureCode.READ, "infer": FailureCode.INFER, "write": FailureCode.WRITE}


def as_failure(error: Exception, task: RowTask, stage: str, cause: BaseException | None = None) -> Failure:
    """What a row's exception means for the ledger; one that nobody foresaw goes to the log with its traceback.

    `cause` is the unforeseen exception behind a foreseen one. Raises `error` again where it concerns the whole run.
    """
    if isinstance(error, InpaintBatchError):
        raise error
    if isinstance(error, RowError):
        if cause is not None:
            log.error("row %s failed at %s", task.row.id, stage, exc_info=cause)
        return Failure.of(error)
    log.error("row %s failed at %s", task.row.id, stage, exc_info=error)
    if is_out_of_memory(error):
        message = "there was not enough memory for this image, even alone; run it on a larger machine"
        return Failure.of(RowError(FailureCode.MEMORY, message, retryable=True))
    message = (
        f"unexpected {type(error).__name__}: {error}; the traceback is in .inpaint-batch/run.log, please report it"
    )
    return Failure.of(RowError(_STAGE_CODES[stage], message, retryable=isinstance(error, OSError)))
