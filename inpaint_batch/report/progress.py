"""What is told while a run goes on.

A bar on a terminal, plain lines elsewhere, both on stderr; with `json`, one object a line on stdout and nothing else
there. Failures are told at once and with their reason, up to a limit; all of them stand in `failures.csv`.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar

from inpaint_batch.config import LogFormat
from inpaint_batch.report.durations import clock
from inpaint_batch.report.row_tiles import Look, NowAndThen, RowTiles
from inpaint_batch.report.tally import RowReport, Tally
from inpaint_batch.words import counted

if TYPE_CHECKING:
    from rich.progress import TaskID

LINE_EVERY_S = 10.0
"""Seconds between two lines of progress where there is no bar."""
BAR_EVERY_S = 1.0
"""Seconds between two looks at large rows where there is one."""
MAX_TOLD = 20
"""Failures (and warnings) told in words to a person; the rest is only counted."""


class Progress(ABC):
    """Told of every step of a run, in this order: `start`, then `row` and `note` as they come, then `finish`."""

    tiles_every_s: ClassVar[float] = LINE_EVERY_S
    """Seconds between two calls of `tiles`."""
    _large_rows: NowAndThen | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self, num_rows: int, about: dict[str, Any]) -> None:
        """The run begins; `about` says what it runs on (engine, model, precision, output)."""

    def watch(self, queues: Callable[[], Mapping[str, int]], filling: Look) -> None:
        """How many rows stand where, and how far large ones are, can be asked from now on, from any thread, until
        `finish`; the latter is told to `tiles` now and then.
        """
        del queues  # for whoever wants to know
        self._large_rows = NowAndThen(filling, self.tiles, self.tiles_every_s)

    def tiles(self, rows: list[RowTiles]) -> None:  # noqa: B027  (an optional hook)
        """How far large rows are just now; may be none. Called from a thread of its own."""

    @abstractmethod
    def row(self, report: RowReport, tally: Tally) -> None:
        """A row has ended; `tally` has it counted in."""

    def skipped(self, tally: Tally) -> None:  # noqa: B027  (an optional hook)
        """Rows that are done were passed over, up to a thousand since the last time; `tally` has them counted in."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Something worth knowing that is no failure."""

    @abstractmethod
    def finish(self, tally: Tally, exit_code: int) -> None:
        """The run is over."""

    def close(self) -> None:
        """Look no more at large rows, and give the terminal back, also after an error; may be called more than once."""
        if self._large_rows is not None:
            self._large_rows.end()


def make_progress(log_format: LogFormat, metrics: Path | None = None, *, has_lines: bool = True) -> Progress:
    """The right kind for the format and for what stderr is; with `metrics`, a file of numbers is kept besides.

    `has_lines` says whether rows are lines of a file, by whose numbers people find them, and not images of a folder.

    Raises what `MetricsProgress` raises.
    """
    if metrics is not None:
        from inpaint_batch.report.metrics import MetricsProgress

        return MetricsProgress(make_progress(log_format, has_lines=has_lines), metrics)
    if log_format == "json":
        from inpaint_batch.report.json_lines import JsonProgress

        return JsonProgress(sys.stdout)
    if sys.stderr.isatty():
        return BarProgress(has_lines=has_lines)
    return LineProgress(sys.stderr, has_lines=has_lines)


class _Words:
    """Sentences for people, with a limit on how many failures are told."""

    def __init__(self, *, has_lines: bool) -> None:
        self._has_lines = has_lines
        self._num_told = 0

    def of_row(self, report: RowReport) -> list[str]:
        line = f"line {report.line}"  # a row that cannot be may have no other name
        row = f"{report.id} ({line})" if self._has_lines and report.id != line else report.id
        told = [f"warning: {row}: {warning}" for warning in report.warnings]
        if report.status == "failed" and not report.earlier:
            told.append(f"failed: {row}: {report.code}: {report.message}")
        num_before, self._num_told = self._num_told, self._num_told + len(told)
        if self._num_told <= MAX_TOLD:
            return told
        is_first = told and num_before <= MAX_TOLD
        return ["more failures or warnings follow; see failures.csv and the ledger"] if is_first else []


def closing_sentence(tally: Tally, exit_code: int, elapsed_s: float) -> str:
    """The last line for a person: what was done, what was not, at what pace."""
    parts = [f"{tally.num_done} done" + (f" ({tally.num_copied} copied)" if tally.num_copied else "")]
    if tally.num_skipped:
        parts.append(f"{tally.num_skipped} done before")
    if tally.num_left:
        parts.append(
            f"{tally.num_left} left as it was" if tally.num_left == 1 else f"{tally.num_left} left as they were"
        )
    if tally.num_failed:
        parts.append(f"{tally.num_failed} failed")
    if tally.num_failed_earlier:
        parts.append(f"{tally.num_failed_earlier} failed before (--retry-failed does them again)")
    pace = f"; {_pace(tally, elapsed_s)}" if tally.num_done else ""
    warnings = f"; {counted(tally.num_warnings, 'warning')}" if tally.num_warnings else ""
    return f"{', '.join(parts)} in {_duration(elapsed_s)}{pace}{warnings}; exit code {exit_code}"


class LineProgress(Progress):
    """Plain lines, for logs."""

    def __init__(self, stream: IO[str], *, has_lines: bool = True) -> None:
        self._stream = stream
        self._words = _Words(has_lines=has_lines)
        self._num_rows = 0
        self._started_s = self._told_s = time.monotonic()

    def start(self, num_rows: int, about: dict[str, Any]) -> None:
        """One line of what runs."""
        self._num_rows = num_rows
        self._started_s = self._told_s = time.monotonic()
        described = ", ".join(f"{name} {value}" for name, value in about.items())
        self._say(f"{counted(num_rows, 'row')}; {described}")

    def tiles(self, rows: list[RowTiles]) -> None:
        """A line for each."""
        for row in rows:
            self._say(str(row))

    def row(self, report: RowReport, tally: Tally) -> None:
        """Failures at once, counts now and then."""
        for words in self._words.of_row(report):
            self._say(words)
        self.skipped(tally)

    def skipped(self, tally: Tally) -> None:
        """Counts now and then."""
        now_s = time.monotonic()
        if now_s - self._told_s >= LINE_EVERY_S:
            self._told_s = now_s
            elapsed_s = now_s - self._started_s
            left_s = _left_s(tally, self._num_rows, elapsed_s)
            self._say(
                f"{tally.num_rows}/{self._num_rows} rows, {tally.num_all_failed} failed, {_pace(tally, elapsed_s)}"
                + (f", {_duration(left_s)} left" if left_s is not None else "")
            )

    def note(self, text: str) -> None:
        """One line."""
        self._say(text)

    def finish(self, tally: Tally, exit_code: int) -> None:
        """The closing sentence."""
        self.close()
        self._say(closing_sentence(tally, exit_code, time.monotonic() - self._started_s))

    def _say(self, text: str) -> None:
        print(f"inpaint-batch: {text}\n", file=self._stream, flush=True, end="")  # at once: threads tell, too


class BarProgress(Progress):
    """A bar on a terminal."""

    tiles_every_s = BAR_EVERY_S

    def __init__(self, *, has_lines: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._console = Console(stderr=True, highlight=False, markup=False)
        self._bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TextColumn("{task.fields[failed]}"),
            TextColumn("{task.fields[tiles]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._words = _Words(has_lines=has_lines)
        self._started_s = time.monotonic()

    def start(self, num_rows: int, about: dict[str, Any]) -> None:
        """One line of what runs, then the bar."""
        self._started_s = time.monotonic()
        self._console.print(", ".join(f"{name} {value}" for name, value in about.items()), soft_wrap=True)
        self._task = self._bar.add_task("rows", total=num_rows, pace="", failed="", tiles="")
        self._bar.start()

    def tiles(self, rows: list[RowTiles]) -> None:
        """The largest one beside the bar."""
        if self._task is not None:
            self._bar.update(self._task, tiles=str(rows[0]) if rows else "")

    def row(self, report: RowReport, tally: Tally) -> None:
        """Move the bar; failures in words above it."""
        for words in self._words.of_row(report):
            self._console.print(words, soft_wrap=True)
        self.skipped(tally)

    def skipped(self, tally: Tally) -> None:
        """Move the bar."""
        if self._task is not None:
            failed = f"{tally.num_all_failed} failed" if tally.num_all_failed else ""
            pace = _pace(tally, time.monotonic() - self._started_s)
            self._bar.update(self._task, completed=tally.num_rows, pace=pace, failed=failed)

    def note(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, soft_wrap=True)

    def finish(self, tally: Tally, exit_code: int) -> None:
        """Stop the bar; the closing sentence."""
        self.close()
        self._console.print(closing_sentence(tally, exit_code, time.monotonic() - self._started_s), soft_wrap=True)

    def close(self) -> None:
        """Stop the bar."""
        super().close()
        self._bar.stop()


def _pace(tally: Tally, elapsed_s: float) -> str:
    elapsed_s = max(elapsed_s, 1e-9)
    return f"{tally.num_done / elapsed_s:.3g} images/s, {tally.num_pixels / 1e6 / elapsed_s:.3g} megapixels/s"


def _left_s(tally: Tally, num_rows: int, elapsed_s: float) -> float | None:
    """Time for the rest at the pace of the rows that took time; None while none did."""
    worked = tally.num_done + tally.num_failed
    return elapsed_s / worked * max(0, num_rows - tally.num_rows) if worked else None


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else clock(seconds)
