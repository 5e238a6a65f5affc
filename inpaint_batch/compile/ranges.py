"""Between which values 8 bits are spread: less than the extremes that calibration sees, more than most of what it sees.

The features of such networks have long tails: their largest value is two to three times the one that all but a
ten-thousandth stay below. Steps for the whole tail are coarse for everything else, and flat parts of a picture show
it; without the tail, strong edges are filled visibly otherwise. What is taken lies between the two, on a logarithmic
scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper

TAIL_PERCENT = 0.01
"""Share of the values, on each side, that counts as tail."""
TOWARDS_EXTREME = 0.43
"""How much of the way from the tail to the extreme."""
SAMPLES_PER_BATCH = 2048
"""Values of each tensor that are looked at for the tail; evenly spread, so that the same tiles give the same ranges."""

Range = tuple[float, float]
"""Smallest and largest value that 8 bits shall represent; 0 lies between them, or is one of them."""


def activation_ranges(
    model: Path, tensors: Sequence[str], feeds: Sequence[dict[str, NDArray[np.float32]]]
) -> dict[str, Range]:
    """The range of each of `tensors` of a float graph, over all batches of `feeds`."""
    graph = onnx.load(model)
    graph.graph.output.extend(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    extremes = dict.fromkeys(tensors, (0.0, 0.0))
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in tensors}
    for feed in feeds:
        for name, values in zip(tensors, session.run(list(tensors), feed), strict=True):
            low, high = extremes[name]
            extremes[name] = min(low, float(values.min())), max(high, float(values.max()))
            step = values.size // SAMPLES_PER_BATCH | 1  # odd: sides are even, and columns shall not repeat
            samples[name].append(values.ravel()[::step].copy())
    return {name: _range(extremes[name], np.concatenate(samples[name])) for name in tensors}


def _range(extremes: Range, samples: NDArray[np.float32]) -> Range:
    tails = np.percentile(samples, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    low, high = (
        abs(extreme) ** TOWARDS_EXTREME * abs(float(tail)) ** (1 - TOWARDS_EXTREME)
        for extreme, tail in zip(extremes, tails, strict=True)
    )
    # Where next to everything is 0 so is the percentile, and there is no tail to cut.
    return -low if tails[0] < 0 else extremes[0], high if tails[1] > 0 else extremes[1]
