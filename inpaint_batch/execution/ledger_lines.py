"""One line of the ledger: how it is written, and how it is read again by the million."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from inpaint_batch.errors import FailureCode

Status = Literal["started", "dropped", "done", "failed"]

_PLAIN = re.compile(
    rb'\{"id":"([^"\\]+)","key":"([0-9a-f]*)","status":"(started|dropped|done)","output":"([^"\\]*)","at":([0-9.]+)'
    rb'(,"alone":true)?(?:,"image":"([^"\\]*)")?(?!,"(?:alone|image)")(?:,[^\0]*)?\}\n'
)
"""Nearly all lines, as `LedgerEntry.to_line` writes them; telling their parts takes a fifth of the time of a parser."""
_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_CODES = frozenset(FailureCode)
_STATUS: dict[bytes, Status] = {b"started": "started", b"dropped": "dropped", b"done": "done"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One line of the ledger."""

    id: str
    """The row's id."""
    key: str
    """Identity of the work (`identity.row_key`); empty for a row that was refused before any work."""
    status: Status
    alone: bool = False
    """Of `started`: no other row was in flight with it."""
    why: str = ""
    """Of `started`: why it is done again (`RowTask.why`)."""
    image: str = ""
    """Absolute path or URI of the source."""
    output: str = ""
    """Name of the result relative to the output folder."""
    code: str = ""
    """Failure code, empty unless failed."""
    message: str = ""
    """What happened and what to do next, empty unless failed."""
    retryable: bool = False
    num_tiles: Mapping[int, int] = field(default_factory=dict)
    """Tiles by side in pixels."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time by stage."""
    coverage: float | None = None
    """Part of the image that is hole, 0..1."""
    num_pixels: int = 0
    warnings: tuple[str, ...] = ()
    run: str = ""
    """Id of the run (`logids.in_run`), as its log has it."""
    worker: str = ""
    """Process that did it, `node7:4711`."""
    attempt: int = 1
    """How often that run had begun it."""
    page: int = 0
    """Page of the source, counted from 1; 0 where it has only one."""

    def to_line(self, now_s: float) -> bytes:
        """This entry as one line of JSON with the time in it; fields that say nothing are left out."""
        values: dict[str, Any] = {"id": self.id, "key": self.key, "status": self.status, "output": self.output}
        values["at"] = round(now_s, 3)
        if self.alone:
            values["alone"] = True
        if self.image:
            values["image"] = self.image
        if self.status == "failed":
            values |= {"code": self.code, "message": self.message, "retryable": self.retryable}
        if self.num_tiles:
            values["tiles"] = {str(side): count for side, count in sorted(self.num_tiles.items())}
        if self.seconds:
            spent = {stage: round(seconds, 3) for stage, seconds in self.seconds.items()}
            values["seconds"] = {stage: seconds for stage, seconds in spent.items() if seconds}
        if self.coverage is not None:
            values["coverage"] = round(self.coverage, 6)
        if self.num_pixels:
            values["num_pixels"] = self.num_pixels
        if self.warnings:
            values["warnings"] = list(self.warnings)
        if self.why:
            values["why"] = self.why
        if self.run:
            values["run"] = self.run
        if self.worker:
            values["worker"] = self.worker
        if self.attempt > 1:
            values["attempt"] = self.attempt
        if self.page:
            values["page"] = self.page
        return _encoded(values).encode("utf-8", "surrogatepass") + b"\n"


class Line(NamedTuple):
    """What is read of a line; the rest of it is for people and their tools."""

    id: str
    key: str
    status: Status
    output: str
    image: str = ""
    alone: bool = False
    at_s: float = 0.0
    """When it was written, in seconds since 1970."""
    code: str = ""
    message: str = ""
    retryable: bool = False

    @classmethod
    def of(cls, entry: LedgerEntry) -> Line:
        """What will be read of an entry once it is written."""
        return cls(
            entry.id,
            entry.key,
            entry.status,
            entry.output,
            entry.image,
            entry.alone,
            code=entry.code,
            message=entry.message,
            retryable=entry.retryable,
        )

    @classmethod
    def parse(cls, text: bytes) -> Line | None:
        """A line of the file; None where it is damaged."""
        plain = _PLAIN.fullmatch(text)
        if plain is None:
            return _parsed(text)
        row_id, key, status, output, at, alone, image = plain.groups()
        try:
            return cls(
                row_id.decode("utf-8", "surrogatepass"),
                key.decode(),
                _STATUS[status],
                output.decode("utf-8", "surrogatepass"),
                image.decode("utf-8", "surrogatepass") if image else "",
                alone is not None,
                float(at),
            )
        except ValueError:
            return None


def _parsed(text: bytes) -> Line | None:
    try:
        values: Any = json.loads(text.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    if not isinstance(values, dict) or "id" not in values:
        return None
    status, code = values.get("status"), str(values.get("code", ""))
    if status not in ("started", "dropped", "done") and not (status == "failed" and code in _CODES):
        return None
    at = values.get("at", 0.0)
    return Line(
        str(values["id"]),
        str(values.get("key", "")),
        status,
        str(values.get("output", "")),
        str(values.get("image", "")),
        bool(values.get("alone", False)),
        float(at) if isinstance(at, int | float) else 0.0,
        code,
        str(values.get("message", "")),
        bool(values.get("retryable", False)),
    )


def parts_of(folder: Path) -> list[Path]:
    """The parts in a ledger's folder, in the order in which they were begun."""
    return sorted((path for path in folder.glob("*.jsonl") if path.stem.isdigit()), key=lambda path: int(path.stem))


def read_lines(state: Path) -> Iterator[Line]:
    """Every sound line of the ledger of `state`, part by part, also while runs are adding to it."""
    return (line for line, _ in read_texts(state))


def read_texts(state: Path) -> Iterator[tuple[Line, bytes]]:
    """The same, each with its text: JSON with all that `LedgerEntry` says."""
    for part in parts_of(state / "ledger"):
        with part.open("rb") as file:
            for text in file:
                line = Line.parse(text)
                if line is not None:
                    yield line, text
