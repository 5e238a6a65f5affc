"""Three places of a quantised graph where ONNX Runtime is slow on CPUs, said in operations that it is fast at.

It keeps 8-bit features with channels last. *Enlargements* to twice the size have a kernel for channels first only: a
row of pixels written twice, twice, is copying. *Cells* of 2×2 or 4×4 features are taken apart and put together in the
same layout, where a cell is a few runs of bytes, before they become float. And *what attention gathers* is a product of
8-bit numbers: each row of the attention has a scale of its own, its largest entry, so nothing is asked of how sharp it
is. All but the last give the same bytes as before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from inpaint_batch.compile.lean import remove_unused

LARGEST_CELL = 4
"""Side of a cell of the attention in features of the last stage, the finest; half as many at each one before."""
LEVELS = 127
"""Steps of an attention row, 0 to its largest entry. Not 255: with 7 bits no pair of products overflows 16 bits, which
is what processors without VNNI add them up in."""
TO_CHANNELS_LAST, TO_CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
SWAP_ROWS = [0, 1, 3, 2, 4]
"""(B, h, c, w, x) and (B, h, w, c, x): rows of cells and cells, or rows of pixels."""


def place(model: onnx.ModelProto) -> None:
    """Rewrite `model`, in place: a Q/DQ graph of this package for CPUs. What is not found is left as it is."""
    graph = _Graph(model)
    for resize in [node for node in model.graph.node if node.op_type == "Resize"]:
        _enlarge(graph, resize)
    for softmax in [node for node in model.graph.node if node.op_type == "Softmax"]:
        _gather(graph, softmax)
    remove_unused(model.graph)


class _Graph:
    """A graph that is being edited: who makes a tensor, who reads it, and new nodes in their place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self._number = 0
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def maker(self, name: str, kind: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, if it is of that kind."""
        return next((node for node in self.graph.node if name in node.output and node.op_type == kind), None)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor, in the order of the graph."""
        return [node for node in self.graph.node if name in node.input]

    def channels(self, quantised: str) -> int:
        """Of a tensor that a quantised convolution makes."""
        quantise = self.maker(quantised, "QuantizeLinear")
        conv = self.maker(quantise.input[0], "Conv") if quantise else None
        weight = self.maker(conv.input[1], "DequantizeLinear") if conv else None
        assert weight is not None
        return int(self.constants[weight.input[0]].dims[0])

    def constant(self, values: NDArray[np.generic] | np.generic | Sequence[int]) -> str:
        """A new constant; a list of numbers is a shape."""
        self._number += 1
        array = np.array(values, np.int64) if isinstance(values, list) else np.asarray(values)
        tensor = numpy_helper.from_array(array, f"placed.constant.{self._number}")
        self.graph.initializer.append(tensor)
        self.constants[tensor.name] = tensor
        return str(tensor.name)

    def add(self, nodes: list[onnx.NodeProto], kind: str, *inputs: str, **attributes: Any) -> str:
        """Append a node to `nodes`; its output."""
        self._number += 1
        name = f"placed.{kind}.{self._number}"
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def shape(self, nodes: list[onnx.NodeProto], *parts: str | int) -> str:
        """A shape of known numbers and of one-element tensors."""
        return self.add(nodes, "Concat", *(p if isinstance(p, str) else self.constant([p]) for p in parts), axis=0)

    def side(self, nodes: list[onnx.NodeProto], tensor: str, axis: int) -> str:
        """The size of `tensor` along `axis`, as a tensor of one element."""
        return self.add(nodes, "Shape", tensor, start=axis, end=axis + 1)

    def put(self, nodes: list[onnx.NodeProto], before: onnx.NodeProto) -> None:
        """Insert `nodes` in front of a node of the graph."""
        every = list(self.graph.node)
        place_at = next(index for index, node in enumerate(every) if node is before)
        every[place_at:place_at] = nodes
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in every]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def _enlarge(graph: _Graph, resize: onnx.NodeProto) -> None:
    """(B, C, h, w) to (B, C, 2h, 2w), in uint8, where it meets another tensor of the larger size in a sum."""
    before = graph.maker(resize.input[0], "DequantizeLinear")
    if before is None:
        return  # an enlargement of colours, in float
    (quantise,) = graph.readers(resize.output[0])
    (after,) = graph.readers(quantise.output[0])
    (add,) = graph.readers(after.output[0])
    (other,) = (name for name in add.input if name != after.output[0])
    larger = graph.maker(other, "DequantizeLinear")
    assert larger is not None
    channels = graph.channels(before.input[0])
    nodes: list[onnx.NodeProto] = []
    last = graph.add(nodes, "Transpose", before.input[0], perm=TO_CHANNELS_LAST)
    columns = graph.add(nodes, "Concat", last, last, axis=3)
    row = graph.add(nodes, "Reshape", columns, graph.constant([0, 0, -1]))
    rows = graph.add(nodes, "Concat", row, row, axis=2)
    sides = [graph.side(nodes, larger.input[0], axis) for axis in (2, 3)]
    enlarged = graph.add(nodes, "Reshape", rows, graph.shape(nodes, 0, *sides, channels))
    first = graph.add(nodes, "Transpose", enlarged, perm=TO_CHANNELS_FIRST)
    nodes.append(helper.make_node("DequantizeLinear", [first, *after.input[1:]], list(after.output), name=after.name))
    after.output[0] = f"{after.output[0]}.unused"
    graph.put(nodes, add)


def _gather(graph: _Graph, softmax: onnx.NodeProto) -> None:
    """Attention (B, N, N) times values (B, N, D) at every stage, with 8 bits on both sides."""
    attention = softmax.output[0]
    products = [node.output[0] for node in graph.readers(attention) if node.op_type == "MatMul"]
    if not products:
        return
    nodes: list[onnx.NodeProto] = []
    flat = graph.add(nodes, "Flatten", attention, axis=2)  # a scale for each row of each tile
    largest = graph.add(nodes, "ReduceMax", flat, graph.constant([1]), keepdims=0)
    scale = graph.add(nodes, "Mul", largest, graph.constant(np.float32(1 / LEVELS)))
    quantised = graph.add(nodes, "QuantizeLinear", flat, scale, axis=0)
    size = graph.add(nodes, "Shape", attention)
    left = graph.add(nodes, "Reshape", quantised, size)
    tiles_and_rows = graph.add(nodes, "Shape", attention, start=0, end=2)
    scales = graph.add(nodes, "Reshape", scale, graph.shape(nodes, tiles_and_rows, 1))
    for stage, product in enumerate(products):
        matmul = graph.maker(product, "MatMul")
        assert matmul is not None
        values = _before(graph, matmul.input[1])
        result = _after(graph, product)
        cell = LARGEST_CELL >> (len(products) - 1 - stage)
        if stage == 0:
            each = graph.constant([cell])
            grid = [graph.add(nodes, "Div", graph.side(nodes, values.input[0], axis), each) for axis in (2, 3)]
        # The new nodes replace the quantisation of the result: everything between is left without a reader.
        output = _gather_stage(graph, nodes, left, scales, values, grid, cell, result)
        nodes.append(helper.make_node("Identity", [output], [result.output[0]], name=result.name))
        result.output[0] = f"{result.output[0]}.unused"
        graph.put(nodes, next(node for node in graph.graph.node if node.name == result.name))
        nodes = []


def _gather_stage(
    graph: _Graph,
    nodes: list[onnx.NodeProto],
    left: str,
    scales: str,
    values: onnx.NodeProto,
    grid: list[str],
    cell: int,
    result: onnx.NodeProto,
) -> str:
    """Of one stage: from its quantised values (B, v, H, W) to what was gathered, quantised as `result` does it."""
    source, scale, zero_point = values.input
    channels = graph.channels(source)
    h, w = grid
    right = graph.add(nodes, "Transpose", source, perm=TO_CHANNELS_LAST)
    if cell > 1:
        right = graph.add(nodes, "Reshape", right, graph.shape(nodes, 0, h, cell, w, cell * channels))
        right = graph.add(nodes, "Transpose", right, perm=SWAP_ROWS)
    right = graph.add(nodes, "Reshape", right, graph.constant([0, -1, cell * cell * channels]))
    # The kernel wants a signed matrix on the right; 128 less, and a zero point that is 128 less, is the same value.
    one, middle, zero = (graph.constant(value) for value in (np.float32(1), np.uint8(128), np.int8(0)))
    signed = graph.add(nodes, "QuantizeLinear", graph.add(nodes, "DequantizeLinear", right, one, middle), one, zero)
    offset = int(numpy_helper.to_array(graph.constants[zero_point])) - 128
    zero_points = graph.constant(np.uint8(0)), graph.constant(np.int8(offset))
    sums = graph.add(nodes, "MatMulInteger", left, signed, *zero_points)
    # Two factors one after the other: given as one product they would be taken for two scales of one number each.
    gathered = graph.add(nodes, "Mul", graph.add(nodes, "Cast", sums, to=onnx.TensorProto.FLOAT), scale)
    gathered = graph.add(nodes, "Mul", gathered, scales)
    if cell > 1:
        gathered = graph.add(nodes, "Reshape", gathered, graph.shape(nodes, 0, h, w, cell, cell * channels))
        gathered = graph.add(nodes, "Transpose", gathered, perm=SWAP_ROWS)
    width = graph.side(nodes, source, 3)
    gathered = graph.add(nodes, "Reshape", gathered, graph.shape(nodes, 0, -1, width, channels))
    eight_bits = graph.add(nodes, "QuantizeLinear", gathered, *result.input[1:])
    return graph.add(nodes, "Transpose", eight_bits, perm=TO_CHANNELS_FIRST)


def _before(graph: _Graph, name: str) -> onnx.NodeProto:
    """The node that made floats of the quantised tensor from which `name` was only moved about."""
    while True:
        node: onnx.NodeProto = next(node for node in graph.graph.node if name in node.output)
        if node.op_type == "DequantizeLinear":
            return node
        name = node.input[0]


def _after(graph: _Graph, name: str) -> onnx.NodeProto:
    """The node that quantises `name` after it was moved about."""
    while True:
        node: onnx.NodeProto = next(node for node in graph.readers(name) if node.op_type != "Shape")
        if node.op_type == "QuantizeLinear":
            return node
        name = node.output[0]
