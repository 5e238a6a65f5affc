"""What is told to programs: one JSON object a line."""

from __future__ import annotations

import json
import logging
import time
import traceback
from types import TracebackType
from typing import IO, Any

from inpaint_batch.errors import exit_code_of, why_it_ends
from inpaint_batch.logids import Subject, current, ids
from inpaint_batch.report.progress import Progress
from inpaint_batch.report.row_tiles import RowTiles
from inpaint_batch.report.tally import RowReport, Tally


class JsonProgress(Progress):
    """One JSON object a line: `start`, `row` (done and failed ones), `tiles` (how far a large row is, now and then),
    `note`, `log`, `end`; after an error, `error`.

    Every line has an event, the time, and the ids of run, shard, worker, row and attempt (see `logids`), null where
    one does not apply.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._started_s = time.monotonic()
        self._handler = _Forward(self)

    def __enter__(self) -> Progress:
        """From now on, what the package logs comes here as well: where lines are collected nobody sees the file."""
        logging.getLogger("inpaint_batch").addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What the run ends by is its last line."""
        self.close()
        logging.getLogger("inpaint_batch").removeHandler(self._handler)
        if error is not None:
            tell_error(error, self._stream)

    def start(self, num_rows: int, about: dict[str, Any]) -> None:
        """`{"event": "start", "rows": ..., ...}`."""
        self._started_s = time.monotonic()
        self._emit("start", rows=num_rows, **about)

    def row(self, report: RowReport, tally: Tally) -> None:
        """`{"event": "row", "row": ..., "status": ..., ...}`; what an earlier run did is only counted, in `end`."""
        del tally  # of no use here
        if report.earlier:
            return
        values: dict[str, Any] = {"line": report.line, "status": report.status}
        if report.status == "failed":
            values |= {"code": report.code, "message": report.message}
        else:
            values |= {"output": report.output, "megapixels": report.num_pixels / 1e6}
            values["tiles"] = {str(side): count for side, count in sorted(report.num_tiles.items())}
            values["seconds"] = {stage: round(seconds, 4) for stage, seconds in report.seconds.items()}
        if report.warnings:
            values["warnings"] = list(report.warnings)
        self._emit("row", Subject(report.id, report.attempt, report.worker), **values)

    def tiles(self, rows: list[RowTiles]) -> None:
        """`{"event": "tiles", "row": ..., "filled": ..., "tiles": ...}` for each."""
        for row in rows:
            self._emit("tiles", row.subject, filled=row.num_filled, tiles=row.num_tiles)

    def note(self, text: str) -> None:
        """`{"event": "note", "text": ...}`."""
        self._emit("note", text=text)

    def logged(self, record: logging.LogRecord) -> None:
        """`{"event": "log", "level": "warning", "text": ..., "traceback": ...}`, about whatever its thread works on."""
        values = {"level": record.levelname.lower(), "text": record.getMessage()}
        if record.exc_info:
            values["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        self._emit("log", current(), **values)

    def finish(self, tally: Tally, exit_code: int) -> None:
        """`{"event": "end", "exit_code": ..., counts, pace}`."""
        self.close()
        elapsed_s = time.monotonic() - self._started_s
        self._emit(
            "end",
            exit_code=exit_code,
            done=tally.num_done,
            skipped=tally.num_skipped,
            left=tally.num_left,
            failed=tally.num_all_failed,
            elapsed_s=round(elapsed_s, 3),
            images_per_s=round(tally.num_done / max(elapsed_s, 1e-9), 3),
            megapixels_per_s=round(tally.num_pixels / 1e6 / max(elapsed_s, 1e-9), 3),
        )

    def _emit(self, event: str, subject: Subject | None = None, /, **values: Any) -> None:
        _print_event(self._stream, event, subject, **values)


def tell_error(error: BaseException, stream: IO[str]) -> None:
    """`{"event": "error", "exit_code": ..., "kind": ..., "message": ...}`: what the program ends by, with all ids that
    hold just now. Told once: whoever catches it first knows the most of them.
    """
    global _told
    if error is not _told:
        _told = error
        code, kind = exit_code_of(error), type(error).__name__
        _print_event(stream, "error", exit_code=code, kind=kind, message=why_it_ends(error))


_told: BaseException | None = None


def _print_event(stream: IO[str], event: str, subject: Subject | None = None, /, **values: Any) -> None:
    line = {"event": event, "at": round(time.time(), 3), **ids(subject), **values}
    print(json.dumps(line, ensure_ascii=True) + "\n", file=stream, flush=True, end="")  # at once: threads log, too


class _Forward(logging.Handler):
    def __init__(self, progress: JsonProgress) -> None:
        super().__init__()
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.logged(record)
