"""Fills of dithered images are dots as what surrounds them; letters and drawings are not taken for dots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from inpaint_batch.tiling.dither import diffused, is_dithered
from inpaint_batch.types import Box

HEIGHT, WIDTH = 160, 200
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
HOLE = np.zeros((HEIGHT, WIDTH), np.bool_)
HOLE[50:110, 60:130] = True
BOX = Box(50, 60, 60, 70)


def greys(low: float = 0.15, high: float = 0.85) -> np.ndarray:
    return low + (high - low) * (0.5 + 0.5 * np.sin(X / 37 + Y / 53))


def spread(grey: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(np.uint8(grey * 255)).convert("1"))  # by Floyd and Steinberg


def ordered(grey: np.ndarray) -> np.ndarray:
    ranks = np.array([[0]])
    for _ in range(3):
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return grey > np.tile((ranks + 0.5) / 64, (HEIGHT // 8, WIDTH // 8))


def letters(size: int) -> np.ndarray:
    page = Image.new("1", (WIDTH, HEIGHT), 1)
    font = ImageFont.load_default(size)
    for row in range(0, HEIGHT, size + 2):
        ImageDraw.Draw(page).text((0, row), "The quick brown fox jumps over the lazy dog", fill=0, font=font)
    return np.asarray(page)


def told(white: np.ndarray) -> bool:
    rgb = np.repeat(white[..., None], 3, axis=2).astype(np.float32)
    return is_dithered(lambda box: rgb[box.slices], HOLE, [(BOX, rgb[BOX.slices], HOLE[BOX.slices])])


@pytest.mark.parametrize("dither", [spread, ordered])
@pytest.mark.parametrize(("low", "high"), [(0.15, 0.85), (0.5, 0.5), (0.75, 0.75), (0.05, 0.5)])
def test_dots_are_told(dither, low, high):
    assert told(dither(greys(low, high)))
    assert told(~dither(greys(low, high)))


@pytest.mark.parametrize("size", [7, 9, 12, 18, 30])
def test_letters_are_no_dots(size):
    assert not told(letters(size))


def test_lines_and_plain_ground_are_no_dots():
    for pitch in (3, 5, 8):
        assert not told(X % pitch == 0)
        assert not told((X + Y) % (2 * pitch) < pitch)
    assert not told(X < 90)
    assert not told(np.ones((HEIGHT, WIDTH), np.bool_))
    specks = np.random.default_rng(1).random((HEIGHT, WIDTH)) > 0.01
    assert not told(specks)
    assert not told(letters(20) & specks)


@given(tone=st.floats(0, 1), seed=st.integers(0, 999), part=st.floats(0.02, 1))
def test_dots_have_the_tone_of_the_fill(tone, seed, part):
    hole = np.random.default_rng(seed).random((40, 40)) < part
    rgb = np.full((40, 40, 3), tone, np.float32)
    dots = diffused(rgb, hole)
    assert (dots[~hole] == rgb[~hole]).all()
    assert set(np.unique(dots[hole])) <= {0.0, 1.0}
    ends = hole & ~np.roll(hole, -1, 1) & ~np.any([np.roll(hole, (-1, by), (0, 1)) for by in (-1, 0, 1)], axis=0)
    ends |= hole & ((Y[:40, :40] == 39) | (X[:40, :40] == 39) | (X[:40, :40] == 0))
    assert abs(dots[hole].sum() / 3 - tone * hole.sum()) <= 0.5 * ends.sum() + 1e-3


def test_a_dithered_scan_gets_dots(gallery: Gallery, tmp_path: Path) -> None:
    for name, white in (("dots.tif", spread(np.full((HEIGHT, WIDTH), 0.7))), ("letters.tif", letters(24))):
        tifffile.imwrite(gallery.folder / name, white, photometric="minisblack", metadata=None)
        gallery.add_row(name, gallery.mask(f"{name}.png", np.uint8(HOLE * 255)))
    assert run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")["exit_code"] == 0
    dots = tifffile.imread(tmp_path / "out" / "dots.tif")[HOLE]
    assert 0.6 < dots.mean() < 0.8
    solid = tifffile.imread(tmp_path / "out" / "letters.tif")
    assert np.abs(np.diff(solid[BOX.slices].astype(int))).mean() < 0.1
