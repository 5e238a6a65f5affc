"""Masks as people write them down: polygons and run lengths, in runs of every kind of manifest."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gallery import Gallery, ledger_lines, noise, run, tree
from PIL import Image

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import RowsFailedError
from inpaint_batch.imaging import coco
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import RowProblem, to_cells
from inpaint_batch.pipeline.check import check_manifest
from inpaint_batch.report.findings import FindingsPrinter

BOXES = {"a": (20, 24, 12, 16), "deep/b": (5, 50, 30, 4), "c": (60, 1, 8, 70)}
"""Top, left, height, width of the hole in each picture of 72 × 72."""


def ring(box: tuple[int, int, int, int]) -> list[list[int]]:
    top, left, height, width = box
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height], [left, top]]


def runs(box: tuple[int, int, int, int]) -> list[list[int]]:
    """First pixel from 0 and length, down the columns of 72."""
    top, left, height, width = box
    return [[column * 72 + top, height] for column in range(left, left + width)]


def coco_document() -> dict[str, Any]:
    """`a` as a polygon, `deep/b` as lengths, `c` as packed lengths; and one more that no row asks for."""
    images = [
        {"id": 10 + number, "file_name": f"{name}.png", "width": 72, "height": 72} for number, name in enumerate(BOXES)
    ]
    lengths, end = [], 0
    for first, length in runs(BOXES["deep/b"]):
        lengths += [first - end, length]
        end = first + length
    segmentations = [
        [[value for point in ring(BOXES["a"])[:4] for value in point]],
        {"size": [72, 72], "counts": [*lengths, 72 * 72 - end]},
        [[float(value) for point in ring(BOXES["c"]) for value in point]],
    ]
    annotations = [
        {"id": number, "image_id": 10 + number, "category_id": 1, "segmentation": segmentation}
        for number, segmentation in enumerate(segmentations)
    ]
    return {"images": [*images, {"id": 99, "file_name": "other.png"}], "annotations": annotations}


def texts() -> dict[str, dict[str, str]]:
    """The mask of every picture in every notation, by its suffix."""
    made: dict[str, dict[str, str]] = {".geojson": {}, ".rle": {}}
    for name, box in BOXES.items():
        made[".geojson"][name] = json.dumps({"type": "Polygon", "coordinates": [ring(box)]})
        made[".rle"][name] = " ".join(f"{first + 1} {length}" for first, length in runs(box))
    return made


@pytest.fixture
def pictures(gallery: Gallery) -> Gallery:
    """The pictures with masks as PNG, GeoJSON, run lengths and COCO."""
    for number, (name, (top, left, height, width)) in enumerate(BOXES.items()):
        path = gallery.folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(number, 72, "RGB")).save(path)
        drawn = np.zeros((72, 72), np.uint8)
        drawn[top : top + height, left : left + width] = 255
        gallery.mask(f"masks/{name}.png", drawn)
        for suffix, made in texts().items():
            (gallery.folder / f"masks/{name}{suffix}").write_text(made[name])
    (gallery.folder / "all.json").write_text(json.dumps(coco_document()))
    return gallery


@pytest.fixture
def expected(pictures: Gallery, tmp_path: Path) -> dict[str, str]:
    """What pictures as masks give."""
    for name in BOXES:
        pictures.add_row(f"{name}.png", f"masks/{name}.png")
    assert run(pictures.manifest(), tmp_path / "expected")["rows"]["done"] == 3
    pictures.rows.clear()
    return tree(tmp_path / "expected")


def with_masks(gallery: Gallery, kind: str) -> Gallery:
    for number, name in enumerate(BOXES):
        masks = {
            "geojson": f"masks/{name}.geojson",
            "rle": f"masks/{name}.rle",
            "coco": "all.json",
            "coco by id": f"all.json#{10 + number}",
            "coco by name": f"all.json#{name}.png",
        }
        gallery.add_row(f"{name}.png", masks[kind])
    return gallery


@pytest.mark.parametrize("kind", ["geojson", "rle", "coco", "coco by id", "coco by name"])
def test_every_notation_gives_the_same_results(
    pictures: Gallery, expected: dict[str, str], tmp_path: Path, kind: str
) -> None:
    manifest = with_masks(pictures, kind).manifest()
    output = tmp_path / "out"
    assert run(manifest, output)["rows"]["done"] == 3
    assert tree(output) == expected
    assert run(manifest, output)["rows"]["skipped"] == 3
    config = RunConfig(output=output, engine="identity")
    totals = check_manifest(config, manifest, masks=None, with_output=True, report=FindingsPrinter("text"))
    assert (totals.num_rows, totals.num_bad, totals.num_warnings) == (3, 0, 0)


def test_every_kind_of_manifest(pictures: Gallery, expected: dict[str, str], tmp_path: Path) -> None:
    rows = with_masks(pictures, "coco by id").rows
    lines = pictures.folder / "rows.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = pictures.folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    tabs = pictures.folder / "rows.tsv"
    tabs.write_text("\n".join(["image\tmask", *(f"{row['image']}\t{row['mask']}" for row in rows)]))
    for manifest in (lines, table, tabs):
        assert run(manifest, tmp_path / manifest.name)["rows"]["done"] == 3
        assert tree(tmp_path / manifest.name) == expected


def test_a_folder_of_masks_in_text_and_one_file_for_a_folder(
    pictures: Gallery, expected: dict[str, str], tmp_path: Path
) -> None:
    masks, images = pictures.folder / "masks", tmp_path / "images"
    for name in BOXES:
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (pictures.folder / f"{name}.png").rename(images / f"{name}.png")
    one = run(images, tmp_path / "one", masks=pictures.folder / "all.json")
    assert one["rows"]["done"] == 3
    assert tree(tmp_path / "one") == expected
    for path in masks.rglob("*.png"):
        path.unlink()
    both = run(images, tmp_path / "both", masks=masks)
    assert both["rows"]["failed_by_code"] == {"mask": 3}  # a.geojson and a.rle: which one?
    for path in masks.rglob("*.rle"):
        path.unlink()
    assert run(images, tmp_path / "folder", masks=masks)["rows"]["done"] == 3
    assert tree(tmp_path / "folder") == expected


def test_the_other_mask_options_hold_too(pictures: Gallery, tmp_path: Path) -> None:
    pictures.add_row("a.png", "masks/a.png", output="picture.png", dilate="3")
    pictures.add_row("a.png", "masks/a.geojson", output="text.png", dilate="3")
    pictures.add_row("a.png", "all.json#10", output="coco.png", dilate="3", mask_polarity="White")
    pictures.rows = [{**row, "id": row["output"]} for row in pictures.rows]
    run(pictures.manifest(), tmp_path / "out")
    assert len(set(tree(tmp_path / "out").values())) == 1
    assert len(tree(tmp_path / "out")) == 3


def test_a_row_is_warned_of_polygons_that_hold_no_pixel(pictures: Gallery, tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"].append({"image_id": 10, "segmentation": [[1.6, 1, 1.9, 1, 1.9, 50]]})
    (pictures.folder / "all.json").write_text(json.dumps(document))
    manifest = with_masks(pictures, "coco").manifest()
    run(manifest, tmp_path / "out")
    (line,) = [each for each in ledger_lines(tmp_path / "out") if each.get("warnings")]
    assert line["output"] == "a.png"
    assert "1 of 2 polygons of the mask hold no pixel" in line["warnings"][0]
    config = RunConfig(output=tmp_path / "out", engine="identity")
    totals = check_manifest(config, manifest, masks=None, with_output=True, report=FindingsPrinter("text"))
    assert totals.num_warnings == 1


def test_failures_can_be_run_again_and_say_which_image(pictures: Gallery, tmp_path: Path) -> None:
    pictures.add_row("a.png", "all.json#77")
    pictures.add_row("c.png", "all.json#12")
    output = tmp_path / "out"
    assert run(pictures.manifest(), output)["rows"]["failed_by_code"] == {"mask": 1}
    with (output / ".inpaint-batch" / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert failure["mask"].endswith("all.json")
    assert failure["mask_image"] == "77"
    assert "'77'" in failure["message"]
    document = coco_document()
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = 77
    (pictures.folder / "all.json").write_text(json.dumps(document))
    again = run(output / ".inpaint-batch" / "failures.csv", output, retry_failed=True)
    assert again["rows"]["done"] == 1


def test_the_cell_is_split_only_where_it_names_json(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "image,mask,mask_image\n"
        "a.png,m/all.JSON#Box 1/A#2.png,\nb.png,odd#name.png,\nc.png,x.json#,\nd.png,x.json,Box/D.png\ne.png,alpha,3\n"
    )
    found = list(read_manifest(manifest))
    assert not any(isinstance(row, RowProblem) for row in found)
    cells = [to_cells(row) for row in found]  # type: ignore[arg-type]
    assert [(cell["mask"], cell.get("mask_image")) for cell in cells] == [
        (f"{tmp_path}/m/all.JSON", "Box 1/A#2.png"),
        (f"{tmp_path}/odd#name.png", None),
        (f"{tmp_path}/x.json#", None),
        (f"{tmp_path}/x.json", "Box/D.png"),
        (f"{tmp_path}/e.png", "3"),
    ]
    config = RunConfig(output=tmp_path / "out", engine="identity")
    with pytest.raises(RowsFailedError):
        check_manifest(config, manifest, masks=None, with_output=False, report=FindingsPrinter("json"))


def test_a_sidecar_tells_the_checksum_of_the_annotations(pictures: Gallery, tmp_path: Path) -> None:
    coco._kept.clear()
    run(with_masks(pictures, "coco").manifest(), tmp_path / "out", sidecar=True)
    source = (pictures.folder / "all.json").read_bytes()
    for name in BOXES:
        told = json.loads((tmp_path / "out" / f"{name}.png.inpaint-batch.json").read_text())
        assert told["mask"] == {
            "path": f"{pictures.folder}/all.json",
            "bytes": len(source),
            "sha256": hashlib.sha256(source).hexdigest(),
        }
        assert told["hole"]["num_pixels"] == BOXES[name][2] * BOXES[name][3]
    coco._kept.clear()


def test_changed_annotations_are_read_anew(pictures: Gallery, tmp_path: Path) -> None:
    manifest = with_masks(pictures, "coco").manifest()
    before = run(manifest, tmp_path / "out")
    document = coco_document()
    document["annotations"] = [*document["annotations"], {"image_id": 10, "segmentation": [[0, 0, 9, 0, 9, 9]]}]
    (pictures.folder / "all.json").write_text(json.dumps(document))
    after = run(manifest, tmp_path / "out")
    assert (before["rows"]["done"], after["rows"]["done"]) == (3, 3)
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert not np.asarray(image)[1, 5].any()  # the identity engine leaves holes black
