"""`mask`: look for damage in every image of a folder or list, and write masks and a manifest for review."""

from __future__ import annotations

import csv
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from inpaint_batch.config import DEFAULT_MAX_IMAGE_BYTES
from inpaint_batch.errors import ManifestError, RowError, RowsFailedError, StorageError
from inpaint_batch.holes.detect import DetectConfig, detect
from inpaint_batch.imaging.colour import samples_to_rgb
from inpaint_batch.imaging.png import SIGNATURE, encode, make_chunk
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource, bands_of_rows, reading
from inpaint_batch.manifest.folder import IMAGE_SUFFIXES
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.paths import check_output_root, output_problem, safe_join
from inpaint_batch.types import BoolArray, FloatArray

MANIFEST = "manifest.csv"
CLEAN = "clean.txt"
CARRIED_COLUMNS = ("id", "truth")
"""Columns that a given manifest passes on to the one that is written, besides image and output."""

_LUMA = ((0.299, 0.587, 0.114),)
_WHITE = np.uint8(255)


class Report(Protocol):
    """Who hears what became of each image."""

    def found(self, image: str, coverage: float, shares: Mapping[str, float]) -> None:
        """Damage was found: the share of the image that the mask covers, and of each kind before growing, 0..1."""

    def clean(self, image: str) -> None:
        """Nothing was found."""

    def failed(self, image: str, error: RowError) -> None:
        """The image could not be looked at."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What came of all images."""

    num_found: int
    num_clean: int
    num_failed: int
    mean_coverage: float
    """Of the images in which something was found, 0..1."""


@dataclass(frozen=True, slots=True)
class _Item:
    image: Path
    output: str
    """Relative to the output folder, as `run` will name the result; the mask adds `.png`."""
    carried: Mapping[str, str] = field(default_factory=dict)

    @property
    def mask(self) -> str:
        return f"{self.output}.png"


def find_damage(
    images: Path,
    output: Path,
    config: DetectConfig,
    report: Report,
    *,
    fresh: bool = False,
    relist: bool = False,
    max_image_bytes: int = DEFAULT_MAX_IMAGE_BYTES,
) -> Totals:
    """Write a mask below `output` for every image of `images` in which something is found, and `manifest.csv` there.

    `images` is a folder, a CSV with an `image` column, or one image. The mask of `a/b.jpg` is `a/b.jpg.png`: white is
    hole, in the stored layout and with the orientation tag of the image. Images without damage stand in `clean.txt`.
    With `fresh` the masks of an earlier call are replaced; with `relist` nothing is looked for and the two lists are
    written anew from the masks that are there, after a person edited, added or deleted some.

    Raises ManifestError where `images` cannot be read; StorageError where `output` cannot be used, or holds masks of an
    earlier call and neither flag was given; RowsFailedError in the end where an image failed.
    """
    items = list(_items(images, output))
    check_output_root(output, [])
    if (output / MANIFEST).exists() and not (fresh or relist):
        raise StorageError(
            f"{output} holds masks already, which may have been edited; --relist makes a manifest of those that are "
            "there, --fresh finds all anew"
        )
    kept: list[_Item] = []
    clean: list[_Item] = []
    coverages: list[float] = []
    num_failed = 0
    for item in items:
        try:
            coverage = _relisted(item, output) if relist else _masked(item, output, config, report, max_image_bytes)
        except RowError as error:
            num_failed += 1
            report.failed(str(item.image), error)
            continue
        if coverage is None:
            clean.append(item)
            report.clean(str(item.image))
        else:
            kept.append(item)
            coverages.append(coverage)
    _write_lists(output, kept, clean)
    totals = Totals(len(kept), len(clean), num_failed, float(np.mean(coverages)) if coverages else 0.0)
    if num_failed:
        raise RowsFailedError(
            f"{num_failed} of {len(items)} images could not be looked at; {output / MANIFEST} has the others"
        )
    return totals


def grey_of(source: ImageSource) -> FloatArray:
    """Luma (h, w), float32 0..1, of all samples of `source`, made in bands of rows."""
    header = source.header
    grey = np.empty((header.height_px, header.width_px), np.float32)
    for box in bands_of_rows(header):
        rgb = samples_to_rgb(source.read(box), header)
        grey[box.slices] = cv2.transform(rgb, np.array(_LUMA, np.float32)).reshape(box.height, box.width)
    return grey


def _masked(item: _Item, output: Path, config: DetectConfig, report: Report, max_image_bytes: int) -> float | None:
    """Look at one image and write its mask; the coverage, or None and no mask where nothing is found."""
    mask = safe_join(output, item.mask)
    source = open_image(item.image, max_bytes=max_image_bytes)
    try:
        grey = grey_of(source)
    finally:
        source.close()
    with reading(item.image):
        found = detect(grey, config)
    if not found.hole.any():
        mask.unlink(missing_ok=True)
        return None
    _write_mask(mask, found.hole, source.header.orientation)
    shares = {kind: count / found.hole.size for kind, count in found.num_px.items()}
    report.found(str(item.image), found.coverage, shares)
    return found.coverage


def _relisted(item: _Item, output: Path) -> float | None:
    return 0.0 if safe_join(output, item.mask).is_file() else None


def _write_mask(path: Path, hole: BoolArray, orientation: int) -> None:
    chunks = [chunk for _, chunk in encode((hole.view(np.uint8) * _WHITE)[..., None])]
    if orientation != 1:  # a mask without a tag counts as drawn on the upright view
        exif = b"II*\x00" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
        chunks.insert(1, make_chunk(b"eXIf", exif))
    with atomic_write(path) as temporary:
        temporary.write_bytes(SIGNATURE + b"".join(chunks))


def _write_lists(output: Path, kept: Sequence[_Item], clean: Sequence[_Item]) -> None:
    columns = ["image", "mask", "output", *(c for c in CARRIED_COLUMNS if any(c in item.carried for item in kept))]
    with atomic_write(output / MANIFEST) as path, path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for item in kept:
            carried = [item.carried.get(column, "") for column in columns[3:]]
            rows.writerow([item.image, item.mask, item.output, *carried])
    with atomic_write(output / CLEAN) as path:
        path.write_text("".join(f"{item.image}\n" for item in clean), encoding="utf-8")


def _items(images: Path, output: Path) -> Iterator[_Item]:
    """The images in order; raises ManifestError where there are none, or their names collide."""
    if images.is_dir():
        found = list(_folder_items(images.absolute(), output.resolve()))
        if not found:
            raise ManifestError(f"no image below {images} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
    elif images.suffix.lower() in IMAGE_SUFFIXES:
        found = [_Item(images.absolute(), images.name)]
    else:
        found = list(_listed_items(images))
    seen: set[str] = set()
    for item in found:
        problem = output_problem(item.output) or ("is that of an earlier image" if item.output in seen else None)
        if problem is not None:
            raise ManifestError(f"the output {item.output!r} of {item.image} {problem}")
        seen.add(item.output)
    yield from found


def _folder_items(folder: Path, output: Path) -> Iterator[_Item]:
    def failed(error: OSError) -> None:
        raise ManifestError(f"cannot read the folder {error.filename}: {error.strerror}") from error

    for parent, folders, names in os.walk(folder, onerror=failed):
        # The masks of an earlier call are no photographs.
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and Path(parent, name).resolve() != output
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                path = Path(parent, name)
                yield _Item(path, path.relative_to(folder).as_posix())


def _listed_items(manifest: Path) -> Iterator[_Item]:
    base = manifest.absolute().parent
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, restval="", strict=True)
            if "image" not in (rows.fieldnames or ()):
                raise ManifestError(f"{manifest} must be a folder, an image, or a CSV file with a column image")
            for row in rows:
                if not row["image"].strip():
                    raise ManifestError(f"line {rows.line_num} of {manifest} names no image")
                image = Path(os.path.normpath(base / row["image"]))
                mirrored = image.relative_to(base).as_posix() if image.is_relative_to(base) else image.name
                carried = {column: row[column] for column in CARRIED_COLUMNS if row.get(column)}
                if "truth" in carried:
                    carried["truth"] = str(base / carried["truth"])
                yield _Item(image, row.get("output") or mirrored, carried)
    except OSError as error:
        raise ManifestError(f"cannot read {manifest}: {error.strerror}") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ManifestError(f"{manifest} is not a CSV file in UTF-8: {error}") from error
