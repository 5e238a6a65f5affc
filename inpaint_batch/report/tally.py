"""What a run adds up to: the one set of numbers that progress, summary and exit code agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec


class RowReport(msgspec.Struct, frozen=True):
    """One row's end, as it is told to a person; rows that are skipped are only counted."""

    id: str
    status: Literal["done", "failed"]
    line: int
    """Line in the manifest."""
    output: str = ""
    """Name of the result relative to the output folder."""
    code: str = ""
    """Failure code, where it failed."""
    message: str = ""
    """What happened and what to do next, where it failed."""
    earlier: bool = False
    """Whether it failed in an earlier run and was not tried again."""
    num_pixels: int = 0
    num_tiles: Mapping[int, int] = msgspec.field(default_factory=dict)
    """Tiles by side in pixels."""
    seconds: Mapping[str, float] = msgspec.field(default_factory=dict)
    """Time by stage."""
    warnings: tuple[str, ...] = ()
    worker: str = ""
    """Process that did it, `node7:4711`; empty where none did."""
    attempt: int = 1
    """How often this run had begun it."""


@dataclass(frozen=True, slots=True)
class FailedRow:
    """One line of `failures.csv`."""

    cells: Mapping[str, str]
    """The row as cells of a manifest, by column, its paths absolute."""
    code: str
    message: str
    line: int = 0
    """Line in the manifest."""


@dataclass(slots=True)
class Tally:
    """Counts of a run so far."""

    num_done: int = 0
    num_copied: int = 0
    """Of these, copies of images whose masks mark nothing."""
    num_skipped: int = 0
    """Rows that an earlier run had done."""
    num_left: int = 0
    """Rows that `--on-conflict skip` left alone: something that is not theirs lies at the place of their output."""
    num_failed: int = 0
    """Rows that failed now."""
    num_failed_earlier: int = 0
    """Rows that failed in an earlier run and were not tried again."""
    by_code: Counter[str] = field(default_factory=Counter)
    """All failed rows, of this run and earlier, by failure code."""
    redone: Counter[str] = field(default_factory=Counter)
    """Rows begun although an earlier run did them or had them fail, by what has changed (`RowTask.why`)."""
    num_tiles: Counter[int] = field(default_factory=Counter)
    """Tiles by side in pixels."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Time by stage, summed over rows and threads."""
    num_pixels: int = 0
    """Pixels of the images that are done."""
    num_warnings: int = 0

    @property
    def num_rows(self) -> int:
        """Rows that have come to an end."""
        return self.num_done + self.num_skipped + self.num_left + self.num_all_failed

    @property
    def num_all_failed(self) -> int:
        """Rows of the manifest that stand as failed."""
        return self.num_failed + self.num_failed_earlier

    def add(self, report: RowReport) -> None:
        """Count a row in."""
        if report.status == "done":
            self.num_done += 1
            self.num_pixels += report.num_pixels
            self.num_copied += not report.num_tiles
        else:
            self.by_code[report.code] += 1
            if report.earlier:
                self.num_failed_earlier += 1
            else:
                self.num_failed += 1
        for side_px, number in report.num_tiles.items():
            self.num_tiles[side_px] += number
        for stage, seconds in report.seconds.items():
            self.seconds[stage] += seconds  # type: ignore[assignment]  # a Counter adds up floats as well
        self.num_warnings += len(report.warnings)
