"""TensorRT on an NVIDIA GPU, from a plan that `inpaint-batch compile --target tensorrt` built.

**This engine has not been run on a GPU yet.** There was none where it was written: builds, keys, the cache and every
refusal are tested, the run itself follows TensorRT's interface as documented. Measure it before relying on it.

Every batch is filled up to the one size its profile has. So a tile is computed by the same kernels in the same shapes
whatever company it has, and one CUDA graph for each side can be captured once and replayed.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from inpaint_batch.errors import EngineError, FailureCode, MissingDependencyError, RowError
from inpaint_batch.runtime.convention import INPUT_CHANNELS, OUTPUT
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import checked
from inpaint_batch.runtime.plans import PlanKey, StoredPlan, find_plan, list_plans, plan_folder, read_plan
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, import_tensorrt, key_here, logger
from inpaint_batch.types import FloatArray

NOT_JUDGED = "the TensorRT plan was built without a GPU and has not passed the quality gate on one"


def rebuild_command(source: Path, precision: str) -> str:
    """The exact command that builds the plan which is missing."""
    calibrate = " --calibrate MANIFEST" if precision == "int8" else ""
    return f"inpaint-batch compile {source} --target tensorrt --precision {precision}{calibrate}"


def wanted_plan(source: Path, model_hash: str, precision: str) -> tuple[ModuleType, StoredPlan]:
    """TensorRT and the plan of the model `source` for this machine.

    Raises MissingDependencyError without TensorRT, EngineError with the rebuilding command where the cache has no plan
    or only plans for something else.
    """
    trt = import_tensorrt()
    key = key_here(trt, model_hash, precision)
    folder = plan_folder()
    plan = find_plan(folder, key)
    if plan is None:
        raise EngineError(refusal(folder, key, rebuild_command(source, precision)))
    return trt, plan


def refusal(folder: Path, key: PlanKey, command: str) -> str:
    """Why there is no plan for `key`, and what to do."""
    related = [
        p.key for p in list_plans(folder) if (p.key.model_hash, p.key.precision) == (key.model_hash, key.precision)
    ]
    if not related:
        return f"there is no {key.precision} TensorRT plan of this model in {folder}; build it: {command}"
    closest = min(related, key=lambda each: len(each.differences(key)))
    return (
        f"the {key.precision} TensorRT plan of this model was built for something else "
        f"({'; '.join(closest.differences(key))}); build it for this machine: {command}"
    )


class TensorrtEngine:
    """See `Engine` for the contract."""

    name = "tensorrt"

    def __init__(
        self, source: Path, *, model_hash: str, precision: str, model: str, notes: tuple[str, ...] = ()
    ) -> None:
        """Open the plan of the FP32 ONNX file `source`, whose SHA-256 is `model_hash`.

        Raises MissingDependencyError without TensorRT or torch with CUDA, EngineError without a fitting plan.
        """
        trt, plan = wanted_plan(source, model_hash, precision)
        torch = _import_torch()
        self.model, self.model_hash, self.precision = model, model_hash, precision
        self.buckets_px = tuple(sorted(BATCH_SIZES))
        self.notes = notes if plan.card.get("gate") else (*notes, NOT_JUDGED)
        self._plan_hash = str(plan.card.get("plan_sha256", ""))
        command = rebuild_command(source, precision)
        engine = trt.Runtime(logger(trt)).deserialize_cuda_engine(read_plan(plan, command))
        if engine is None:
            raise EngineError(f"TensorRT cannot open the plan {plan.path} on this machine; rebuild it: {command}")
        self._torch: Any = torch
        self._engine: Any = engine
        self._lanes: dict[int, _Lane] = {}

    @property
    def identity(self) -> str:
        """Engine, precision, model hash and plan hash: another build may choose other kernels."""
        return f"{self.name}:{self.precision}:{self.model_hash}:{self._plan_hash}"

    def batch_size(self, side_px: int) -> int:
        """The one size of the profile."""
        return BATCH_SIZES[side_px]

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`."""
        if self._engine is None:
            raise EngineError("the engine was closed; this is a fault in the program")
        side, size = batch.side_px, BATCH_SIZES.get(batch.side_px)
        if size is None:
            raise EngineError(f"the plan has no profile for tiles of {side} px; this is a fault in the program")
        try:
            if side not in self._lanes:
                self._lanes[side] = _Lane(self._torch, self._engine, side, size, self.buckets_px.index(side))
            parts = [self._lanes[side].fill(batch, start) for start in range(0, len(batch), size)]
        except RuntimeError as error:
            raise RowError(
                FailureCode.INFER, f"the GPU failed on a batch of tiles of {side} px: {error}", retryable=True
            ) from error
        return checked(np.concatenate(parts), batch.image.shape)

    def close(self) -> None:
        """See `Engine.close`."""
        self._lanes.clear()
        self._engine = None


class _Lane:
    """Buffers, context and CUDA graph for the tiles of one side."""

    def __init__(self, torch: Any, engine: Any, side_px: int, size: int, profile: int) -> None:
        self._torch, self._size = torch, size
        self._stream = torch.cuda.Stream()
        self._context = engine.create_execution_context()
        if not self._context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise RuntimeError(f"profile {profile} cannot be chosen")
        self._buffers: dict[str, Any] = {}
        for name, channels in {**INPUT_CHANNELS, OUTPUT: 3}.items():
            shape = (size, channels, *((1, 1) if name == "prior_weight" else (side_px, side_px)))
            self._buffers[name] = torch.zeros(shape, dtype=torch.float32, device="cuda")
            if name != OUTPUT and not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"the plan does not take {name} of shape {shape}")
            self._context.set_tensor_address(name, self._buffers[name].data_ptr())
        torch.cuda.current_stream().synchronize()
        self._enqueue()  # once outside the graph: TensorRT allocates on the first call
        self._stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT refused the batch")

    def fill(self, batch: TileBatch, start: int) -> FloatArray:
        """Tiles `start` to `start + size` of the batch; the rest of the buffers is zero."""
        stop = min(start + self._size, len(batch))
        with self._torch.cuda.stream(self._stream):
            for name in INPUT_CHANNELS:
                values = np.ascontiguousarray(getattr(batch, name)[start:stop], dtype=np.float32)
                self._buffers[name][: stop - start].copy_(self._torch.from_numpy(values))
                self._buffers[name][stop - start :].zero_()
            self._graph.replay()
            filled: FloatArray = self._buffers[OUTPUT][: stop - start].cpu().numpy()
        return filled


def _import_torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the TensorRT engine keeps its buffers in torch: pip install 'inpaint-batch[gpu]'"
        ) from error
    if not torch.cuda.is_available():
        raise EngineError("the TensorRT engine needs an NVIDIA GPU and found none; use --engine onnxruntime")
    return torch
