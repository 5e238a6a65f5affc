"""Masks in JSON: polygons of GeoJSON, one run-length encoding, and (by `coco`) the annotations of many images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.file_errors import check_budget
from inpaint_batch.imaging.json_stream import Member, members, understood
from inpaint_batch.imaging.polygons import Canvas, Runs
from inpaint_batch.imaging.runs import bad, coco_runs
from inpaint_batch.types import Header

LARGEST_COORDINATE = 2.0**31
MAX_UNKNOWN_KEYS = 1000
NOTHING_DRAWN = "draw one, or say --empty-mask copy where images without damage are to be copied"
"""What to do about a mask that marks nothing."""
_LISTS = frozenset({"features", "geometries", "images", "annotations"})
_GEOJSON = frozenset({"features", "geometries", "geometry", "coordinates"})
_COCO = frozenset({"images", "annotations", ""})
_KINDS = ("Feature", "FeatureCollection", "GeometryCollection", "Polygon", "MultiPolygon")


@dataclass(frozen=True, slots=True)
class ForImage:
    """The image that a mask is read for."""

    header: Header
    location: str
    """Path or URI, as the manifest says it."""
    entry: str
    """Id or file name of the image within a file of many; empty: by `location`."""
    max_bytes: int
    may_be_empty: bool = False
    """Whether a file that names the image, or is its mask, may hold no area for it at all: the mask is black then."""

    @property
    def upright_px(self) -> tuple[int, int]:
        """Height and width as a viewer shows the image: what coordinates without a size of their own refer to."""
        header = self.header
        size = (header.height_px, header.width_px)
        return size if header.orientation < 5 else size[::-1]


class ManyImages(Exception):  # noqa: N818  (not an error: it is looked up elsewhere)
    """The file holds annotations of many images."""


def read_json_mask(path: Path, shown: str, image: ForImage) -> Canvas:
    """The mask in a file of GeoJSON, or of one COCO run-length encoding.

    Raises ManyImages for a COCO file, RowError(MASK) for what cannot be understood, RowError(SIZE) where it tells
    another size than the image's, and RowError(MEMORY).
    """
    with understood(shown), closing(members(path, _LISTS, max_bytes=image.max_bytes, shown=shown)) as found:
        return _read(found, shown, image)


def _read(found: Iterator[Member], shown: str, image: ForImage) -> Canvas:
    passed: list[Member] = []  # what stands before the first key that tells what the file is
    for member in found:
        is_listed = not member.key and isinstance(member.value, dict) and member.value.get("type") in _KINDS
        if member.key in _COCO and not is_listed:
            raise ManyImages
        passed.append(member)
        if is_listed or member.key in _GEOJSON or (member.key == "type" and member.value in _KINDS):
            alone(shown, image)
            return _geojson(chain(passed, found), shown, image)
        if len(passed) > MAX_UNKNOWN_KEYS:
            break
    told = {member.key: member.value for member in passed}
    if {"size", "counts"} <= told.keys():
        alone(shown, image)
        canvas = canvas_of(told["size"], shown, image)
        canvas.runs(coco_runs(told["counts"], canvas.mask.size, shown))
        return canvas
    raise bad(shown, "is JSON, but neither GeoJSON nor COCO", "export the areas as one of these, or as a grey PNG")


def alone(shown: str, image: ForImage) -> None:
    """Raise RowError(MASK) where one image of many was asked for, and the file is a mask itself."""
    if image.entry:
        raise bad(shown, f"is no COCO file, so it has no image {image.entry[:80]!r}", "name the file alone")


def canvas_of(size: Any, shown: str, image: ForImage) -> Canvas:
    """An empty mask of `size`, which is (height, width) as a file tells it. Raises RowError(MASK, SIZE, MEMORY)."""
    if not isinstance(size, (list, tuple)) or len(size) != 2 or any(type(side) is not int or side < 1 for side in size):
        raise bad(shown, f"has the size {str(size)[:40]!r}, which is no height and width in pixels")
    height_px, width_px = size
    if (height_px, width_px) not in (image.upright_px, (image.header.height_px, image.header.width_px)):
        height, width = image.upright_px
        raise RowError(
            FailureCode.SIZE,
            f"the image is {width} × {height} px, the mask {shown} {width_px} × {height_px} px; make the mask again at "
            "the size of the image",
        )
    check_budget(Path(shown), width_px, height_px, 1, image.max_bytes, "mask")
    return Canvas(height_px, width_px)


def paint_segmentation(canvas: Canvas, segmentation: Any, shown: str) -> Runs | None:
    """Paint the polygons of one COCO annotation; its runs are handed back, to be painted with those of the others."""
    if isinstance(segmentation, dict):
        if segmentation.get("size") != list(canvas.mask.shape):
            raise bad(shown, f"has an annotation of the size {str(segmentation.get('size'))[:40]}, unlike its image")
        return coco_runs(segmentation.get("counts"), canvas.mask.size, shown)
    if not isinstance(segmentation, list) or not segmentation:
        raise bad(shown, "has an annotation without a segmentation", "export areas, not only their boxes")
    for flat in segmentation:
        numbers = _numbers(flat, 1, shown)
        if len(numbers) < 6 or len(numbers) % 2:
            raise bad(shown, f"has a polygon of {len(numbers)} numbers, but it takes pairs of x and y, three or more")
        canvas.polygon(numbers.reshape(-1, 2))
    return None


def check_pixels(canvas: Canvas, shown: str) -> None:
    """Raise RowError(MASK) where polygons were painted and none of them has a pixel: that is no image without damage.

    To be asked once all is painted.
    """
    if canvas.num_polygons and not canvas.mask.any():
        height, width = canvas.mask.shape
        raise bad(
            shown,
            f"has polygons without a pixel: they reach from {canvas.low[0]:g}, {canvas.low[1]:g} to "
            f"{canvas.high[0]:g}, {canvas.high[1]:g} in an image of {width} × {height} px",
            "coordinates count pixels from its top left corner, x to the right and y down, and what is thinner than a "
            "pixel may hold none",
        )


def _geojson(found: Iterator[Member], shown: str, image: ForImage) -> Canvas:
    canvas = canvas_of(image.upright_px, shown, image)
    bare: dict[str, Any] = {}  # a geometry that is itself the whole file
    for member in found:
        if member.key in ("", "features", "geometries"):
            _paint(canvas, member.value, shown)
        elif member.key == "geometry":
            _paint(canvas, {"type": "Feature", "geometry": member.value}, shown)
        elif member.key in ("type", "coordinates"):
            bare[member.key] = member.value
    if "coordinates" in bare:
        _paint(canvas, bare, shown)
    if not canvas.num_polygons and not image.may_be_empty:
        raise bad(shown, "holds no polygon", NOTHING_DRAWN)
    check_pixels(canvas, shown)
    return canvas


def _paint(canvas: Canvas, thing: Any, shown: str) -> None:
    """Paint a geometry, or that of a feature; a feature may have none."""
    kind = thing.get("type") if isinstance(thing, dict) else None
    match kind:
        case "Feature":
            if thing.get("geometry") is not None:
                _paint(canvas, thing["geometry"], shown)
        case "GeometryCollection" | "FeatureCollection":
            for inner in _listed(thing.get("geometries", thing.get("features")), shown):
                _paint(canvas, inner, shown)
        case "Polygon":
            _paint_polygon(canvas, thing.get("coordinates"), shown)
        case "MultiPolygon":
            for rings in _listed(thing.get("coordinates"), shown):
                _paint_polygon(canvas, rings, shown)
        case _:
            raise bad(
                shown,
                f"has a {str(kind)[:40]}, which encloses no area" if kind else "has a part that is no GeoJSON geometry",
                "only Polygon and MultiPolygon mark something",
            )


def _paint_polygon(canvas: Canvas, rings: Any, shown: str) -> None:
    points = [_numbers(ring, 2, shown)[:, :2] for ring in _listed(rings, shown)]
    if not points or any(len(ring) < 3 for ring in points):
        raise bad(shown, "has a polygon of fewer than three points")
    canvas.polygon(points[0], points[1:])


def _listed(value: Any, shown: str) -> list[Any]:
    if not isinstance(value, list):
        raise bad(shown, "has a geometry whose coordinates are no list")
    return value


def _numbers(value: Any, num_axes: int, shown: str) -> NDArray[np.float64]:
    """A list of numbers, or of points, checked."""
    try:
        found = np.array(value)
    except (ValueError, OverflowError):  # of unequal lengths
        found = np.array(None)
    if found.dtype.kind not in "iuf" or found.ndim != num_axes or (num_axes == 2 and found.shape[1] < 2):
        raise bad(shown, "has coordinates that are not pairs of numbers")
    numbers = found.astype(np.float64)
    if not (np.abs(numbers) <= LARGEST_COORDINATE).all():  # also where one is infinite
        raise bad(shown, f"has a coordinate beyond {LARGEST_COORDINATE:.0f}, which is no pixel")
    return numbers
