"""TensorRT on an NVIDIA GPU, from a plan that `inpaint-batch compile --target tensorrt` built.

**This engine has not been run on a GPU yet.** There was none where it was written: builds, keys, the cache and every
refusal are tested, the run itself follows TensorRT's interface as documented. Measure it before relying on it.

Every batch is filled up to the one size its profile has. So a tile is computed by the same kernels in the same shapes
whatever company it has, and one CUDA graph for each side can be captured once and replayed.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_batch.errors import EngineError, MissingDependencyError
from inpaint_batch.runtime.convention import INPUT_CHANNELS, OUTPUT
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.lost_gpu import raise_failure
from inpaint_batch.runtime.onnx_engine import checked
from inpaint_batch.runtime.plans import PORTABLE, PlanKey, StoredPlan, list_plans, plan_folder, read_plan, usable_plans
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, import_tensorrt, key_here, logger, query_gpu, why_no_cuda
from inpaint_batch.runtime.tuning import KernelCache, runtime_file
from inpaint_batch.types import FloatArray
from inpaint_batch.words import first_line

log = logging.getLogger(__name__)

NOT_JUDGED = "the TensorRT plan was built without a GPU and has not passed the quality gate on one"


PRECISIONS = ("fp16", "int8", "fp32")
"""In the order in which `--precision auto` asks for plans that were not timed."""


def rebuild_command(source: Path, precision: str, *, calibrate: bool = False) -> str:
    """The exact command that builds the plan which is missing; with `calibrate` it is judged as well."""
    manifest = " --calibrate MANIFEST" if precision == "int8" or calibrate else ""
    return f"inpaint-batch compile {source} --target tensorrt --precision {precision}{manifest}"


def best_plan(source: Path, model_hash: str, precision: str, *, only_judged: bool = False) -> tuple[str, StoredPlan]:
    """Precision and plan to run of the model `source` on this machine; `precision` may be `auto`.

    Raises MissingDependencyError without TensorRT, EngineError with the rebuilding command where the cache has no plan
    (with `only_judged`: none that was judged), or only plans for something else.
    """
    trt = import_tensorrt()
    folder = plan_folder()
    asked = PRECISIONS if precision == "auto" else (precision,)
    key = key_here(trt, model_hash, asked[0])
    plans = [plan for each in asked for plan in usable_plans(folder, replace(key, precision=each))]
    usable = [plan for plan in plans if plan.judged or not only_judged]
    if usable:
        best = min(usable, key=lambda plan: (not plan.judged, plan.latency_ms))  # the first of equals
        return best.key.precision, best
    if plans:
        command = f"{rebuild_command(source, plans[0].key.precision, calibrate=True)}"
        raise EngineError(f"the TensorRT plan of this model was not judged on this GPU; judge it: {command}")
    raise EngineError(refusal(folder, key, rebuild_command(source, asked[0], calibrate=only_judged)))


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
        self,
        source: Path,
        *,
        model_hash: str,
        precision: str,
        model: str,
        plan: StoredPlan,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Open `plan`, which was made from the FP32 ONNX file `source`, whose SHA-256 is `model_hash`.

        Raises MissingDependencyError without TensorRT or torch, EngineError where torch sees no GPU or TensorRT cannot
        open the plan.
        """
        trt = import_tensorrt()
        torch = import_torch_with_cuda()
        self.model, self.model_hash, self.precision = model, model_hash, precision
        self.buckets_px = tuple(sorted(BATCH_SIZES))
        self.notes = notes if plan.judged else (*notes, NOT_JUDGED)
        self._plan_hash = str(plan.card.get("plan_sha256", ""))
        command = rebuild_command(source, precision)
        self._torch: Any = torch
        self._opened = _open_parts(trt, plan, read_plan(plan, command), self.buckets_px)
        if not self._opened:
            raise EngineError(
                f"TensorRT cannot open the plan {plan.path} on this machine and says why above: where it does not take "
                f"this GPU, use another --engine; else rebuild the plan: {command}"
            )
        kernels = runtime_file(plan, key_here(trt, model_hash, precision))
        self._kernels = {
            engine: KernelCache(trt, engine, kernels.with_stem(f"{kernels.stem}-{number}"))
            for number, engine in enumerate({engine: None for engine, _ in self._opened.values()})
        }
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
        if not self._opened:
            raise EngineError("the engine was closed; this is a fault in the program")
        side, size = batch.side_px, BATCH_SIZES.get(batch.side_px)
        if size is None:
            raise EngineError(f"the plan has no profile for tiles of {side} px; this is a fault in the program")
        try:
            if side not in self._lanes:
                engine, profile = self._opened[side]
                self._lanes[side] = _Lane(self._torch, engine, self._kernels[engine], side, size, profile)
                self._kernels[engine].save()  # at once: a run that is killed should not compile them again
            parts = [self._lanes[side].fill(batch, start) for start in range(0, len(batch), size)]
        except RuntimeError as error:
            message = f"the GPU failed on a batch of tiles of {side} px: {error}"
            raise_failure(self._torch.cuda.synchronize, error, message)
        return checked(np.concatenate(parts), batch.image.shape)

    def compute_s(self, batch: TileBatch, times: int) -> float:
        """Seconds for one of `times` fills of a batch that lies on the GPU: without the copies that `fill` makes."""
        self.fill(batch)
        lane = self._lanes[batch.side_px]
        num_parts = -(-len(batch) // BATCH_SIZES[batch.side_px])
        self._torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(times * num_parts):
            lane.compute()
        self._torch.cuda.synchronize()
        return (time.perf_counter() - started) / times

    def close(self) -> None:
        """See `Engine.close`."""
        self._lanes.clear()
        self._kernels.clear()
        self._opened = {}


def _open_parts(trt: Any, plan: StoredPlan, content: bytes, sides_px: tuple[int, ...]) -> dict[int, tuple[Any, int]]:
    """TensorRT's engine and the profile in it for each side; empty where one cannot be opened.

    A plan is one engine with a profile for each side, or, where its card has `parts`, one engine for each side.
    """
    runtime = trt.Runtime(logger(trt))
    parts = plan.card.get("parts")
    if parts is None:
        engine = runtime.deserialize_cuda_engine(content)
        return {side: (engine, index) for index, side in enumerate(sides_px)} if engine is not None else {}
    engines = {side: runtime.deserialize_cuda_engine(content[slice(*parts[str(side)])]) for side in sides_px}
    return {side: (engine, 0) for side, engine in engines.items()} if None not in engines.values() else {}


class _Lane:
    """Buffers, context and CUDA graph for the tiles of one side."""

    def __init__(self, torch: Any, engine: Any, kernels: KernelCache, side_px: int, size: int, profile: int) -> None:
        self._torch, self._size = torch, size
        self._stream = torch.cuda.Stream()
        self._context = kernels.context(engine)
        if self._context is None:
            raise RuntimeError("TensorRT made no context to run the plan in: it is probably out of memory")
        if not self._context.set_optimization_profile_async(profile, self._stream.cuda_stream):
            raise RuntimeError(f"profile {profile} cannot be chosen")
        self._buffers: dict[str, Any] = {}
        for name, channels in {**INPUT_CHANNELS, OUTPUT: 3}.items():
            shape = (size, channels, *((1, 1) if name == "prior_weight" else (side_px, side_px)))
            self._buffers[name] = torch.zeros(shape, dtype=torch.float32, device="cuda")
            if name != OUTPUT and not self._context.set_input_shape(name, shape):
                raise RuntimeError(f"the plan does not take {name} of shape {shape}")
            tensor = _output_of(engine) if name == OUTPUT else name
            self._context.set_tensor_address(tensor, self._buffers[name].data_ptr())
        torch.cuda.current_stream().synchronize()
        self._enqueue()  # once outside the graph: TensorRT allocates on the first call
        self._stream.synchronize()
        self._graph = self._capture()

    def _capture(self) -> Any:
        """The work on one batch as a CUDA graph; None where TensorRT cannot be captured, which costs time only."""
        may = getattr(self._context, "is_stream_capturable", None)  # TensorRT for RTX has it
        if may is None or may(self._stream.cuda_stream):
            graph = self._torch.cuda.CUDAGraph()
            try:
                # Where a capture fails, torch leaves its stream the current one, unless there is another around it.
                with self._torch.cuda.stream(self._stream), self._torch.cuda.graph(graph, stream=self._stream):
                    self._enqueue()
            except RuntimeError as error:
                log.warning("no CUDA graph could be captured, every kernel is launched by itself: %s", error)
            else:
                return graph
        else:
            log.warning("TensorRT says that this plan cannot be captured, every kernel is launched by itself")
        return None

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("TensorRT refused the batch")

    def compute(self) -> None:
        """Have the GPU fill what lies in the buffers; it may still be at it on return. Copies nothing."""
        if self._graph is None:
            self._enqueue()
        else:
            self._graph.replay()

    def fill(self, batch: TileBatch, start: int) -> FloatArray:
        """Tiles `start` to `start + size` of the batch; the rest of the buffers is zero."""
        stop = min(start + self._size, len(batch))
        with self._torch.cuda.stream(self._stream):
            for name in INPUT_CHANNELS:
                values = np.ascontiguousarray(getattr(batch, name)[start:stop], dtype=np.float32)
                self._buffers[name][: stop - start].copy_(self._torch.from_numpy(values))
                self._buffers[name][stop - start :].zero_()
            self.compute()
            filled: FloatArray = self._buffers[OUTPUT][: stop - start].cpu().numpy()
        return filled


def _output_of(engine: Any) -> str:
    """Builders name the one output as they like."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    (output,) = (name for name in names if name not in INPUT_CHANNELS)
    return str(output)


def import_torch_with_cuda() -> Any:
    """torch, with a CUDA context in this thread, without which TensorRT for RTX takes no kernels from its cache.

    Raises MissingDependencyError without torch, EngineError where it sees no GPU or cannot use it.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "the TensorRT engine keeps its buffers in torch: pip install 'inpaint-batch[gpu]'"
        ) from error
    if not torch.cuda.is_available():
        if (gpu := query_gpu()[0]) != PORTABLE:
            why = f"{why_no_cuda(torch)}, or use --engine onnxruntime"
            raise EngineError(f"the TensorRT engine cannot use the {gpu}: {why}")
        raise EngineError("the TensorRT engine needs an NVIDIA GPU and found none; use --engine onnxruntime")
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:  # in use by another process alone, without memory, broken
        raise EngineError(
            f"the GPU cannot be used ({first_line(error)}); look at nvidia-smi, or use --engine onnxruntime"
        ) from error
    return torch
