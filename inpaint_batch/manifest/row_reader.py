"""Rows made of the cells of a manifest, each checked against what may stand there and against the rows before it."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

from inpaint_batch.config import MASK_ENTRY, MASK_IN_IMAGE
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.manifest.schema import (
    COLUMNS,
    LOCATION_COLUMNS,
    OPTION_FIELDS,
    REQUIRED_COLUMNS,
    RowProblem,
    whole_number,
)
from inpaint_batch.manifest.seen import Seen
from inpaint_batch.storage.paths import output_problem
from inpaint_batch.storage.uris import is_uri, redacted, split_uri, uri_problem
from inpaint_batch.types import Row
from inpaint_batch.words import counted

_WINDOWS = os.name == "nt"
_NEARLY_COLOUR = re.compile(r"#[0-9A-Za-z]{0,8}")
_DRIVE = re.compile(r"[A-Za-z]://")


class RowReader:
    """Makes rows of cells; remembers ids and outputs. The good row is the short way: there are millions of them."""

    required: ClassVar[Sequence[str]] = REQUIRED_COLUMNS
    """Columns that the manifest must have, and no row may leave empty."""
    writes: ClassVar[bool] = True
    """Whether each row becomes a file, so that no two may have one id or output."""

    def __init__(self, base: str, names: list[str]) -> None:
        """`base` ends with a slash, so that a relative cell is resolved by putting the two together."""
        self._names = names
        self._base = base
        self._in_store = is_uri(base)
        at = {name: names.index(name) for name in COLUMNS if name in names}
        self._image = at["image"]
        # Absent columns are looked up in the empty cell that `_row` puts behind the others.
        self._mask, self._truth, self._output, self._id = (
            at.get(name, len(names)) for name in ("mask", "truth", "output", "id")
        )
        self._options = [(name, at[name]) for name in OPTION_FIELDS if name in at]
        self._ids = Seen()
        self._outputs = Seen()

    def read(self, line: int, cells: list[str] | RowError) -> Row | RowProblem:
        """The row that starts in that line, or why there is none."""
        if isinstance(cells, RowError):
            return RowProblem(line, f"line {line}", cells, {})
        try:
            return self._row(line, cells)
        except RowError as error:
            known = self._known(cells)
            name = known.get("id", "")
            return RowProblem(line, name if name and self._ids.add(name) else f"line {line}", error, known)

    def _row(self, line: int, cells: list[str]) -> Row:
        if len(cells) != len(self._names):
            advice = (
                "a path that contains the separator must stand in double quotes"
                if len(cells) > len(self._names)
                else "write the separator also where a cell is empty"
            )
            raise RowError(
                FailureCode.READ, f"the row has {counted(len(cells), 'cell')}, the header {len(self._names)}; {advice}"
            )
        cells = [*cells, ""]
        image, mask, truth, output, name = (
            cells[self._image], cells[self._mask], cells[self._truth], cells[self._output], cells[self._id],
        )  # fmt: skip
        options = {option: text for option, at in self._options if (text := cells[at].strip())} if self._options else {}
        if "#" in mask and (entry := MASK_ENTRY.fullmatch(mask)):
            mask, options = entry[1], {**options, "mask_image": entry[2]}
        together = f"{image}\n{mask}\n{truth}"
        if "\0" in together or "://" in together or self._in_store or not image.strip() or not mask.strip():
            self._check_locations(image, mask, truth)
        is_named = bool(output)
        output = output.removeprefix("./") if output else self._mirrored(image, options)
        if (problem := output_problem(output)) is not None:
            origin = "" if is_named else " (the image's own path, mirrored)"
            raise RowError(FailureCode.WRITE, f"output '{output}'{origin} {problem}")
        if self.writes and not self._outputs.add(output):
            advice = "give each row its own output"
            if not is_named:
                advice += (
                    " in a column of that name (images outside the folder of the manifest lose their folders), or join "
                    "the masks of one image into one"
                )
            raise RowError(FailureCode.WRITE, f"output {output!r} is already that of an earlier row; {advice}")
        if MASK_IN_IMAGE.fullmatch(mask):
            mask, options = image, {**options, "mask_from": mask}
        elif mask.startswith("#") and _NEARLY_COLOUR.fullmatch(mask):
            raise RowError(
                FailureCode.READ,
                f"the mask {mask!r} is no colour: one is written #rrggbb, such as #ff00ff; put ./ before the name of a "
                "file",
            )
        name = name or output
        if self.writes and self._id < len(self._names) and not self._ids.add(name):
            raise RowError(FailureCode.READ, f"id {name!r} is already that of an earlier row; give each row its own id")
        return Row(
            name,
            line,
            self._resolved(image),
            self._resolved(mask) if mask else "",
            output,
            self._resolved(truth) if truth and truth.strip() else None,
            options,
        )

    def _check_locations(self, image: str, mask: str, truth: str) -> None:
        for column, cell in (("image", image), ("mask", mask), ("truth", truth)):
            if column in self.required and not cell.strip():
                raise RowError(FailureCode.READ, f"the {column} cell is empty; name the file of the {column}")
            if "\0" in cell:
                raise RowError(FailureCode.READ, f"the {column} cell contains a NUL character; correct the manifest")
            if not cell.strip() or (column == "mask" and _NEARLY_COLOUR.fullmatch(cell)):
                continue
            where = self._resolved(cell)
            if is_uri(where) and (problem := uri_problem(where)) is not None:
                raise RowError(FailureCode.READ, f"the {column} {_shown(where, cell)} {problem}")
            if _DRIVE.match(cell) and not _WINDOWS:
                raise RowError(
                    FailureCode.READ,
                    f"the {column} {cell} is on a Windows drive; write the path as it is on this machine",
                )

    def _resolved(self, cell: str) -> str:
        path = self._joined(cell)
        return _straight(path) if ".." in cell and not is_uri(path) and "\0" not in path else path

    def _joined(self, cell: str) -> str:
        if cell.startswith("/") or is_uri(cell) or (_WINDOWS and os.path.isabs(cell)):  # noqa: PTH117
            return cell
        return self._base + cell if not self._in_store else _key_below(self._base, cell)

    def _mirrored(self, image: str, options: Mapping[str, str]) -> str:  # noqa: ARG002  (they count in ImageReader)
        """The output of an image whose row names none."""
        if image.startswith("/") or "./" in image or "//" in image:  # anything but a plain relative path
            image = self._joined(image)
            image = image if is_uri(image) else os.path.normpath(image)
            if not image.startswith(self._base):
                return os.path.basename(image)  # noqa: PTH119
            return image[len(self._base) :].replace(os.sep, "/")
        return image

    def _known(self, cells: list[str]) -> dict[str, str]:
        """The cells of a row that could not be read, as far as they can be told, locations resolved where possible."""
        known = dict(zip(self._names, cells, strict=False))
        return {
            name: _shown(self._resolved(cell), cell) if name in LOCATION_COLUMNS and not _is_drawn(name, cell) else cell
            for name, cell in known.items()
            if cell and name in COLUMNS
        }


class ExampleReader(RowReader):
    """The same for rows to learn from or to judge by: several may be about one image, or images of one name."""

    writes = False


class ImageReader(RowReader):
    """The same for images whose masks are yet to be found: nothing that is said of a mask counts."""

    required = ("image",)

    def __init__(self, base: str, names: list[str]) -> None:
        super().__init__(base, names)
        self._mask = len(names)
        self._options = [(option, at) for option, at in self._options if not option.startswith("mask_")]

    def _mirrored(self, image: str, options: Mapping[str, str]) -> str:
        mirrored = super()._mirrored(image, options)
        page = whole_number("page", options.get("page", "0"))
        stem, suffix = os.path.splitext(mirrored)  # noqa: PTH122
        return f"{stem}-{page}{suffix}" if page else mirrored  # pages of one file need masks of their own


def _is_drawn(column: str, cell: str) -> bool:
    """Whether a cell says that the mask is in the image."""
    return column == "mask" and MASK_IN_IMAGE.fullmatch(cell) is not None


def _shown(where: str, cell: str) -> str:
    """`where`, which a cell names, without secrets; what is relative holds none."""
    return redacted(where) if is_uri(cell) else where


def _straight(path: str) -> str:
    """A path without `..`, as the ledger has it (see `storage.paths.location`) and people want to read it."""
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name) if "/../" in path else path  # noqa: PTH118


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _key_below(base: str, cell: str) -> str:
    """The URI that a relative cell names; `..` leads no further up than the bucket."""
    scheme, bucket, folder = split_uri(base)
    return f"{scheme}://{bucket}{posixpath.normpath(f'/{folder}{cell}')}"
