"""The files that ship: each form against the one before it, on pieces of photographs, and through whole runs.

What is said of them here is measured on the demo photographs, in every bucket and in odd batches.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from gallery import Gallery, run, tree
from PIL import Image

from inpaint_batch.compile.export import PARITY_TOLERANCE
from inpaint_batch.compile.gate import hole_psnr
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.store import default_folder, find_model
from inpaint_batch.training.config import load_train_config

PHOTOGRAPHS = ("astronaut.jpg", "coffee.png", "chelsea.tif", "rocket.webp")
DEMO = Path(__file__).parents[2] / "manifests" / "demo"
INT8_FLOOR_DB = 38.0
"""Of every single tile; the worst of these has 39.6 dB, half of them over 50."""
BATCHES = [(64, 1), (64, 7), (128, 3), (256, 1), (256, 2)]


def pieces(side: int, num: int) -> TileBatch:
    """Squares of the demo photographs with a scratch and a blot each; every other one has a prior."""
    random = np.random.default_rng(side + num)
    image = np.empty((num, 3, side, side), np.float32)
    hole = np.zeros((num, 1, side, side), np.float32)
    for index in range(num):
        with Image.open(DEMO / PHOTOGRAPHS[index % len(PHOTOGRAPHS)]) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
        top, left = (int(random.integers(0, extent - side)) for extent in pixels.shape[:2])
        image[index] = pixels[top : top + side, left : left + side].transpose(2, 0, 1)
        column, row = (int(random.integers(side // 4, side // 2)) for _ in range(2))
        hole[index, :, :, column : column + 3] = 1
        hole[index, :, row : row + side // 6, column : column + side // 5] = 1
    weight = (np.arange(num) % 2).astype(np.float32).reshape(-1, 1, 1, 1)
    prior = np.broadcast_to(image.mean(axis=(2, 3), keepdims=True), image.shape).astype(np.float32)
    return TileBatch(image * (1 - hole), hole, prior * weight, weight)


@pytest.fixture(scope="module")
def fp32() -> OnnxEngine:
    return OnnxEngine(find_model("default").files["fp32"], precision="fp32", threads=1)


@pytest.fixture(scope="module")
def int8() -> OnnxEngine:
    return OnnxEngine(find_model("default").files["int8"], precision="int8", threads=1)


def test_the_card_names_the_files_that_are_there() -> None:
    folder = default_folder()
    card = tomllib.loads((folder / "card.toml").read_text())
    for name, digest in card["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


@torch.no_grad()
def test_fp32_is_the_weights(fp32: OnnxEngine) -> None:
    generator = load_generator(default_folder() / "dcf-base.safetensors")
    for side, num in BATCHES:
        batch = pieces(side, num)
        inputs = (batch.image, batch.hole, batch.prior, batch.prior_weight)
        expected = generator(*(torch.from_numpy(each) for each in inputs)).numpy()
        np.testing.assert_allclose(fp32.fill(batch), expected, atol=PARITY_TOLERANCE, rtol=0)


def test_int8_agrees_with_fp32_and_a_tile_does_not_feel_its_company(fp32: OnnxEngine, int8: OnnxEngine) -> None:
    two_at_a_time = OnnxEngine(find_model("default").files["int8"], precision="int8", threads=2)
    for side, num in BATCHES:
        batch = pieces(side, num)
        first, second = fp32.fill(batch), int8.fill(batch)
        for index in range(num):
            assert hole_psnr(first[index], second[index], batch.hole[index]) > INT8_FLOOR_DB
        known = np.broadcast_to(batch.hole == 0, second.shape)
        np.testing.assert_array_equal(second[known], batch.image[known])
        assert int8.fill(batch.only(num - 1)).tobytes() == second[num - 1 :].tobytes()
        assert two_at_a_time.fill(batch).tobytes() == second.tobytes()


def test_an_image_comes_out_the_same_whatever_it_shares_batches_with(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole runs on the model that ships: all images in one go, in small batches, and one alone."""
    for index in range(5):
        gallery.add(f"{index}.png", side=96 + 16 * index, hole=(8 + 4 * index, 20, 14, 40 + 3 * index))
    together = tmp_path / "together"
    assert run(gallery.manifest(), together, engine="onnxruntime", passes=1)["rows"]["done"] == 5
    monkeypatch.setattr(OnnxEngine, "batch_size", lambda self, side_px: 1)
    small = tmp_path / "small"
    run(gallery.manifest(), small, engine="onnxruntime", passes=1, workers=1)
    assert tree(small) == tree(together)
    gallery.rows[:] = gallery.rows[3:4]
    alone = tmp_path / "alone"
    run(gallery.manifest("one.csv"), alone, engine="onnxruntime", passes=1)
    assert tree(alone) == {"3.png": tree(together)["3.png"]}


def test_the_settings_it_learned_with_are_of_its_sizes() -> None:
    settings = load_train_config(default_folder() / "train.toml")
    assert settings.model == load_generator(default_folder() / "dcf-base.safetensors").spec
