"""INT8 for ONNX Runtime on CPUs: explicit Q/DQ around convolutions, from the ranges seen on real tiles.

Weights are int8 with one scale per output channel, activations uint8 with one scale per tensor. The first and the
last convolution, the match of the attention, softmax, push-pull and blending stay in float: they are cheap, and
errors there are seen.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from inpaint_batch.errors import EngineError

FLOAT_LAYERS = ("stem", "head", "match.query", "match.key")
"""Layers (by the name of their weights) that stay in float."""

Feed = dict[str, NDArray[np.float32]]
"""One batch for the graph, by input name."""


def quantise(fp32: Path, destination: Path, feeds: Sequence[Feed]) -> int:
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
        names = quantisable_convolutions(onnx.load(prepared))
        if not names:
            raise EngineError(f"{fp32} has no convolution that may be quantised")
        root_log = logging.getLogger()
        level = root_log.level
        root_log.setLevel(logging.ERROR)  # the quantiser advises pre-processing through the root logger, always
        try:
            quantize_static(
                str(prepared),
                str(temporary),
                _Reader(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_quantize=names,
                extra_options={"CalibMovingAverage": False},
            )
        finally:
            root_log.setLevel(level)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(destination)
    return len(names)


def quantisable_convolutions(model: onnx.ModelProto) -> list[str]:
    """Names of the Conv nodes whose weights are not those of FLOAT_LAYERS."""
    names = []
    for node in model.graph.node:
        if node.op_type == "Conv" and not any(node.input[1].startswith(f"{layer}.") for layer in FLOAT_LAYERS):
            names.append(node.name)
    return names


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)
