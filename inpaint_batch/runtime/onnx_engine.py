"""ONNX Runtime on the CPU: the engine that comes with the package.

How a graph is asked is a `Convention`: that of this package, or one that the user describes (`adapter`).

**Tiles run one by one, each on one thread, several at a time.** A tile must give the same bytes in any batch on any
number of threads, and ONNX Runtime does not promise that. With onnxruntime 1.31 on x86-64 the small graph of the tests
(convolutions, attention) gave other last bits, 4e-7, with four threads inside an operator than with one. The DCF
generator, FP32 and INT8, showed no difference in batches of 1 to 8 on 1 to 4 threads, but another graph, machine or
version might. Alone on one thread a tile has no company that could change it, and nothing is lost: on two cores
(medians, 2026-11-20, FP32, ms a tile) 64 px took 23.9 this way and 24.3 in batches of 8 on two threads, 128 px 137
and 149.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inpaint_batch.config import BUCKETS_PX
from inpaint_batch.errors import EngineError, FailureCode, RowError
from inpaint_batch.machine import num_cores
from inpaint_batch.runtime.adapter import adapter_path
from inpaint_batch.runtime.convention import Convention, OwnConvention, TensorFacts
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.processor import adds_bytes_exactly
from inpaint_batch.types import FloatArray
from inpaint_batch.words import first_line

if TYPE_CHECKING:
    import onnxruntime

TILES_PER_THREAD = 4
"""Tiles in a batch for each thread: enough that no thread is idle for long at the end of a batch."""


class OnnxEngine:
    """See `Engine` for the contract."""

    name = "onnxruntime"
    providers: Sequence[Any] = ("CPUExecutionProvider",)
    """What ONNX Runtime may compute with, as its sessions take it."""

    def __init__(
        self,
        path: Path,
        *,
        precision: str,
        model: str | None = None,
        threads: int = 0,
        convention: Convention | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        """Load `path`; `threads` tiles are filled at a time (0: one per core that this process may use).

        `convention`: how the graph wants to be asked; None is the way of this package's own graphs.

        Raises EngineError where the file is missing, damaged, or a graph that cannot be asked this way.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read the model {path} ({error.strerror}); check --model") from error
        self.model = model or str(path)
        self.model_hash = hashlib.sha256(content).hexdigest()
        self.precision = precision
        self._convention = convention or OwnConvention(BUCKETS_PX)
        self.buckets_px = self._convention.sides_px
        self.notes = notes
        self._threads = threads or num_cores()
        self._session: onnxruntime.InferenceSession | None = _open(path, content, self.providers)
        _check(self._session, self._convention, path)
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="engine")

    @property
    def identity(self) -> str:
        """Engine, precision, model hash, and how the model is asked where that is a choice."""
        asked = f":{self._convention.identity}" if self._convention.identity else ""
        return f"{self.name}:{self.precision}:{self.model_hash}{asked}"

    def batch_size(self, side_px: int) -> int:
        """A few tiles for each thread, fewer where they are large."""
        return self._threads * (TILES_PER_THREAD if side_px < 256 else TILES_PER_THREAD // 2)

    def fill(self, batch: TileBatch) -> FloatArray:
        """See `Engine.fill`."""
        if self._session is None:
            raise EngineError("the engine was closed; this is a fault in the program")
        run = partial(self._fill_one, self._session, batch)
        if len(batch) == 1:  # waking another thread for it would only cost time
            return run(0)
        return np.concatenate(list(self._pool.map(run, range(len(batch)))))

    def _fill_one(self, session: onnxruntime.InferenceSession, batch: TileBatch, index: int) -> FloatArray:
        tile = batch.only(index)
        if (known := self._convention.shortcut(tile)) is not None:
            return known
        try:
            (output,) = session.run([self._convention.output], self._convention.feed(tile))
        except Exception as error:  # onnxruntime raises a dozen classes of its own, all straight from Exception
            raise RowError(
                FailureCode.INFER,
                f"the engine failed on a tile of {batch.side_px} px: {first_line(error)}",
                retryable=True,
            ) from error
        return checked(self._convention.filled(output, tile), tile.image.shape)

    def close(self) -> None:
        """See `Engine.close`."""
        self._session = None
        self._pool.shutdown(wait=True, cancel_futures=True)


def checked(filled: Any, shape: tuple[int, ...]) -> FloatArray:
    """`filled`, if it has that shape and only finite values; raises RowError otherwise."""
    result = np.asarray(filled, dtype=np.float32)
    if result.shape != shape:
        raise RowError(
            FailureCode.INFER,
            f"the engine returned {result.shape} for a tile of {shape}; use a model made for this package",
        )
    if not np.isfinite(result).all():
        raise RowError(
            FailureCode.NONFINITE, "the engine returned NaN or infinity; try --precision fp32, or report the image"
        )
    return result


def _open(path: Path, content: bytes, providers: Sequence[Any]) -> onnxruntime.InferenceSession:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # fatal only: what goes wrong reaches us as an exception
    options.intra_op_num_threads = 1  # see the docstring of the module
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # The arena keeps what a tile of the largest side takes, some 15 MB a thread. Where the C library gives that back
    # and asks for it again, a tile of 256 px takes a sixth more time.
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False  # a pattern is kept for every shape of batch
    if not adds_bytes_exactly():  # then by slower kernels, which are: a fill does not depend on the processor
        options.add_session_config_entry("session.x64quantprecision", "1")
    # From the bytes that were hashed, so that the hash is of what runs. Weights in a file of their own would be taken
    # from the folder that we happen to be in, unhashed: they are looked for where there can be none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", f"{path}/none")
    try:
        return ort.InferenceSession(content, options, providers=list(providers))
    except Exception as error:
        raise EngineError(
            f"{path} is not a model that ONNX Runtime can run ({first_line(error)}); "
            "it may be damaged, cut short, a Git LFS pointer, or kept in several files: get the one-file model again"
        ) from error


def _check(session: onnxruntime.InferenceSession, convention: Convention, path: Path) -> None:
    def facts(values: Any) -> dict[str, TensorFacts]:
        return {each.name: TensorFacts(each.type, tuple(each.shape)) for each in values}

    if faults := convention.faults(facts(session.get_inputs()), facts(session.get_outputs())):
        beside = adapter_path(path).name
        if isinstance(convention, OwnConvention):
            raise EngineError(
                f"{path} is a model for something else: {'; '.join(faults)}. Export it with this package's own "
                f"exporter, or describe how it is asked in {beside} beside it (engines/README.md)"
            )
        raise EngineError(
            f"{path} is not what {beside} says: {'; '.join(faults)}. Correct {beside} (engines/README.md)"
        )
