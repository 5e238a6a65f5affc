"""Large photographs: what a run takes of memory, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jpeglib
import numpy as np
from PIL import Image, ImageDraw

MAX_BYTES = 700e6


def scratches(size: tuple[int, int], seed: int) -> Image.Image:
    """Ten of them, in a mask of that (width, height)."""
    mask = Image.new("L", size)
    chance = np.random.default_rng(seed)
    for _ in range(10):
        x, y = chance.integers(0, size)
        dx, dy = chance.integers(-900, 900, 2)
        ImageDraw.Draw(mask).line(
            (int(x), int(y), int(x + dx), int(y + dy)), fill=255, width=int(chance.integers(4, 12))
        )
    return mask


def blocks_with_holes(mask: np.ndarray, side_px: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Which coding units of (height, width) pixels hold a hole sample; `shape` is how many there are."""
    height, width = side_px
    padded = np.zeros((shape[0] * height, shape[1] * width), bool)
    padded[: mask.shape[0], : mask.shape[1]] = mask
    return padded.reshape(shape[0], height, shape[1], width).any(axis=(1, 3))


def assert_only_units_with_holes_changed(before: Path, after: Path, mask: np.ndarray) -> None:
    old, new = jpeglib.read_dct(str(before)), jpeglib.read_dct(str(after))
    assert np.array_equal(old.qt, new.qt)
    luma = old.samp_factor[0]
    unit_px = 8 * int(luma[0]), 8 * int(luma[1])
    num_units = -(-mask.shape[0] // unit_px[0]), -(-mask.shape[1] // unit_px[1])
    touched = blocks_with_holes(mask, unit_px, num_units)
    assert touched.mean() < 0.05
    for component, was, became in zip(range(3), (old.Y, old.Cb, old.Cr), (new.Y, new.Cb, new.Cr), strict=True):
        changed = (was != became).any(axis=(2, 3))
        per_unit = old.samp_factor[component]
        allowed = touched.repeat(int(per_unit[0]), axis=0).repeat(int(per_unit[1]), axis=1)
        allowed = allowed[: changed.shape[0], : changed.shape[1]]
        assert not (changed & ~allowed).any()
        if component == 0:
            assert changed[blocks_with_holes(mask, (8, 8), changed.shape)].mean() > 0.8


def test_large_photographs_with_ten_scratches_take_under_700_mb(real_data: Path, tmp_path: Path):
    photos = sorted((real_data / "highres").glob("*.jpg"))[:3]  # more than fit the budget at one time
    lines, masks = ["image,mask,output"], []
    for number, photo in enumerate(photos):
        with Image.open(photo) as image:
            assert image.width * image.height > 11e6
            mask = scratches(image.size, number + 1)
        mask.save(tmp_path / f"{number}.png", compress_level=1)
        lines.append(f"{photo},{number}.png,{photo.name}")
        masks.append(np.asarray(mask) > 0)
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    command = [sys.executable, "-m", "inpaint_batch", "run", str(tmp_path / "manifest.csv"), "--output"]
    subprocess.run([*command, str(tmp_path / "out"), "--engine", "identity"], check=True, capture_output=True)
    summary = json.loads((tmp_path / "out" / ".inpaint-batch" / "summary.json").read_text())
    assert summary["peak_memory_bytes"] < MAX_BYTES
    assert summary["elapsed_s"] > 0
    assert 10 < sum(summary["tiles_by_side_px"].values()) < 200 * len(photos)  # image area is not paid for
    for photo, mask in zip(photos, masks, strict=True):
        assert_only_units_with_holes_changed(photo, tmp_path / "out" / photo.name, mask)
