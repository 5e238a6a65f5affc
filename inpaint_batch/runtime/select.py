"""Choose the engine of a run from what was asked for and what is there."""

from __future__ import annotations

from typing import get_args

import numpy as np

from inpaint_batch.config import PrecisionName
from inpaint_batch.errors import EngineError, FailureCode, RowError, UsageError
from inpaint_batch.runtime.adapter import find_adapter
from inpaint_batch.runtime.engine import Engine, TileBatch
from inpaint_batch.runtime.mirrors import MirroredEngine
from inpaint_batch.runtime.processor import adds_bytes_exactly
from inpaint_batch.runtime.store import PRECISIONS, StoredModel, find_model, find_weights
from inpaint_batch.words import either

ENGINES = ("auto", "onnxruntime", "onnxruntime-cuda", "tensorrt", "torch", "torch-compile", "identity")
"""What `--engine` takes, besides `faulty:SCHEDULE`."""


def runs_on_cpus(engine: str) -> bool:
    """Whether an engine of that name has no use for a GPU."""
    return engine in ("onnxruntime", "identity") or engine.startswith("faulty:")


def select_engine(
    engine: str = "auto", *, model: str = "default", precision: str = "auto", passes: int = 1, threads: int = 0
) -> Engine:
    """Load an engine; with `passes` 2 or 4 a real one fills every tile so often, mirrored, and averages.

    `engine`: one of ENGINES, or `faulty:SCHEDULE`; for `auto` see `inpaint_batch.runtime.gpu`. `model`: `default` or
    the path of an `.onnx` file, asked as the adapter beside it says if there is one; for TensorRT and CUDA the FP32
    file; for torch also a `.safetensors` file. `precision`: `auto` (ONNX Runtime: INT8 where there is such a file and
    the processor is good at it, else FP32; TensorRT: that of the best plan; torch: FP32), `int8`, `fp32` or, for
    TensorRT and torch on a GPU, `fp16`. `threads`: tiles filled at one time on a CPU, 0 for one per core. Every
    fallback that was taken stands in the engine's `notes`.

    Raises UsageError for an unknown engine or precision, EngineError where the model, or a plan of it for this machine,
    is missing, damaged or foreign, MissingDependencyError where the engine's package is not installed.
    """
    if engine == "identity" or engine.startswith("faulty:"):
        from inpaint_batch.runtime.testing import FaultyEngine, IdentityEngine

        return FaultyEngine.parse(engine) if engine != "identity" else IdentityEngine()
    _check_names(engine, precision)
    inner = _select_real(engine, model, precision, threads)
    return inner if passes == 1 else MirroredEngine(inner, passes)


def check_choice(engine: str, model: str, precision: str) -> None:
    """Raise what `select_engine` would raise of the names and of a missing model; loads nothing."""
    if engine == "identity" or engine.startswith("faulty:"):
        return
    _check_names(engine, precision)
    if engine.startswith("torch"):
        find_weights(model)
    else:
        find_model(model)


def _check_names(engine: str, precision: str) -> None:
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}: choose {either(ENGINES)}")
    if precision not in get_args(PrecisionName):
        raise UsageError(f"unknown precision {precision!r}: choose {either(get_args(PrecisionName))}")


def _select_real(engine: str, model: str, precision: str, threads: int) -> Engine:
    if engine.startswith("torch"):
        return _select_torch(engine, model, precision, threads)
    stored = find_model(model)
    # `default` is ours; a file of the user's may have an adapter, which only the CPU engine follows.
    adapter = find_adapter(next(iter(stored.files.values()))) if stored.name != "default" else None
    if engine in ("tensorrt", "onnxruntime-cuda"):
        if adapter is not None:
            raise EngineError(
                f"the .toml beside {model} says how it is asked, and such a network runs on the CPU only: use --engine "
                "onnxruntime"
            )
        from inpaint_batch.runtime.gpu import select_on_gpu

        return select_on_gpu(engine, stored, precision)
    assert engine in ("auto", "onnxruntime"), f"{engine} is among ENGINES, but nothing loads it"
    notes: tuple[str, ...] = ()
    if engine == "auto" and adapter is None:
        from inpaint_batch.runtime.gpu import fastest_on_gpu

        found, notes = fastest_on_gpu(stored, precision)
        if found is not None:
            return found
    from inpaint_batch.runtime.onnx_engine import OnnxEngine

    chosen, more = _choose_precision(stored, precision)
    file = stored.files[chosen]
    loaded = OnnxEngine(
        file, precision=chosen, model=stored.name, threads=threads, convention=adapter, notes=(*notes, *more)
    )
    if stored.name != "default":
        _try(loaded)
    return loaded


def _try(engine: Engine) -> None:
    """Raise EngineError where a model from elsewhere cannot fill a plain grey tile: every row would fail alike."""
    side_px = engine.buckets_px[0]
    hole = np.zeros((1, 1, side_px, side_px), np.float32)
    hole[:, :, side_px // 4 : side_px // 2, side_px // 4 : side_px // 2] = 1
    image = np.repeat(0.5 * (1 - hole), 3, axis=1)
    try:
        engine.fill(TileBatch(image, hole, np.zeros_like(image), np.zeros((1, 1, 1, 1), np.float32)))
    except RowError as error:
        engine.close()
        what = "returns NaN or infinity" if error.code is FailureCode.NONFINITE else f"does not work ({error.message})"
        raise EngineError(
            f"the model {engine.model} {what} for a plain grey tile of {side_px} px, so it would fail every image; "
            "look at the file, and at how the .toml beside it says that it is asked (engines/README.md)"
        ) from error


def _select_torch(engine: str, model: str, precision: str, threads: int) -> Engine:
    from inpaint_batch.runtime.torch_engine import TorchEngine

    if precision == "int8":
        raise UsageError("torch runs fp32, and on a GPU fp16; INT8 is for --engine onnxruntime or tensorrt")
    chosen = "fp32" if precision == "auto" else precision
    compiled = engine == "torch-compile"
    return TorchEngine(find_weights(model), model=model, precision=chosen, compiled=compiled, threads=threads)


def _choose_precision(stored: StoredModel, asked: str) -> tuple[str, tuple[str, ...]]:
    """The precision to run, and what there is to say about it."""
    if asked != "auto":
        if asked not in stored.files:
            there = ", ".join(stored.files)
            raise EngineError(
                f"model {stored.name} has no {asked} file (only {there}): use --precision auto or {there}"
            )
        return asked, ()
    if not adds_bytes_exactly() and "fp32" in stored.files and "int8" in stored.files:
        return "fp32", ("this processor has no VNNI, without which INT8 is slower than FP32; fp32 is used",)
    best = next(precision for precision in PRECISIONS if precision in stored.files)
    if stored.name == "default" and best != PRECISIONS[0]:
        return best, (f"the default model has no {PRECISIONS[0]} file; {best} is used, which is slower",)
    return best, ()
