"""Which images `mask` looks at, and what their masks are called."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inpaint_batch.errors import ManifestError
from inpaint_batch.storage.objects import ObjectError, read_bytes
from inpaint_batch.storage.paths import output_problem
from inpaint_batch.storage.uris import is_uri, uri_problem
from inpaint_batch.types import IMAGE_SUFFIXES

CARRIED_COLUMNS = ("id", "truth", "page")
"""Columns that a given list passes on to the manifest that is written, besides image and output."""


@dataclass(frozen=True, slots=True)
class Item:
    """One image to look at."""

    image: str
    """Absolute path, or the URI of an object."""
    output: str
    """Relative to the output folder, as `run` will name the result; the mask adds `.png`."""
    carried: Mapping[str, str] = field(default_factory=dict)

    @property
    def mask(self) -> str:
        """Relative to the output folder."""
        return f"{self.output}.png"

    @property
    def page(self) -> int | None:
        """Of a TIFF of several, from 1."""
        return int(self.carried["page"]) if "page" in self.carried else None


def items_of(images: Path | str) -> list[Item]:
    """The images in order; raises ManifestError where there are none, or their names collide."""
    if isinstance(images, Path) and images.is_dir():
        found = list(_folder_items(images.absolute()))
        if not found:
            raise ManifestError(f"no image below {images} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    elif os.path.splitext(images)[1].lower() in IMAGE_SUFFIXES:  # noqa: PTH122  (of a URI, perhaps)
        whole = str(images.absolute()) if isinstance(images, Path) else images
        found = [Item(whole, os.path.basename(whole))]  # noqa: PTH119
    else:
        found = list(_listed_items(images))
    seen: set[str] = set()
    for item in found:
        problem = output_problem(item.output) or ("is that of an earlier image" if item.output in seen else None)
        if problem is not None:
            raise ManifestError(f"the output {item.output!r} of {item.image} {problem}")
        seen.add(item.output)
    return found


def _folder_items(folder: Path) -> Iterator[Item]:
    def failed(error: OSError) -> None:
        raise ManifestError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                path = Path(parent, name)
                yield Item(str(path), path.relative_to(folder).as_posix())


def _listed_items(listed: Path | str) -> Iterator[Item]:
    try:
        text = (read_bytes(listed) if isinstance(listed, str) else listed.read_bytes()).decode("utf-8-sig")
        rows = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        if "image" not in (rows.fieldnames or ()):
            raise ManifestError(f"{listed} must be a folder, an image, or a CSV file with a column image")
        for row in rows:
            yield _listed_item(row, listed, f"line {rows.line_num} of {listed}")
    except ObjectError as error:
        raise ManifestError(f"cannot read {listed}: {error}") from error
    except OSError as error:
        raise ManifestError(f"cannot read {listed}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{listed} is not a CSV file in UTF-8: {error}") from error


def _listed_item(row: Mapping[str, str], listed: Path | str, where: str) -> Item:
    cell = row["image"].strip()
    if not cell:
        raise ManifestError(f"{where} names no image")
    carried = {column: row[column] for column in CARRIED_COLUMNS if row.get(column)}
    page = carried.get("page", "1")
    if not page.isdecimal() or int(page) < 1:
        raise ManifestError(f"page must count from 1, not {page!r}, in {where}")
    if "truth" in carried:
        carried["truth"] = _located(carried["truth"], listed)[0]
    image, mirrored = _located(cell, listed)
    if is_uri(image) and (problem := uri_problem(image)) is not None:
        raise ManifestError(f"the image in {where} {problem}")
    if "page" in carried and not row.get("output"):  # pages of one file need masks of their own
        stem, suffix = os.path.splitext(mirrored)  # noqa: PTH122
        mirrored = f"{stem}-{int(page)}{suffix}"
    return Item(image, row.get("output") or mirrored, carried)


def _located(cell: str, listed: Path | str) -> tuple[str, str]:
    """Where the file is that a cell names, and its name in a mirrored tree."""
    if is_uri(cell):
        return cell, cell.rsplit("/", 1)[-1]
    if isinstance(listed, str):
        scheme, _, rest = listed.partition("://")
        bucket, _, key = rest.partition("/")
        folder = posixpath.dirname(f"/{key}")
        path = posixpath.normpath(posixpath.join(folder, cell))
        below = posixpath.relpath(path, folder)
        return f"{scheme}://{bucket}{path}", posixpath.basename(path) if below.startswith("..") else below
    base = listed.absolute().parent
    file = Path(os.path.normpath(base / cell))
    return str(file), file.relative_to(base).as_posix() if file.is_relative_to(base) else file.name
