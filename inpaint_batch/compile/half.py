"""FP16 by casting the graph itself: what lies between the first and the last convolution is computed in half precision.

Push-pull, blending and the sum with the start image stay in FP32: they are cheap, and their errors would be seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inpaint_batch.errors import EngineError

FIRST, LAST = "stem.weight", "head.weight"
"""Weights of the convolutions that begin and end the half-precision part; both belong to it."""
FLOAT_ONLY_INPUTS = {"Resize": (1, 2)}
"""Inputs that ONNX wants in FP32 whatever the type of the data."""


def cast_to_half(source: Path, destination: Path) -> int:
    """Write the FP16 twin of an FP32 or a Q/DQ graph; return the number of nodes that compute in half precision.

    Inputs and output of the graph stay float32. Raises EngineError for a graph without those two convolutions.
    """
    model = onnx.load(source)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        _raise_opset(model, 19)  # the first in which scales may be half
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    kinds.update((name, tensor.data_type) for name, tensor in constants.items())
    inside = _inside(model.graph, kinds)
    produced = {output for node in inside for output in node.output}
    names = {id(node) for node in inside}
    nodes: list[onnx.NodeProto] = []
    halved: dict[str, str] = {}
    restored: dict[str, str] = {}
    for node in model.graph.node:
        is_inside = id(node) in names
        for index, name in enumerate(node.input):
            if kinds.get(name) != TensorProto.FLOAT or index in FLOAT_ONLY_INPUTS.get(node.op_type, ()):
                continue
            if is_inside and name not in produced:
                if name not in halved:
                    halved[name] = f"{name}.half"
                    if name in constants:
                        values = numpy_helper.to_array(constants[name]).astype(np.float16)
                        model.graph.initializer.append(numpy_helper.from_array(values, halved[name]))
                    else:
                        nodes.append(helper.make_node("Cast", [name], [halved[name]], to=TensorProto.FLOAT16))
                node.input[index] = halved[name]
            elif not is_inside and name in produced:
                if name not in restored:
                    restored[name] = f"{name}.float"
                    nodes.append(helper.make_node("Cast", [name], [restored[name]], to=TensorProto.FLOAT))
                node.input[index] = restored[name]
        nodes.append(node)
    del model.graph.value_info[:]
    ordered = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [each for each in model.graph.initializer if each.name not in used]:
        model.graph.initializer.remove(tensor)
    onnx.checker.check_model(model)
    onnx.save(model, destination)
    return len(inside)


def _inside(graph: onnx.GraphProto, kinds: dict[str, int]) -> list[onnx.NodeProto]:
    """Nodes that work on features: those that follow the first convolution, up to the last and what only feeds them."""
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    first = next((node for node in graph.node if FIRST in node.input), None)
    last = next((node for node in graph.node if LAST in node.input), None)
    if first is None or last is None:
        raise EngineError(f"the graph has no convolutions with {FIRST} and {LAST}: give an export of this package")
    after_last = _following(last, users) - {id(last)}
    following = _following(first, users)
    # Dequantised weights and biases: nodes that read constants only and are read inside only.
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and constants.issuperset(node.input):
            following.add(id(node))
    return [
        node
        for node in graph.node
        if id(node) in following and id(node) not in after_last and _computes_float(node, kinds)
    ]


def _following(start: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]]) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        node = waiting.pop()
        if id(node) in found:
            continue
        found.add(id(node))
        waiting.extend(user for output in node.output for user in users.get(output, ()))
    return found


def _computes_float(node: onnx.NodeProto, kinds: dict[str, int]) -> bool:
    """Not a node that computes with sizes."""
    return TensorProto.FLOAT in {kinds.get(name) for name in (*node.input, *node.output)} and node.op_type != "Shape"


def _raise_opset(model: onnx.ModelProto, version: int) -> None:
    """Newer numbers for the same operators: none that the generator uses changed between 18 and 19 in a way that
    matters, and the caller's parity check would show it."""
    for entry in model.opset_import:
        if entry.domain == "" and entry.version < version:
            entry.version = version
