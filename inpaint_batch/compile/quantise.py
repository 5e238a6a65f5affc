"""INT8 from one calibration on real tiles, in two forms: one for ONNX Runtime on CPUs, one for TensorRT.

Both are explicit Q/DQ with int8 weights, one scale per output channel. For CPUs activations are uint8 and stay so
through residual sums, relus and enlargements; for TensorRT they are int8, symmetric, quantised where a convolution
reads them, and biases stay in float, because its parser refuses anything else. The first and the last convolution,
the match of the attention, softmax, push-pull and blending stay in float: they are cheap, and errors there are seen.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from inpaint_batch.compile.layout import place
from inpaint_batch.compile.ranges import activation_ranges
from inpaint_batch.errors import EngineError

FLOAT_LAYERS = ("stem", "head", "match.query", "match.key")
"""Layers (by the name of their weights) that stay in float."""

Form = Literal["cpu", "tensorrt"]
"""Which engine the file is for."""
CPU_OPERATORS = ("Conv", "Relu", "Resize", "Add")
"""What ONNX Runtime's CPU kernels do on uint8."""
TENSORRT_OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv"],
    "MinimumRealRange": 255 * 2.0**-20,
}
"""What its parser takes: zero points of 0, no int32 biases, scales that are more than 0 in FP16 as well, which those of
channels that training left next to dead were not. Outputs are quantised by whoever reads them."""

Feed = dict[str, NDArray[np.float32]]
"""One batch for the graph, by input name."""


def quantise(fp32: Path, destination: Path, feeds: Sequence[Feed], form: Form = "cpu") -> int:
    """Write an INT8 twin of `fp32`; return the number of quantised convolutions.

    `feeds`: batches of real tiles, at least one; sides may differ between batches. Raises EngineError where there
    is none or where the graph has no convolution to quantise.
    """
    if not feeds:
        raise EngineError("no tiles to calibrate with: give a manifest of images with holes")
    with TemporaryDirectory(dir=destination.parent, prefix=".quantise-") as folder:
        prepared, temporary = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        # Shapes are free, so symbolic inference finds little; what counts here is that Relu and constants are folded.
        quant_pre_process(str(fp32), str(prepared), skip_symbolic_shape=True)
        prepared_model = onnx.load(prepared)
        convolutions = quantisable_convolutions(prepared_model)
        names = quantisable_nodes(prepared_model) if form == "cpu" else convolutions
        if not convolutions:
            raise EngineError(f"{fp32} has no convolution that may be quantised")
        ranges = activation_ranges(prepared, quantised_tensors(prepared_model, names), feeds)
        overrides = {
            name: [{"rmin": np.float32(low), "rmax": np.float32(high)}] for name, (low, high) in ranges.items()
        }
        root_log = logging.getLogger()
        level = root_log.level
        root_log.setLevel(logging.ERROR)  # the quantiser advises pre-processing through the root logger, always
        try:
            quantize_static(
                str(prepared),
                str(temporary),
                _Reader(feeds[:1]),  # it calibrates in any case, but every range that it would find is given
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8 if form == "cpu" else QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=names,
                op_types_to_quantize=list(CPU_OPERATORS if form == "cpu" else CPU_OPERATORS[:1]),
                extra_options={"TensorQuantOverrides": overrides, **({} if form == "cpu" else TENSORRT_OPTIONS)},
            )
        finally:
            root_log.setLevel(level)
        if form == "cpu":
            model = onnx.load(temporary)
            place(model)
            onnx.checker.check_model(model)
            onnx.save(model, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(destination)
    return len(convolutions)


def quantisable_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the Conv nodes whose weights are not those of FLOAT_LAYERS."""
    return [node.name for node in model.graph.node if _is_quantisable(node)]


def quantisable_nodes(model: onnx.ModelProto) -> list[str]:
    """Names of those convolutions and of every Relu, Resize and Add that reads nothing but what they make.

    Push-pull and blending have such operators too, on colours; no quantised convolution comes before them.
    """
    names: list[str] = []
    features: set[str] = set()
    for node in model.graph.node:  # in the order of their use
        sources = [node.input[0]] if node.op_type == "Resize" else list(node.input)
        carries_on = node.op_type in CPU_OPERATORS[1:] and features.issuperset(sources)
        if _is_quantisable(node) or carries_on:
            names.append(node.name)
            features.add(node.output[0])
    return names


def quantised_tensors(model: onnx.ModelProto, nodes: Sequence[str]) -> list[str]:
    """What those nodes read and write, without constants, and without what goes into a Relu: it joins the operator
    before it, and only what it leaves is quantised."""
    chosen = [node for node in model.graph.node if node.name in nodes]
    constants = {tensor.name for tensor in model.graph.initializer}
    before_relu = {node.input[0] for node in chosen if node.op_type == "Relu"}
    names: dict[str, None] = {}  # in the order of their use
    for node in chosen:
        sources = [node.input[0]] if node.op_type in ("Conv", "Resize") else list(node.input)
        names |= dict.fromkeys([*sources, node.output[0]])
    return [name for name in names if name not in constants | before_relu]


def _is_quantisable(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and not any(node.input[1].startswith(f"{layer}.") for layer in FLOAT_LAYERS)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)
