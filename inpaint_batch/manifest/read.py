"""Rows from a manifest, one after the other, each complaint with its line."""

from __future__ import annotations

import csv
import os
import posixpath
import re
from collections.abc import Generator
from pathlib import Path

from inpaint_batch.config import MASK_ENTRY, MASK_IN_IMAGE, Shard
from inpaint_batch.errors import FailureCode, ManifestError, RowError, UsageError
from inpaint_batch.manifest.folder import read_folder, read_image
from inpaint_batch.manifest.records import Record, json_records, parquet_records
from inpaint_batch.manifest.schema import COLUMNS, OPTION_FIELDS, REQUIRED_COLUMNS, RowProblem, check_header
from inpaint_batch.manifest.seen import Seen
from inpaint_batch.manifest.sources import STDIN, Source
from inpaint_batch.storage.paths import output_problem
from inpaint_batch.storage.uris import is_uri, redacted, uri_problem
from inpaint_batch.types import IMAGE_SUFFIXES, Row

LOCATION_COLUMNS = ("image", "mask", "truth")
_WINDOWS = os.name == "nt"
_DRIVE = re.compile(r"[A-Za-z]://")


def read_manifest(path: Path | str, *, masks: Path | None = None) -> Generator[Row | RowProblem]:
    """The rows of the manifest `path`, streaming: a file, `-` (standard input), or images with `masks`: a folder of
    them, or one.

    Text is the URI of a manifest in a store; what is relative in it counts from there.

    A file is CSV, `.tsv`, `.jsonl` or `.ndjson`, each also with `.gz` or `.zst`, or `.parquet`. Text is UTF-8; tables
    have a header. Image, mask and truth are relative to the folder of the manifest and come out absolute. `output`
    defaults to the image path below that folder (the tree is mirrored), or to its file name where the image lies
    elsewhere; `id` defaults to `output`. A row that cannot be run comes out as a RowProblem, and the next one follows.

    Raises at once ManifestError where the file cannot be read or its columns are wrong, MissingDependencyError for
    Parquet without pyarrow or zstd without its reader, and UsageError where `masks` does not go with `path`. Raises
    ManifestError later, while rows are taken, where the text ceases to be UTF-8 or a quote swallows the rows after it,
    because nothing from there on can be trusted.
    """
    if isinstance(path, str):
        if masks is not None:
            raise UsageError("--masks goes with a folder of images on a disk; a manifest names the mask of each row")
        return _rows_of(Source.of(path))
    if path.is_dir():
        if masks is None:
            raise UsageError(f"{path} is a folder; say with --masks where its masks are")
        return read_folder(path, masks)
    if _is_image(path):
        if masks is None:
            raise UsageError(f"{path} is an image; say with --masks where its mask is")
        return read_image(path, masks)
    if masks is not None:
        raise UsageError("--masks goes with an image or a folder of images; a manifest names the mask of each row")
    if path != STDIN and path.exists() and not path.is_file():
        raise ManifestError(f"{path} is a pipe or a device, and a manifest is read twice; save it as a file first")
    return _rows_of(Source.of(path))


def count_rows(path: Path | str, *, masks: Path | None = None, part: Shard | None = None) -> int:
    """How many rows, problems among them, `read_manifest` gives, of that part if there is one. Raises what it raises.

    Without a part a table is only counted, in an eighth of the time.
    """
    rows = read_manifest(path, masks=masks)
    if part is not None:
        return sum(1 for row in rows if part.has(row.id))
    if _is_of_images(path):
        return sum(1 for _ in rows)
    return sum(1 for _ in _records(Source.of(path))) - 1  # the header


def manifest_digest(path: Path | str) -> str:
    """Changes with every byte of the manifest and with the folder that its paths count from; empty for images.

    Raises ManifestError where it cannot be read.
    """
    if _is_of_images(path):
        return ""
    return Source.of(path).digest()


def _is_of_images(path: Path | str) -> bool:
    """Whether rows come of images themselves, a folder of them or one, and not of a table."""
    return isinstance(path, Path) and (path.is_dir() or _is_image(path))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def _rows_of(source: Source) -> Generator[Row | RowProblem]:
    path = source.path
    records = _records(source)
    _, names = next(records, (0, []))
    records.close()
    if isinstance(names, RowError):
        raise ManifestError(f"the header of {path} is not CSV: {names.message}")
    if not names:
        raise ManifestError(f"{path} is empty; its first line must name the columns, such as image,mask")
    check_header(names, str(path))
    return _rows(source, names)


def _rows(source: Source, names: list[str]) -> Generator[Row | RowProblem]:
    reader = _RowReader(source.base, names)
    records = _records(source)
    next(records)
    for line, cells in records:
        yield reader.read(line, cells)


def _records(source: Source) -> Generator[Record]:
    """The records of a file, the names of its columns first."""
    match source.format:
        case "jsonl":
            return json_records(source)
        case "parquet":
            return parquet_records(source)
        case _:
            return _table_records(source)


def _table_records(source: Source) -> Generator[Record]:
    """(line where it starts, cells) of every record of a CSV file, empty lines left out; the header comes stripped."""
    with source.open_text() as file:
        # strict: without it an unclosed quote swallows the rest of the file without a word
        reader = csv.reader(file, delimiter="\t" if source.format == "tsv" else ",", strict=True)
        line, is_header = 1, True
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num > line or "end of data" in str(error):
                    raise ManifestError(
                        f"a quote that opens in line {line} of {source.path} is never closed, or not where it should "
                        'be; correct that line (a quote inside a cell is written twice: "")'
                    ) from error
                # Only this line is lost: the reader starts afresh with the next one.
                yield line, RowError(FailureCode.READ, f"the line is not CSV ({error}); correct its quotes")
            else:
                if cells:
                    yield line, [cell.strip() for cell in cells] if is_header else cells
                    is_header = False
            line = reader.line_num + 1


class _RowReader:
    """Makes rows of cells; remembers ids and outputs. The good row is the short way: there are millions of them."""

    def __init__(self, base: str, names: list[str]) -> None:
        """`base` ends with a slash, so that a relative cell is resolved by putting the two together."""
        self._names = names
        self._base = base
        self._in_store = is_uri(base)
        at = {name: names.index(name) for name in COLUMNS if name in names}
        self._image, self._mask = at["image"], at["mask"]
        # Absent columns are looked up in the empty cell that `_row` puts behind the others.
        self._truth, self._output, self._id = (at.get(name, len(names)) for name in ("truth", "output", "id"))
        self._options = [(name, at[name]) for name in OPTION_FIELDS if name in at]
        self._ids = Seen()
        self._outputs = Seen()

    def read(self, line: int, cells: list[str] | RowError) -> Row | RowProblem:
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
            raise RowError(
                FailureCode.READ,
                f"the row has {len(cells)} cells, the header {len(self._names)}; "
                "a path that contains a comma must stand in double quotes",
            )
        cells = [*cells, ""]
        image, mask, truth, output, name = (
            cells[self._image], cells[self._mask], cells[self._truth], cells[self._output], cells[self._id],
        )  # fmt: skip
        options = {option: text for option, at in self._options if (text := cells[at].strip())} if self._options else {}
        if "#" in mask and (entry := MASK_ENTRY.fullmatch(mask)):
            mask, options = entry[1], {**options, "mask_image": entry[2]}
        together = f"{image}\n{mask}\n{truth}"
        if "\0" in together or "://" in together or not image.strip() or not mask.strip():
            _check_locations(image, mask, truth)
        is_named = bool(output)
        output = output.removeprefix("./") if output else self._mirrored(image)
        if (problem := output_problem(output)) is not None:
            origin = "" if is_named else " (the image's own path, mirrored)"
            raise RowError(FailureCode.WRITE, f"output '{output}'{origin} {problem}")
        if not self._outputs.add(output):
            raise RowError(
                FailureCode.WRITE, f"output {output!r} is already that of an earlier row; give each row its own output"
            )
        if MASK_IN_IMAGE.fullmatch(mask):
            mask, options = image, {**options, "mask_from": mask}
        name = name or output
        if self._id < len(self._names) and not self._ids.add(name):
            raise RowError(FailureCode.READ, f"id {name!r} is already that of an earlier row; give each row its own id")
        return Row(
            name,
            line,
            self._resolved(image),
            self._resolved(mask),
            output,
            self._resolved(truth) if truth and truth.strip() else None,
            options,
        )

    def _resolved(self, cell: str) -> str:
        if cell.startswith("/") or is_uri(cell) or (_WINDOWS and os.path.isabs(cell)):  # noqa: PTH117
            return cell
        return self._base + cell if not self._in_store else _key_below(self._base, cell)

    def _mirrored(self, image: str) -> str:
        """The output of an image whose row names none."""
        if image.startswith("/") or "./" in image or "//" in image:  # anything but a plain relative path
            image = self._resolved(image)
            image = image if is_uri(image) else os.path.normpath(image)
            if not image.startswith(self._base):
                return os.path.basename(image)  # noqa: PTH119
            return image[len(self._base) :].replace(os.sep, "/")
        return image

    def _known(self, cells: list[str]) -> dict[str, str]:
        """The cells of a row that could not be read, as far as they can be told, locations resolved where possible."""
        known = dict(zip(self._names, cells, strict=False))
        return {
            name: redacted(self._resolved(cell)) if name in LOCATION_COLUMNS else cell
            for name, cell in known.items()
            if cell and name in COLUMNS
        }


def _check_locations(image: str, mask: str, truth: str) -> None:
    for column, cell in (("image", image), ("mask", mask), ("truth", truth)):
        if column in REQUIRED_COLUMNS and not cell.strip():
            raise RowError(FailureCode.READ, f"the {column} cell is empty; name the file of the {column}")
        if "\0" in cell:
            raise RowError(FailureCode.READ, f"the {column} cell contains a NUL character; correct the manifest")
        if is_uri(cell) and (problem := uri_problem(cell)) is not None:
            raise RowError(FailureCode.READ, f"the {column} {redacted(cell)} {problem}")
        if _DRIVE.match(cell) and not _WINDOWS:
            raise RowError(
                FailureCode.READ, f"the {column} {cell} is on a Windows drive; write the path as it is on this machine"
            )


def _key_below(base: str, cell: str) -> str:
    """The URI that a relative cell names; `..` leads no further up than the bucket."""
    scheme, _, rest = base.partition("://")
    bucket, _, folder = rest.partition("/")
    return f"{scheme}://{bucket}{posixpath.normpath(f'/{folder}{cell}')}"
