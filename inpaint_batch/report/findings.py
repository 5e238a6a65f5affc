"""What a look at all rows has found, before a run or after it: a line for each finding, and totals, on stdout."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import IO, Any, Literal

from inpaint_batch.config import LogFormat
from inpaint_batch.report.durations import roughly
from inpaint_batch.words import counted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one row that its owner should know before a run."""

    line: int
    """Line in the manifest, or the ordinal of the file in a folder."""
    id: str
    level: Literal["error", "warning"]
    """`error`: the row would fail. `warning`: it would be done, but perhaps not as meant."""
    code: str
    """Failure code; empty for a warning."""
    message: str


@dataclass(slots=True)
class CheckTotals:
    """What the rows add up to."""

    depth: Literal["rows", "headers", "pixels"] = "pixels"
    """How much was looked at; nothing is estimated where that were not the pixels."""
    num_rows: int = 0
    num_bad: int = 0
    """Rows that would fail."""
    num_warnings: int = 0
    num_pixels: int = 0
    num_tiles: Counter[int] = field(default_factory=Counter)
    """Tiles that a run would fill, by side in pixels."""
    seconds: float = 0.0
    """Rough estimate of the time of the engine on a small CPU."""
    peak_bytes: int = 0
    """Rough estimate of the memory."""


@dataclass(slots=True)
class VerifyTotals:
    """What became of a look at the results of all rows."""

    shard: str
    """`i/n`, where only the rows of a shard were looked at; else empty."""
    num_rows: int = 0
    num_bad: int = 0
    """Rows whose result is missing, or not what it should be, or cannot be compared."""
    num_warnings: int = 0
    num_by_checksum: int = 0
    """Sound ones of which the checksums that stand beside them were compared, too."""
    num_pixels: int = 0
    """Of the sound ones."""


class FindingsPrinter:
    """Prints findings as lines `where: level: code: message`, or as JSON lines."""

    def __init__(self, log_format: LogFormat, stream: IO[str] | None = None, *, has_lines: bool = True) -> None:
        """`has_lines` says whether rows are lines of a file, and not images of a folder, whose names are enough."""
        self._has_lines = has_lines
        self._is_json = log_format == "json"
        self._stream = stream or sys.stdout

    def finding(self, manifest: str, finding: Finding) -> None:
        """One finding."""
        if self._is_json:
            self._emit(
                "finding",
                line=finding.line,
                id=finding.id,
                level=finding.level,
                code=finding.code,
                message=finding.message,
            )
            return
        where = f"{manifest}:{finding.line}: {finding.level}"
        if not self._has_lines:
            where = f"{finding.id}: {finding.level}"
        elif finding.id != f"line {finding.line}":  # as a row is called that cannot be
            where += f": {finding.id}"
        code = f"{finding.code}: " if finding.code else ""
        self._say(f"{where}: {code}{finding.message}")

    def totals(self, totals: CheckTotals) -> None:
        """The end of the check."""
        if self._is_json:
            self._emit(
                "totals",
                rows=totals.num_rows,
                bad=totals.num_bad,
                warnings=totals.num_warnings,
                megapixels=totals.num_pixels / 1e6,
                depth=totals.depth,
                tiles={str(side): count for side, count in sorted(totals.num_tiles.items())},
                estimated_s=round(totals.seconds, 1) if totals.depth == "pixels" else None,
                estimated_bytes=totals.peak_bytes if totals.depth == "pixels" else None,
            )
            return
        tiles = ", ".join(f"{count} of {side} px" for side, count in sorted(totals.num_tiles.items()))
        self._say(
            f"{counted(totals.num_rows, 'row')}: "
            f"{totals.num_rows - totals.num_bad} ready, {totals.num_bad} would fail, "
            f"{counted(totals.num_warnings, 'warning')}"
        )
        if totals.depth == "rows":
            self._say("the manifest alone: no file was opened")
            return
        if totals.depth == "headers":
            self._say(
                f"{totals.num_pixels / 1e6:.4g} megapixels of images by their headers: no pixel and no mask was read"
            )
            return
        self._say(
            f"estimate: {counted(totals.num_tiles.total(), 'tile')} ({tiles or 'none'}) in "
            f"{totals.num_pixels / 1e6:.4g} megapixels of images; "
            f"about {roughly(max(1.0, totals.seconds))} on a 2-core CPU, {totals.peak_bytes / 2**20:.0f} MiB of memory"
        )

    def verified(self, totals: VerifyTotals) -> None:
        """The end of a look at results."""
        num_sound = totals.num_rows - totals.num_bad
        if self._is_json:
            self._emit(
                "totals",
                rows=totals.num_rows,
                sound=num_sound,
                bad=totals.num_bad,
                warnings=totals.num_warnings,
                by_checksum=totals.num_by_checksum,
                shard=totals.shard,
                megapixels=totals.num_pixels / 1e6,
            )
            return
        of_shard = f" of shard {totals.shard}" if totals.shard else ""
        self._say(
            f"{counted(totals.num_rows, 'row')}{of_shard}: {num_sound} sound, {totals.num_bad} not, "
            f"{counted(totals.num_warnings, 'warning')}"
        )
        also = f", {counted(totals.num_by_checksum, 'result')} also with checksums" if totals.num_by_checksum else ""
        self._say(f"{totals.num_pixels / 1e6:.4g} megapixels compared with their sources{also}")

    def _emit(self, event: str, **values: Any) -> None:
        self._say(json.dumps({"event": event, **values}))

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
