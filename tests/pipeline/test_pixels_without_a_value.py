"""Elevation models and other measurements: NaN, a value for no data, and values far beyond all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from gallery import Gallery, run

from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.types import FloatArray

NO_DATA_TAG = 42113
HOLE = np.s_[30:60, 40:60]
ABSENT = np.s_[:, 60:400]
"""Right beside the hole; what gives the levels lies behind it, farther off than any tile reaches."""


def mean_of_known(self: IdentityEngine, batch: TileBatch) -> FloatArray:
    known = 1 - batch.hole
    mean = (batch.image * known).sum(axis=(2, 3), keepdims=True) / np.maximum(known.sum(axis=(2, 3), keepdims=True), 1)
    return np.where(batch.hole > 0, mean, batch.image).astype(np.float32)


def write(path: Path, samples: np.ndarray, no_data: str = "", **options: Any) -> None:
    tag = [(NO_DATA_TAG, 2, len(no_data) + 1, no_data, True)] if no_data else []
    tifffile.imwrite(path, samples, extratags=tag, **options)


def restored(gallery: Gallery, output: Path, hole: Any, shape: tuple[int, int], **options: Any) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[hole] = 255
    gallery.add_row("a.tif", gallery.mask("mask.png", mask))
    assert run(gallery.manifest(), output, row=options)["rows"]["done"] == 1
    return np.asarray(tifffile.imread(output / "a.tif"))


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(
    ("dtype", "absent", "no_data", "photometric"),
    [
        ("float32", np.nan, "", "minisblack"),
        ("float32", np.nan, "", "miniswhite"),
        ("float32", -9999, "-9999", "minisblack"),
        ("int32", -32768, "-32768", "minisblack"),
        ("uint16", 65535, "65535", "minisblack"),
        ("uint16", 0, "0", "miniswhite"),
        ("uint8", 0, "0", "minisblack"),
    ],
)
def test_what_has_no_value_has_no_part_in_a_fill(
    gallery: Gallery,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: str,
    absent: float,
    no_data: str,
    photometric: str,
    coarse: bool,
) -> None:
    monkeypatch.setattr(IdentityEngine, "fill", mean_of_known)
    samples = np.full((100, 700), 120, dtype)
    samples[:, 500:550], samples[:, 550:600] = 40, 200
    samples[ABSENT] = absent
    write(gallery.folder / "a.tif", samples, no_data, photometric=photometric)
    # Of a deep hole most of the absent pixels are seen at coarser levels only.
    hole = np.s_[0:100, 5:75] if coarse else HOLE
    out = restored(gallery, tmp_path / "out", hole, samples.shape)
    np.testing.assert_allclose(out[hole].astype(float), 120, atol=1e-4 if dtype == "float32" else 0)
    samples[hole] = out[hole]
    np.testing.assert_array_equal(out, samples)


def test_light_without_alpha_has_no_colour(gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IdentityEngine, "fill", mean_of_known)
    samples = np.full((100, 700, 4), (100, 120, 140, 255), np.uint8)
    samples[ABSENT] = 0
    write(gallery.folder / "a.tif", samples, photometric="rgb", extrasamples=["assocalpha"])
    out = restored(gallery, tmp_path / "out", HOLE, (100, 700))
    np.testing.assert_array_equal(out[HOLE], samples[HOLE])


@pytest.mark.parametrize(("dtype", "far"), [("float32", 7e5), ("float32", -7e5), ("int32", 7e5), ("float32", np.inf)])
def test_a_rim_keeps_its_share_of_what_lies_beyond_the_levels(
    gallery: Gallery, tmp_path: Path, dtype: str, far: float
) -> None:
    samples = np.full((120, 120), 1000, dtype)
    samples[:, 100:], samples[0, :] = 3000, 0
    samples[40, 50] = samples[44, 50] = far  # in the rim, and where the fill is all there is
    write(gallery.folder / "a.tif", samples)
    out = restored(gallery, tmp_path / "out", np.s_[44:60, 44:60], samples.shape, feather_px=7)
    assert out[44, 50] == 0  # the identity engine leaves holes black
    assert out[40, 50] == np.float64(far) / 2  # four pixels off, of eight
    assert out[40, 52] == 500
    assert out[36, 50] == 1000


@pytest.mark.parametrize(
    ("dtype", "absent", "no_data"),
    [("float32", np.nan, ""), ("float32", -9999, "-9999"), ("uint16", 65535, "65535"), ("int32", -9999, "-9999")],
)
def test_a_rim_leaves_what_has_no_value(
    gallery: Gallery, tmp_path: Path, dtype: str, absent: float, no_data: str
) -> None:
    samples = np.full((120, 120), 1000, dtype)
    samples[:, 100:], samples[0, :] = 3000, 0
    samples[40:48, 50] = absent
    write(gallery.folder / "a.tif", samples, no_data)
    out = restored(gallery, tmp_path / "out", np.s_[44:60, 44:60], samples.shape, feather_px=7)
    np.testing.assert_array_equal(out[40:44, 50], samples[40:44, 50])
    np.testing.assert_array_equal(out[44:48, 50], 0)  # marked: it is filled
    assert out[40, 52] == 500


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_fill_is_never_what_stands_for_no_data(gallery: Gallery, tmp_path: Path, dtype: str) -> None:
    samples = np.full((90, 90, 3), (60, 70, 80), dtype)
    write(gallery.folder / "a.tif", samples, "0", photometric="rgb")
    out = restored(gallery, tmp_path / "out", np.s_[40:50, 40:50], samples.shape[:2])  # left black
    np.testing.assert_array_equal(out[40:50, 40:50], np.full((10, 10, 3), (0, 0, 1)))
