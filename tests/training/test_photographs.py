"""Manifests to learn from: what is damaged in them is never taken for the truth."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from small_training import CONFIG

from inpaint_batch.errors import ConfigError, RowError
from inpaint_batch.holes.synthesise import DamageLibrary
from inpaint_batch.training import photographs as photographs_module
from inpaint_batch.training.data import Crops, undamaged_crop
from inpaint_batch.training.photographs import Photograph, list_photographs, read_rgb
from inpaint_batch.training.undamaged import DAMAGE_RIM_PX
from inpaint_batch.training.validation import ValidationSet

DAMAGE = 1.0
"""The brightest samples there are; everything else in these photographs is darker."""


def damaged_photograph(folder: Path, name: str, *, polarity: str = "white", side: int = 400) -> None:
    """Grey noise below 0.7 with a white box at its top left corner, 40 pixels wide, and the mask of that box."""
    rng = np.random.default_rng(len(name))
    samples = rng.integers(20, 178, (side, side, 3), dtype=np.uint8)
    samples[:40, :40] = 255
    mask = np.full((side, side), 0 if polarity == "white" else 255, np.uint8)
    mask[:40, :40] = 255 - mask[0, 0]
    cv2.imwrite(str(folder / f"{name}.png"), samples)
    cv2.imwrite(str(folder / f"{name}.mask.png"), mask)


def one_scan(folder: Path, mask: str) -> Photograph:
    """`one.png` with that mask, from a manifest."""
    (folder / "scan.csv").write_text(f"image,mask\none.png,{mask}\n")
    (photograph,) = list_photographs(folder / "scan.csv")
    return photograph


def bytes_of_orientation(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for name in ("one", "three", "seven"):
        damaged_photograph(tmp_path, name)
    damaged_photograph(tmp_path, "negative", polarity="black")
    rows = ["image,mask,truth,mask_polarity,dilate"]
    rows += [f"{name}.png,{name}.mask.png,,," for name in ("one", "three", "seven")]
    rows += ["negative.png,negative.mask.png,,black,5"]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_damage_is_marked_with_a_rim(manifest: Path) -> None:
    found = {photograph.path.stem: photograph for photograph in list_photographs(manifest)}
    assert set(found) == {"one", "three", "seven", "negative"}
    for name, reach in (("one", DAMAGE_RIM_PX), ("negative", DAMAGE_RIM_PX + 5)):
        pixels = read_rgb(found[name])
        missing = np.isnan(pixels).all(axis=2)
        assert np.isnan(pixels).any(axis=2).sum() == missing.sum()
        assert missing[:40, : 40 + reach].all()
        assert not missing[:, 40 + reach :].any()
        assert not missing[40 + reach :].any()


def test_no_damage_is_ever_learned(manifest: Path) -> None:
    crops = Crops(list_photographs(manifest), CONFIG, None)
    for step in range(12):
        batch = crops.batch(step)
        assert not np.isnan(batch.image).any()
        assert batch.image.max() < DAMAGE
    validation = ValidationSet(list_photographs(manifest)[:2], CONFIG, None)
    assert 0 < float(validation.images.max()) < DAMAGE


def test_the_truth_is_learned_whole_where_there_is_one(manifest: Path, photographs: Path) -> None:
    truth = list_photographs(photographs)[0].path
    manifest.write_text(f"image,mask,truth\none.png,one.mask.png,{truth}\nthree.png,three.mask.png,\n")
    by_row = {not photograph.rows: photograph.path for photograph in list_photographs(manifest)}
    assert by_row == {True: truth, False: manifest.parent / "three.png"}


def test_a_photograph_that_is_damaged_everywhere_is_given_up(tmp_path: Path) -> None:
    damaged_photograph(tmp_path, "one", side=44)
    photograph = one_scan(tmp_path, "one.mask.png")
    pixels = read_rgb(photograph)
    assert undamaged_crop(np.random.default_rng(0), pixels, 64, CONFIG) is None
    with pytest.raises(ConfigError, match=r"without damage; the last was .*one\.png\. Smaller sides_px"):
        Crops([photograph], CONFIG, None).batch(0)


def test_a_mask_of_another_size_is_not_guessed_at(tmp_path: Path) -> None:
    damaged_photograph(tmp_path, "one")
    damaged_photograph(tmp_path, "small", side=64)
    with pytest.raises(RowError, match="make the mask again at the size of the image"):
        read_rgb(one_scan(tmp_path, "small.mask.png"))
    with pytest.raises(RowError, match=r"the mask .*none\.png does not exist"):
        read_rgb(one_scan(tmp_path, "none.png"))


def test_masks_are_read_as_in_a_run(tmp_path: Path) -> None:
    """On a transparent layer, in text, or drawn in the image; and an image that lies on its side stands up."""
    damaged_photograph(tmp_path, "one")
    samples = cv2.imread(str(tmp_path / "one.png"))
    layer = np.full((400, 400, 4), 255, np.uint8)  # white everywhere, opaque in the box alone
    layer[..., 3] = 0
    layer[:40, :40, 3] = 255
    cv2.imwrite(str(tmp_path / "layer.png"), layer)
    polygon = [[[0, 0], [40, 0], [40, 40], [0, 40], [0, 0]]]
    (tmp_path / "box.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": polygon}))
    expected = np.zeros((400, 400), bool)
    expected[: 40 + DAMAGE_RIM_PX, : 40 + DAMAGE_RIM_PX] = True
    expected[41, 40:42] = expected[40, 41] = False  # further from the corner than a disc of two pixels reaches
    for mask in ("one.mask.png", "layer.png", "box.geojson", "#ffffff"):
        missing = np.isnan(read_rgb(one_scan(tmp_path, mask))).all(axis=2)
        np.testing.assert_array_equal(missing, expected, err_msg=mask)

    Image.fromarray(np.rot90(samples[..., ::-1])).save(tmp_path / "one.png", exif=bytes_of_orientation(6))
    upright = read_rgb(one_scan(tmp_path, "layer.png"))
    np.testing.assert_array_equal(np.isnan(upright).all(axis=2), expected)
    np.testing.assert_allclose(upright[~expected], (samples[..., ::-1] / 255)[~expected], atol=1e-6)


def test_one_photograph_counts_once_and_two_of_one_name_twice(tmp_path: Path, photographs: Path) -> None:
    truth = list_photographs(photographs)[0].path
    rows = [f"a/{name},m{number}.png,{truth}" for number, name in enumerate(("x.png", "y.png"))]
    rows += ["/one/x.png,m2.png,", "/two/x.png,m3.png,", "/two/x.png,m4.png,"]
    path = tmp_path / "manifest.csv"
    path.write_text("\n".join(["image,mask,truth", *rows]) + "\n")
    found = {(each.path, tuple(row.line for row in each.rows)) for each in list_photographs(path)}
    assert found == {(truth, ()), (Path("/one/x.png"), (4,)), (Path("/two/x.png"), (5, 6))}


def test_what_any_mask_of_a_photograph_covers_is_not_learned(tmp_path: Path) -> None:
    """A run fills scratches by one row and dust by another."""
    damaged_photograph(tmp_path, "one")
    other = np.zeros((400, 400), np.uint8)
    other[-60:, -50:] = 255
    cv2.imwrite(str(tmp_path / "other.png"), 255 - other)
    (tmp_path / "m.csv").write_text("image,mask,mask_polarity\none.png,one.mask.png,\none.png,other.png,black\n")
    (photograph,) = list_photographs(tmp_path / "m.csv")
    missing = np.isnan(read_rgb(photograph)).all(axis=2)
    assert missing[:40, :40].all()
    assert missing[-60:, -50:].all()
    assert not missing[100:300, 100:300].any()
    (tmp_path / "other.png").unlink()
    with pytest.raises(RowError, match="does not exist"):
        read_rgb(photograph)


def test_files_in_a_store_are_refused_by_line(manifest: Path) -> None:
    manifest.write_text("image,mask\none.png,one.mask.png\nthree.png,s3://bucket/mask.png\n")
    with pytest.raises(ConfigError, match=r"line 3 of .*s3://bucket/mask\.png lies in a store.*copy them"):
        list_photographs(manifest)


def test_an_unusable_photograph_is_told_once(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.jpg").write_text("not a picture")
    crops = Crops([list_photographs(photographs)[0], Photograph(tmp_path / "broken.jpg")], CONFIG, None)
    for step in range(4):
        crops.batch(step)
    assert [record.message for record in caplog.records] == [
        f"skipping a photograph: the image {tmp_path / 'broken.jpg'} is damaged, or none that training reads"
    ]


def test_opencv_adds_no_complaints_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tifffile.imwrite(tmp_path / "floats.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    with pytest.raises(RowError, match="none that training reads"):
        read_rgb(Photograph(tmp_path / "floats.tif"))
    assert capfd.readouterr() == ("", "")


def test_rows_that_cannot_be_used_are_told(manifest: Path, tmp_path: Path) -> None:
    manifest.write_text("image,mask\none.png\n")
    with pytest.raises(ConfigError, match=r"line 2 of .*manifest\.csv cannot be used"):
        list_photographs(manifest)
    with pytest.raises(ConfigError, match="neither a folder of photographs nor a manifest"):
        list_photographs(tmp_path / "nowhere")


def test_hidden_files_are_neither_learned_from_nor_damage(photographs: Path, tmp_path: Path) -> None:
    shutil.copyfile(photographs / "00.png", tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"what a Mac keeps of a.png")
    (tmp_path / ".trash").mkdir()
    shutil.copyfile(photographs / "01.png", tmp_path / ".trash" / "b.png")
    assert list_photographs(tmp_path) == [Photograph(tmp_path / "a.png")]
    assert DamageLibrary(tmp_path).paths == [tmp_path / "a.png"]


def test_images_that_are_not_read_are_told(photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copyfile(photographs / "00.png", tmp_path / "a.png")
    for name in ("b.HEIC", "c.gif", "notes.txt", "._d.heic"):
        (tmp_path / name).write_bytes(b"x")
    assert list_photographs(tmp_path) == [Photograph(tmp_path / "a.png")]
    assert [record.message for record in caplog.records] == [
        f"2 image(s) of kinds that are not read are left out, such as {tmp_path / 'b.HEIC'}; convert them to JPEG, PNG "
        "or TIFF"
    ]


def test_no_memory_for_a_photograph_fails_it_alone(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def large(*_: object) -> np.ndarray:
        raise MemoryError

    monkeypatch.setattr(photographs_module.cv2, "cvtColor", large)
    with pytest.raises(RowError, match="no memory left to decode"):
        read_rgb(list_photographs(photographs)[0])


def test_a_name_that_is_not_utf8_is_learned_from(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    path.write_bytes(cv2.imencode(".png", np.full((8, 8, 3), 51, np.uint8))[1].tobytes())
    (found,) = list_photographs(tmp_path)
    assert found == Photograph(path)
    assert (read_rgb(found) == np.float32(0.2)).all()
