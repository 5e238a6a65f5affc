"""Read a user's mask file into grey values. What white and black mean is decided elsewhere.

A mask is a picture (`mask_pictures`), or areas written down in text (`mask_json`, `coco`, `runs`): these are white on
black.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from inpaint_batch.imaging import coco
from inpaint_batch.imaging.file_errors import check_file_size, reading
from inpaint_batch.imaging.json_stream import PARSED_BYTES_PER_CHARACTER
from inpaint_batch.imaging.mask_json import ForImage, ManyImages, alone, canvas_of, read_json_mask
from inpaint_batch.imaging.mask_pictures import Grey, MaskPieces, open_picture
from inpaint_batch.imaging.polygons import Canvas
from inpaint_batch.imaging.runs import pair_runs

_WHAT = "mask"
_BLANK = b" \t\r\n"
_PRINTED = bytes(range(32, 127)) + _BLANK
_HEAD_BYTES = 256


class Mask(NamedTuple):
    """What a mask file says for one image."""

    grey: Grey | MaskPieces
    """(h, w), 0 black to 255 white, in the orientation of the mask's file; an array, or to be read piece by piece."""
    orientation: int
    """Its tag, 1..8; 1 for areas in text, which are taken as drawn on the upright view."""
    checksum: dict[str, Any] | None = None
    """Size (`bytes`) and `sha256` of a file that is kept for many rows, as it was when it was read; else None."""
    num_polygons: int = 0
    num_without_px: int = 0
    """Polygons in text that hold the centre of no pixel, so that they mark nothing."""


def read_mask(bring: Callable[[], Path], image: ForImage, *, shown: str, version: Callable[[], str]) -> Mask:
    """Read a mask of any kind: PNG, JPEG, TIFF, WebP, GeoJSON, COCO, run lengths; known by its content.

    `bring` gives the file, and is not called for a COCO file that an earlier row has read; `shown` names it in
    messages, `version` changes when it does. Raises `RowError`: read for a missing or damaged file, mask for text that
    cannot be understood, size, and memory.
    """
    if shown.lower().endswith((".json", ".geojson")) and (index := coco.known_index(version())) is not None:
        return _painted(index.mask(image), index)
    path = bring()
    with reading(path, _WHAT):
        match _text_kind(path, is_named_runs=shown.lower().endswith(".rle")):
            case "json":
                try:
                    return _painted(read_json_mask(path, shown, image))
                except ManyImages:
                    index = coco.index_of(version(), path, shown, max_bytes=image.max_bytes)
                    return _painted(index.mask(image), index)
            case "runs":
                alone(shown, image)
                check_file_size(path, path.stat().st_size * PARSED_BYTES_PER_CHARACTER, image.max_bytes, _WHAT)
                canvas = canvas_of(image.upright_px, shown, image)
                canvas.runs(pair_runs(path.read_bytes(), canvas.mask.size, shown))
                return _painted(canvas)
            case _:
                alone(shown, image)
                picture = open_picture(path, max_bytes=image.max_bytes)
                return Mask(picture, picture.orientation)


def _painted(canvas: Canvas, index: coco.CocoIndex | None = None) -> Mask:
    """What text has painted; `index` where it serves many images."""
    checksum = None if index is None else {"bytes": index.num_bytes, "sha256": index.sha256}
    return Mask(canvas.mask, 1, checksum, canvas.num_polygons, canvas.num_without_px)


def _text_kind(path: Path, *, is_named_runs: bool) -> Literal["json", "runs"] | None:
    """What kind of text a file begins with; None for anything else, and for what is no file.

    Any other text counts as run lengths where it has their name, so that it is told what these look like.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return None
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    if head.lstrip(_BLANK)[:1] in (b"{", b"["):
        return "json"
    is_runs = not head.strip(b"0123456789" + _BLANK) or (is_named_runs and not head.strip(_PRINTED))
    return "runs" if head and is_runs else None
