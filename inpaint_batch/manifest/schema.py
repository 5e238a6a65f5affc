"""The columns of a manifest, and what a cell may say."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import ConfigError, FailureCode, ManifestError, RowError
from inpaint_batch.types import Row

REQUIRED_COLUMNS = ("image", "mask")
LOCATION_COLUMNS = ("image", "mask", "truth")
OPTION_FIELDS = {field.name.removesuffix("_px"): field for field in dataclasses.fields(RowConfig)}
"""Per-row options by the name that users write (`dilate`), with the field of RowConfig that each one sets."""
SWITCHES = frozenset(name for name, field in OPTION_FIELDS.items() if isinstance(field.default, bool))
"""Those that are either on or off."""
IGNORED_COLUMNS = ("code", "message")
"""What `failures.csv` adds to a manifest; ignored, so that it can be run as a manifest."""
REMARK = "#"
"""What the name of a column begins with that is somebody's own, such as a shelfmark; ignored, too."""
COLUMNS = ("id", "image", "mask", "output", "truth", *OPTION_FIELDS)
"""All columns that mean something, in the order in which we write them ourselves."""

_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,9}(\.0*)?")  # table programs write a column with gaps as 3.0


@dataclass(frozen=True, slots=True)
class RowProblem:
    """A row of a manifest that cannot be run. It fails; the other rows go on."""

    line: int
    """Line in the manifest where the row starts (the header is line 1), or the ordinal of the file in a folder."""
    id: str
    """Unique like the id of a good row: the `id` cell where it is a fresh one, else `line N`; in a folder the path."""
    error: RowError
    cells: Mapping[str, str]
    """What the row says, for `failures.csv`: the same keys as `to_cells` gives for a good row, locations absolute.
    Cells of a ragged row are given as far as there are columns for them."""


def check_header(names: Sequence[str], where: str, required: Sequence[str] = REQUIRED_COLUMNS) -> None:
    """Raise ManifestError where `names`, the first line of the manifest `where`, are not usable columns."""
    known = (*COLUMNS, *IGNORED_COLUMNS)
    if not set(names) & set(known):
        separator = next((sign for sign in (";", "\t", "|") if any(sign in name for name in names)), None)
        if separator is not None:
            kind = "a tab" if separator == "\t" else f"'{separator}'"
            raise ManifestError(f"{where} separates its columns by {kind}; save it with commas")
        raise ManifestError(
            f"{where} has no header: its first line must name the columns, such as {','.join(required)} "
            f"(known columns: {', '.join(COLUMNS)})"
        )
    missing = [name for name in required if name not in names]
    lacks = f"; the required column {' and '.join(missing)} is missing" if missing else ""
    for position, name in enumerate(names, start=1):
        if name in known or name.startswith(REMARK):
            continue
        if not name:
            raise ManifestError(f"column {position} of {where} has no name; name it or delete it{lacks}")
        raise ManifestError(
            f"{where} has an unknown column {name!r}; {what_to_do(name)}{lacks} (known columns: {', '.join(COLUMNS)})"
        )
    for name in names:
        if names.count(name) > 1 and not name.startswith(REMARK):
            raise ManifestError(f"{where} has the column {name!r} more than once; keep one of them")
    if missing:
        raise ManifestError(f"{where} lacks the required column {' and '.join(missing)}")


def as_column(written: str) -> str:
    """The name of a column, which may be written in any case and with space around it."""
    return written.strip().lower()


def what_to_do(unknown: str) -> str:
    """Advice about the name of a column that means nothing here."""
    nearest = difflib.get_close_matches(unknown.lower(), COLUMNS, n=1)
    if nearest:
        return f"the nearest known one is {nearest[0]!r}: correct it or delete it"
    return f"delete it, or call it '{REMARK}{unknown}' if it is your own and shall be ignored"


def row_config(row: Row, defaults: RowConfig) -> RowConfig:
    """`defaults` with the row's own options in their place; raises RowError(READ) for a value that cannot be."""
    if not row.options:
        return defaults
    changes: dict[str, str | int] = {}
    for name, text in row.options.items():
        field = OPTION_FIELDS[name]
        if name in SWITCHES:
            if text.lower() not in _YES + _NO:
                raise RowError(FailureCode.READ, f"{name} must be true or false, not {text!r}; correct the manifest")
            changes[field.name] = text.lower() in _YES
        elif isinstance(getattr(defaults, field.name), int):
            changes[field.name] = whole_number(name, text)
        else:
            changes[field.name] = text if field.metadata.get("verbatim") else text.lower()
    try:
        return dataclasses.replace(defaults, **changes)  # type: ignore[arg-type]  # RowConfig checks the values
    except ConfigError as error:
        raise RowError(FailureCode.READ, f"{error}; correct the manifest") from error


def whole_number(name: str, text: str) -> int:
    """What the cell `text` of the column `name` says; raises RowError(READ) where it is no whole number."""
    if not _WHOLE_NUMBER.fullmatch(text):
        raise RowError(FailureCode.READ, f"{name} must be a whole number, not {text!r}; correct the manifest")
    return int(float(text))


def to_cells(row: Row) -> dict[str, str]:
    """`row` as the cells of a manifest, by column name, empty ones left out; a CSV of them reads as the same row."""
    cells = {"id": row.id, "image": row.image, "mask": row.mask, "output": row.output, "truth": row.truth or ""}
    return {name: text for name, text in {**cells, **row.options}.items() if text}
