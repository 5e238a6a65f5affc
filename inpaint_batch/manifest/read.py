"""Rows from a manifest, one after the other, each complaint with its line."""

from __future__ import annotations

import csv
import re
from collections.abc import Generator, Iterable, Sequence
from itertools import chain
from pathlib import Path

from inpaint_batch.config import MASK_IN_IMAGE, Shard
from inpaint_batch.errors import FailureCode, ManifestError, RowError, UsageError
from inpaint_batch.manifest.folder import read_folder, read_image
from inpaint_batch.manifest.records import Record, json_records, parquet_records
from inpaint_batch.manifest.row_reader import ExampleReader, ImageReader, RowReader
from inpaint_batch.manifest.schema import REQUIRED_COLUMNS, RowProblem, as_column, check_header
from inpaint_batch.manifest.sources import STDIN, Source
from inpaint_batch.types import NAMED_SUFFIXES, Row

_DECLARED = re.compile(r'"?sep=([,;|\t])"?\s*', re.IGNORECASE)
"""A line before the header that tells Excel what parts the cells."""


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
    if masks is not None and MASK_IN_IMAGE.fullmatch(masks.name) and not masks.exists():
        raise UsageError(
            f"--masks {masks} is no file; what is drawn in the images themselves is named in a manifest, in the column "
            f"mask: image,mask and below it photo.png,{masks.name}"
        )
    if isinstance(path, str):
        if masks is not None:
            raise UsageError("--masks goes with a folder of images on a disk; a manifest names the mask of each row")
        return _rows_of(Source.of(path))
    if path.is_dir():
        if masks is None:
            raise UsageError(f"{path} is a folder; say with --masks where its masks are{_advice(path)}")
        return read_folder(path, masks)
    if _is_image(path):
        if masks is None:
            raise UsageError(f"{path} is an image; say with --masks where its mask is{_advice(path)}")
        return read_image(path, masks)
    if masks is not None:
        if not path.exists():
            raise ManifestError(f"{path} does not exist; with --masks it is a folder of images, or one image")
        raise UsageError("--masks goes with an image or a folder of images; a manifest names the mask of each row")
    return _rows_of(_source(path))


def _advice(images: Path) -> str:
    """What may have been meant where images were named and no masks."""
    if (images / "manifest.csv").is_file():
        return f", or name its manifest, {images / 'manifest.csv'}"
    return "; `inpaint-batch mask` finds scratches and dust by itself"


def read_images(path: Path | str) -> Generator[Row | RowProblem]:
    """The rows of a list of images whose masks are yet to be found: a manifest that needs no column but `image`.

    The mask of a row is empty, whatever stands there, and so are the options that say how to read one. `output` of a
    page of a TIFF defaults to a name of its own, such as `a-2.tif`. Raises what `read_manifest` raises.
    """
    return _rows_of(_source(path), ImageReader)


def read_examples(path: Path | str) -> Generator[Row | RowProblem]:
    """The rows of a manifest that is learned from or judged by: nothing is written, so ids and outputs may come again.

    Raises what `read_manifest` raises, and UsageError for a folder or an image.
    """
    if _is_of_images(path):
        raise UsageError(f"{path} is no manifest; give a table that names images and their masks")
    return _rows_of(_source(path), ExampleReader)


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
    return path.suffix.lower() in NAMED_SUFFIXES


def _source(path: Path | str) -> Source:
    if isinstance(path, Path) and path != STDIN and path.exists() and not path.is_file():
        raise ManifestError(f"{path} is a pipe or a device, and a manifest is read twice; save it as a file first")
    return Source.of(path)


def _rows_of(source: Source, reader: type[RowReader] = RowReader) -> Generator[Row | RowProblem]:
    path = source.path
    records = _records(source, reader.required)
    _, names = next(records, (0, []))
    records.close()
    if isinstance(names, RowError):
        raise ManifestError(f"the header of {path} is not CSV: {names.message}")
    if not names:
        raise ManifestError(
            f"{path} is empty; its first line must name the columns, such as {','.join(reader.required)}"
        )
    check_header(names, str(path), reader.required)
    return _rows(source, reader(source.base, names))


def _rows(source: Source, reader: RowReader) -> Generator[Row | RowProblem]:
    records = _records(source, reader.required)
    next(records)
    for line, cells in records:
        yield reader.read(line, cells)


def _records(source: Source, required: Sequence[str] = REQUIRED_COLUMNS) -> Generator[Record]:
    """The records of a file, the names of its columns first."""
    match source.format:
        case "jsonl":
            return json_records(source, required)
        case "parquet":
            return parquet_records(source)
        case _:
            return _table_records(source)


def _table_records(source: Source) -> Generator[Record]:
    """(line where it starts, cells) of every record of a CSV file; the header comes stripped and in lower case.

    Empty lines are left out, and those of empty cells, which table programs put behind the last row.
    """
    with source.open_text() as file:
        blank, first = _first_lines(file)
        separator = ""
        if (declared := _DECLARED.fullmatch(first)) is not None:
            separator = declared[1]
            more, first = _first_lines(file)
            blank = [*blank, "\n", *more]
        separator = separator or _separator(source, first)
        # strict: without it an unclosed quote swallows the rest of the file without a word
        reader = csv.reader(chain(blank, (first,), file), delimiter=separator, strict=True)
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
                if any(cells):
                    yield line, [as_column(cell) for cell in cells] if is_header else cells
                    is_header = False
            line = reader.line_num + 1


def _first_lines(file: Iterable[str]) -> tuple[list[str], str]:
    """The empty lines that a text begins with, and the one behind them."""
    blank: list[str] = []
    for line in file:
        if line.strip():
            return blank, line
        blank.append(line)
    return blank, ""


def _separator(source: Source, header: str) -> str:
    """What parts the cells: table programs write `;` into a CSV where a comma is the decimal sign."""
    by_name, others = ("\t", ";,") if source.format == "tsv" else (",", ";\t")
    for sign in by_name + others:  # a column of one's own may have another sign in its name
        if "image" in (as_column(name.strip().strip('"')) for name in header.split(sign)):
            return sign
    return next((sign for sign in others if sign in header and by_name not in header), by_name)
