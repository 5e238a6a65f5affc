"""Images whose masks mark nothing: a failure, unless copies are asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from gallery import Gallery, ledger_lines, run, tree

NOTHING = (0, 0, 0, 0)
NAMES = ("a.png", "b.jpg", "c.tif", "d.webp")
COPY = {"empty_mask": "copy"}


@pytest.fixture
def whole(gallery: Gallery) -> Gallery:
    """Four images without damage, and one with it."""
    for name in NAMES:
        gallery.add(name, hole=NOTHING)
    gallery.add("damaged.png")
    return gallery


def test_they_fail_and_the_message_tells_of_copies(whole: Gallery, tmp_path: Path) -> None:
    summary = run(whole.manifest(), tmp_path / "out")
    assert summary["rows"]["failed_by_code"] == {"mask": 4}
    assert set(tree(tmp_path / "out")) == {"damaged.png"}
    assert "--empty-mask copy" in (tmp_path / "out" / ".inpaint-batch" / "failures.csv").read_text()


def test_copies_are_made_byte_for_byte(whole: Gallery, tmp_path: Path) -> None:
    output = tmp_path / "out"
    summary = run(whole.manifest(), output, row=COPY, sidecar=True, premis=True)
    assert (summary["exit_code"], summary["rows"]["done"], summary["rows"]["copied"]) == (0, 5, 4)
    for name in NAMES:
        assert (output / name).read_bytes() == (whole.folder / name).read_bytes()
        told = json.loads((output / f"{name}.inpaint-batch.json").read_text())
        assert told["result"]["sha256"] == told["source"]["sha256"]
        assert (told["hole"]["num_pixels"], told["tiles_by_side_px"]) == (0, {})
        event = (output / f"{name}.premis.xml").read_text()
        assert "eventType/rep" in event
        assert "engine and model" not in event
    assert "eventType/mod" in (output / "damaged.png.premis.xml").read_text()
    assert (output / "damaged.png").read_bytes() != (whole.folder / "damaged.png").read_bytes()
    again = run(whole.manifest(), output, sidecar=True, premis=True)  # there is a result, whatever is asked for now
    assert (again["exit_code"], again["rows"]["skipped"]) == (0, 5)


def test_what_failed_is_copied_when_it_is_tried_again(whole: Gallery, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(whole.manifest(), output)
    assert run(whole.manifest(), output, row=COPY)["exit_code"] == 8  # failed before
    summary = run(whole.manifest(), output, row=COPY, retry_failed=True)
    assert (summary["exit_code"], summary["rows"]["copied"], summary["rows"]["skipped"]) == (0, 4, 1)
    assert sum(line["status"] == "done" for line in ledger_lines(output)) == 5


def test_a_row_may_say_it_for_itself(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("copied.png", hole=NOTHING, empty_mask="copy")
    gallery.add("failed.png", hole=NOTHING)
    gallery.add("wrong.png", hole=NOTHING, empty_mask="yes")
    summary = run(gallery.manifest(), tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"copied.png"}
    assert summary["rows"]["failed_by_code"] == {"mask": 1, "read": 1}


def test_a_mask_with_values_is_not_taken_for_an_empty_one(gallery: Gallery, tmp_path: Path) -> None:
    """Labels of 0 and 1 mark something that the threshold does not see."""
    gallery.add("a.png")
    labels = gallery.folder / "a.png.mask.png"
    from PIL import Image

    with Image.open(labels) as mask:
        mask.point(lambda value: value // 255).save(labels)
    summary = run(gallery.manifest(), tmp_path / "out", row=COPY)
    assert summary["rows"]["failed_by_code"] == {"mask": 1}


def test_a_copy_in_another_format_is_written_anew(gallery: Gallery, tmp_path: Path) -> None:
    from PIL import Image, ImageChops

    gallery.add("a.jpg", hole=NOTHING, output="a.png", jpeg="lossless")
    assert run(gallery.manifest(), tmp_path / "out", row=COPY)["rows"]["copied"] == 1
    with Image.open(gallery.folder / "a.jpg") as old, Image.open(tmp_path / "out" / "a.png") as new:
        assert new.format == "PNG"
        assert max(band[1] for band in ImageChops.difference(old, new).getextrema()) <= 1  # two decoders of JPEG


def test_nothing_is_said_of_a_model_in_the_xmp_of_a_copy(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.tif", hole=NOTHING)
    assert run(gallery.manifest(), tmp_path / "out", row={**COPY, "xmp": True})["exit_code"] == 0
    assert (tmp_path / "out" / "a.tif").read_bytes() == (gallery.folder / "a.tif").read_bytes()


def test_a_copy_that_went_wrong_is_no_result(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add("a.png", hole=NOTHING)

    def truncated(source: Path, destination: Path) -> None:
        shutil.copyfile(source, destination)
        with destination.open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"\0")

    monkeypatch.setattr("inpaint_batch.imaging.write._copy", truncated)
    summary = run(gallery.manifest(), tmp_path / "out", row=COPY)
    assert summary["rows"]["failed_by_code"] == {"write": 1}
    assert tree(tmp_path / "out") == {}


@pytest.mark.parametrize(
    "areas",
    [
        {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []},
        {"type": "FeatureCollection", "features": []},
        {"size": [72, 72], "counts": [72 * 72]},
    ],
)
def test_areas_that_nobody_drew_are_an_empty_mask(gallery: Gallery, tmp_path: Path, areas: dict[str, object]) -> None:
    gallery.add("a.png")
    (gallery.folder / "areas.json").write_text(json.dumps(areas))
    gallery.rows[0]["mask"] = "areas.json"
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["failed_by_code"] == {"mask": 1}
    assert "--empty-mask copy" in (tmp_path / "out" / ".inpaint-batch" / "failures.csv").read_text()
    summary = run(gallery.manifest(), tmp_path / "out", row=COPY, retry_failed=True)
    assert (summary["exit_code"], summary["rows"]["copied"]) == (0, 1)
    other = run(gallery.manifest(), tmp_path / "other", row=COPY | {"mask_polarity": "black"})
    assert other["rows"]["failed_by_code"] == {"mask": 1}  # all of it is hole then


def test_a_file_that_does_not_name_the_image_is_no_empty_mask(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    (gallery.folder / "areas.json").write_text('{"images": [{"id": 1, "file_name": "b.png"}], "annotations": []}')
    gallery.rows[0]["mask"] = "areas.json"
    assert run(gallery.manifest(), tmp_path / "out", row=COPY)["rows"]["failed_by_code"] == {"mask": 1}
