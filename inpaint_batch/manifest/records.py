"""Records of manifests that are not tables of text: JSON Lines and Parquet, as the cells that a CSV would have."""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Sequence
from typing import Any

from inpaint_batch.errors import FailureCode, ManifestError, MissingDependencyError, RowError
from inpaint_batch.manifest.schema import (
    COLUMNS,
    IGNORED_COLUMNS,
    REMARK,
    SWITCHES,
    as_column,
    check_header,
    what_to_do,
)
from inpaint_batch.manifest.sources import Source
from inpaint_batch.words import one_line

Record = tuple[int, list[str] | RowError]
"""(line, cells); of Parquet the ordinal of the row from 1. The first record of all holds the names of the columns."""

BATCH_ROWS = 8192


def json_records(source: Source, required: Sequence[str]) -> Generator[Record]:
    """Records of a JSON Lines file, one object a line, empty lines left out.

    Raises ManifestError where the first object is not that of a manifest, or lacks a `required` key; later ones fail
    alone.
    """
    known = frozenset((*COLUMNS, *IGNORED_COLUMNS))
    is_first = True
    with source.open_text() as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                values = _object(text)
            except RowError as error:
                if is_first:
                    raise ManifestError(f"line {line} of {source.path}: {error.message}") from error
                yield line, error
                continue
            if is_first:
                _check_first(values, f"line {line} of {source.path}", required)
                yield 0, list(COLUMNS)
                is_first = False
            yield line, _object_cells(values, known)


def parquet_records(source: Source) -> Generator[Record]:
    """Records of a Parquet file, a few thousand in memory at a time.

    Raises MissingDependencyError without pyarrow, and ManifestError where the file cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError(
            f"reading the Parquet manifest {source.path} needs pyarrow ({error}): pip install 'inpaint-batch[parquet]'"
        ) from error
    try:
        with pq.ParquetFile(source.file) as file:
            columns = [name for name in file.schema_arrow.names if not name.strip().startswith(REMARK)]
            names = [as_column(name) for name in columns]
            yield 0, names
            line = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=columns):
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    line += 1
                    yield line, _row_cells(names, values)
    except pa.ArrowException as error:
        message = f"{source.path} is not a whole Parquet file ({one_line(error)}); write it again"
        raise ManifestError(message) from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{source.path} holds text that is not UTF-8 ({error}); write it again") from error
    except OSError as error:
        raise ManifestError(f"cannot read the manifest {source.path}: {error.strerror or error}") from error


def _object(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise RowError(FailureCode.READ, f"the line is not JSON ({reason}); write one object a line") from error
    if not isinstance(values, dict):
        raise RowError(FailureCode.READ, "the line is JSON, but not an object; write one object a line")
    return values


def _check_first(values: dict[str, Any], where: str, required: Sequence[str]) -> None:
    names = [as_column(key) for key in values]
    if not set(names) & {*COLUMNS, *IGNORED_COLUMNS}:
        raise ManifestError(f"{where} has no key of a manifest (known keys: {', '.join(COLUMNS)})")
    check_header(names, where, required)


def _object_cells(values: dict[str, Any], known: frozenset[str]) -> list[str] | RowError:
    if not values.keys() <= known:
        names = [name for name in map(as_column, values) if not name.startswith(REMARK)]
        unknown = [name for name in names if name not in known]
        if unknown:
            return RowError(FailureCode.READ, f"unknown key {unknown[0]!r}; {what_to_do(unknown[0])}")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            return RowError(FailureCode.READ, f"the key {twice[0]!r} stands there more than once; keep one of them")
        values = {as_column(key): value for key, value in values.items()}
    return _row_cells(COLUMNS, [values.get(name) for name in COLUMNS])


def _row_cells(names: Sequence[str], values: Sequence[Any]) -> list[str] | RowError:
    try:
        return [_text(name, value) for name, value in zip(names, values, strict=True)]
    except RowError as error:
        return error


def _text(name: str, value: object) -> str:
    """What a CSV would have in that cell."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError as error:
                raise RowError(FailureCode.READ, f"{name} is not text ({value!r}); correct the manifest") from error
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) and name in SWITCHES:
        return "true" if value else "false"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise RowError(FailureCode.READ, f"{name} must be text or a number, not {type(value).__name__}")
