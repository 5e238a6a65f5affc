"""What is rewritten for the speed of 8-bit kernels computes the same: to the byte where nothing is rounded anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from small_networks import random_generator, small

from inpaint_batch.compile import layout, quantise
from inpaint_batch.compile.export import example_inputs, export_onnx
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.types import FloatArray

SIZES = [(1, 64, 64), (3, 128, 128), (2, 96, 160), (1, 256, 256)]


def feed(batch: int, height: int, width: int, seed: int = 7) -> dict[str, FloatArray]:
    return dict(zip(INPUT_CHANNELS, (x.numpy() for x in example_inputs(batch, height, width, seed)), strict=True))


def run(model: onnx.ModelProto, size: tuple[int, int, int]) -> FloatArray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    result: FloatArray = session.run(None, feed(*size))[0]
    return result


@pytest.fixture(scope="module")
def plain(fp32: Path, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The quantised graph as the quantiser leaves it."""
    path = tmp_path_factory.mktemp("plain") / "plain.int8.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise, "place", lambda _: None)
        quantise.quantise(fp32, path, [feed(1, 64, 64, 1), feed(1, 128, 128, 2)])
    return onnx.load(path)


def twin(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def kinds(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_enlarging_by_copying_gives_the_same_bytes(plain: onnx.ModelProto) -> None:
    placed = twin(plain)
    graph = layout._Graph(placed)
    for node in [node for node in placed.graph.node if node.op_type == "Resize"]:
        layout._enlarge(graph, node)
    layout.remove_unused(placed.graph)
    # What is left are the enlargements of colours in push-pull, which are bilinear.
    assert kinds(plain).count("Resize") - kinds(placed).count("Resize") == 3
    for size in SIZES:
        assert run(placed, size).tobytes() == run(plain, size).tobytes()


def test_gathering_with_eight_bits_stays_close(plain: onnx.ModelProto) -> None:
    placed = twin(plain)
    layout.place(placed)
    onnx.checker.check_model(placed)
    assert kinds(placed).count("MatMulInteger") == 3
    assert kinds(plain).count("MatMul") - kinds(placed).count("MatMul") == 3
    for size in SIZES:
        first, second = run(placed, size), run(plain, size)
        assert first.shape == second.shape
        assert -10 * np.log10(np.mean((first - second) ** 2)) > 40
    alone = {name: values[2:] for name, values in feed(3, 128, 128).items()}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(placed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert session.run(None, alone)[0].tobytes() == run(placed, (3, 128, 128))[2:].tobytes()


def test_cells_are_as_large_as_the_stages_want_them(tmp_path: Path) -> None:
    """A network that ends at 1/4 has two stages: cells of 2×2 and of 4×4, and none of one feature."""
    generator = random_generator(small((1, 2)))
    export_onnx(generator, tmp_path / "x.fp32.onnx")
    feeds = [feed(1, 64, 64, 1), feed(1, 128, 128, 2)]
    quantise.quantise(tmp_path / "x.fp32.onnx", tmp_path / "x.int8.onnx", feeds)
    placed = onnx.load(tmp_path / "x.int8.onnx")
    assert kinds(placed).count("MatMulInteger") == 2
    for size in SIZES:
        with torch.no_grad():
            expected = generator(*example_inputs(*size, 7)).numpy()
        assert -10 * np.log10(np.mean((run(placed, size) - expected) ** 2)) > 28


def test_placing_twice_changes_nothing_more(plain: onnx.ModelProto) -> None:
    placed = twin(plain)
    layout.place(placed)
    before = placed.SerializeToString()
    layout.place(placed)
    assert placed.SerializeToString() == before


def test_a_graph_without_such_places_is_left_alone() -> None:
    nodes = [helper.make_node("Resize", ["image", "", "scales"], ["filled"], mode="linear")]
    kind = helper.make_tensor_value_info
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    ends = ([kind("image", 1, [1, 3, 8, 8])], [kind("filled", 1, [1, 3, 16, 16])])
    model = helper.make_model(helper.make_graph(nodes, "other", *ends, [scales]))
    before = model.SerializeToString()
    layout.place(model)
    assert model.SerializeToString() == before


def test_a_sharp_attention_survives_quantisation(plain: onnx.ModelProto) -> None:
    """Scores thirty times as large: rows with one large entry and many small ones."""
    sharp = twin(plain)
    for tensor in sharp.graph.initializer:
        if tensor.name.startswith("match.query"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(30), tensor.name))
    placed = twin(sharp)
    layout.place(placed)
    first, second = run(placed, (2, 128, 128)), run(sharp, (2, 128, 128))
    assert -10 * np.log10(np.mean((first - second) ** 2)) > 35
