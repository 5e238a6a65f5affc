"""The program at work on a store: in this process, where the store's client is loaded once, or as a process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest

from inpaint_batch.cli.main import main
from inpaint_batch.storage import objects

PATIENCE_S = 120


@contextmanager
def using(environment: Mapping[str, str]) -> Iterator[None]:
    """Within it, this process has that environment, and clients of its own."""
    with pytest.MonkeyPatch.context() as changed:
        for name in set(os.environ) - set(environment) - {"PYTEST_CURRENT_TEST"}:
            changed.delenv(name)
        for name, value in environment.items():
            changed.setenv(name, value)
        changed.setattr(objects, "_clients", {})
        yield


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "inpaint_batch", *arguments]


def restore(manifest: str, output: str, *flags: str, engine: str = "identity") -> list[str]:
    return command("run", manifest, "--output", output, "--engine", engine, "--workers", "2", *flags)


def call(words: list[str]) -> subprocess.CompletedProcess[str]:
    """The program, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as changed, redirect_stdout(out), redirect_stderr(err):
        changed.setattr(sys, "argv", words[2:])
        with pytest.raises(SystemExit) as caught:
            main()
    code = caught.value.code
    return subprocess.CompletedProcess(words, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def started(environment: Mapping[str, str], words: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """The program, as a process."""
    return subprocess.run(
        words, env={**environment, **variables}, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
