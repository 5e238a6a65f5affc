"""Two processes that Ray Train starts learn what one would, and stop together when their program is told to."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import CONFIG, write_settings

from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.losses.weights import LossWeights
from inpaint_batch.training.photographs import list_photographs
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.trainer import LAST

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("ray", "pandas")),
        reason="Ray Train is not installed: pip install 'inpaint-batch[ray-train]'",
    ),
    pytest.mark.slow,
]
PATIENCE_S = 400
ALONE = replace(
    CONFIG,
    losses=LossWeights(boundary=0.0),  # the mean of one image at a time: the same however the batch is shared
    optimizer="adamw",
)


def start(photographs: Path, run: Path, config: TrainConfig, *flags: str) -> subprocess.Popen[str]:
    file = write_settings(config, run.with_suffix(".toml"))
    hidden = ("RAY_", "WORLD_SIZE", "RANK", "LOCAL_RANK")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment |= {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "inpaint_batch", "train", str(photographs), "--output", str(run)]
    command += ["--config", str(file), "--ray-workers", "2", "--threads", "1", "--device", "cpu", *flags]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=PATIENCE_S)[0]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


@pytest.mark.timeout(900)
def test_two_processes_of_ray_learn_what_one_would_until_they_are_told_to_stop(
    photographs: Path, tmp_path: Path
) -> None:
    """A signal to the program that started them; then the weights of as many steps alone. One start of Ray is dear."""
    run, config = tmp_path / "pair", replace(ALONE, steps=2_000, checkpoint_every=1, validate_every=2_000)
    process = start(photographs, run, config)
    deadline = time.monotonic() + PATIENCE_S
    while not (run / LAST).exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = end(process)
    assert process.returncode == 75, output
    together = load_checkpoint(run / LAST)
    assert 0 < together.step < config.steps
    assert f"stopped at step {together.step}; go on with --resume" in output
    alone = TrainingState(config)
    first = flat(alone.generator.state_dict())
    for batch in Crops(list_photographs(photographs)[:-4], config, None).prefetch(0, together.step):
        alone.learn(batch)
    last = flat(alone.generator.state_dict())
    # Sums in another order differ by a rounding that grows from step to step: 1 to 2 % of the way after 20 steps. A
    # process that learned from other samples would end somewhere else.
    assert (flat(together.weights) - last).norm() < 0.2 * (last - first).norm()
