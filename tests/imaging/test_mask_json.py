"""Masks in JSON: GeoJSON, one run-length encoding, COCO; sound, foreign and hostile."""

from __future__ import annotations

import gc
import json
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.imaging import coco, json_stream
from inpaint_batch.imaging.mask_json import ForImage
from inpaint_batch.imaging.masks import Mask, read_mask
from inpaint_batch.types import Header

SQUARE = [[2, 1], [5, 1], [5, 4], [2, 4], [2, 1]]
INNER = [[3, 2], [4, 2], [4, 3], [3, 3], [3, 2]]
OTHER = [[7, 0], [8, 0], [8, 6], [7, 6], [7, 0]]


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    coco._kept.clear()
    yield
    coco._kept.clear()


def header(width_px: int = 8, height_px: int = 6, orientation: int = 1) -> Header:
    return Header("png", width_px, height_px, 3, "uint8", has_alpha=False, orientation=orientation)


def read(path: Path, *, entry: str = "", location: str = "/scans/box1/a.tif", **kind: Any) -> Mask:
    image = ForImage(kind.pop("header", header()), location, entry, kind.pop("max_bytes", 1 << 26))
    stamp = path.stat().st_mtime_ns
    return read_mask(lambda: path, image, shown=str(path), version=lambda: f"{path}{stamp}")


def written(tmp_path: Path, document: object, name: str = "mask.json") -> Path:
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def refused(path: Path, **options: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        read(path, **options)
    assert str(path) in caught.value.message or caught.value.code is FailureCode.MEMORY
    return caught.value


def marked(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes as (left, top, right, bottom)."""
    mask = np.zeros((6, 8), np.uint8)
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = 255
    return mask


POLYGON = {"type": "Polygon", "coordinates": [SQUARE, INNER]}
EXPECTED = marked((2, 1, 5, 4))
EXPECTED[2, 3] = 0
BOTH = np.maximum(EXPECTED, marked((7, 0, 8, 6)))
MULTI = {"type": "MultiPolygon", "coordinates": [[SQUARE, INNER], [OTHER]]}
SECOND = {"type": "Polygon", "coordinates": [[[*point, 17.5] for point in OTHER]]}  # a third coordinate says nothing

GEOJSON = {
    "polygon": (POLYGON, EXPECTED),
    "polygon, type last": (dict(reversed(POLYGON.items())), EXPECTED),
    "multipolygon": (MULTI, BOTH),
    "feature": ({"type": "Feature", "properties": {"note": "x"}, "geometry": MULTI}, BOTH),
    "feature, geometry first": ({"geometry": MULTI, "type": "Feature"}, BOTH),
    "collection": (
        {
            "type": "FeatureCollection",
            "features": [{"type": "Feature", "geometry": one} for one in (POLYGON, None, SECOND)],
        },
        BOTH,
    ),
    "collection, features first": (
        {"features": [{"type": "Feature", "geometry": MULTI, "id": 3}], "type": "FeatureCollection"},
        BOTH,
    ),
    "geometries": ({"type": "GeometryCollection", "geometries": [POLYGON, SECOND]}, BOTH),
    "bare list": ([{"type": "Feature", "geometry": one} for one in (POLYGON, None, SECOND)], BOTH),  # as QuPath writes
    "nested": (
        {
            "name": "stains",
            "type": "Feature",
            "geometry": {
                "type": "GeometryCollection",
                "geometries": [POLYGON, {"type": "Polygon", "coordinates": [OTHER]}],
            },
        },
        BOTH,
    ),
}


@pytest.mark.parametrize("kind", GEOJSON)
def test_geojson(tmp_path: Path, kind: str) -> None:
    document, expected = GEOJSON[kind]
    mask = read(written(tmp_path, document, "mask.geojson"))
    np.testing.assert_array_equal(mask.grey, expected)
    assert (mask.grey.dtype, mask.orientation, mask.checksum) == (np.uint8, 1, None)
    spaced = read(written(tmp_path, "\ufeff \n" + json.dumps(document, indent=3)))
    np.testing.assert_array_equal(spaced.grey, expected)


def test_a_collection_is_read_feature_by_feature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_CHUNK", 7)  # every value is cut in two somewhere
    for document, expected in GEOJSON.values():
        np.testing.assert_array_equal(read(written(tmp_path, document)).grey, expected)
    many = [
        {"type": "Feature", "properties": {"pad": "é" * 40}, "geometry": {"type": "Polygon", "coordinates": [SQUARE]}}
        for _ in range(500)
    ]
    path = written(tmp_path, {"type": "FeatureCollection", "features": many})
    small = 32 * 400  # room for one feature, not for five hundred
    np.testing.assert_array_equal(read(path, max_bytes=small).grey, marked((2, 1, 5, 4)))


def test_coordinates_count_on_the_upright_view(tmp_path: Path) -> None:
    path = written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})
    turned = read(path, header=header(6, 8, orientation=6))
    np.testing.assert_array_equal(turned.grey, marked((2, 1, 5, 4)))


def test_run_lengths_of_one_image(tmp_path: Path) -> None:
    expected = marked((0, 0, 1, 6), (3, 2, 4, 5))
    for counts in ([0, 6, 14, 3, 25], "06>M;"):
        np.testing.assert_array_equal(read(written(tmp_path, {"size": [6, 8], "counts": counts})).grey, expected)
    text = tmp_path / "mask.rle"
    text.write_text("1 6\n21 3\n")
    np.testing.assert_array_equal(read(text).grey, expected)
    text.write_bytes(b"\xef\xbb\xbf 21 3 1 6")
    np.testing.assert_array_equal(read(text).grey, expected)
    text.write_bytes(b"\n")  # no runs
    assert not read(text).grey.any()
    for foreign in ("1, 6, 21, 3", "ImageId,EncodedPixels\na.tif,1 6 21 3", "-1"):
        text.write_text(foreign)
        assert "write `start length start length ...`" in refused(text).message
    text.write_text("1 6 21 3")
    assert refused(text, entry="7").code is FailureCode.MASK


ANNOTATED = {
    "info": {"description": "damage"},
    "categories": [{"id": 1, "name": "scratch"}],
    "images": [
        {"id": 1, "file_name": "a.tif", "width": 8, "height": 6},
        {"id": 2, "file_name": "box1/a.tif", "width": 8, "height": 6},
        {"id": "x-3", "file_name": ".\\box2\\b.tif", "width": 8, "height": 6},
        {"id": 4, "file_name": "empty.tif", "width": 8, "height": 6},
        {"id": 5, "file_name": "twice.tif"},
        {"id": 6, "file_name": "twice.tif"},
        {"id": 7, "file_name": "small.tif", "width": 7, "height": 6},
        {"id": 8, "file_name": "boxes.tif", "width": 8, "height": 6},
        {"id": 9, "file_name": "turned.tif", "width": 6, "height": 8},
        {"id": 10, "file_name": "e\u0301.tif", "width": 8, "height": 6},
        {"id": 11, "file_name": "listed-twice.tif", "width": 8, "height": 6},
        {"id": 11, "file_name": "listed-twice.tif", "width": 8, "height": 6},
        {"id": 12, "file_name": "one.tif", "width": 8, "height": 6},
        {"id": 12, "file_name": "another.tif", "width": 8, "height": 6},
        {"id": 13, "file_name": "sizes.tif", "width": 8, "height": 6},
        {"id": 13, "file_name": "sizes.tif", "width": 6, "height": 8},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]], "iscrowd": 0},
        {"id": 2, "image_id": 2, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4], [7, 0, 8, 0, 8, 6, 7, 6]]},
        {"id": 3, "image_id": 2, "segmentation": {"size": [6, 8], "counts": [0, 6, 42]}, "iscrowd": 1},
        {"id": 4, "image_id": 2, "segmentation": {"size": [6, 8], "counts": "6:P1"}},
        {"id": 5, "image_id": "x-3", "segmentation": [[7, 0, 8, 0, 8, 6, 7, 6]]},
        {"id": 6, "image_id": 5, "segmentation": {"size": [6, 8], "counts": [0, 6, 42]}},
        {"id": 7, "image_id": 7, "segmentation": {"size": [6, 7], "counts": [0, 6, 36]}},
        {"id": 8, "image_id": 8, "bbox": [1, 1, 3, 3], "segmentation": []},
        {"id": 9, "image_id": 9, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]},
        {"id": 10, "image_id": 10, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]},
        {"id": 11, "image_id": 11, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]},
        {"id": 12, "image_id": 12, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]},
    ],
}


@pytest.mark.parametrize("order", [1, -1])
def test_coco_by_name_and_by_id(tmp_path: Path, order: int) -> None:
    path = written(tmp_path, dict(list(ANNOTATED.items())[::order]))
    first, third = marked((2, 1, 5, 4)), marked((7, 0, 8, 6))
    np.testing.assert_array_equal(read(path, location="/scans/a.tif").grey, first)
    np.testing.assert_array_equal(read(path, location="s3://scans/box9/a.tif").grey, first)
    np.testing.assert_array_equal(read(path, location="/scans/box2/b.tif").grey, third)
    np.testing.assert_array_equal(read(path, location="/scans/\u00e9.tif").grey, first)  # one character, two above
    np.testing.assert_array_equal(read(path, location="/scans/listed-twice.tif").grey, first)
    np.testing.assert_array_equal(read(path, entry="11").grey, first)
    np.testing.assert_array_equal(read(path, entry="1").grey, first)
    np.testing.assert_array_equal(read(path, entry="x-3").grey, third)
    np.testing.assert_array_equal(read(path, entry="box2/b.tif").grey, third)
    np.testing.assert_array_equal(read(path, entry="5").grey, marked((0, 0, 1, 6)))
    turned = read(path, entry="9", header=header(6, 8, orientation=6))  # drawn on the samples as they are stored
    assert turned.grey.shape == (8, 6)
    assert turned.checksum is not None
    assert turned.checksum["bytes"] == path.stat().st_size


def test_coco_runs_and_polygons_of_one_image_are_joined(tmp_path: Path) -> None:
    path = written(tmp_path, ANNOTATED)
    # "6:P1" packs 6, 10 and 32: column 1 and the first four pixels of column 2
    expected = marked((2, 1, 5, 4), (7, 0, 8, 6), (0, 0, 1, 6), (1, 0, 2, 6), (2, 0, 3, 4))
    np.testing.assert_array_equal(read(path, location="/scans/box1/a.tif").grey, expected)  # the longer name fits


def test_results_of_a_model_have_no_images(tmp_path: Path) -> None:
    path = written(tmp_path, [{"image_id": 42, "segmentation": {"size": [6, 8], "counts": [0, 6, 42]}, "score": 0.9}])
    np.testing.assert_array_equal(read(path, entry="42").grey, marked((0, 0, 1, 6)))
    assert "names no image" in refused(path).message
    assert "names no image" in refused(path, entry="43").message


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        ({"location": "/scans/other.tif"}, "whose file name is the end of", FailureCode.MASK),
        ({"location": "/scans/nota.tif"}, "whose file name is the end of", FailureCode.MASK),
        ({"entry": "99"}, "id or file name '99'", FailureCode.MASK),
        ({"location": "/scans/twice.tif"}, "2 times", FailureCode.MASK),
        ({"location": "/scans/one.tif"}, "gives the id 12 to 2 images", FailureCode.MASK),
        ({"entry": "another.tif"}, "give each image an id of its own", FailureCode.MASK),
        ({"entry": "13"}, "or to one with 2 sizes", FailureCode.MASK),
        ({"entry": "4"}, "no annotation", FailureCode.MASK),
        ({"entry": "7"}, "8 × 6 px", FailureCode.SIZE),
        ({"entry": "8"}, "without a segmentation", FailureCode.MASK),
    ],
)
def test_what_a_coco_file_does_not_say(tmp_path: Path, options: dict, words: str, code: FailureCode) -> None:
    error = refused(written(tmp_path, ANNOTATED), **options)
    assert words in error.message
    assert error.code is code


@pytest.mark.parametrize("may_be_empty", [False, True])
def test_annotations_without_a_pixel_are_no_image_without_damage(tmp_path: Path, may_be_empty: bool) -> None:
    outside, thin = [20, 20, 30, 20, 30, 30], [1.6, 1, 1.9, 1, 1.9, 5, 1.6, 5]
    nothing = {"size": [6, 8], "counts": [48]}
    image = ForImage(header(), "/scans/a.tif", "", 1 << 26, may_be_empty)
    for number, segmentation in enumerate([[outside], [thin], [thin, outside]]):
        document = annotated(segmentation)
        document["annotations"].append({"image_id": 1, "segmentation": nothing})
        path = written(tmp_path, document, f"{number}.json")
        with pytest.raises(RowError, match="polygons without a pixel: they reach from") as caught:
            read_mask(lambda path=path: path, image, shown=str(path), version=lambda path=path: str(path))
        assert caught.value.code is FailureCode.MASK
    path = written(tmp_path, annotated(nothing))  # runs say of every pixel that it is whole
    assert not read(path, location="a.tif").grey.any()


def test_polygons_without_a_pixel_are_counted(tmp_path: Path) -> None:
    inside, thin = [2, 1, 5, 1, 5, 4, 2, 4], [1.6, 1, 1.9, 1, 1.9, 5, 1.6, 5]
    mask = read(written(tmp_path, annotated([inside, thin])), location="a.tif")
    assert (mask.num_polygons, mask.num_without_px) == (2, 1)
    mask = read(written(tmp_path, MULTI))
    assert (mask.num_polygons, mask.num_without_px) == (2, 0)
    np.testing.assert_array_equal(mask.grey, BOTH)


def test_a_coco_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, ANNOTATED)
    read(path, entry="1")
    read_once = json_stream.members
    calls: list[Path] = []

    def counting(path: Path, *rest: Any, **options: Any) -> Any:
        calls.append(path)
        return read_once(path, *rest, **options)

    monkeypatch.setattr(coco, "members", counting)
    read(path, entry="x-3")
    image = ForImage(header(), "/scans/a.tif", "", 1 << 20)
    stamp = f"{path}{path.stat().st_mtime_ns}"

    def gone() -> Path:
        raise AssertionError("the file was asked for again")

    np.testing.assert_array_equal(
        read_mask(gone, image, shown=str(path), version=lambda: stamp).grey, marked((2, 1, 5, 4))
    )
    assert not calls
    monkeypatch.setattr(coco, "MAX_INDICES", 2)
    for number in range(3):
        read(written(tmp_path, ANNOTATED, f"{number}.json"), entry="1")
    read(path, entry="1")
    assert len(calls) == 4
    assert len(coco._kept) == 2


def test_a_damaged_coco_file_is_tried_once(tmp_path: Path) -> None:
    path = written(tmp_path, '{"images": [{"id": 1, "file_name": "a.tif"}], "annotations": [{"image_id": 1}, oops]}')
    first = refused(path)
    image = ForImage(header(), "/scans/a.tif", "", 1 << 20)
    stamp = f"{path}{path.stat().st_mtime_ns}"
    with pytest.raises(RowError) as again:
        read_mask(lambda: pytest.fail("read again"), image, shown=str(path), version=lambda: stamp)
    assert again.value.message == first.message


def test_damaged_coco_files_are_forgotten_like_others(tmp_path: Path) -> None:
    built: list[weakref.ref[coco.CocoIndex]] = []

    class Watched(coco.CocoIndex):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            built.append(weakref.ref(self))
            super().__init__(*arguments, **options)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(coco, "CocoIndex", Watched)
        for number in range(coco.MAX_INDICES + 3):
            text = '{"images": [{"id": 1, "file_name": "a.tif"}], "annotations": [{"image_id": 1}, oops]}'
            refused(written(tmp_path, text, f"{number}.json"))
    assert len(coco._kept) == coco.MAX_INDICES
    gc.collect()
    assert [index() for index in built] == [None] * (coco.MAX_INDICES + 3)  # what was read of them is gone, too


@pytest.mark.parametrize(
    "document",
    [
        {"images": [{"file_name": "a.tif"}], "annotations": []},
        {"annotations": [{"id": 1}], "images": []},
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[1, 2]]}, "more": {}},
        {str(number): number for number in range(100)},
    ],
)
def test_a_file_is_closed_as_soon_as_it_is_refused(
    tmp_path: Path, document: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[IO[Any]] = []
    open_file = Path.open

    def noted(self: Path, *arguments: Any, **options: Any) -> IO[Any]:
        files.append(open_file(self, *arguments, **options))
        return files[-1]

    path = written(tmp_path, document)
    monkeypatch.setattr(Path, "open", noted)
    problem = refused(path)
    assert problem.__traceback__ is not None  # it still holds what was being read
    assert files
    assert all(file.closed for file in files)


def test_a_store_that_refuses_while_a_coco_file_is_read_ends_the_run(tmp_path: Path) -> None:
    def version() -> str:
        raise StorageError("cannot read: credentials expired")

    path = written(tmp_path, ANNOTATED, "annotations")  # without a suffix: its version is asked for once it is read
    image = ForImage(header(), "/scans/a.tif", "1", 1 << 20)
    with pytest.raises(StorageError, match="credentials expired"):
        read_mask(lambda: path, image, shown="s3://bucket/annotations", version=version)


def polygon(*rings: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def annotated(segmentation: Any, **image: Any) -> dict[str, Any]:
    entry = {"id": 1, "file_name": "a.tif", "width": 8, "height": 6, **image}
    return {"images": [entry], "annotations": [{"image_id": 1, "segmentation": segmentation}]}


BIG = 1 << 40
HOSTILE: dict[str, tuple[Any, str]] = {
    "not json": ("{not json", "not sound JSON"),
    "cut off": (json.dumps(MULTI)[:-9], "not sound JSON"),
    "more behind": (json.dumps(MULTI) + "}", "more after the end"),
    "empty object": ("{}", "neither GeoJSON nor COCO"),
    "some json": ({"a": 1, "b": [2]}, "neither GeoJSON nor COCO"),
    "very many keys": ({f"k{number}": number for number in range(3000)}, "neither GeoJSON nor COCO"),
    "nan": (json.dumps(polygon([[float("nan"), 1], [2, 2], [3, 3]])), "NaN is no number"),
    "infinity": ('{"type":"Polygon","coordinates":[[[1,Infinity],[2,2],[3,3]]]}', "Infinity is no number"),
    "overflow": ('{"type":"Polygon","coordinates":[[[1,1e999],[2,2],[3,3]]]}', "beyond 2147483648"),
    "far away": (polygon([[0, 0], [1e300, 0], [0, 1]]), "beyond 2147483648"),
    "whole number without end": (polygon([[0, 0], [10**400, 0], [0, 1]]), "not pairs of numbers"),
    "digits without end": ('{"type":"Polygon","coordinates":[[[1,' + "9" * 6000 + "]]]}", "not sound JSON"),
    "text": (polygon([["0", "0"], ["4", "0"], ["0", "4"]]), "not pairs of numbers"),
    "truth": (polygon([[True, False], [True, True], [False, False]]), "not pairs of numbers"),
    "none": (polygon([[None, 1], [2, 2], [3, 3]]), "not pairs of numbers"),
    "ragged": (polygon([[1, 1], [2, 2, 2], [3, 3]]), "not pairs of numbers"),
    "one axis": (polygon([[1], [2], [3]]), "not pairs of numbers"),
    "too flat": (polygon([1, 2, 3]), "not pairs of numbers"),
    "two points": (polygon([[1, 1], [2, 2]]), "fewer than three"),
    "no ring": (polygon(), "fewer than three"),
    "coordinates no list": ({"type": "Polygon", "coordinates": 7}, "no list"),
    "coordinates missing": ({"type": "MultiPolygon", "features": [{"type": "MultiPolygon"}]}, "no list"),
    "a line": ({"type": "LineString", "coordinates": [[1, 1], [2, 2]]}, "LineString, which encloses no area"),
    "a point among others": (
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": {"type": "Point"}}]},
        "Point, which encloses",
    ),
    "no geometry": ({"type": "FeatureCollection", "features": [7]}, "no GeoJSON geometry"),
    "empty collection": ({"type": "FeatureCollection", "features": []}, "no polygon"),
    "outside": (polygon([[100, 100], [120, 100], [100, 130]]), "from 100, 100 to 120, 130 in an image of 8 × 6 px"),
    "y upward": (polygon([[0, 0], [5, 0], [5, -5], [0, -5]]), "y down"),
    "deep list": ("[" * 100_000, "nested too deep"),
    "deep object": ('{"coordinates":' * 50_000, "nested too deep"),
    "deep collection": (
        '{"type":"GeometryCollection","geometries":[' * 400 + "{}" + "]}" * 400,
        "no GeoJSON geometry|nested too deep",
    ),
    "size no size": ({"size": [6], "counts": [48]}, "no height and width"),
    "size text": ({"size": "6x8", "counts": [48]}, "no height and width"),
    "size zero": ({"size": [0, 8], "counts": []}, "no height and width"),
    "counts bad": ({"size": [6, 8], "counts": [47]}, "add up"),
    "coco image no id": ({"images": [{"file_name": "a.tif"}], "annotations": []}, "image without an id"),
    "coco image no object": ({"images": [3], "annotations": []}, "image without an id"),
    "coco annotation bare": ({"images": [], "annotations": [{}]}, "without an image_id"),
    "coco list of numbers": ("[1, 2, 3]", "without an image_id"),
    "coco surrogates": (
        '{"images": [{"id": "\\ud800", "file_name": "\\udfff"}], "annotations": [{"image_id": "\\ud800"}]}',
        "names no image",
    ),
    "coco odd polygon": (annotated([[1, 2, 3, 4, 5, 6, 7]]), "polygon of 7 numbers"),
    "coco short polygon": (annotated([[1, 2, 3, 4]]), "polygon of 4 numbers"),
    "coco flat polygon": (annotated([1, 2, 3, 4, 5, 6]), "not pairs of numbers"),
    "list of polygons and more": ([POLYGON, {"image_id": 1}], "no GeoJSON geometry"),
    "coco text polygon": (annotated([["1", "2", "3", "4", "5", "6"]]), "not pairs of numbers"),
    "coco no segmentation": (annotated(None), "without a segmentation"),
    "coco runs of another size": (annotated({"size": [8, 6], "counts": [48]}), "unlike its image"),
    "coco runs without lengths": (annotated({"size": [6, 8]}), "neither whole numbers"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    document, words = HOSTILE[name]
    with pytest.raises(RowError, match=words) as caught:
        read(written(tmp_path, document))
    assert caught.value.code is FailureCode.MASK
    assert "mask.json" in caught.value.message
    assert "; " in caught.value.message


@pytest.mark.parametrize("size", [[BIG, BIG], [100_000, 100_000]])
def test_a_bomb_is_refused_by_the_size_it_tells(tmp_path: Path, size: list[int]) -> None:
    assert refused(written(tmp_path, {"size": size, "counts": [size[0] * size[1]]})).code is FailureCode.SIZE
    huge = header(100_000, 100_000)
    path = written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})
    assert refused(path, header=huge).code is FailureCode.MEMORY


def test_a_part_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = written(tmp_path, polygon([[number % 7, number % 5] for number in range(50_000)]))
    error = refused(path, max_bytes=1 << 20)
    assert "more than 32,768 characters" in error.message
    assert read(path, max_bytes=1 << 26).grey.any()
    text = tmp_path / "mask.rle"
    text.write_text("1 1 " * 50_000)
    assert refused(text, max_bytes=1 << 20).code is FailureCode.MEMORY


def test_text_in_another_encoding_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mask.json"
    path.write_bytes(json.dumps({"type": "Polygon", "name": "Fläche"}, ensure_ascii=False).encode("latin-1"))
    assert "UTF-8" in refused(path).message


def test_a_picture_has_no_entries_and_missing_files_are_told(tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "mask.png"
    Image.fromarray(marked((0, 0, 1, 6))).save(picture)
    ((_, grey),) = read(picture).grey.pieces()
    np.testing.assert_array_equal(grey, marked((0, 0, 1, 6)))
    assert "no COCO file" in refused(picture, entry="3").message
    assert "no COCO file" in refused(written(tmp_path, POLYGON), entry="3").message
    image = ForImage(header(), "/a.tif", "", 1 << 20)
    with pytest.raises(RowError, match="does not exist") as caught:
        read_mask(lambda: tmp_path / "no.json", image, shown="no.json", version=lambda: "no")
    assert caught.value.code is FailureCode.READ


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "coordinates",
                    "features",
                    "geometry",
                    "images",
                    "annotations",
                    "image_id",
                    "id",
                    "size",
                    "counts",
                ]
            ),
            inner | st.sampled_from(["Polygon", "MultiPolygon", "Feature", "GeometryCollection"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values, st.integers(1, 9), st.integers(0, 200))
def test_any_json_is_a_mask_or_a_row_error(tmp_path: Path, document: Any, chunk: int, cut: int) -> None:
    text = json.dumps(document)
    path = tmp_path / "mask.json"
    path.write_text(text if cut > len(text) else text[:cut])
    image = ForImage(header(), "/scans/a.tif", "1", 1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK", chunk)
        try:
            mask = read_mask(lambda: path, image, shown=str(path), version=lambda: repr((document, chunk, cut)))
        except RowError:
            return
    assert mask.grey.shape == (6, 8)


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
documents = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
).filter(lambda value: isinstance(value, (dict, list)))


@given(documents, st.integers(1, 40), st.booleans())
def test_members_are_what_json_says(document: Any, chunk: int, spaced: bool) -> None:
    import tempfile

    text = json.dumps(document, indent=2 if spaced else None, ensure_ascii=spaced)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder) / "a.json"
        try:
            path.write_text(text, encoding="utf-8")
        except UnicodeEncodeError:
            return
        patch.setattr(json_stream, "_CHUNK", chunk)
        found = list(json_stream.members(path, (), max_bytes=1 << 20, shown="a"))
    if isinstance(document, dict):
        assert {member.key: member.value for member in found} == document
    else:
        assert [member.value for member in found] == document
    assert [json.loads(member.text) for member in found] == [member.value for member in found]


def test_no_room_for_what_a_coco_file_says_is_no_damage(tmp_path, monkeypatch):
    def narrow(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database = sqlite3.Connection(*arguments, **options)
        database.execute("PRAGMA max_page_count = 8")
        return database

    images = [{"id": number, "file_name": f"{number}.tif" * 40} for number in range(1000)]
    path = written(tmp_path, {"images": images, "annotations": []})
    monkeypatch.setattr(coco.sqlite3, "connect", narrow)
    error = refused(path)
    assert (error.code, error.retryable) == (FailureCode.READ, True)
    assert "set TMPDIR to a folder with more" in error.message
