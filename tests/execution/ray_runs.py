"""Runs of the program with the Ray executor, as processes of their own: Ray is not to be started twice in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 150


CLUSTER = """
import logging, sys
import ray
quiet = {"include_dashboard": False, "logging_level": logging.ERROR}
ray.init(address="local", num_cpus=2, object_store_memory=80 << 20, **quiet)  # not one that somebody else started
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster of two CPUs; yields the environment that leads there. Its token stays in `home`."""
    hidden = ("INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        impatience = threading.Timer(PATIENCE_S / 2, process.kill)
        impatience.start()
        address = process.stdout.readline().strip()
        impatience.cancel()
        if not address:  # of this machine, not of ours: some sandboxes do not let it
            pytest.skip("Ray is installed, but its own cluster does not start on this machine")
        yield environment | {"RAY_ADDRESS": address}
        process.communicate(timeout=PATIENCE_S)


def start(
    manifest: Path, output: Path, environment: dict[str, str], *flags: str, engine: str = "identity"
) -> subprocess.Popen[str]:
    """`inpaint-batch run` on two actors of a cluster."""
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    return subprocess.Popen(
        [*command, "--engine", engine, "--workers", "1", "--actors", "2", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str], output: Path) -> tuple[dict[str, Any], str, str]:
    """(summary, stdout, stderr) once it has ended."""
    told = process.communicate(timeout=PATIENCE_S)
    return (json.loads((output / ".inpaint-batch" / "summary.json").read_text()), *told)
