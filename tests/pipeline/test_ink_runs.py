"""CMYK without a profile: a fill is printed with as much black as what is around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, run

from inpaint_batch.imaging.ink import light_of

HOLE = np.s_[30:50, 30:50]


def parted(share: float) -> np.ndarray:
    """Grey from 0.2 to 0.8 in inks of 16 bits, with this share of the black that it could have."""
    grey = np.tile(np.linspace(0.2, 0.8, 90), (80, 1))
    black = share * (1 - grey)
    colour = 1 - grey / (1 - black)
    return np.rint(np.stack([colour, colour, colour, black], -1) * 65535).astype(np.uint16)


@pytest.mark.parametrize("feather", ["0", "3"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_black_is_as_it_is_around(gallery: Gallery, tmp_path: Path, share: float, feather: str) -> None:
    samples = parted(share)
    tifffile.imwrite(gallery.folder / "a.tif", samples, photometric="separated")
    mask = np.zeros(samples.shape[:2], np.uint8)
    mask[HOLE] = 255
    gallery.add_row("a.tif", gallery.mask("mask.png", mask), feather=feather)
    assert run(gallery.manifest(), tmp_path / "out", engine="onnxruntime", passes=1)["rows"]["done"] == 1
    filled = tifffile.imread(tmp_path / "out" / "a.tif")[HOLE] / np.float32(65535)
    darkness = 1 - light_of(filled).max(axis=2)
    assert darkness.min() > 0.2
    np.testing.assert_allclose(filled[..., 3], share * darkness, atol=0.01)


def test_where_all_around_is_white_grey_is_black_ink_alone(gallery: Gallery, tmp_path: Path) -> None:
    samples = np.zeros((80, 80, 4), np.uint8)
    tifffile.imwrite(gallery.folder / "a.tif", samples, photometric="separated")
    mask = np.zeros((80, 80), np.uint8)
    mask[HOLE] = 255
    gallery.add_row("a.tif", gallery.mask("mask.png", mask))
    run(gallery.manifest(), tmp_path / "out")
    filled = tifffile.imread(tmp_path / "out" / "a.tif")[HOLE]
    assert (filled[..., 3] == 255).all()  # the identity engine leaves holes black
