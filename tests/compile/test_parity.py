"""Every form of the model against torch: all sides, odd batch sizes, each with its tolerance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from small_networks import random_generator, small

from inpaint_batch.compile.export import PARITY_TOLERANCE, example_inputs, export_onnx
from inpaint_batch.compile.half import cast_to_half
from inpaint_batch.compile.lean import fold_unshuffle, lean, shuffle_by_rows
from inpaint_batch.compile.quantise import Form, quantisable_convolutions, quantisable_nodes, quantise
from inpaint_batch.compile.ranges import activation_ranges
from inpaint_batch.errors import EngineError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.types import FloatArray

SIDES_AND_BATCHES = [(64, 1), (64, 7), (128, 3), (256, 1), (256, 2)]
INT8_FLOOR_DB = 28.0
"""Random weights on noise, three tiles to calibrate with: far below what a trained network keeps (over 50 dB)."""
HALF_TOLERANCE = 5e-3


def batch_of(side: int, num: int, seed: int = 5) -> tuple[list[torch.Tensor], TileBatch]:
    inputs = list(example_inputs(num, side, side, seed=seed))
    return inputs, TileBatch(*(each.numpy() for each in inputs))


@pytest.fixture(scope="module")
def expected(generator: DcfGenerator) -> dict[tuple[int, int], FloatArray]:
    with torch.no_grad():
        return {case: generator(*batch_of(*case)[0]).numpy() for case in SIDES_AND_BATCHES}


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, FloatArray]]:
    return [
        dict(zip(INPUT_CHANNELS, (x.numpy() for x in example_inputs(1, side, side, seed=seed)), strict=True))
        for seed, side in ((1, 64), (2, 64), (3, 128))
    ]


def psnr(first: FloatArray, second: FloatArray) -> float:
    return float(-10 * np.log10(np.mean((first - second) ** 2)))


@torch.no_grad()
def test_lean_modules_compute_what_the_trained_ones_do(generator: DcfGenerator) -> None:
    inputs = batch_of(128, 3)[0]
    twin = lean(generator)
    assert type(twin.match) is not type(generator.match)
    torch.testing.assert_close(twin(*inputs), generator(*inputs), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_tile_without_a_known_pixel_is_no_exception(generator: DcfGenerator) -> None:
    """Every score carries the bias then, and it must cancel."""
    image, hole = torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    inputs = (image, hole, torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.ones(1, 1, 1, 1))
    torch.testing.assert_close(lean(generator)(*inputs), generator(*inputs), atol=1e-5, rtol=0)


def test_shuffling_by_rows_is_shuffling() -> None:
    node = helper.make_node("DepthToSpace", ["x"], ["y"], name="shuffle", blocksize=4, mode="CRD")
    other = helper.make_node("DepthToSpace", ["y"], ["z"], name="other", blocksize=2, mode="DCR")
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node, other], "g", [value("x", 1, [None] * 4)], [value("z", 1, [None] * 4)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = np.random.default_rng(0).random((2, 64, 3, 5), np.float32)
    results = []
    for _ in range(2):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results.append(session.run(None, {"x": x})[0])
        shuffle_by_rows(model)
        onnx.checker.check_model(model)
    assert [each.op_type for each in model.graph.node].count("DepthToSpace") == 1  # of the other kind
    assert results[0].shape == (2, 1, 24, 40)
    np.testing.assert_array_equal(results[1], results[0])


def test_fp32_agrees_with_torch(fp32: Path, expected: dict[tuple[int, int], FloatArray]) -> None:
    engine = OnnxEngine(fp32, precision="fp32", threads=1)
    for case, filled in expected.items():
        np.testing.assert_allclose(engine.fill(batch_of(*case)[1]), filled, atol=PARITY_TOLERANCE, rtol=0)
    engine.close()


def test_the_stem_is_folded_once(fp32: Path) -> None:
    model = onnx.load(fp32)
    stem = next(node for node in model.graph.node if "stem.weight" in node.input)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "stem.weight")
    assert list(weight.dims[1:]) == [5, 6, 6]
    assert stem.input[0] in {output for node in model.graph.node if node.op_type == "Concat" for output in node.output}
    before = model.SerializeToString()
    fold_unshuffle(model)
    assert model.SerializeToString() == before


def test_int8_is_close_and_a_tile_does_not_feel_its_company(
    fp32: Path, expected: dict[tuple[int, int], FloatArray], feeds: list[dict[str, FloatArray]], tmp_path: Path
) -> None:
    path = tmp_path / "x.int8.onnx"
    quantise(fp32, path, feeds)
    engine = OnnxEngine(path, precision="int8", threads=1)
    for case, filled in expected.items():
        batch = batch_of(*case)[1]
        together = engine.fill(batch)
        assert psnr(together, filled) > INT8_FLOOR_DB
        assert psnr(together, filled) < 100  # another graph after all
        last = TileBatch(batch.image[-1:], batch.hole[-1:], batch.prior[-1:], batch.prior_weight[-1:])
        assert engine.fill(last).tobytes() == together[-1:].tobytes()
    engine.close()


def test_a_network_without_attention_is_quantised_as_well(feeds: list[dict[str, FloatArray]], tmp_path: Path) -> None:
    generator = random_generator(small((1, 2), key_channels=0))
    inputs, batch = batch_of(128, 3)
    with torch.no_grad():
        expected = generator(*inputs).numpy()
    fp32, int8 = tmp_path / "x.fp32.onnx", tmp_path / "x.int8.onnx"
    assert export_onnx(generator, fp32) <= PARITY_TOLERANCE
    assert not {node.op_type for node in onnx.load(fp32).graph.node} & {"Softmax", "MatMul"}
    quantise(fp32, int8, feeds)
    engine = OnnxEngine(int8, precision="int8", threads=1)
    assert INT8_FLOOR_DB < psnr(engine.fill(batch), expected) < 100
    engine.close()


def test_activations_stay_at_eight_bits_through_sums(
    fp32: Path, feeds: list[dict[str, FloatArray]], tmp_path: Path
) -> None:
    """As ONNX Runtime runs it: every sum of features is one of uint8, and no relu is left on its own."""
    model = onnx.load(fp32)
    chosen = {node.name: node.op_type for node in model.graph.node if node.name in quantisable_nodes(model)}
    num_sums = sum(kind == "Add" for kind in chosen.values())
    assert num_sums >= 14
    assert sum(kind == "Resize" for kind in chosen.values()) == 3
    assert sum(kind == "Conv" for kind in chosen.values()) == len(quantisable_convolutions(model))
    path, optimised = tmp_path / "x.int8.onnx", tmp_path / "optimised.onnx"
    quantise(fp32, path, feeds)
    assert [node.op_type for node in onnx.load(path).graph.node].count("MatMulInteger") == 3  # as `place` gathers
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(optimised)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(optimised).graph.node]
    assert kinds.count("QLinearConv") == len(quantisable_convolutions(model))
    # A sum with the float stem's output may be done in float.
    assert kinds.count("QLinearAdd") >= num_sums - 2


def test_the_form_for_tensorrt_has_what_its_parser_takes(
    fp32: Path, expected: dict[tuple[int, int], FloatArray], feeds: list[dict[str, FloatArray]], tmp_path: Path
) -> None:
    path = tmp_path / "x.int8.onnx"
    num_convolutions = quantise(fp32, path, feeds, "tensorrt")
    model = onnx.load(path)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    linear = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(linear) >= 2 * num_convolutions
    for node in linear:
        zero_point = constants[node.input[2]]
        assert zero_point.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero_point).any()
    assert {tensor.data_type for tensor in constants.values() if len(tensor.dims) == 1} & {TensorProto.INT32} == set()
    engine = OnnxEngine(path, precision="int8", threads=1)
    assert psnr(engine.fill(batch_of(128, 3)[1]), expected[128, 3]) > INT8_FLOOR_DB
    engine.close()


@pytest.mark.parametrize("form", ["cpu", "tensorrt"])
def test_eight_bits_are_spread_over_what_was_measured(
    fp32: Path, feeds: list[dict[str, FloatArray]], tmp_path: Path, form: Form
) -> None:
    """Weights over the largest of each output channel, activations over their range in all batches. What stays in float
    stays as it was."""
    path = tmp_path / "x.int8.onnx"
    num_convolutions = quantise(fp32, path, feeds, form)
    given, found = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(each).graph.initializer}
        for each in (fp32, path)
    )
    in_float = {name for name, values in found.items() if values.ndim == 4 and values.dtype == np.float32}
    assert in_float == {"stem.weight", "match.query.weight", "match.key.weight", "head.weight"}
    assert all(np.array_equal(found[name], given[name]) for name in in_float)
    layers = [name.removesuffix("_quantized") for name in found if name.endswith(".weight_quantized")]
    assert len(layers) == num_convolutions == sum(values.ndim == 4 for values in given.values()) - len(in_float)
    for layer in layers:
        scale = found[f"{layer}_scale"]
        np.testing.assert_allclose(scale, np.abs(given[layer]).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
        steps = given[layer] / scale[:, None, None, None]
        np.testing.assert_allclose(found[f"{layer}_quantized"], steps, atol=0.5 + 1e-4, rtol=0)
    names = [name.removesuffix("_scale") for name in found if name.endswith("_scale") and found[name].ndim == 0]
    model = onnx.load(fp32)
    read = {node.input[0] for node in model.graph.node if node.name in quantisable_convolutions(model)}
    assert read <= set(names)
    for name, (low, high) in activation_ranges(fp32, names, feeds).items():
        scale, zero_point = found[f"{name}_scale"], found[f"{name}_zero_point"]
        step = (high - low) / 255 if form == "cpu" else max(-low, high) / 127
        assert scale == pytest.approx(step, rel=1e-5), name
        assert zero_point == (round(-low / step) if form == "cpu" else 0), name


@pytest.mark.parametrize("quantised", [False, True])
def test_half_precision_is_written_into_the_graph(
    fp32: Path,
    expected: dict[tuple[int, int], FloatArray],
    feeds: list[dict[str, FloatArray]],
    tmp_path: Path,
    quantised: bool,
) -> None:
    source = fp32
    if quantised:
        source = tmp_path / "x.int8.onnx"
        quantise(fp32, source, feeds, "tensorrt")
    path = tmp_path / "x.fp16.onnx"
    assert cast_to_half(source, path) > 80
    model = onnx.load(path)
    kept = [t.name for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4]
    assert kept == []  # no weight of a convolution
    engine = OnnxEngine(path, precision="fp16", threads=1)  # inputs and output are still float32
    filled = engine.fill(batch_of(128, 3)[1])
    engine.close()
    if quantised:
        assert psnr(filled, expected[128, 3]) > INT8_FLOOR_DB
    else:
        np.testing.assert_allclose(filled, expected[128, 3], atol=HALF_TOLERANCE, rtol=0)
        assert np.abs(filled - expected[128, 3]).max() > 0


def test_half_precision_wants_a_graph_of_ours(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["image"], ["filled"])
    kinds = [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("image", "filled")]
    graph = onnx.helper.make_graph([node], "other", kinds[:1], kinds[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "other.onnx")
    with pytest.raises(EngineError, match=r"no convolutions with stem\.weight"):
        cast_to_half(tmp_path / "other.onnx", tmp_path / "half.onnx")
