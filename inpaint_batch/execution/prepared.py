"""What is held of a row between its stages: prepared, filled, written."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from inpaint_batch.execution.sidecar import checksum
from inpaint_batch.execution.stopwatch import Stopwatch
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.holes.prepare import HoleMap
from inpaint_batch.imaging.file_errors import reading
from inpaint_batch.imaging.patch_store import PatchStore
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.logids import Subject, worker_id
from inpaint_batch.report.row_tiles import RowTiles
from inpaint_batch.storage.early_copy import EarlyCopy
from inpaint_batch.tiling.boxes import Window
from inpaint_batch.types import Box


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
    copy: EarlyCopy | None = None
    """Of its image, where the result will be made of one."""
    num_filled: int = 0
    """Tiles that the engine has filled."""
    spread: float | None = None
    """Of its windows; None where each tile is filled once."""
    doubtful: Box | None = None
    """Where it is the largest, of the window that has most of it."""
    largest_spread: float = -1.0
    """Of one window."""
    num_previews: int = 0
    """Previews within the metadata that were filled along with the image."""

    def progress(self) -> RowTiles:
        """How far it is; may be asked from any thread."""
        num_tiles = sum(len(level.tiles) for window in self.windows for level in window.levels)
        return RowTiles(Subject(self.task.row.id, self.task.attempt, worker_id()), self.num_filled, num_tiles)

    def add_spread(self, spread: float, place: Box) -> None:
        """Note what the tiles of a window say of their passes (`TileRequest.spread`): the sum over all levels, in
        pixels of the image, and where at full resolution it is the largest.
        """
        self.spread = (self.spread or 0.0) + spread
        if spread > self.largest_spread:
            self.largest_spread, self.doubtful = spread, place

    @property
    def doubt(self) -> float | None:
        """How far the passes over its holes are apart: their standard deviation, root mean square over the holes and
        the bands, variances of all levels added up, in steps of 255. None where each tile is filled once.
        """
        if self.spread is None:
            return None
        return 255 * sqrt(self.spread / self.holes.num_hole_px)

    def checksum(self, role: Literal["source", "mask"]) -> dict[str, Any]:
        """Size and SHA-256 of a file that the result is made of; read once. Raises RowError(READ)."""
        if role not in self.checksums:
            path, what = (self.files.image, "image") if role == "source" else (self.files.mask, "mask")
            with reading(path, what):
                self.checksums[role] = checksum(path)
        return self.checksums[role]

    def close(self) -> None:
        """Let go of the samples and of copies of its files."""
        if self.copy is not None:
            self.copy.close()
        self.patches.close()
        self.source.close()
        self.files.close()
