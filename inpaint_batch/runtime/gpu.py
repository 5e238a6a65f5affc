"""Engines on an NVIDIA GPU, and what `--engine auto` takes of them: the fastest that is known to fill well there.

In this order, which every worker and every later run on the same machine arrives at again (timing them anew each time
might not, and another engine gives other bytes):

1. TensorRT: of the plans of this model that passed the quality gate on this GPU, the one that was fastest then;
2. ONNX Runtime with its CUDA provider, FP32, if it agrees with the CPU on tiles of noise.

What is not taken, and why, becomes a note, in the log and in the summary of the run. torch is asked for by name only:
loading it takes longer than many a run.
"""

from __future__ import annotations

import numpy as np

from inpaint_batch.errors import EngineError, MissingDependencyError, RowError, UsageError
from inpaint_batch.runtime.engine import Engine, TileBatch
from inpaint_batch.runtime.onnx_cuda import OnnxCudaEngine
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import PORTABLE
from inpaint_batch.runtime.store import StoredModel, hash_file
from inpaint_batch.runtime.tensorrt_api import query_gpu
from inpaint_batch.runtime.tensorrt_engine import TensorrtEngine, best_plan

GPU_ENGINES = ("tensorrt", "onnxruntime-cuda")
"""In the order of preference."""
MAX_DIFFERENCE = 1e-3
"""Of a colour in 0..1, between FP32 on a GPU and on the CPU."""


def select_on_gpu(
    engine: str, stored: StoredModel, precision: str, *, auto: bool = False, notes: tuple[str, ...] = ()
) -> Engine:
    """One of GPU_ENGINES. With `auto` only if it is known to fill well: a plan that was judged, a provider that agrees
    with the CPU.

    Raises EngineError where the model has no FP32 file, no fitting plan (with the command that builds it) or the
    provider does not start, MissingDependencyError where a package is not installed, UsageError for a precision that
    the engine does not have.
    """
    source = stored.files.get("fp32")
    if source is None:
        raise EngineError(f"{engine} starts from the FP32 file of a model, and {stored.name} is not one")
    if engine == "tensorrt":
        model_hash = hash_file(source)
        chosen, plan = best_plan(source, model_hash, precision, only_judged=auto)
        return TensorrtEngine(
            source, model_hash=model_hash, precision=chosen, model=stored.name, plan=plan, notes=notes
        )
    if precision not in ("auto", "fp32"):
        raise UsageError(f"onnxruntime-cuda runs fp32 only, not {precision}")
    found = OnnxCudaEngine(source, model=stored.name, notes=notes)
    if auto:
        check_against(OnnxEngine(source, precision="fp32", threads=1), found)
    return found


def fastest_on_gpu(stored: StoredModel, precision: str) -> tuple[Engine | None, tuple[str, ...]]:
    """The engine, or None, and what there is to say about those that were passed over; nothing without a GPU."""
    gpu = query_gpu()[0]
    if gpu == PORTABLE:
        return None, ()
    notes: list[str] = []
    for name in GPU_ENGINES:
        try:
            return select_on_gpu(name, stored, precision, auto=True, notes=tuple(notes)), ()
        except (EngineError, MissingDependencyError, UsageError, RowError) as error:
            notes.append(f"{name} is not used on the {gpu}: {error}")
    return None, (*notes, f"tiles are filled on the CPU although there is a GPU, {gpu}")


def check_against(reference: Engine, candidate: Engine) -> None:
    """Raise EngineError where the two differ by more than MAX_DIFFERENCE on one tile of noise of each side."""
    for side in candidate.buckets_px:
        random = np.random.default_rng(side)
        hole = (random.random((1, 1, side, side)) < 0.3).astype(np.float32)
        image = random.random((1, 3, side, side), dtype=np.float32) * (1 - hole)
        tile = TileBatch(image, hole, np.zeros_like(image), np.zeros((1, 1, 1, 1), np.float32))
        difference = float(np.abs(reference.fill(tile) - candidate.fill(tile)).max())
        if difference > MAX_DIFFERENCE:
            candidate.close()
            raise EngineError(
                f"it differs from {reference.name} by {difference:.2g} at {side} px (allowed {MAX_DIFFERENCE:g})"
            )
