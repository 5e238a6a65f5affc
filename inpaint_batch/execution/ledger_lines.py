"""One line of the ledger: how it is written, and how it is read again by the million."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from inpaint_batch.errors import FailureCode
from inpaint_batch.storage.paths import names_in

LEDGER_FOLDER, ARCHIVE_FOLDER = "ledger", "ledger-archive"
"""Within the state folder: the parts of the ledger; a folder of parts for each run with `--fresh`."""

Status = Literal["started", "dropped", "done", "failed"]

_CODES = frozenset(FailureCode)


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the ledger."""

    id: str
    """The row's id."""
    key: str
    """Identity of the work (`identity.row_key`); empty for a row that was refused before any work."""
    status: Status
    output: str = ""
    """Name of the result relative to the output folder."""
    at_s: float = msgspec.field(default=0.0, name="at")
    """When it was written, in seconds since 1970."""
    alone: bool = False
    """Of `started`: no other row was in flight with it."""
    image: str = ""
    """Absolute path or URI of the source."""
    code: str = ""
    """Failure code, empty unless failed."""
    message: str = ""
    """What happened and what to do next, empty unless failed."""
    retryable: bool | None = None
    """Whether the same row may succeed if it is simply run again; of `failed` alone, whose lines always say it."""
    num_tiles: Mapping[int, int] = msgspec.field(default_factory=dict, name="tiles")
    """Tiles by side in pixels."""
    seconds: Mapping[str, float] = msgspec.field(default_factory=dict)
    """Time by stage."""
    coverage: float | None = None
    """Part of the image that is hole, 0..1."""
    doubt: float | None = None
    """How far the fills of its passes are apart, in steps of 255 (`PreparedRow.doubt`); absent with one pass."""
    doubtful: tuple[int, int, int, int] | None = None
    """Where it is the largest: top, left, height and width in pixels as the file stores them."""
    num_pixels: int = 0
    warnings: tuple[str, ...] = ()
    why: str = ""
    """Of `started`: why it is done again (`RowTask.why`)."""
    run: str = ""
    """Id of the run (`logids.in_run`), as its log has it."""
    worker: str = ""
    """Process that did it, `node7:4711`."""
    attempt: int = 1
    """How often that run had begun it."""
    page: int = 0
    """Page of the source, counted from 1; 0 where it has only one."""

    def to_line(self) -> bytes:
        """This entry as one line of JSON; fields that say nothing are left out."""
        try:
            return _encode(self) + b"\n"
        except UnicodeEncodeError:  # a name that is not UTF-8
            text = json.dumps(msgspec.to_builtins(self, str_keys=True), ensure_ascii=False, separators=(",", ":"))
            return text.encode("utf-8", "surrogatepass") + b"\n"

    @classmethod
    def parse(cls, text: bytes) -> LedgerEntry | None:
        """A line of the file; None where it is damaged."""
        try:
            entry: LedgerEntry | None = _decode(text)
        except msgspec.ValidationError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):  # damaged, or a name that is not UTF-8
            entry = _decoded_slowly(text)
        if entry is not None and entry.status == "failed" and entry.code not in _CODES:
            return None
        return entry


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(LedgerEntry).decode


def _decoded_slowly(text: bytes) -> LedgerEntry | None:
    try:
        values: Any = json.loads(text.decode("utf-8", "surrogatepass"))
        return msgspec.convert(values, LedgerEntry, str_keys=True)
    except (ValueError, msgspec.ValidationError):
        return None


def part_name(number: int) -> str:
    """What the part of that number, from 1, is called in a ledger's folder."""
    return f"{number:06d}.jsonl"


def parts_of(folder: Path) -> list[Path]:
    """The parts in a ledger's folder, in the order in which they were begun. Raises OSError where it cannot be read."""
    numbers = [name.removesuffix(".jsonl") for name in names_in(folder) if name.endswith(".jsonl")]
    return [folder / f"{number}.jsonl" for number in sorted(filter(str.isdigit, numbers), key=int)]


def read_lines(state: Path) -> Iterator[LedgerEntry]:
    """Every sound line of the ledger of `state`, part by part, also while runs are adding to it."""
    for part in parts_of(state / LEDGER_FOLDER):
        with part.open("rb") as file:
            for text in file:
                entry = LedgerEntry.parse(text)
                if entry is not None:
                    yield entry
