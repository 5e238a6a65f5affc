"""Every error the package raises on purpose.

::

    InpaintBatchError                exit 1   (the base; never raised itself)
    ├── UsageError                   exit 2   flags that contradict each other
    ├── ConfigError                  exit 3   a setting that cannot be
    ├── ManifestError                exit 4   no usable manifest
    ├── MissingDependencyError       exit 5   an extra that is not installed
    ├── EngineError                  exit 6   weights or engine unusable
    ├── StorageError                 exit 7   output folder or store unusable
    ├── RowsFailedError              exit 8   some rows failed, all others are done
    ├── FailureLimitError            exit 9   more failures than --max-failures
    ├── WorkerLostError              exit 10  device or worker lost for good
    └── StopRequestedError           exit 75  asked to stop: drained, run again to go on
    RowError                         no exit code: it fails one row and ends in the ledger

A run-level error ends the run and carries its exit code as a class attribute; `exit_code_of` is the only
translator from exception to exit code, and `cli/` alone ends the program by it. A `RowError` never ends a run by
itself.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import ClassVar

from inpaint_batch.words import writable


class FailureCode(StrEnum):
    """The closed vocabulary of row failures; stands in the ledger and in `failures.csv`."""

    READ = "read"
    """The image or the mask could not be read, or is of a kind that we cannot keep exactly."""
    MASK = "mask"
    """The mask is empty, full, or not understood."""
    SIZE = "size"
    """Image and mask do not have the same size."""
    MEMORY = "memory"
    """The image is over the memory budget (a decompression bomb, or simply too large)."""
    INFER = "infer"
    """The engine failed on a tile of this row."""
    NONFINITE = "nonfinite"
    """The engine returned NaN or infinity."""
    WRITE = "write"
    """The output could not be written, or read back different from what was meant."""
    TIMEOUT = "timeout"
    """The row took longer than the limit."""
    CRASH = "crash"
    """The worker died with this row in flight, repeatedly."""


class InpaintBatchError(Exception):
    """Base of all run-level errors."""

    exit_code: ClassVar[int] = 1


class UsageError(InpaintBatchError):
    """Flags or arguments that contradict each other."""

    exit_code = 2


class ConfigError(InpaintBatchError, ValueError):
    """A setting that is out of range, unknown, or contradicts another one."""

    exit_code = 3


class ManifestError(InpaintBatchError):
    """The manifest cannot be read at all, or lacks a required column."""

    exit_code = 4


class MissingDependencyError(InpaintBatchError):
    """A feature was asked for whose optional packages are not installed."""

    exit_code = 5


class EngineError(InpaintBatchError):
    """Weights or a compiled engine are missing, damaged, or made for something else."""

    exit_code = 6


class StorageError(InpaintBatchError):
    """The output folder (or object store) cannot be used: read-only, full, or inside the input."""

    exit_code = 7


class RowsFailedError(InpaintBatchError):
    """The run is complete, but some rows failed; they are listed in `failures.csv`."""

    exit_code = 8


class FailureLimitError(InpaintBatchError):
    """The run was ended because more rows failed than `--max-failures` allows."""

    exit_code = 9


class WorkerLostError(InpaintBatchError):
    """A device or worker was lost and did not come back."""

    exit_code = 10


class StopRequestedError(InpaintBatchError):
    """The run was asked to stop (SIGTERM, SIGUSR1); it drained and can be continued."""

    exit_code = 75


INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def exit_code_of(error: BaseException) -> int:
    """The exit code of the program that ends by `error`; 1 for what nobody foresaw."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if trouble_with_a_file(error):
        return StorageError.exit_code
    return error.exit_code if isinstance(error, InpaintBatchError) else InpaintBatchError.exit_code


MAX_MESSAGE_CHARS = 300
MESSAGE_HEAD_CHARS = 80
"""Of a message that is too long, so much is kept from its beginning, the rest from its end."""


class RowError(Exception):
    """One row cannot be done. It becomes a ledger line and the run goes on.

    `message` is one sentence for the person who owns the file: what happened and what to do next.
    `retryable` says whether the same row may succeed if it is simply run again.
    """

    def __init__(self, code: FailureCode, message: str, *, retryable: bool = False) -> None:
        one_line = " ".join(message.split())
        if len(one_line) > MAX_MESSAGE_CHARS:
            # A long path stands in the middle; what happened and what to do stand at the end.
            one_line = f"{one_line[:MESSAGE_HEAD_CHARS]}…{one_line[MESSAGE_HEAD_CHARS + 1 - MAX_MESSAGE_CHARS :]}"
        super().__init__(code, one_line, retryable)  # all arguments, so that it pickles
        self.code = code
        self.message = one_line
        self.retryable = retryable

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_row_error, (self.code, self.message, self.retryable))

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


def _rebuild_row_error(code: FailureCode, message: str, retryable: bool) -> RowError:
    return RowError(code, message, retryable=retryable)


def trouble_with_a_file(error: BaseException) -> str:
    """What the system refused to do with which file, where a program ends by that; empty for any other error.

    Nobody can foresee every folder that stands where a file is wanted; but the system says which one, and why.
    """
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        name = writable(os.fsdecode(error.filename))
        return f"cannot use {name}: {error.strerror}; check this path and what lies there"
    if isinstance(error, RowError) and error.code is FailureCode.WRITE:
        return f"{error.message}; check this path and what lies there"
    return ""


def why_it_ends(error: BaseException) -> str:
    """In one line, why a program ends that ends by this error."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; run again to go on"
    return " ".join((trouble_with_a_file(error) or str(error)).split())
