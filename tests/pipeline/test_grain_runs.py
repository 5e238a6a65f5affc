"""`--grain` in whole runs: the noise in the hole is that of the scan, at its depth, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, run, tree
from PIL import Image

from inpaint_batch.tiling.grain import _DIFFERENCE

SIDE = 192
HOLE = (slice(70, 120), slice(60, 130))


def scan(sigma: float, white: int, bands: int = 3) -> np.ndarray:
    """A soft picture with noise of so many steps of 8 bits."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    soft = np.stack([120 + 40 * np.sin(x / 50 + band) + 30 * np.cos(y / 60) for band in range(bands)], axis=-1)
    noisy = (soft + np.random.default_rng(3).normal(0, sigma, soft.shape)) / 255 * white
    return np.rint(noisy).clip(0, white).astype(np.uint8 if white == 255 else np.uint16)


def level(samples: np.ndarray) -> float:
    """Strength of the noise in a picture (h, w, bands), from fourth differences along its rows."""
    values = samples.astype(np.float64)
    differences = sum(weight * values[:, at : values.shape[1] - 4 + at] for at, weight in enumerate(_DIFFERENCE))
    return float(np.median(np.abs(differences)) * 1.4826 / np.sqrt(70))


@pytest.fixture
def scans(gallery: Gallery) -> Gallery:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[HOLE] = 255
    gallery.mask("mask.png", mask)
    tifffile.imwrite(gallery.folder / "deep.tif", scan(5, 65535), photometric="rgb", metadata=None)
    tifffile.imwrite(gallery.folder / "grey.tif", scan(5, 255, 1)[..., 0], photometric="minisblack", metadata=None)
    Image.fromarray(scan(5, 255)).save(gallery.folder / "noisy.png")
    Image.fromarray(scan(0, 255)).save(gallery.folder / "soft.png")
    for name in ("deep.tif", "grey.tif", "noisy.png", "soft.png"):
        gallery.add_row(name, "mask.png")
    return gallery


def read(path: Path) -> np.ndarray:
    samples = tifffile.imread(path) if path.suffix == ".tif" else np.asarray(Image.open(path))
    return samples if samples.ndim == 3 else samples[..., None]


def test_the_fill_is_as_noisy_as_what_surrounds_it(scans: Gallery, tmp_path: Path) -> None:
    manifest = scans.manifest()
    run(manifest, tmp_path / "plain", engine="onnxruntime", passes=1)
    run(manifest, tmp_path / "grain", engine="onnxruntime", passes=1, row={"grain": True})
    known = np.ones((SIDE, SIDE), np.bool_)
    known[HOLE] = False
    for name, white in (("deep.tif", 65535), ("grey.tif", 255), ("noisy.png", 255)):
        source, plain, grain = (
            read(folder / name) for folder in (scans.folder, tmp_path / "plain", tmp_path / "grain")
        )
        np.testing.assert_array_equal(grain[known], source[known])
        wanted = 5 * white / 255
        assert level(plain[HOLE]) < 0.5 * wanted
        assert level(grain[HOLE]) == pytest.approx(wanted, rel=0.15)
        assert level(source[:60]) == pytest.approx(wanted, rel=0.1)
        soft = scan(0, white, source.shape[2]).astype(float)
        error = np.abs((grain.astype(float) - soft)[HOLE].mean(axis=(0, 1))) - np.abs(
            (plain.astype(float) - soft)[HOLE].mean(axis=(0, 1))
        )
        assert (error < 0.1 * wanted).all()  # noise moves no mean
    assert (tmp_path / "plain" / "soft.png").read_bytes() == (tmp_path / "grain" / "soft.png").read_bytes()


def test_the_same_every_time_and_another_for_each_row(scans: Gallery, tmp_path: Path) -> None:
    scans.add_row("noisy.png", "mask.png", id="again", output="again.png")
    manifest = scans.manifest()
    for workers, name in ((1, "one"), (3, "three")):
        run(manifest, tmp_path / name, engine="onnxruntime", passes=1, workers=workers, row={"grain": True})
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert tree(tmp_path / "one")["noisy.png"] != tree(tmp_path / "one")["again.png"]


def test_palettes_and_few_bits_are_left_alone(gallery: Gallery, tmp_path: Path) -> None:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[HOLE] = 255
    gallery.mask("mask.png", mask)
    Image.fromarray(scan(9, 255)).convert("P").save(gallery.folder / "palette.png")
    Image.fromarray(scan(9, 255)).convert("1").save(gallery.folder / "bilevel.png")
    gallery.add_row("palette.png", "mask.png", grain="true")
    gallery.add_row("bilevel.png", "mask.png", grain="yes")
    run(gallery.manifest(), tmp_path / "grain", engine="onnxruntime", passes=1)
    for row in gallery.rows:
        row["grain"] = "no"
    run(gallery.manifest(), tmp_path / "plain", engine="onnxruntime", passes=1)
    assert tree(tmp_path / "grain") == tree(tmp_path / "plain")
