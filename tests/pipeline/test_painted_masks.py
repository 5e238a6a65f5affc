"""Masks that were painted on a transparent layer, as GIMP and Photoshop export them, and masks of labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, run
from PIL import Image

PAINTED = (slice(20, 32), slice(24, 40))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    (tmp_path / "in").mkdir()
    gallery = Gallery(tmp_path / "in")
    gallery.add("a.png")
    return gallery


def layer(colour: tuple[int, int, int], elsewhere: tuple[int, int, int] | None = None) -> np.ndarray:
    """RGBA: opaque where it is painted, transparent elsewhere."""
    rgba = np.zeros((72, 72, 4), np.uint8)
    rgba[..., :3] = colour if elsewhere is None else elsewhere
    rgba[PAINTED] = (*colour, 255)
    return rgba


def restored(gallery: Gallery, output: Path, mask: str, **row: object) -> np.ndarray | str:
    """Where the result differs from the image; what is said of the row where there is none."""
    gallery.rows[0]["mask"] = mask
    if run(gallery.manifest(), output, row=row, fresh=True)["rows"]["failed"]:
        return str(ledger_lines(output)[-1]["message"])
    with Image.open(gallery.folder / "a.png") as before, Image.open(output / "a.png") as after:
        return (np.asarray(before) != np.asarray(after)).any(axis=2)


def save(path: Path, rgba: np.ndarray) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=["unassalpha"], compression="lzw")
    else:
        Image.fromarray(rgba).save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.webp"])
def test_what_is_painted_in_white_on_a_transparent_layer_is_filled(gallery: Gallery, tmp_path: Path, name: str) -> None:
    save(gallery.folder / name, layer((255, 255, 255)))
    changed = restored(gallery, tmp_path / "out", name)
    assert isinstance(changed, np.ndarray)
    assert changed[PAINTED].mean() > 0.9
    changed[PAINTED] = False
    assert not changed.any()


def test_a_webp_that_gives_up_what_is_transparent_is_filled_too(gallery: Gallery, tmp_path: Path) -> None:
    Image.fromarray(layer((255, 255, 255))).save(gallery.folder / "m.webp", lossless=False, quality=90)
    changed = restored(gallery, tmp_path / "out", "m.webp")
    assert isinstance(changed, np.ndarray)
    assert changed[PAINTED].mean() > 0.9
    changed[PAINTED] = False
    assert not changed.any()


@pytest.mark.parametrize("name", ["m.png", "m.tif", "m.webp"])
def test_what_an_eraser_left_in_the_colours_is_filled_with_a_warning(
    gallery: Gallery, tmp_path: Path, name: str
) -> None:
    rgba = np.zeros((72, 72, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[PAINTED] = 255
    save(gallery.folder / name, rgba)
    restored(gallery, tmp_path / "out", name)
    assert "warnings" not in ledger_lines(tmp_path / "out")[-1]
    rgba[20:32, 24:28, 3] = 0
    save(gallery.folder / name, rgba)
    changed = restored(gallery, tmp_path / "out", name)
    assert isinstance(changed, np.ndarray)
    assert changed[PAINTED].mean() > 0.9
    (told,) = ledger_lines(tmp_path / "out")[-1]["warnings"]
    assert told.startswith("25.0% of what the mask marks is transparent there")
    assert "paint black what shall stay" in told


def test_strokes_in_red_beside_white_ones_are_told(gallery: Gallery, tmp_path: Path) -> None:
    rgb = np.zeros((72, 72, 3), np.uint8)
    rgb[PAINTED] = 255
    rgb[50:58, 10:60] = 255, 0, 0
    save(gallery.folder / "m.png", rgb)
    changed = restored(gallery, tmp_path / "out", "m.png")
    assert isinstance(changed, np.ndarray)
    assert not changed[50:58].any()
    (told,) = ledger_lines(tmp_path / "out")[-1]["warnings"]
    assert "of 72 to 79 of 255 in brightness, which is too dark to mark anything" in told
    assert told.endswith("say --mask-threshold 71")


@pytest.mark.parametrize("elsewhere", [None, (0, 0, 0)])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 0)])
def test_other_paint_counts_once_the_polarity_is_turned(
    gallery: Gallery, tmp_path: Path, colour: tuple[int, int, int], elsewhere: tuple[int, int, int] | None
) -> None:
    save(gallery.folder / "m.png", layer(colour, elsewhere))
    told = restored(gallery, tmp_path / "out", "m.png")
    assert isinstance(told, str)
    assert "its alpha channel has a shape: to fill what is opaque say --mask-polarity black" in told
    assert told.endswith("save that channel as a grey PNG, white where pixels are missing")
    changed = restored(gallery, tmp_path / "out", "m.png", mask_polarity="black")
    assert isinstance(changed, np.ndarray)
    assert changed[PAINTED].mean() > 0.9
    changed[PAINTED] = False
    assert not changed.any()


def test_colours_that_mark_something_count_and_alpha_does_not(gallery: Gallery, tmp_path: Path) -> None:
    rgba = layer((0, 0, 0))
    rgba[40:44, 40:44] = (255, 255, 255, 0)
    save(gallery.folder / "m.png", rgba)
    changed = restored(gallery, tmp_path / "out", "m.png")
    assert isinstance(changed, np.ndarray)
    changed[40:44, 40:44] = False
    assert not changed.any()


@pytest.mark.parametrize("alpha", [0, 255])
def test_alpha_without_a_shape_says_nothing(gallery: Gallery, tmp_path: Path, alpha: int) -> None:
    rgba = np.full((72, 72, 4), 255, np.uint8)
    rgba[..., 3] = alpha
    save(gallery.folder / "m.png", rgba)
    told = restored(gallery, tmp_path / "out", "m.png")
    assert isinstance(told, str)
    assert "the mask marks the whole image as hole (white is hole; all of it is 255)" in told


def test_a_hole_rubbed_out_of_a_white_layer_is_suspected_and_the_way_out_is_told(
    gallery: Gallery, tmp_path: Path
) -> None:
    rgba = np.full((72, 72, 4), 255, np.uint8)
    rgba[PAINTED] = (255, 255, 255, 0)
    save(gallery.folder / "m.png", rgba)
    assert isinstance(restored(gallery, tmp_path / "out", "m.png"), np.ndarray)
    (warning,) = ledger_lines(tmp_path / "out")[-1]["warnings"]
    assert warning == "the mask marks 96% of the image; if that is inverted, save its alpha channel as a grey PNG"


def test_labels_of_sixteen_bits_are_told_from_an_empty_mask(gallery: Gallery, tmp_path: Path) -> None:
    labels = np.zeros((72, 72), np.uint16)
    labels[PAINTED] = 1
    for name in ("m.tif", "m.png"):
        Image.fromarray(labels).save(gallery.folder / name)
        assert restored(gallery, tmp_path / "out", name) == (
            "the mask marks no hole (white is hole; all of it is 0 in the upper 8 of its 16 bits, which count); draw "
            "one, with 65535 for white: labels such as 0 and 1 need a file of 8 bits"
        )
    labels[PAINTED] = 1000
    Image.fromarray(labels).save(gallery.folder / "m.png")
    assert restored(gallery, tmp_path / "out", "m.png") == (
        "the mask marks no hole (white is hole; its values are 0..3 in the upper 8 of its 16 bits, which count, the "
        "threshold is 127); --mask-threshold 1 would part them, or draw another"
    )
    assert isinstance(restored(gallery, tmp_path / "out", "m.png", mask_threshold=1), np.ndarray)


def test_strokes_on_a_copy_of_the_photograph_count_by_their_colour_alone(gallery: Gallery, tmp_path: Path) -> None:
    copy = np.add.outer(np.arange(72), np.arange(72))[..., None].repeat(3, axis=2).astype(np.uint8)
    copy[PAINTED] = (255, 0, 0)
    Image.fromarray(copy).save(gallery.folder / "copy.png")
    told = restored(gallery, tmp_path / "out", "copy.png")
    assert "the mask looks like a photograph" in told
    gallery.rows[0]["image"] = "copy.png"
    gallery.rows[0]["mask"] = "#ff0000"
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1
