"""Runs of the program with the Ray executor, as processes of their own: Ray is not to be started twice in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PATIENCE_S = 150


def start(manifest: Path, output: Path, home: Path, *flags: str, engine: str = "identity") -> subprocess.Popen[str]:
    """`inpaint-batch run` on two Ray actors; Ray's token goes to `home`."""
    command = [sys.executable, "-m", "inpaint_batch.cli.main", "run", str(manifest), "--output", str(output)]
    hidden = ("INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    home.mkdir(exist_ok=True)
    environment |= {"HOME": str(home), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [*command, "--engine", engine, "--workers", "1", "--executor", "ray", "--actors", "2", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], output: Path) -> tuple[dict[str, Any], str, str]:
    """(summary, stdout, stderr) once it has ended."""
    told = process.communicate(timeout=PATIENCE_S)
    return (json.loads((output / ".inpaint-batch" / "summary.json").read_text()), *told)
