"""From exception to the one line a person reads."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

from inpaint_batch.cli.settings import wants_json
from inpaint_batch.errors import InpaintBatchError, exit_code_of, trouble_with_a_file, why_it_ends
from inpaint_batch.report.json_lines import tell_error


def tell(error: BaseException) -> None:
    """Say on stderr why the program ends: one line for what was foreseen; for a bug, where its traceback lies.

    Programs that asked for JSON are told on stdout first.
    """
    tell_programs(error)
    if isinstance(error, InpaintBatchError | KeyboardInterrupt) or trouble_with_a_file(error):
        message = why_it_ends(error)
    else:
        message = (
            f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}; this is a bug in inpaint-batch, "
            f"please report it with {_write_traceback(error)}"
        )
    print(f"inpaint-batch: {message}", file=sys.stderr, flush=True)


def tell_programs(error: BaseException) -> None:
    """The event `error`, where the command line asks for JSON."""
    if wants_json(sys.argv[1:], os.environ):
        tell_error(error, sys.stdout)


def leave_at_once(error: BaseException) -> NoReturn:
    """End the process with the error's code, and wait for no thread: one of them may hang."""
    tell(error)
    sys.stdout.flush()
    os._exit(exit_code_of(error))


def _write_traceback(error: BaseException) -> str:
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="inpaint-batch-", suffix=".log", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        return f"the file {Path(file.name)}"
    except OSError:
        print(text, file=sys.stderr)
        return "the lines above"
