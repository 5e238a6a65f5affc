"""`--sidecar`: what stands beside a result."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery import Gallery, noise, run
from PIL import Image

from inpaint_batch.execution import prepared, sidecar, write
from inpaint_batch.types import STAGES


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(path.name + ".inpaint-batch.json").read_text())
    return found


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(tmp_path / "in")


def test_it_says_what_the_result_was_made_of(gallery: Gallery, tmp_path: Path) -> None:
    two_holes = np.zeros((72, 72), np.uint8)
    two_holes[10:14, 50:60] = 255
    two_holes[40:48, 20:26] = 255
    source = gallery.add("deep/a.png", dilate="0")
    mask = gallery.folder / gallery.mask("deep/a.png.mask.png", two_holes)
    output = tmp_path / "out"
    summary = run(gallery.manifest(), output, engine="onnxruntime", passes=1, sidecar=True)
    assert summary["rows"]["done"] == 1
    told = read(output / "deep" / "a.png")
    result = output / "deep" / "a.png"
    assert told["format"] == "inpaint-batch sidecar 1"
    assert told["result"] == {"name": "deep/a.png", "bytes": result.stat().st_size, "sha256": sha256(result)}
    assert (told["source"]["sha256"], told["source"]["path"]) == (sha256(source), str(source))
    assert told["mask"]["sha256"] == sha256(mask)
    assert told["engine"].startswith(("onnxruntime:int8:", "onnxruntime:fp32:"))  # by processor
    assert told["formats"] == {"source": "png", "result": "png"}
    assert told["libraries"]["numpy"] == np.__version__
    assert told["image"] == {"width_px": 72, "height_px": 72, "orientation": 1}
    assert told["hole"] == {
        "num_pixels": 40 + 48,
        "coverage": round(88 / 72**2, 9),
        "num_holes": 2,
        "boxes": [
            {"top": 10, "left": 50, "height": 4, "width": 10},
            {"top": 40, "left": 20, "height": 8, "width": 6},
        ],
    }
    assert told["tiles_by_side_px"] == summary["tiles_by_side_px"]
    assert sum(told["tiles_by_side_px"].values()) >= 1
    assert told["options"]["mask_polarity"] == "white"
    assert told["verified"].startswith("every sample outside the hole")
    assert set(told["seconds"]) == set(STAGES)


def test_a_patched_jpeg_was_verified_by_its_coefficients(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.jpg")
    gallery.add("b.jpg", jpeg="lossless")
    run(gallery.manifest(), tmp_path / "out", sidecar=True)
    assert "JPEG coefficient" in read(tmp_path / "out" / "a.jpg")["verified"]
    assert "JPEG coefficient" not in read(tmp_path / "out" / "b.png")["verified"]


def test_metadata_that_got_a_line_of_history_does_not_count_as_equal(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    gallery.add("b.png", xmp="true")
    run(gallery.manifest(), tmp_path / "out", sidecar=True)
    told = [read(tmp_path / "out" / name)["verified"] for name in ("a.png", "b.png")]
    assert told[0].endswith("the metadata, equal the source's")
    assert told[1].endswith("the metadata but for what --xmp added, equal the source's")


def test_without_the_flag_there_is_none_and_it_may_be_added_later(gallery: Gallery, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        gallery.add(name)
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    assert not list(output.glob("*.json"))
    before = {name: sha256(output / name) for name in ("a.png", "b.png")}
    assert run(gallery.manifest(), output, sidecar=True)["rows"]["done"] == 2
    assert {name: read(output / name)["result"]["sha256"] for name in before} == before
    assert (
        run(gallery.manifest(), output, sidecar=True)["rows"] | {"skipped": 2, "done": 0}
        == run(gallery.manifest(), output, sidecar=True)["rows"]
    )
    (output / f"b.png{sidecar.SUFFIX}").unlink()
    rows = run(gallery.manifest(), output, sidecar=True)["rows"]
    assert (rows["done"], rows["skipped"]) == (1, 1)


@pytest.mark.parametrize("flag", ["sidecar", "premis"])
def test_what_stands_beside_an_earlier_result_is_made_anew_without_the_flag(
    gallery: Gallery, tmp_path: Path, flag: str
) -> None:
    gallery.add("a.png")
    gallery.add("b.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output, **{flag: True})
    beside = next(output.glob("a.png.*"))
    (output / f"b.png{beside.name.removeprefix('a.png')}").unlink()
    before = sha256(output / "a.png")
    assert run(gallery.manifest(), output, row={"dilate_px": 2})["rows"]["done"] == 2
    assert sha256(output / "a.png") != before
    assert sha256(output / "a.png") in beside.read_text()
    assert before not in beside.read_text()
    assert sorted(path.name for path in output.glob("*.png*")) == ["a.png", beside.name, "b.png"]


@pytest.mark.parametrize("change", ["fresh", "id"])
def test_it_is_made_anew_too_where_the_row_is_not_known(gallery: Gallery, tmp_path: Path, change: str) -> None:
    gallery.add("a.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output, sidecar=True)
    Image.fromarray(noise(7, 72, "RGB")).save(gallery.folder / "a.png")
    if change == "id":
        gallery.rows[0]["id"] = "shelf 7"
    assert run(gallery.manifest(), output, fresh=change == "fresh")["rows"]["done"] == 1
    assert read(output / "a.png")["result"]["sha256"] == sha256(output / "a.png")


def test_a_result_never_stands_without_it(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add("a.png")

    def broken(*_: object) -> None:
        raise RuntimeError("no pen")

    monkeypatch.setattr(write, "write_beside", broken)
    output = tmp_path / "out"
    assert run(gallery.manifest(), output, sidecar=True)["rows"]["failed_by_code"] == {"write": 1}
    assert [path.name for path in output.iterdir()] == [".inpaint-batch"]


def test_a_source_that_cannot_be_read_again_is_told_as_that(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(path: Path) -> dict[str, Any]:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    gallery.add("a.png")
    monkeypatch.setattr(prepared, "checksum", lost)
    rows = run(gallery.manifest(), tmp_path / "out", sidecar=True)["rows"]
    assert rows["failed_by_code"] == {"read": 1}  # it ended the run, as if the output folder were lost
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_million_specks_do_not_make_a_million_lines(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sidecar, "MAX_BOXES", 5)
    specks = np.zeros((72, 72), np.uint8)
    specks[10:60:5, 10:60:5] = 255
    gallery.add("a.png")
    Image.fromarray(specks).save(gallery.folder / "a.png.mask.png")
    run(gallery.manifest(), tmp_path / "out", sidecar=True)
    hole = read(tmp_path / "out" / "a.png")["hole"]
    assert (hole["num_holes"], len(hole["boxes"]), hole["boxes"][4]["left"]) == (100, 5, 30)
