"""ONNX Runtime on an NVIDIA GPU, where a build of it with the CUDA provider is installed (`onnxruntime-gpu`).

**This engine has not been run on a GPU yet**: there was none where it was written. It runs the FP32 graph: of the INT8
graph most operators would go back to the CPU. Every batch is filled up to one size for each side.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path

import numpy as np

from inpaint_batch.errors import EngineError, MissingDependencyError
from inpaint_batch.machine import number_gpus_as_nvidia_smi
from inpaint_batch.runtime.convention import INPUT_CHANNELS, OUTPUT
from inpaint_batch.runtime.engine import TileBatch, filled_up
from inpaint_batch.runtime.lost_gpu import raise_failure
from inpaint_batch.runtime.onnx_engine import OnnxEngine, checked
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES
from inpaint_batch.types import FloatArray

PROVIDER = "CUDAExecutionProvider"


class OnnxCudaEngine(OnnxEngine):
    """See `Engine` for the contract."""

    name = "onnxruntime-cuda"
    # FP32 means FP32; and an exhaustive search could choose other algorithms in every process.
    providers = ((PROVIDER, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),)

    def __init__(self, path: Path, *, model: str | None = None, notes: tuple[str, ...] = ()) -> None:
        """Load the FP32 graph `path`.

        Raises MissingDependencyError where ONNX Runtime has no CUDA provider, EngineError where that provider does not
        start, or the file is not a graph of this package.
        """
        onnxruntime = importlib.import_module("onnxruntime")
        if PROVIDER not in onnxruntime.get_available_providers():
            raise MissingDependencyError(
                "this ONNX Runtime has no CUDA provider: pip uninstall onnxruntime, then pip install onnxruntime-gpu; "
                "or use --engine onnxruntime"
            )
        number_gpus_as_nvidia_smi()
        # CUDA and cuDNN may have come as wheels, where no loader looks for them. What is missing it prints, and
        # why a session does not start.
        with contextlib.redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()
            super().__init__(path, precision="fp32", model=model, threads=1, notes=notes)
        assert self._session is not None
        if (providers := self._session.get_providers())[0] != self.providers[0][0]:
            raise EngineError(
                f"ONNX Runtime did not start its CUDA provider and would use {providers[0]}: CUDA or cuDNN is missing "
                "or too old; use --engine onnxruntime"
            )
        # Else a session whose provider fails goes on with the CPU's by itself, with other bytes, and says so on stdout.
        self._session.disable_fallback()

    def batch_size(self, side_px: int) -> int:
        """The size that every batch is filled up to."""
        return BATCH_SIZES[side_px]

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`."""
        if self._session is None:
            raise EngineError("the engine was closed; this is a fault in the program")
        filled = []
        for part, used in filled_up(batch, BATCH_SIZES[batch.side_px]):
            try:
                (output,) = self._session.run([OUTPUT], {name: getattr(part, name) for name in INPUT_CHANNELS})
            except Exception as error:  # onnxruntime raises a dozen classes of its own, all straight from Exception
                raise_failure(self._try, error, f"the GPU failed on tiles of {batch.side_px} px: {error}")
            filled.append(output[:used])
        return checked(np.concatenate(filled), batch.image.shape)

    def _try(self) -> None:
        """Fill one small tile of nothing. Raises what ONNX Runtime does, but where memory does not suffice for it."""
        assert self._session is not None
        side_px = min(BATCH_SIZES)
        sides = {name: (1, 1) if name == "prior_weight" else (side_px, side_px) for name in INPUT_CHANNELS}
        tile = {name: np.zeros((1, INPUT_CHANNELS[name], *sides[name]), np.float32) for name in INPUT_CHANNELS}
        try:
            self._session.run([OUTPUT], tile)
        except Exception as error:
            if not any(sign in str(error).lower() for sign in ("out of memory", "alloc")):
                raise
