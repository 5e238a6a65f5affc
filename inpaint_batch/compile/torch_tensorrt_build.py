"""TensorRT engines through torch-tensorrt: from an exported program, without ONNX in between.

torch-tensorrt can save what it compiles as an `ExportedProgram` or as TorchScript; both carry metadata that is
unpickled when they are loaded. So the bare TensorRT engines are taken, one for each side with fixed shapes, and kept in
the cache of plans, where `TensorrtEngine` opens them like any other.
"""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import torch

from inpaint_batch.compile.built import BuiltPlan, inspect_plan
from inpaint_batch.compile.export import example_inputs
from inpaint_batch.compile.lean import lean
from inpaint_batch.errors import EngineError, MissingDependencyError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.half import HalfInside
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, import_tensorrt

OPTIONS: dict[str, Any] = {
    "use_explicit_typing": True,  # types are those of the program, as everywhere in this package
    "disable_tf32": True,
    "truncate_double": True,
    "immutable_weights": True,
    "require_full_compilation": True,
    "min_block_size": 1,
}


def import_torch_tensorrt() -> tuple[Any, str]:
    """The package, and its name and version for a key. Raises MissingDependencyError; it cannot be imported without
    CUDA."""
    try:
        module = importlib.import_module("torch_tensorrt")
    except Exception as error:  # RuntimeError, AssertionError, OSError: it depends on what is missing
        raise MissingDependencyError(
            f"torch-tensorrt cannot be loaded ({error}): it needs an NVIDIA GPU and pip install 'inpaint-batch[gpu]'; "
            "--target tensorrt builds without it"
        ) from error
    return module, f"torch_tensorrt {module.__version__}"


def build_with_torch(generator: DcfGenerator, precision: str) -> BuiltPlan:
    """One engine for each side, FP32 or FP16. Raises EngineError where torch-tensorrt does not take the program."""
    module, _ = import_torch_tensorrt()
    network = lean(generator) if precision == "fp32" else HalfInside(lean(generator))
    network = network.cuda().eval()
    engines: dict[int, bytes] = {}
    for side, batch in sorted(BATCH_SIZES.items()):
        inputs = tuple(each.cuda() for each in example_inputs(batch, side, side))
        try:
            with torch.no_grad():
                program = torch.export.export(network, inputs)
            engines[side] = bytes(
                module.dynamo.convert_exported_program_to_serialized_trt_engine(
                    program,
                    arg_inputs=[
                        module.Input(shape=tuple(each.shape), dtype=each.dtype, name=name)
                        for name, each in zip(INPUT_CHANNELS, inputs, strict=True)
                    ],
                    **OPTIONS,
                )
            )
        except Exception as error:  # its converters raise whatever they like
            raise EngineError(f"torch-tensorrt does not take the model at {side} px: {error}") from error
    parts: dict[str, tuple[int, int]] = {}
    content = b""
    for side, engine in engines.items():
        parts[str(side)] = (len(content), len(content) + len(engine))
        content += engine
    trt = import_tensorrt()
    inspected = {str(side): inspect_plan(trt, engine) for side, engine in engines.items()}
    return BuiltPlan(content, _describe(program), inspected, parts)


def _describe(program: torch.export.ExportedProgram) -> dict[str, Any]:
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    results = [node.meta["val"] for node in calls if isinstance(node.meta.get("val"), torch.Tensor)]
    return {
        "num_layers": len(calls),
        "kinds": dict(Counter(str(node.target) for node in calls).most_common()),
        "types": dict(Counter(str(result.dtype).removeprefix("torch.") for result in results).most_common()),
    }
