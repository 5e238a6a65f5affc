"""Small ONNX graphs with the contract of a model, made by hand."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FREE = ("batch", "height", "width")


def value(
    name: str, channels: int, kind: int = TensorProto.FLOAT, sides: tuple[object, ...] = FREE
) -> onnx.ValueInfoProto:
    batch, height, width = sides
    return helper.make_tensor_value_info(name, kind, [batch, channels, height, width])


def inputs(sides: tuple[object, ...] = FREE) -> list[onnx.ValueInfoProto]:
    weight = helper.make_tensor_value_info("prior_weight", TensorProto.FLOAT, [sides[0], 1, 1, 1])
    return [value("image", 3, sides=sides), value("hole", 1, sides=sides), value("prior", 3, sides=sides), weight]


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    *,
    graph_inputs: list[onnx.ValueInfoProto] | None = None,
    output: onnx.ValueInfoProto | None = None,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "small",
        inputs() if graph_inputs is None else graph_inputs,
        [output or value("filled", 3)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def conv(name: str, source: str, target: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, f"{name}.weight", f"{name}.bias"], [target], **attributes)


def network(path: Path) -> Path:
    """Convolutions, pooling, attention over all places, enlargement: what the real network is made of."""
    rng = np.random.default_rng(3)
    constants: dict[str, np.ndarray] = {}

    def weights(name: str, out: int, into: int, kernel: int) -> None:
        scale = (2 / (into * kernel**2)) ** 0.5
        constants[f"{name}.weight"] = (rng.standard_normal((out, into, kernel, kernel)) * scale).astype(np.float32)
        constants[f"{name}.bias"] = rng.standard_normal(out).astype(np.float32) * np.float32(0.1)

    for name, out, into, kernel in (
        ("stem", 24, 7, 3),
        ("down", 48, 24, 3),
        ("deep", 48, 48, 3),
        ("query", 16, 48, 1),
        ("up", 24, 48, 1),
        ("head", 3, 24, 3),
    ):
        weights(name, out, into, kernel)
    same = {"pads": [1, 1, 1, 1]}
    constants["flat"] = np.array([0, 0, -1], dtype=np.int64)
    constants["scales"] = np.array([1, 1, 4, 4], dtype=np.float32)
    constants["one"] = np.array(1, dtype=np.float32)
    nodes = [
        helper.make_node("Mul", ["prior", "prior_weight"], ["weighted"]),
        helper.make_node("Concat", ["image", "hole", "weighted"], ["joined"], axis=1),
        conv("stem", "joined", "stem_out", **same),
        helper.make_node("Relu", ["stem_out"], ["stem_relu"]),
        helper.make_node("AveragePool", ["stem_relu"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        conv("down", "pooled", "down_out", strides=[2, 2], **same),
        helper.make_node("Relu", ["down_out"], ["down_relu"]),
        conv("deep", "down_relu", "deep_out", **same),
        conv("query", "deep_out", "query_out"),
        helper.make_node("Reshape", ["query_out", "flat"], ["keys"]),
        helper.make_node("Reshape", ["deep_out", "flat"], ["values"]),
        helper.make_node("Transpose", ["keys"], ["queries"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["attention"], axis=1),
        helper.make_node("MatMul", ["values", "attention"], ["gathered"]),
        helper.make_node("Shape", ["deep_out"], ["deep_shape"]),
        helper.make_node("Reshape", ["gathered", "deep_shape"], ["context"]),
        helper.make_node("Add", ["deep_out", "context"], ["rich"]),
        conv("up", "rich", "up_out"),
        helper.make_node("Resize", ["up_out", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Add", ["large", "stem_relu"], ["mixed"]),
        conv("head", "mixed", "head_out", **same),
        helper.make_node("Sigmoid", ["head_out"], ["guess"]),
        helper.make_node("Mul", ["guess", "hole"], ["inside"]),
        helper.make_node("Sub", ["one", "hole"], ["known"]),
        helper.make_node("Mul", ["image", "known"], ["outside"]),
        helper.make_node("Add", ["inside", "outside"], ["filled"]),
    ]
    return write_graph(path, nodes, constants)


def pass_through(path: Path, divisor: float = 1.0) -> Path:
    """Returns image / divisor; NaN and infinity where it is zero."""
    nodes = [
        helper.make_node("Mul", ["prior", "prior_weight"], ["weighted"]),
        helper.make_node("Sum", ["image", "hole", "weighted"], ["all"]),
        helper.make_node("Div", ["all", "divisor"], ["filled"]),
    ]
    return write_graph(path, nodes, {"divisor": np.array(divisor, dtype=np.float32)})
