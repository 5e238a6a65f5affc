"""Telling a batch that a GPU failed on from a GPU that is gone.

After an illegal access, a fault of its memory or a fall off the bus, CUDA answers every call of the process with the
same error, for good: every row would fail, one after the other, though nothing is wrong with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from inpaint_batch.errors import FailureCode, RowError, WorkerLostError
from inpaint_batch.words import first_line


def raise_failure(try_it: Callable[[], object], error: Exception, message: str) -> NoReturn:
    """Raise RowError with `message` where the GPU goes on, WorkerLostError where `try_it`, which any GPU can do, fails
    too."""
    try:
        try_it()
    except Exception as gone:  # torch's RuntimeError, or one of ONNX Runtime's own
        raise WorkerLostError(
            f"the GPU does not answer this process any more ({first_line(gone)}); look at nvidia-smi and the system's "
            "log, then run again: done rows stay done"
        ) from error
    raise RowError(FailureCode.INFER, message, retryable=True) from error
