"""Build a TensorRT plan from the FP32 ONNX file: cast or quantise the graph, parse, build, judge, keep with its card.

Networks are strongly typed: every precision stands in the graph, none is left to a builder flag, so the same code
serves TensorRT 10 and 11 and TensorRT for RTX. The last builds without a GPU; its plans are then not judged.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import inpaint_batch
from inpaint_batch.compile.gate import judge, measure, table
from inpaint_batch.compile.half import cast_to_half
from inpaint_batch.compile.quantise import quantise
from inpaint_batch.compile.tiles import RealTile
from inpaint_batch.errors import EngineError
from inpaint_batch.runtime.engine import stack_tiles
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import PORTABLE, StoredPlan, building, find_plan, plan_folder, remove_plan, write_plan
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, RTX, import_tensorrt, key_here, logger

PRECISIONS = ("fp32", "fp16", "int8")


def build_tensorrt(
    fp32: Path,
    model_hash: str,
    *,
    precision: str,
    learned: Sequence[RealTile] = (),
    judged: Sequence[RealTile] = (),
    accept_loss: bool = False,
    card: dict[str, Any] | None = None,
) -> tuple[StoredPlan, str]:
    """The plan of `fp32` for this machine, from the cache or built now, and a report for a person.

    `learned`: tiles to calibrate INT8 with. `judged`: tiles to judge by; the graph is judged with ONNX Runtime, the
    plan on the GPU where there is one. Raises MissingDependencyError without TensorRT, EngineError where it refuses the
    graph, where INT8 has no tiles, or where the gate refuses the result and `accept_loss` is false.
    """
    trt = import_tensorrt()
    key = key_here(trt, model_hash, precision)
    if key.gpu == PORTABLE and trt.__name__ != RTX:
        raise EngineError(
            "TensorRT builds plans only on the GPU they are for, and there is none; tensorrt-rtx needs none"
        )
    folder = plan_folder()
    with building(folder, key):
        known = find_plan(folder, key)
        if known is not None:
            return known, f"{known.path}: already built"
        with TemporaryDirectory(prefix="inpaint-batch-plan-") as scratch:
            graph = typed_graph(fp32, Path(scratch), precision, learned)
            rows = []
            if judged:
                rows = measure(OnnxEngine(fp32, precision="fp32"), OnnxEngine(graph, precision=precision), judged)
                if not accept_loss:
                    judge(rows)
            started = time.monotonic()
            built = build_plan(graph.read_bytes())
            seconds = time.monotonic() - started
        values = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "inpaint_batch": inpaint_batch.__version__,
            "build_s": round(seconds, 1),
            "calibration_tiles": len(learned) if precision == "int8" else 0,
            "graph_gate": [row.to_dict() for row in rows],
            "gate": None,
            "latency_ms": None,
            "loss_accepted": accept_loss,
            "network": built.network,
            "inspector": built.inspected,
            **(card or {}),
        }
        plan = write_plan(folder, key, built.content, values)
        report = f"{plan.path}: {len(built.content) / 1e6:.1f} MB, built in {seconds:.0f} s"
        if rows:
            report += f"\nthe graph, run by ONNX Runtime:\n{table(rows)}"
        if key.gpu == PORTABLE:
            return plan, report + "\nno GPU here: the plan itself has been neither run nor judged"
        try:
            return _judge_on_gpu(plan, fp32, judged, values, built.content, accept_loss, report)
        except BaseException:
            remove_plan(plan)
            raise


def typed_graph(fp32: Path, folder: Path, precision: str, learned: Sequence[RealTile]) -> Path:
    """The ONNX file, in `folder` or `fp32` itself, that has the precision written into its types."""
    if precision == "fp32":
        return fp32
    source = fp32
    if precision == "int8":
        source = folder / "quantised.onnx"
        quantise(fp32, source, [tile.feed() for tile in learned], "tensorrt")
    cast_to_half(source, folder / f"{precision}.onnx")  # what INT8 leaves in float is half as well
    return folder / f"{precision}.onnx"


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """What a build gave."""

    content: bytes
    """The serialised plan."""
    network: dict[str, Any]
    """The parsed network, before TensorRT fuses anything: `num_layers`, and layers by `kinds` and by result `types`."""
    inspected: Any
    """The inspector's description of the built layers; without a GPU, where no plan can be opened, the reason."""


def build_plan(graph: bytes) -> BuiltPlan:
    """Parse and build, one optimisation profile for each side.

    Raises EngineError with the parser's first complaints where TensorRT does not take the graph.
    """
    trt = import_tensorrt()
    builder = trt.Builder(logger(trt))
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger(trt))
    if not parser.parse(graph) or not network.num_outputs:  # what is no ONNX at all may parse, to nothing
        complaints = [parser.get_error(index).desc() for index in range(min(3, parser.num_errors))] or ["it is empty"]
        raise EngineError(f"TensorRT does not take the graph: {'; '.join(complaints)}")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    for side, batch in sorted(BATCH_SIZES.items()):
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shape = (batch, tensor.shape[1], *((1, 1) if tensor.name == "prior_weight" else (side, side)))
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError("TensorRT parsed the graph but did not build it; its own messages stand above")
    content = bytes(plan)
    return BuiltPlan(content, _describe(network), _inspect(trt, content))


def _describe(network: Any) -> dict[str, Any]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    results = [layer.get_output(0) for layer in layers if layer.num_outputs]
    return {
        "num_layers": len(layers),
        "kinds": dict(Counter(layer.type.name.lower() for layer in layers).most_common()),
        "types": dict(Counter(result.dtype.name.lower() for result in results).most_common()),
    }


def _inspect(trt: Any, content: bytes) -> Any:
    from inpaint_batch.runtime.tensorrt_api import query_gpu

    if query_gpu()[0] == PORTABLE:
        return "not inspected: a plan can be opened only where there is a GPU"
    engine = trt.Runtime(logger(trt)).deserialize_cuda_engine(content)
    if engine is None:
        return "not inspected: TensorRT could not open its own plan"
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return json.loads(text)


def _judge_on_gpu(
    plan: StoredPlan,
    fp32: Path,
    judged: Sequence[RealTile],
    values: dict[str, Any],
    content: bytes,
    accept_loss: bool,
    report: str,
) -> tuple[StoredPlan, str]:
    """Run the plan on the judging tiles, time one full batch of each side, and write both into the card."""
    from inpaint_batch.runtime.tensorrt_engine import TensorrtEngine

    engine = TensorrtEngine(fp32, model_hash=plan.key.model_hash, precision=plan.key.precision, model=str(fp32))
    rows = measure(OnnxEngine(fp32, precision="fp32"), engine, judged)
    if rows and not accept_loss:
        judge(rows)
    latency = {}
    for side, batch in BATCH_SIZES.items():
        tiles = [tile.input for tile in judged if tile.input.image.shape[-1] == side][:1] * batch
        if tiles:
            engine.fill(stack_tiles(tiles))
            times = []
            for _ in range(10):
                started = time.perf_counter()
                engine.fill(stack_tiles(tiles))
                times.append((time.perf_counter() - started) * 1e3)
            latency[f"{side}x{batch}"] = round(sorted(times)[len(times) // 2], 3)
    engine.close()
    values |= {"gate": [row.to_dict() for row in rows], "latency_ms": latency}
    report += f"\nthe plan, run by TensorRT ({latency} ms a batch):\n{table(rows)}" if rows else ""
    return write_plan(plan.path.parent, plan.key, content, values), report
