"""Holes that are drawn in the image itself: transparent, or in a colour of their own."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, noise, run
from PIL import Image

HOLE = (slice(20, 32), slice(24, 40))
MAGENTA = (255, 0, 255)


def outside(hole: tuple[slice, slice], side: int = 72) -> np.ndarray:
    mask = np.ones((side, side), bool)
    mask[hole] = False
    return mask


def transparent(depth: type[np.integer] = np.uint8) -> np.ndarray:
    """RGBA noise, half transparent (but more opaque than not) outside the hole, and nothing in it."""
    samples = noise(3, 72, "RGB").astype(depth)
    white = np.iinfo(depth).max
    alpha = np.full((72, 72, 1), white * 3 // 4, depth)
    alpha[HOLE] = 0
    return np.concatenate([samples * depth(white // 255), alpha], axis=2)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_what_is_transparent_is_filled_and_opaque(gallery: Gallery, tmp_path: Path, suffix: str) -> None:
    before = transparent()
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    Image.fromarray(before).save(gallery.folder / f"a.{suffix}", **options)
    gallery.add_row(f"a.{suffix}", "alpha")
    assert run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")["rows"]["done"] == 1
    with Image.open(tmp_path / "out" / f"a.{suffix}") as image:
        after = np.asarray(image)
    np.testing.assert_array_equal(after[outside(HOLE)], before[outside(HOLE)])
    assert (after[HOLE][..., 3] == 255).all()
    assert (after[HOLE][..., :3] != before[HOLE][..., :3]).mean() > 0.9


@pytest.mark.parametrize("planar", [False, True])
def test_sixteen_bits(gallery: Gallery, tmp_path: Path, planar: bool) -> None:
    before = transparent(np.uint16)
    tifffile.imwrite(
        gallery.folder / "a.tif",
        before.transpose(2, 0, 1) if planar else before,
        photometric="rgb",
        planarconfig="separate" if planar else "contig",
        extrasamples=["unassalpha"],
    )
    gallery.add_row("a.tif", "alpha")
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1
    after = tifffile.imread(tmp_path / "out" / "a.tif")
    after = after.transpose(1, 2, 0) if planar else after
    np.testing.assert_array_equal(after[outside(HOLE)], before[outside(HOLE)])
    assert (after[HOLE][..., 3] == 65535).all()


@pytest.mark.parametrize("is_palette", [False, True])
def test_four_bits(gallery: Gallery, tmp_path: Path, is_palette: bool) -> None:
    before = transparent()[..., [0, 3]] >> 4
    path, packed = gallery.folder / "a.tif", before[..., 0] << 4 | before[..., 1]
    colours = np.repeat(np.arange(16) * 4369, 3).reshape(16, 3).T
    extra = [(338, 3, 1, 2, True), *([(320, 3, 48, colours.ravel().tolist(), True)] if is_palette else [])]
    tifffile.imwrite(path, packed, photometric="minisblack", metadata=None, extratags=extra, rowsperstrip=10)
    with tifffile.TiffFile(path, mode="r+") as file:
        for code, value in {258: 4, 277: 2, 262: 3 if is_palette else 1}.items():
            file.pages.first.tags[code].overwrite(value)
    gallery.add_row("a.tif", "alpha")
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as file:
        places = zip(file.pages.first.dataoffsets, file.pages.first.databytecounts, strict=True)
    data = (tmp_path / "out" / "a.tif").read_bytes()
    stored = np.frombuffer(b"".join(data[at : at + length] for at, length in places), np.uint8).reshape(72, 72)
    np.testing.assert_array_equal(stored[outside(HOLE)], packed[outside(HOLE)])
    assert (stored[HOLE] == 0x0F).all()  # the identity engine leaves holes black


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_light_that_is_stored_multiplied_by_alpha(gallery: Gallery, tmp_path: Path, depth: type[np.integer]) -> None:
    """What is half transparent beside the hole is stored at half its light, and is no reason for a dark fill."""
    white = np.iinfo(depth).max
    alpha = np.full((72, 72, 1), white, np.float64)
    alpha[16:36, 20:44] = white * 0.6
    alpha[HOLE] = 0
    before = np.concatenate([np.rint(alpha * (0.9, 0.8, 0.7)), alpha], axis=2).astype(depth)
    tifffile.imwrite(gallery.folder / "a.tif", before, photometric="rgb", extrasamples=["assocalpha"])
    gallery.add_row("a.tif", "alpha")
    assert run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")["rows"]["done"] == 1
    after = tifffile.imread(tmp_path / "out" / "a.tif")
    np.testing.assert_array_equal(after[outside(HOLE)], before[outside(HOLE)])
    assert (after[HOLE][..., 3] == white).all()
    np.testing.assert_allclose(after[HOLE][..., :3] / white, np.broadcast_to((0.9, 0.8, 0.7), (12, 16, 3)), atol=0.05)


@pytest.mark.parametrize("turned", [1, 6])
def test_a_colour_is_filled_also_nearly_that_colour(gallery: Gallery, tmp_path: Path, turned: int) -> None:
    before = (noise(4, 72, "RGB") // 2).astype(np.uint8)
    before[HOLE] = MAGENTA
    before[20, 24:40] = (240, 15, 255)  # 15 off: still counts
    before[50, 50] = (239, 0, 255)  # 16 off: does not
    exif = Image.Exif()
    exif[0x0112] = turned
    Image.fromarray(before).save(gallery.folder / "a.png", exif=exif)
    gallery.add_row("a.png", "#FF00ff")
    run(gallery.manifest(), tmp_path / "out")
    with Image.open(tmp_path / "out" / "a.png") as image:
        after = np.asarray(image)
    np.testing.assert_array_equal(after[outside(HOLE)], before[outside(HOLE)])
    assert not after[HOLE].any()  # the identity engine leaves holes black


def test_a_painted_jpeg_is_patched(gallery: Gallery, tmp_path: Path) -> None:
    before = np.full((72, 72, 3), 90, np.uint8)
    before[HOLE] = MAGENTA
    Image.fromarray(before).save(gallery.folder / "a.jpg", quality=95, subsampling=0)
    gallery.add_row("a.jpg", "#ff00ff", dilate="6")
    run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        after = np.asarray(image).astype(int)
    assert np.abs(after - 90).max() < 40  # no magenta is left
    assert (ledger_lines(tmp_path / "out")[-1]["status"]) == "done"


def test_an_image_without_alpha_is_told(gallery: Gallery, tmp_path: Path) -> None:
    path = gallery.add("a.png")
    gallery.rows.clear()
    gallery.add_row(path.name, "alpha")
    summary = run(gallery.manifest(), tmp_path / "out")
    assert summary["rows"]["failed_by_code"] == {"mask": 1}
    failures = tmp_path / "out" / ".inpaint-batch" / "failures.csv"
    with failures.open() as file:
        (row,) = csv.DictReader(file)
    assert "no alpha channel" in row["message"]
    assert row["mask_from"] == "alpha"
    again = run(failures, tmp_path / "out", retry_failed=True)  # it means the same there
    assert again["rows"]["failed_by_code"] == {"mask": 1}


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_transparent_colours_of_a_png_are_told_from_alpha(gallery: Gallery, tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (72, 72))
    image.save(gallery.folder / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    gallery.add_row("a.png", "alpha")
    run(gallery.manifest(), tmp_path / "out")
    with (tmp_path / "out" / ".inpaint-batch" / "failures.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "save it as RGBA" in row["message"]


def test_a_hole_without_that_colour_is_empty(gallery: Gallery, tmp_path: Path) -> None:
    path = gallery.add("a.png", mode="L")
    gallery.rows.clear()
    gallery.add_row(path.name, "#ff00ff")
    run(gallery.manifest(), tmp_path / "out")
    assert "no pixel of the image has the colour #ff00ff" in ledger_lines(tmp_path / "out")[-1]["message"]


@pytest.mark.parametrize("cell", ["#fff", "#zzzzzz", "#ff00ff00", "#"])
def test_what_looks_like_a_colour_and_is_none_is_told(gallery: Gallery, tmp_path: Path, cell: str) -> None:
    gallery.add("a.png")
    gallery.rows[0]["mask"] = cell
    run(gallery.manifest(), tmp_path / "out")
    message = ledger_lines(tmp_path / "out")[-1]["message"]
    assert message.startswith(f"the mask '{cell}' is no colour: one is written #rrggbb, such as #ff00ff")


def test_a_file_may_still_be_called_like_a_colour(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    for name in ("#1.png", "#fff"):
        (gallery.folder / name).write_bytes((gallery.folder / "a.png.mask.png").read_bytes())
    gallery.rows[0]["mask"] = "#1.png"
    gallery.add_row("a.png", "./#fff", id="b", output="b.png")
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 2


def test_a_file_may_still_be_called_alpha(gallery: Gallery, tmp_path: Path) -> None:
    path = gallery.add("a.png")
    (gallery.folder / "alpha").write_bytes((gallery.folder / "a.png.mask.png").read_bytes())
    gallery.rows.clear()
    gallery.add_row(path.name, "./alpha")
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1
