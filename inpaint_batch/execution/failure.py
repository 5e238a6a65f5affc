"""What an exception at one of the stages of a row means for the row and the run."""

from __future__ import annotations

import logging

from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.execution.shortage import is_out_of_memory
from inpaint_batch.execution.tasks import Failure, RowTask

log = logging.getLogger(__name__)

_STAGE_CODES = {"read": FailureCode.READ, "infer": FailureCode.INFER, "write": FailureCode.WRITE}


def as_failure(error: Exception, task: RowTask, stage: str, cause: BaseException | None = None) -> Failure:
    """What a row's exception means for the ledger; one that nobody foresaw goes to the log with its traceback.

    `cause` is the unforeseen exception behind a foreseen one. Raises `error` again where it concerns the whole run.
    """
    if isinstance(error, InpaintBatchError):
        raise error
    if isinstance(error, RowError):
        if cause is not None:
            log.error("row %s failed at %s", task.row.id, stage, exc_info=cause)
        return Failure.of(error)
    log.error("row %s failed at %s", task.row.id, stage, exc_info=error)
    if is_out_of_memory(error):
        message = "there was not enough memory for this image, even alone; run it on a larger machine"
        return Failure.of(RowError(FailureCode.MEMORY, message, retryable=True))
    message = (
        f"unexpected {type(error).__name__}: {error}; the traceback is in .inpaint-batch/run.log, please report it"
    )
    return Failure.of(RowError(_STAGE_CODES[stage], message, retryable=isinstance(error, OSError)))
