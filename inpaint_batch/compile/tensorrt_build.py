"""Build a TensorRT plan from the FP32 ONNX file: cast or quantise the graph, parse, build, judge, keep with its card.

Networks are strongly typed: every precision stands in the graph, none is left to a builder flag, so the same code
serves TensorRT 10 and 11 and TensorRT for RTX. The last builds without a GPU; its plans are then not judged.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import inpaint_batch
from inpaint_batch.compile.built import BuiltPlan, inspect_plan
from inpaint_batch.compile.gate import GateRow, judge, measure, table
from inpaint_batch.compile.half import cast_to_half
from inpaint_batch.compile.quantise import quantise
from inpaint_batch.compile.tiles import RealTile
from inpaint_batch.compile.torch_tensorrt_build import build_with_torch, import_torch_tensorrt
from inpaint_batch.errors import EngineError, RowError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.runtime.engine import stack_tiles
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import (
    PORTABLE,
    PlanKey,
    StoredPlan,
    building,
    find_plan,
    is_intact,
    plan_folder,
    remove_plan,
    write_plan,
)
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, RTX, import_tensorrt, key_here, logger
from inpaint_batch.runtime.tuning import timing_cache


def build_tensorrt(
    fp32: Path,
    model_hash: str,
    *,
    precision: str,
    learned: Sequence[RealTile] = (),
    judged: Sequence[RealTile] = (),
    accept_loss: bool = False,
    card: dict[str, Any] | None = None,
    generator: DcfGenerator | None = None,
) -> tuple[StoredPlan, str]:
    """The plan of `fp32` for this machine, from the cache or built now, and a report for a person.

    `learned`: tiles to calibrate INT8 with. `judged`: tiles to judge by; the graph is judged with ONNX Runtime, the
    plan on the GPU where there is one. `generator`: the same model in torch, for torch-tensorrt to build from; no INT8
    then. Raises MissingDependencyError without TensorRT, EngineError where it refuses the graph, where INT8 has no
    tiles, or where the gate refuses the result and `accept_loss` is false.
    """
    trt = import_tensorrt()
    key = key_here(trt, model_hash, precision)
    if generator is not None:
        key = replace(key, builder=import_torch_tensorrt()[1])
    elif key.gpu == PORTABLE and trt.__name__ != RTX:
        raise EngineError(
            "TensorRT builds plans only on the GPU they are for, and there is none; tensorrt-rtx needs none"
        )
    folder = plan_folder()
    calibrated = {"calibration_tiles": len(learned) if precision == "int8" else 0, **(card or {})}
    with building(folder, key):
        known = find_plan(folder, key)
        if known is not None and _still_good(known, key, calibrated, bool(judged)):
            return known, f"{known.path}: already built"
        started = time.monotonic()
        if generator is not None:
            rows: list[GateRow] = []
            built = build_with_torch(generator, precision)
        else:
            rows, built = _build_from_graph(fp32, folder, key, learned, judged, accept_loss)
        seconds = time.monotonic() - started
        values = {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "inpaint_batch": inpaint_batch.__version__,
            "build_s": round(seconds, 1),
            "graph_gate": [row.to_dict() for row in rows],
            "gate": None,
            "latency_ms": None,
            "loss_accepted": accept_loss,
            "network": built.network,
            "inspector": built.inspected,
            **({"parts": built.parts} if built.parts else {}),
            **calibrated,
        }
        plan = write_plan(folder, key, built.content, values)
        report = f"{plan.path}: {len(built.content) / 1e6:.1f} MB, built in {seconds:.0f} s"
        if rows:
            report += f"\nthe graph, run by ONNX Runtime:\n{table(rows)}"
        if key.gpu == PORTABLE:
            return plan, report + "\nno GPU here: the plan itself has been neither run nor judged"
        try:
            return _judge_on_gpu(plan, fp32, judged, values, built.content, accept_loss, report)
        except RowError as error:  # there is no row here that it could fail
            remove_plan(plan)
            raise EngineError(f"TensorRT built the plan, but it does not run on the {key.gpu}: {error}") from error
        except BaseException:
            remove_plan(plan)
            raise


def _still_good(known: StoredPlan, key: PlanKey, calibrated: dict[str, Any], can_judge: bool) -> bool:
    """Whether a plan in the cache makes a new one needless: undamaged, INT8 of the same calibration, and judged if it
    can be."""
    if not is_intact(known):
        return False
    names = ("calibration_sha256", "calibration_tiles") if key.precision == "int8" else ()
    if any(known.card.get(name) != calibrated.get(name) for name in names):
        return False
    return known.judged or key.gpu == PORTABLE or not can_judge


def _build_from_graph(
    fp32: Path,
    folder: Path,
    key: PlanKey,
    learned: Sequence[RealTile],
    judged: Sequence[RealTile],
    accept_loss: bool,
) -> tuple[list[GateRow], BuiltPlan]:
    with TemporaryDirectory(prefix="inpaint-batch-plan-") as scratch:
        graph = typed_graph(fp32, Path(scratch), key.precision, learned)
        rows = []
        if judged:
            rows = measure(OnnxEngine(fp32, precision="fp32"), OnnxEngine(graph, precision=key.precision), judged)
            if not accept_loss:
                judge(rows)
        return rows, build_plan(graph.read_bytes(), folder, key)


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


def build_plan(graph: bytes, folder: Path, key: PlanKey) -> BuiltPlan:
    """Parse and build, one optimisation profile for each side; timings are shared with other builds in `folder`.

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
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; FP32 means FP32, as in every other engine
    for side, batch in sorted(BATCH_SIZES.items()):
        profile = builder.create_optimization_profile()
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            shape = (batch, tensor.shape[1], *((1, 1) if tensor.name == "prior_weight" else (side, side)))
            profile.set_shape(tensor.name, shape, shape, shape)
        config.add_optimization_profile(profile)
    with timing_cache(trt, config, folder, key):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError("TensorRT parsed the graph but did not build it; its own messages stand above")
    content = bytes(plan)
    return BuiltPlan(content, _describe(network), inspect_plan(trt, content))


def _describe(network: Any) -> dict[str, Any]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    results = [layer.get_output(0) for layer in layers if layer.num_outputs]
    return {
        "num_layers": len(layers),
        "kinds": dict(Counter(layer.type.name.lower() for layer in layers).most_common()),
        "types": dict(Counter(result.dtype.name.lower() for result in results).most_common()),
    }


def _judge_on_gpu(
    plan: StoredPlan,
    fp32: Path,
    judged: Sequence[RealTile],
    values: dict[str, Any],
    content: bytes,
    accept_loss: bool,
    report: str,
) -> tuple[StoredPlan, str]:
    """Run the plan on the judging tiles, time one full batch of each side, and write both into the card.

    Raises EngineError also where a tile comes out otherwise at another place of a batch: its bytes would depend on what
    happens to be filled with it.
    """
    from inpaint_batch.runtime.tensorrt_engine import TensorrtEngine

    engine = TensorrtEngine(
        fp32, model_hash=plan.key.model_hash, precision=plan.key.precision, model=str(fp32), plan=plan
    )
    rows = measure(OnnxEngine(fp32, precision="fp32"), engine, judged)
    if rows and not accept_loss:
        judge(rows)
    latency = {}
    difference = 0.0
    for side, batch in BATCH_SIZES.items():
        tiles = [tile.input for tile in judged if tile.input.image.shape[-1] == side][:1] * batch
        if tiles:
            filled = engine.fill(stack_tiles(tiles))  # the same tile at every place
            difference = max(difference, float(np.abs(filled - filled[:1]).max()))
            times = []
            for _ in range(10):
                started = time.perf_counter()
                engine.fill(stack_tiles(tiles))
                times.append((time.perf_counter() - started) * 1e3)
            latency[f"{side}x{batch}"] = round(sorted(times)[len(times) // 2], 3)
    engine.close()
    if difference:
        what = f"the plan fills a tile otherwise at other places of a batch, by up to {difference:.1g}"
        if not accept_loss:
            raise EngineError(
                f"{what}, so the same input would not always give the same bytes; build it with another --precision, "
                "or say --accept-loss"
            )
        report += f"\n{what}, which was accepted"
    values |= {"gate": [row.to_dict() for row in rows], "latency_ms": latency}
    report += f"\nthe plan, run by TensorRT ({latency} ms a batch):\n{table(rows)}" if rows else ""
    return write_plan(plan.path.parent, plan.key, content, values), report
