"""COCO files: one for many images, so it is read once and then looked up.

What a process has read stays for a while, in a temporary database of SQLite that spills to the disk; a file of a
hundred thousand images would otherwise be parsed a hundred thousand times.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.json_stream import members, understood
from inpaint_batch.imaging.mask_json import NOTHING_DRAWN, ForImage, canvas_of, check_pixels, paint_segmentation
from inpaint_batch.imaging.polygons import Canvas
from inpaint_batch.imaging.runs import bad
from inpaint_batch.storage.paths import composed
from inpaint_batch.words import writable

MAX_INDICES = 8
"""Files that are kept; the one that was not asked for longest goes first."""
_TABLES = """
    CREATE TABLE images (id TEXT, name TEXT, height, width);
    CREATE TABLE annotations (image TEXT, text TEXT);
"""
_KEYS = """
    CREATE INDEX by_id ON images (id);
    CREATE INDEX by_name ON images (name);
    CREATE INDEX by_image ON annotations (image);
"""
_LISTS = frozenset({"images", "annotations"})


class CocoIndex:
    """What a COCO file says, by image. Thread-safe."""

    def __init__(self, path: Path, shown: str, *, max_bytes: int) -> None:
        """Read the file; `shown` names it in messages. Raises RowError(MASK) where it cannot be understood, and
        RowError(READ) where there is no room for the database.
        """
        self.shown = shown
        with path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            self.num_bytes = file.tell()
        self._lock = threading.Lock()
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        weakref.finalize(self, self._database.close)
        with _with_room(shown), closing(members(path, _LISTS, max_bytes=max_bytes, shown=shown)) as found:
            self._database.executescript("PRAGMA journal_mode = OFF; BEGIN;" + _TABLES)
            for member in found:
                if member.key == "images":
                    self._add_image(member.value)
                elif member.key in ("annotations", ""):  # a bare list of them is what models hand in as results
                    self._add_annotation(member.value, member.text)
            self._database.execute("COMMIT")
            self._database.executescript(_KEYS)

    def mask(self, image: ForImage) -> Canvas:
        """The mask of all annotations of an image, whatever their category.

        Raises RowError(MASK) where the file does not name the image, or names it twice, or has no annotation for it
        though it may not be empty, or only polygons without a pixel, RowError(SIZE) where it tells another size than
        the image's, and RowError(MEMORY).
        """
        with understood(self.shown), _with_room(self.shown):
            return self._painted(image, *self._find(image))

    def _painted(self, image: ForImage, key: str, size: tuple[int, int] | None) -> Canvas:
        canvas, runs = None, []
        for (text,) in self._rows("SELECT text FROM annotations WHERE image = ?", key):
            segmentation = json.loads(text).get("segmentation")
            if canvas is None:
                own = segmentation.get("size") if isinstance(segmentation, dict) else None
                canvas = canvas_of(size or own or image.upright_px, self.shown, image)
            if (found := paint_segmentation(canvas, segmentation, self.shown)) is not None:
                runs.append(found)
        if canvas is None:
            if image.may_be_empty:
                return canvas_of(size or image.upright_px, self.shown, image)
            raise bad(self.shown, f"has no annotation for the image {key}", NOTHING_DRAWN)
        if runs:
            canvas.runs(np.concatenate(runs))
        check_pixels(canvas, self.shown)
        return canvas

    def _add_image(self, value: Any) -> None:
        if not isinstance(value, dict) or "id" not in value:
            raise bad(self.shown, "has an image without an id")
        name = value.get("file_name")
        name = _text(name).replace("\\", "/").removeprefix("./") if isinstance(name, str) else None
        told = (value.get("height"), value.get("width"))
        sides = [side if type(side) is int and 0 < side < 1 << 31 else None for side in told]
        self._database.execute("INSERT INTO images VALUES (?, ?, ?, ?)", (_text(value["id"]), name, *sides))

    def _add_annotation(self, value: Any, text: str) -> None:
        if not isinstance(value, dict) or "image_id" not in value:
            raise bad(self.shown, "has an annotation without an image_id")
        self._database.execute("INSERT INTO annotations VALUES (?, ?)", (_text(value["image_id"]), text))

    def _find(self, image: ForImage) -> tuple[str, tuple[int, int] | None]:
        """The id of the image in this file, and its height and width if they are told."""
        if image.entry:
            found = self._rows("SELECT id, name, height, width FROM images WHERE id = ?", image.entry)
            found = found or self._rows("SELECT id, name, height, width FROM images WHERE name = ?", image.entry)
            if not found and self._rows("SELECT 1 FROM annotations WHERE image = ? LIMIT 1", image.entry):
                return image.entry, None
            wanted = f"no image with the id or file name {image.entry!r}"
        else:
            ends = _ends(image.location)
            marks = ", ".join("?" * len(ends))
            found = self._rows(f"SELECT id, name, height, width FROM images WHERE name IN ({marks})", *ends)
            longest = max((len(name) for _, name, *_ in found), default=0)
            found = [row for row in found if len(row[1]) == longest]
            wanted = f"no image whose file name is the end of {image.location}"
        advice = "say which one is meant by its id, such as masks.json#17 in the column mask"
        if not found:
            raise bad(self.shown, f"names {wanted}", advice)
        if (num_ids := len({row[0] for row in found})) > 1:
            raise bad(self.shown, f"names the image {found[0][1]} {num_ids} times, each with another id", advice)
        key, _, height_px, width_px = found[0]
        alike = self._rows("SELECT DISTINCT name, height, width FROM images WHERE id = ?", key)
        if len(alike) > 1:  # the same twice leaves no doubt
            raise bad(
                self.shown,
                f"gives the id {key} to {len(alike)} images, or to one with {len(alike)} sizes",
                "whose annotations are whose cannot be told: give each image an id of its own",
            )
        return key, (height_px, width_px) if height_px and width_px else None

    def _rows(self, query: str, *values: str) -> list[Any]:
        with self._lock:
            return self._database.execute(query, [_text(value) for value in values]).fetchall()


@contextmanager
def _with_room(shown: str) -> Iterator[None]:
    """Turn what goes wrong with the database, which says nothing about the file, into RowError(READ)."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise RowError(
            FailureCode.READ,
            f"what the mask {shown} says of its images cannot be kept in the folder for temporary files ({error}); "
            "free some room, or set TMPDIR to a folder with more",
            retryable=True,
        ) from error


_kept: OrderedDict[str, CocoIndex | RowError] = OrderedDict()
_reading = threading.Lock()


def known_index(version: str) -> CocoIndex | None:
    """The index of an earlier row, if it is still there; raises again what reading that file raised."""
    with _reading:
        return _recall(version)


def index_of(version: str, path: Path, shown: str, *, max_bytes: int) -> CocoIndex:
    """The index of a file, read now unless that was done before. `version` changes when the file does.

    A file that cannot be understood is not tried again, either: every one of its rows would take as long to fail.
    """
    with _reading:
        if (index := _recall(version)) is not None:
            return index
        while len(_kept) >= MAX_INDICES:
            _kept.popitem(last=False)
        try:
            _kept[version] = index = CocoIndex(path, shown, max_bytes=max_bytes)
        except RowError as error:
            _kept[version] = _again(error)
            raise
        return index


def _recall(version: str) -> CocoIndex | None:
    found = _kept.get(version)
    if found is None:
        return None
    _kept.move_to_end(version)
    if isinstance(found, RowError):
        raise _again(found)
    return found


def _again(error: RowError) -> RowError:
    """The same error without its traceback, which holds all that was read until then."""
    return RowError(error.code, error.message, retryable=error.retryable)


def _text(value: Any) -> str:
    """As SQLite takes it, and equal names alike. Of ids, some programs write 17, others "17"."""
    return writable(composed(str(value)))


def _ends(location: str) -> list[str]:
    """Every way in which a file name may say this location: its last part, its last two, ... and all of it."""
    parts = location.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts)) if any(parts[first:])][-100:]
