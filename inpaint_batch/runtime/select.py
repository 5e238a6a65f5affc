"""Choose the engine of a run from what was asked for and what is there."""

from __future__ import annotations

from inpaint_batch.errors import EngineError, UsageError
from inpaint_batch.runtime.adapter import find_adapter
from inpaint_batch.runtime.engine import Engine
from inpaint_batch.runtime.mirrors import MirroredEngine
from inpaint_batch.runtime.store import PRECISIONS, StoredModel, find_model, hash_file


def select_engine(
    engine: str = "auto", *, model: str = "default", precision: str = "auto", passes: int = 1, threads: int = 0
) -> Engine:
    """Load an engine; with `passes` 2 or 4 a real one fills every tile so often, mirrored, and averages.

    `engine`: `auto` (ONNX Runtime), `onnxruntime`, `tensorrt`, `identity`, or `faulty:SCHEDULE`. `model`: `default` or
    the path of an `.onnx` file, asked as the adapter beside it says if there is one; for TensorRT the FP32 file that
    its plan was built from. `precision`: `auto` (INT8 where there is such a file, else FP32; for TensorRT FP16),
    `int8`, `fp32` or, for TensorRT, `fp16`. `threads`: tiles filled at one time, 0 for one per core. Every fallback
    that was taken stands in the engine's `notes`.

    Raises UsageError for an unknown engine or precision, EngineError where the model, or a plan of it for this machine,
    is missing, damaged or foreign, MissingDependencyError for TensorRT where it is not installed.
    """
    if engine == "identity" or engine.startswith("faulty:"):
        from inpaint_batch.runtime.testing import FaultyEngine, IdentityEngine

        return FaultyEngine.parse(engine) if engine != "identity" else IdentityEngine()
    inner = _select_real(engine, model, precision, threads)
    return inner if passes == 1 else MirroredEngine(inner, passes)


def _select_real(engine: str, model: str, precision: str, threads: int) -> Engine:
    if engine == "tensorrt":
        return _select_tensorrt(model, precision)
    if engine not in ("auto", "onnxruntime"):
        raise UsageError(f"unknown engine {engine!r}: choose auto, onnxruntime, tensorrt or identity")
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"unknown precision {precision!r}: choose auto, int8 or fp32")
    from inpaint_batch.runtime.onnx_engine import OnnxEngine

    stored = find_model(model)
    chosen, notes = _choose_precision(stored, precision)
    file = stored.files[chosen]
    adapter = find_adapter(file) if stored.name != "default" else None
    return OnnxEngine(file, precision=chosen, model=stored.name, threads=threads, convention=adapter, notes=notes)


def _select_tensorrt(model: str, precision: str) -> Engine:
    from inpaint_batch.runtime.tensorrt_engine import TensorrtEngine

    if precision not in ("auto", "fp32", "fp16", "int8"):
        raise UsageError(f"unknown precision {precision!r}: choose auto, fp16, int8 or fp32")
    stored = find_model(model)
    source = stored.files.get("fp32")
    if source is None:
        raise EngineError(f"TensorRT plans are built from the FP32 file of a model, and {stored.name} is not one")
    chosen = "fp16" if precision == "auto" else precision
    return TensorrtEngine(source, model_hash=hash_file(source), precision=chosen, model=stored.name)


def _choose_precision(stored: StoredModel, asked: str) -> tuple[str, tuple[str, ...]]:
    """The precision to run, and what there is to say about it."""
    if asked != "auto":
        if asked not in stored.files:
            there = ", ".join(stored.files)
            raise EngineError(
                f"model {stored.name} has no {asked} file (only {there}): use --precision auto or {there}"
            )
        return asked, ()
    best = next(precision for precision in PRECISIONS if precision in stored.files)
    if stored.name == "default" and best != PRECISIONS[0]:
        return best, (f"the default model has no {PRECISIONS[0]} file; {best} is used, which is slower",)
    return best, ()
