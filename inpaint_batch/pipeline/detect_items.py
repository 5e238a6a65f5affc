"""Which images `mask` looks at, and what their masks are called."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, ManifestError, RowError
from inpaint_batch.manifest.folder import check_name, check_text, image_names, pictures_in
from inpaint_batch.manifest.read import read_images
from inpaint_batch.manifest.schema import RowProblem, row_config, to_cells
from inpaint_batch.manifest.sources import STDIN
from inpaint_batch.storage.outputs import FolderOutputs
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.types import IMAGE_SUFFIXES, NAMED_SUFFIXES, Row
from inpaint_batch.words import writable


@dataclass(frozen=True, slots=True)
class Item:
    """One image to look at."""

    image: str
    """Absolute path, or the URI of an object; where it cannot be looked at, what to call it."""
    output: str
    """Relative to the output folder, as `run` will name the result; the mask adds `.png`."""
    carried: Mapping[str, str] = field(default_factory=dict)
    """What a given list says besides image and output, by column, for the manifest that is written."""
    page: int | None = None
    """Of a TIFF of several, from 1."""
    error: RowError | None = None
    """Why it cannot be looked at, where that is known already."""

    @property
    def mask(self) -> str:
        """Relative to the output folder."""
        return f"{self.output}.png"


def items_of(images: Path | str) -> list[Item]:
    """The images in order. Raises ManifestError where there are none, or the list of them cannot be read."""
    if isinstance(images, Path) and images.is_dir():
        folder = images.absolute()
        found = [
            item
            for relative, names in image_names(folder)
            for item in (
                [Item(writable(f"{folder}{os.sep}{relative}"), "", error=names)]
                if isinstance(names, RowError)
                else [_checked(f"{folder}{os.sep}{relative}{name}", f"{relative}{name}") for name in names]
            )
        ]
        if not found:
            raise ManifestError(f"no image below {images} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
        return found
    if isinstance(images, Path) and images != STDIN and _is_missing(images):
        raise ManifestError(f"{images} does not exist; name a folder of images, a list of them, or one image")
    if os.path.splitext(images)[1].lower() in NAMED_SUFFIXES:  # noqa: PTH122  (of a URI, perhaps)
        whole = str(images.absolute()) if isinstance(images, Path) else images
        return [_checked(whole, os.path.basename(whole))]  # noqa: PTH119
    return [_listed(row, images) for row in read_images(images)]


def _is_missing(path: Path) -> bool:
    """Not where it cannot be told: what reads the path then says why."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def told_apart(items: Sequence[Item], output: Path) -> list[Item]:
    """The items; where the masks of several are one file in `output`, by case or accents, all but the first are errors.

    `output` has an entry that it can be asked for by another case.
    """
    key_of = FolderOutputs(output).key
    first_of: dict[str, Item] = {}
    return [_apart(item, first_of.setdefault(key_of(item.mask), item)) for item in items]


def strays(items: Sequence[Item], output: Path) -> list[str]:
    """Pictures that a person may have meant as masks: they lie where masks do, and have the name of no item's."""
    if any(not item.output for item in items) or (output / STATE_FOLDER).exists():
        return []  # nobody knows what all masks are called; these may be results
    key_of = FolderOutputs(output).key
    masks = {key_of(item.mask) for item in items}
    folders = sorted({item.mask.rpartition("/")[0] for item in items})
    names = [str(PurePosixPath(folder, name)) for folder in folders for name in pictures_in(output / folder)]
    return [name for name in names if key_of(name) not in masks]


def _apart(item: Item, first: Item) -> Item:
    if item is first or item.error is not None or first.error is not None:
        return item
    problem = (
        f"its mask {item.mask} would be that of {first.image}, since names that differ in case alone are one file in "
        "the folder of --output; choose one on another disk, or rename the image"
    )
    return replace(item, error=RowError(FailureCode.WRITE, problem))


def _checked(image: str, output: str) -> Item:
    try:
        check_name(output)
        check_text(image)
    except RowError as error:
        return Item(writable(image), "", error=error)
    return Item(image, output)


def _listed(row: Row | RowProblem, listed: Path | str) -> Item:
    if isinstance(row, RowProblem):
        return Item(f"line {row.line} of {listed}", "", error=row.error)
    try:
        check_text(row.image)
        page = row_config(row, RowConfig()).page or None
    except RowError as error:
        return Item(f"line {row.line} of {listed}", "", error=error)
    carried = {column: text for column, text in to_cells(row).items() if column not in ("image", "output")}
    if row.id == row.output:  # as where a manifest gives none
        del carried["id"]
    return Item(row.image, row.output, carried, page)
