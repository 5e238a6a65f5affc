"""Plans are built where TensorRT for RTX is installed (it needs no GPU); refusals are tested everywhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from typer.testing import CliRunner

from inpaint_batch.cli.compile import app
from inpaint_batch.compile.export import example_inputs
from inpaint_batch.compile.quantise import quantisable_convolutions
from inpaint_batch.compile.tensorrt_build import build_plan, build_tensorrt, typed_graph
from inpaint_batch.compile.tiles import RealTile, collect_tiles
from inpaint_batch.errors import ConfigError, EngineError, MissingDependencyError, UsageError
from inpaint_batch.runtime import tensorrt_api
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import PlanKey, list_plans
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.runtime.store import find_model, hash_file
from inpaint_batch.runtime.tensorrt_api import import_tensorrt, query_gpu
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.tiling.fill import TileInput

KEY = PlanKey(model_hash="0" * 64, precision="fp32", shapes="", tensorrt="tensorrt_rtx", gpu="", driver="")


@pytest.fixture
def trt() -> object:
    try:
        module = import_tensorrt()
    except MissingDependencyError:
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed: pip install tensorrt-rtx")
    if module.__name__ == "tensorrt" and query_gpu() == ("", ""):
        pytest.skip("tensorrt builds only where there is a GPU; tensorrt-rtx builds without")
    return module


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> list[RealTile]:
    import cv2
    import numpy as np

    folder = tmp_path_factory.mktemp("tiles")
    truth = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8), (96, 80))
    mask = np.zeros((80, 96), np.uint8)
    mask[20:50, 30:60] = 255
    for name, picture in (("image", truth), ("mask", mask)):
        cv2.imwrite(str(folder / f"{name}.png"), picture)
    (folder / "m.csv").write_text("image,mask,truth\nimage.png,mask.png,image.png\n")
    return collect_tiles(folder / "m.csv", IdentityEngine(), 4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_is_built_once(trt: object, cache: Path, fp32: Path, tiles: list[RealTile], precision: str) -> None:
    given = {"precision": precision, "learned": tiles, "judged": tiles, "accept_loss": True}
    plan, report = build_tensorrt(fp32, hash_file(fp32), **given)  # type: ignore[arg-type]
    assert "lost dB" in report
    assert plan.path.stat().st_size > 1000
    card = json.loads(plan.path.with_suffix(".json").read_text())
    assert card["graph_gate"]
    assert card["inspector"]
    kinds, types = card["network"]["kinds"], card["network"]["types"]
    assert card["network"]["num_layers"] == sum(kinds.values())
    # A strongly typed network computes in what the graph says: these are its types, not wishes.
    assert (types.get("half", 0) > 80) == (precision != "fp32")
    assert (kinds.get("quantize", 0) > 20) == (precision == "int8")
    written = plan.path.stat().st_mtime_ns
    again, report = build_tensorrt(fp32, hash_file(fp32), **given)  # type: ignore[arg-type]
    assert "already built" in report
    assert (again.key, again.path.stat().st_mtime_ns) == (plan.key, written)
    assert len(list_plans(cache)) == 1


def test_a_channel_that_is_next_to_dead_keeps_a_scale(
    trt: object, cache: Path, fp32: Path, tiles: list[RealTile], tmp_path: Path
) -> None:
    model = onnx.load(fp32)
    name = next(node.input[1] for node in model.graph.node if node.name in quantisable_convolutions(model))
    tensor = next(each for each in model.graph.initializer if each.name == name)
    weights = numpy_helper.to_array(tensor).copy()
    weights[0] *= 1e-7  # its scale would be 0 in FP16, and TensorRT takes none such
    tensor.CopyFrom(numpy_helper.from_array(weights, name))
    onnx.save(model, tmp_path / "dead.onnx")
    graph = typed_graph(tmp_path / "dead.onnx", tmp_path, "int8", tiles)
    assert build_plan(graph.read_bytes(), cache, KEY).content


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_plan_on_a_gpu(trt: object, cache: Path, fp32: Path, tiles: list[RealTile], precision: str) -> None:
    judged = [noise_tile(side, seed) for seed, side in enumerate((64, 128, 256))]
    given = {"precision": precision, "learned": tiles, "judged": judged, "accept_loss": True}
    plan, _ = build_tensorrt(fp32, hash_file(fp32), **given)  # type: ignore[arg-type]
    assert plan.judged
    assert len(plan.card["latency_ms"]) == 3
    engine = select_engine("tensorrt", model=str(fp32), precision=precision)
    batch = TileBatch(*(each.numpy() for each in example_inputs(35, 64, 64, seed=4)))
    filled = engine.fill(batch)
    expected = OnnxEngine(fp32, precision="fp32").fill(batch)
    np.testing.assert_allclose(filled, expected, atol={"fp32": 1e-3, "fp16": 1e-2, "int8": 0.3}[precision], rtol=0)
    for index in (0, 1, 34):  # as they were at 0, 1 and 2 of a batch
        assert engine.fill(batch.only(index)).tobytes() == filled[index : index + 1].tobytes()
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_shipped_model_is_built_in_every_precision(trt: object, cache: Path, precision: str) -> None:
    """All three profiles; one tile of noise each, so that INT8 has scales at all."""
    model = find_model("default").files["fp32"]
    learned = [noise_tile(side, seed) for seed, side in enumerate((64, 128, 256))]
    plan, _ = build_tensorrt(model, hash_file(model), precision=precision, learned=learned, accept_loss=True)
    kinds = plan.card["network"]["kinds"]
    graph = onnx.load(model)
    assert kinds["convolution"] == sum(node.op_type == "Conv" for node in graph.graph.node) > 20
    # Each quantised convolution reads quantised weights, and activations that some of them share.
    num_quantised = len(quantisable_convolutions(graph))
    assert (kinds.get("dequantize", 0) > 1.5 * num_quantised) == (precision == "int8")
    assert plan.path.stat().st_size > 9_000_000


def noise_tile(side: int, seed: int) -> RealTile:
    image, hole, prior, weight = (each.numpy()[0] for each in example_inputs(1, side, side, seed))
    return RealTile(seed, TileInput(image, hole, prior, float(weight.item())), hole, None)


def test_what_the_parser_refuses_is_said(trt: object, cache: Path) -> None:
    with pytest.raises(EngineError, match="TensorRT does not take the graph"):
        build_plan(b"this is no graph", cache, KEY)
    node = helper.make_node("Nothing", ["x"], ["y"], domain="nobody")
    x, y = (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("nobody", 1)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=9)
    with pytest.raises(EngineError, match="TensorRT does not take the graph"):
        build_plan(model.SerializeToString(), cache, KEY)


def test_full_tensorrt_without_a_gpu_says_so(cache: Path, fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__name__="tensorrt", __version__="11.0", Builder=0))
    monkeypatch.setattr(tensorrt_api, "query_gpu", lambda: ("", ""))
    with pytest.raises(EngineError, match="only on the GPU they are for"):
        build_tensorrt(fp32, "0" * 64, precision="fp16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.safetensors"], "give --output"),
        (["x.safetensors", "--target", "vulkan"], "unknown target 'vulkan'"),
        (["x.onnx", "--target", "tensorrt", "--precision", "fp8"], "no precision 'fp8': choose fp32 or fp16 or int8"),
        (["x.safetensors", "--precision", "fp16", "--output", "o"], "no precision 'fp16': choose fp32 or int8"),
        (["x.onnx", "--target", "tensorrt", "--precision", "int8"], "INT8 needs --calibrate"),
    ],
)
def test_contradictions_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_a_recipe_sets_what_flags_leave_open(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('target = "tensorrt"\nprecision = "int8"\n')
    done = CliRunner().invoke(app, ["x.onnx", "--recipe", str(recipe)])
    assert "INT8 needs --calibrate" in str(done.exception)
    done = CliRunner().invoke(app, ["x.onnx", "--recipe", str(recipe), "--target", "onnx", "--precision", "fp32"])
    assert "give --output" in str(done.exception)


@pytest.mark.parametrize("text", ["tiles = 2", "tiles = 'many'", "speed = 3", "target ="])
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    done = CliRunner().invoke(app, ["x.onnx", "--recipe", str(tmp_path / "r.toml")])
    assert isinstance(done.exception, ConfigError)


def test_shipped_recipes_are_understood() -> None:
    folder = Path(__file__).parents[2] / "engines" / "recipes"
    for recipe in folder.glob("*.toml"):
        done = CliRunner().invoke(app, ["missing.safetensors", "--recipe", str(recipe)])
        assert isinstance(done.exception, UsageError), recipe  # understood, and then something is missing
