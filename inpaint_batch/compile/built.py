"""What a TensorRT build gives, whoever built it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from inpaint_batch.runtime.plans import PORTABLE
from inpaint_batch.runtime.tensorrt_api import logger, query_gpu


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan that is not in the cache yet."""

    content: bytes
    """The serialised plan."""
    network: dict[str, Any]
    """The parsed network, before TensorRT fuses anything: `num_layers`, and layers by `kinds` and by result `types`."""
    inspected: Any
    """The inspector's description of the built layers; without a GPU, where no plan can be opened, the reason."""
    parts: dict[str, tuple[int, int]] | None = None
    """Where `content` is one engine for each side: the side and the bytes from and to, as text for the card."""


def inspect_plan(trt: Any, content: bytes) -> Any:
    """TensorRT's description of the layers in a plan, or why there is none."""
    if query_gpu()[0] == PORTABLE:
        return "not inspected: a plan can be opened only where there is a GPU"
    engine = trt.Runtime(logger(trt)).deserialize_cuda_engine(content)
    if engine is None:
        return "not inspected: TensorRT could not open its own plan"
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        return json.loads(text)
    except ValueError:  # it is only looked at: not worth a plan
        return text
