"""The generator itself in torch: the reference that every other engine is compared with, on a CPU or an NVIDIA GPU.

`torch` runs it as it is. `torch-compile` has it compiled, with CUDA graphs on a GPU. Both take weights, not ONNX: the
checkpoint of a training run, or what it shipped. Needs the `train` or the `gpu` extra.

On a CPU a tile is computed alone on one thread, for the same reason as in `onnx_engine`. On a GPU every batch is filled
up to one size for each side, so that a tile goes through the same kernels in any company; and one thread of the
engine's own talks to the GPU, whichever asks: torch before 2.13 has CUDA graphs for the thread that compiled them only.
"""

from __future__ import annotations

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inpaint_batch.config import BUCKETS_PX
from inpaint_batch.errors import EngineError, FailureCode, MissingDependencyError, RowError
from inpaint_batch.machine import num_cores, number_gpus_as_nvidia_smi
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.runtime.engine import TileBatch, filled_up
from inpaint_batch.runtime.lost_gpu import raise_failure
from inpaint_batch.runtime.onnx_engine import TILES_PER_THREAD, checked
from inpaint_batch.runtime.plans import PORTABLE
from inpaint_batch.runtime.store import hash_file
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, query_gpu, why_no_cuda
from inpaint_batch.types import FloatArray
from inpaint_batch.words import one_line

if TYPE_CHECKING:
    import torch


class TorchEngine:
    """See `Engine` for the contract."""

    buckets_px = BUCKETS_PX
    notes: tuple[str, ...] = ()
    """That a GPU is not used."""

    def __init__(
        self,
        weights: Path,
        *,
        model: str,
        precision: str = "fp32",
        compiled: bool = False,
        threads: int = 0,
    ) -> None:
        """Load `weights` onto the GPU where torch sees one, else for `threads` tiles at a time (0: one per core).

        `precision`: `fp32`, or `fp16` between the first and the last convolution, on a GPU. `compiled`: through
        torch.compile; on a CPU tiles are then done one after the other. Raises MissingDependencyError without torch,
        EngineError where the weights cannot be read or FP16 is wanted without a GPU.
        """
        try:
            import torch

            from inpaint_batch.models.checkpoint import load_generator
            from inpaint_batch.models.half import HalfInside
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"--engine torch needs {error.name}: install it with pip install 'inpaint-batch[train]'"
            ) from error
        number_gpus_as_nvidia_smi()
        self.name = "torch-compile" if compiled else "torch"
        self.model, self.precision = model, precision
        self.model_hash = hash_file(weights)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu" and (gpu := query_gpu()[0]) != PORTABLE:
            self.notes = (f"tiles are filled on the CPU although there is a GPU, {gpu}: {why_no_cuda(torch)}",)
        if precision == "fp16" and self._device == "cpu":
            raise EngineError("FP16 in torch wants an NVIDIA GPU, and torch sees none: use --precision fp32")
        self._torch: Any = torch
        self._threads = 1 if compiled or self._device == "cuda" else threads or num_cores()
        generator = load_generator(weights)
        network = (HalfInside(generator) if precision == "fp16" else generator).to(self._device)
        if precision == "fp16":  # as tensor cores read features; else each convolution turns them there and back
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self._device == "cuda":
            # FP32 means FP32, and the same kernels in every process.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
        self._network: Any = network
        if compiled:
            mode = "reduce-overhead" if self._device == "cuda" else "default"  # the first is torch's CUDA graphs
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # that they would be faster than FP32
            self._network = torch.compile(network, mode=mode, fullgraph=True, dynamic=False)
        self._pool = ThreadPoolExecutor(
            self._threads, thread_name_prefix="engine", initializer=torch.set_num_threads, initargs=(1,)
        )

    @property
    def identity(self) -> str:
        """Engine, kind of device, precision, hash of the weights."""
        return f"{self.name}-{self._device}:{self.precision}:{self.model_hash}"

    def batch_size(self, side_px: int) -> int:
        """A few tiles for each thread on a CPU; on a GPU the size that every batch is filled up to."""
        return BATCH_SIZES[side_px] if self._device == "cuda" else self._threads * TILES_PER_THREAD

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`."""
        if self._network is None:
            raise EngineError("the engine was closed; this is a fault in the program")
        if self._device == "cpu":
            parts = list(self._pool.map(partial(self._fill_alone, batch), range(len(batch))))
        else:
            size = BATCH_SIZES[batch.side_px]
            padded, used = zip(*filled_up(batch, size), strict=True)
            parts = [each[:num] for each, num in zip(self._pool.map(self._run, padded), used, strict=True)]
        return checked(np.concatenate(parts), batch.image.shape)

    def compute_s(self, batch: TileBatch, times: int) -> float:
        """Seconds for one of `times` fills of a batch that lies on the device: without the copies that `fill` makes."""
        size = BATCH_SIZES[batch.side_px] if self._device == "cuda" else len(batch)
        parts = [part for part, _ in filled_up(batch, size)]
        return self._pool.submit(self._compute_s, parts, times).result()

    def _compute_s(self, parts: list[TileBatch], times: int) -> float:
        wait = self._torch.cuda.synchronize if self._device == "cuda" else lambda: None
        with self._torch.inference_mode():
            inputs = [[self._on_device(getattr(part, name)) for name in INPUT_CHANNELS] for part in parts]
            wait()
            started = time.perf_counter()
            for _ in range(times):
                for each in inputs:
                    self._network(*each)
            wait()
        return (time.perf_counter() - started) / times

    def close(self) -> None:
        """See `Engine.close`."""
        self._network = None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill_alone(self, batch: TileBatch, index: int) -> FloatArray:
        return self._run(batch.only(index))

    def _run(self, batch: TileBatch) -> FloatArray:
        try:
            with self._torch.inference_mode():
                inputs = [self._on_device(getattr(batch, name)) for name in INPUT_CHANNELS]
                filled: FloatArray = self._network(*inputs).cpu().numpy().copy()  # CUDA graphs reuse their output
        except RuntimeError as error:  # torch's own, those of the compiler and of the GPU among them
            self._check_compiler(error)
            message = f"torch failed on tiles of {batch.side_px} px: {error}"
            if self._device == "cuda":
                raise_failure(self._torch.cuda.synchronize, error, message)
            raise RowError(FailureCode.INFER, message, retryable=True) from error
        return filled

    def _check_compiler(self, error: RuntimeError) -> None:
        """Raise EngineError where it is the compiler that failed: every row would, one after the other."""
        if self.name != "torch-compile" or "out of memory" in str(error).lower():
            return
        if isinstance(error, self._torch._dynamo.exc.BackendCompilerFailed):
            raise EngineError(
                f"torch cannot compile the network here ({one_line(error, 120)}); it needs a C++ compiler, "
                "such as g++, and a home folder; or use --engine torch"
            ) from error

    def _on_device(self, values: FloatArray) -> torch.Tensor:
        tensor: torch.Tensor = self._torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(self._device)
        return tensor
