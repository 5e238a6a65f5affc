"""Export, quantisation and gate on a small generator with random weights."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from small_networks import SMALL

from inpaint_batch.compile import gate
from inpaint_batch.compile.build import build_onnx, split
from inpaint_batch.compile.export import PARITY_TOLERANCE, export_onnx, parity
from inpaint_batch.compile.gate import ROUNDING, GateRow, hole_psnr, judge, measure, table
from inpaint_batch.compile.quantise import FLOAT_LAYERS, quantisable_convolutions, quantise
from inpaint_batch.compile.tiles import collect_tiles
from inpaint_batch.errors import EngineError, ManifestError, StorageError, UsageError
from inpaint_batch.models.checkpoint import save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.storage.objects import write_bytes
from inpaint_batch.types import FloatArray


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with a hole each, the first deep enough for a coarse level, and one row that is broken."""
    folder = tmp_path_factory.mktemp("rows")
    rows = []
    for index in range(6):
        rng = np.random.default_rng(index)
        size = (200, 220) if index == 0 else (80, 96)
        truth = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
        mask = np.zeros(size, np.uint8)
        mask[20:-20, 30:-30] = 255
        if index:
            mask[40:] = 0
        damaged = truth.copy()
        damaged[mask > 0] = 127
        for name, picture in (("image", damaged), ("mask", mask), ("truth", truth)):
            cv2.imwrite(str(folder / f"{name}{index}.png"), picture)
        rows.append([f"image{index}.png", f"mask{index}.png", f"truth{index}.png"])
    rows.append(["gone.png", "mask1.png", "truth1.png"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "mask", "truth"], *rows])
    return folder / "manifest.csv"


def test_exported_graph_has_the_contract_of_the_runtime(fp32: Path, generator: DcfGenerator) -> None:
    engine = OnnxEngine(fp32, precision="fp32")  # checks names, types and free sizes
    engine.close()
    assert parity(generator, fp32) <= PARITY_TOLERANCE
    assert {node.domain for node in onnx.load(fp32).graph.node} == {""}  # nothing outside plain ONNX


def test_a_wrong_export_is_refused_and_leaves_nothing(
    fp32: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter is made to write the graph of other weights than those it was given."""

    class Program:
        def save(self, path: Path, **_: object) -> None:
            shutil.copyfile(fp32, path)

    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: Program())
    generator = DcfGenerator(SMALL)
    torch.nn.init.constant_(generator.head.bias, 0.1)
    with pytest.raises(EngineError, match="differs from torch"):
        export_onnx(generator, tmp_path / "wrong.onnx")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_the_machine_that_exported_is_kept(fp32: Path) -> None:
    """The exporter notes the source code of every node, with its folder: other bytes wherever it runs."""
    graph = onnx.load(fp32).graph
    for noted in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        assert not noted.metadata_props
    assert b".py" not in fp32.read_bytes()


def test_tiles_are_cut_as_the_planner_cuts_them(fp32: Path, manifest: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = OnnxEngine(fp32, precision="fp32", threads=1)
    tiles = collect_tiles(manifest, engine, 100)
    assert {tile.row for tile in tiles} == set(range(6))
    assert "line 8 skipped" in caplog.text
    deep = [tile for tile in tiles if tile.row == 0]
    assert deep[0].input.prior_weight == 0  # the coarse level comes first and has no prior and no truth
    assert deep[0].truth is None
    assert deep[-1].input.prior_weight == 1
    for tile in tiles:
        if tile.truth is not None:  # where pixels are known, the truth is what the engine sees
            known = np.broadcast_to(tile.input.hole < 0.5, tile.truth.shape)
            np.testing.assert_array_equal(tile.truth[known], tile.input.image[known])
    assert len(collect_tiles(manifest, engine, 2)) == 2


def test_one_image_may_give_tiles_with_several_masks(manifest: Path) -> None:
    (manifest.parent / "two.csv").write_text("id,image,mask\nx,image1.png,mask1.png\nx,image1.png,mask2.png\n")
    tiles = collect_tiles(manifest.parent / "two.csv", IdentityEngine(), 10)
    assert {tile.row for tile in tiles} == {0, 1}
    with pytest.raises(UsageError, match="is no manifest"):
        collect_tiles(manifest.parent, IdentityEngine(), 10)


@pytest.mark.parametrize(
    ("rows", "learned", "judged"),
    [
        ((0, 1, 2, 3, 4, 5), {0, 1, 3, 4}, {2, 5}),
        ((0, 0, 1), {0}, {1}),
        ((2, 2), {2}, {2}),  # what stands before it gave no tiles
        ((1, 4, 5, 5), {1, 4}, {5}),
    ],
)
def test_no_row_is_both_calibrated_with_and_judged_by(
    manifest: Path, rows: tuple[int, ...], learned: set[int], judged: set[int]
) -> None:
    (tile,) = collect_tiles(manifest, IdentityEngine(), 1)
    parts = split([replace(tile, row=row) for row in rows])
    assert [{tile.row for tile in part} for part in parts] == [learned, judged]


def test_images_masks_and_truths_may_lie_in_a_store(manifest: Path, tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    names = ("image1.png", "mask1.png", "truth1.png")
    for name in names:
        write_bytes(f"memory://tiles/{name}", (manifest.parent / name).read_bytes())
    for file, folder in (("far.csv", "memory://tiles"), ("near.csv", str(manifest.parent))):
        (tmp_path / file).write_text("image,mask,truth\n" + ",".join(f"{folder}/{name}" for name in names) + "\n")
    far, near = (collect_tiles(tmp_path / file, IdentityEngine(), 10) for file in ("far.csv", "near.csv"))
    assert len(far) == len(near) > 0
    for one, other in zip(far, near, strict=True):
        np.testing.assert_array_equal(one.input.image, other.input.image)
        np.testing.assert_array_equal(one.input.hole, other.input.hole)
        assert one.truth is not None
        assert other.truth is not None
        np.testing.assert_array_equal(one.truth, other.truth)


def test_a_truth_of_another_size_judges_nothing(manifest: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It would count as black where it ends."""
    small = cv2.imread(str(manifest.parent / "truth1.png"))
    assert small is not None
    cv2.imwrite(str(manifest.parent / "small.png"), small[:-3])
    (manifest.parent / "two.csv").write_text(
        "image,mask,truth\nimage1.png,mask1.png,small.png\nimage1.png,mask1.png,truth1.png\n"
    )
    tiles = collect_tiles(manifest.parent / "two.csv", IdentityEngine(), 10)
    assert {tile.row for tile in tiles} == {0}
    assert "line 2 skipped: the image is" in caplog.text
    assert "give the truth at the same size" in caplog.text


def test_a_manifest_without_a_readable_row_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,mask\ngone.png,gone.png\n")
    with pytest.raises(ManifestError, match="not one row"):
        collect_tiles(tmp_path / "m.csv", IdentityEngine(), 10)


def test_build_quantises_judges_and_records(generator: DcfGenerator, manifest: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    save_generator(weights, generator, generator.state_dict())
    report = build_onnx(weights, tmp_path, name="x", calibrate=manifest, max_tiles=50, accept_loss=False)
    record = json.loads((tmp_path / "x.gate.json").read_text())
    assert "lost dB" in report
    assert all(row["loss_db"] <= 0.2 for row in record["gate"])
    assert all(25 < row["agreement_db"] < 80 for row in record["gate"])  # close, and yet another graph
    quantised = onnx.load(tmp_path / "x.int8.onnx")
    kept = quantisable_convolutions(onnx.load(tmp_path / "x.fp32.onnx"))
    assert record["quantised_convolutions"] == len(kept)
    int8 = [t for t in quantised.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert len([t for t in int8 if len(t.dims) == 4]) == len(kept)
    names = {t.name for t in quantised.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4}
    assert all(any(name.startswith(layer) for name in names) for layer in FLOAT_LAYERS)


def test_what_other_weights_left_is_not_taken_for_a_twin(generator: DcfGenerator, tmp_path: Path) -> None:
    weights, int8 = tmp_path / "model.safetensors", tmp_path / "x.int8.onnx"
    save_generator(weights, generator, generator.state_dict())
    common: dict[str, Any] = {"name": "x", "calibrate": None, "max_tiles": 6, "accept_loss": False}
    build_onnx(weights, tmp_path, **common)
    int8.write_bytes(b"made of the same")
    build_onnx(weights, tmp_path, **common)
    assert int8.exists()
    others = {name: value + 0.01 for name, value in generator.state_dict().items()}
    save_generator(weights, generator, others)
    build_onnx(weights, tmp_path, **common)
    assert not int8.exists()


def test_what_the_gate_let_pass_outlives_what_it_refuses(
    generator: DcfGenerator, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "model.safetensors"
    save_generator(weights, generator, generator.state_dict())
    given = {"name": "x", "max_tiles": 6, "accept_loss": False}
    build_onnx(weights, tmp_path, calibrate=manifest, **given)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 4
    build_onnx(weights, tmp_path, calibrate=None, **given)
    monkeypatch.setattr(gate, "MAX_LOSS_DB", -100.0)
    with pytest.raises(EngineError, match="the quality gate refuses"):
        build_onnx(weights, tmp_path, calibrate=manifest, **given)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_disk_without_room_is_told_as_such(
    generator: DcfGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_generator(weights := tmp_path / "x.safetensors", generator, generator.state_dict())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(StorageError, match=r"cannot write .*the disk is full"):
        build_onnx(weights, tmp_path / "out", name="x", calibrate=None, max_tiles=6, accept_loss=False)
    assert list((tmp_path / "out").iterdir()) == []


def test_quantising_without_tiles_is_refused(fp32: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="calibrate"):
        quantise(fp32, tmp_path / "x.onnx", [])


class Grey(IdentityEngine):
    """Fills every hole with mid-grey, which is nearer to any picture than the black of the identity."""

    def fill(self, batch: TileBatch) -> FloatArray:
        return batch.image + batch.hole * np.float32(0.5)


def test_gate_refuses_an_engine_that_fills_worse(manifest: Path) -> None:
    tiles = collect_tiles(manifest, Grey(), 20)
    with pytest.raises(EngineError, match=r"refuses[^|]*\| side px \| tiles"):
        judge(measure(Grey(), IdentityEngine(), tiles))
    judge(measure(Grey(), Grey(), tiles))
    judged = [tile for tile in tiles if tile.truth is not None]  # without the truth only agreement counts
    judge(measure(IdentityEngine(), Grey(), judged))  # better than the reference is welcome


def test_gate_says_how_much_of_a_loss_may_be_chance(manifest: Path) -> None:
    judged = [tile for tile in collect_tiles(manifest, Grey(), 20) if tile.truth is not None]
    (row, *_) = measure(Grey(), IdentityEngine(), judged)
    tiles = [tile for tile in judged if tile.input.image.shape[-1] == row.side_px]
    losses = [one.loss_db for tile in tiles for one in measure(Grey(), IdentityEngine(), [tile])]
    assert row.loss_error_db == pytest.approx(statistics.stdev(losses) / len(losses) ** 0.5)
    assert f"{row.loss_db:.3f} ± {row.loss_error_db:.3f} |" in table([row])
    (alone,) = measure(Grey(), IdentityEngine(), tiles[:1])
    assert alone.loss_error_db is None
    assert "±" not in table([alone])


def test_gate_by_hand() -> None:
    first, second = np.zeros((3, 2, 2), np.float32), np.zeros((3, 2, 2), np.float32)
    hole = np.zeros((1, 2, 2), np.float32)
    hole[0, 0, 0] = 1
    second[:, 0, 0] = 0.1
    second[:, 1, 1] = 1  # known: does not count
    assert hole_psnr(first, second, hole) == pytest.approx(20)
    assert hole_psnr(first, first, hole) == pytest.approx(100)
    exact = np.random.default_rng(0).random((3, 200, 200))
    rounding = float(np.mean((np.round(exact * 255) / 255 - exact) ** 2))
    assert pytest.approx(rounding, rel=0.02) == ROUNDING
    assert hole_psnr(first, first, hole, ROUNDING) == pytest.approx(20 * np.log10(255 * 12**0.5))
    assert GateRow(64, 1, 30.0, 20.0, 19.9).accepted
    assert not GateRow(64, 1, 60.0, 20.0, 19.7).accepted
    assert GateRow(64, 1, 36.0, None, None).accepted
    assert not GateRow(64, 1, 34.0, None, None).accepted
