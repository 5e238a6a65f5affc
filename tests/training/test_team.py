"""Two processes train as one: their shares are the batch, their weights stay the same, a signal to one stops both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from small_training import CONFIG, weights_of, write_settings

from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.losses.weights import LossWeights
from inpaint_batch.training.photographs import list_photographs
from inpaint_batch.training.team import Team
from inpaint_batch.training.trainer import LAST, train

ALONE = replace(
    CONFIG,
    batch_size=2,
    steps=3,
    sides_px=(64, 192),
    side_shares=(0.5, 0.5),
    losses=LossWeights(boundary=0.0),  # the mean of one image at a time: the same however the batch is shared
    optimizer="adamw",
    validate_every=3,
)


@contextmanager
def pair(photographs: Path, run: Path, config: TrainConfig) -> Iterator[subprocess.Popen[str]]:
    """Two processes under torchrun; whatever happens, none of them stays."""
    file = write_settings(config, run.with_suffix(".toml"))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "inpaint_batch", "train", str(photographs), "--output", str(run)]
    command += ["--config", str(file), "--threads", "1", "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    pipes: dict[str, Any] = {"stderr": subprocess.STDOUT, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_shares_of_a_team_are_the_batch(photographs: Path) -> None:
    paths = list_photographs(photographs)
    whole = Crops(paths, CONFIG, None).batch(1)
    shares = [Crops(paths, CONFIG, None, lambda num, r=rank: range(r, num, 3)).batch(1) for rank in range(3)]
    assert {share.num_images for share in shares} == {len(whole.image)}
    for rank, share in enumerate(shares):
        assert np.array_equal(share.image, whole.image[rank::3])
        assert np.array_equal(share.hole, whole.hole[rank::3])


def test_alone_everything_is_a_matter_of_course() -> None:
    team = Team(torch.device("cpu"))
    assert (team.rank, team.size, team.leads) == (0, 1, True)
    assert list(team.share(5)) == [0, 1, 2, 3, 4]
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    team.sum_gradients([weight])
    assert weight.grad.tolist() == [1, 1]
    assert team.any(True)
    assert not team.any(False)


def test_two_processes_learn_what_one_would(photographs: Path, tmp_path: Path) -> None:
    """Sides 64 and 192 make batches of 8 and 1: even shares, and one that is empty."""
    sides = {Crops(list_photographs(photographs), ALONE, None).batch(step).image.shape[-1] for step in range(3)}
    assert sides == {64, 192}
    train(ALONE, photographs, tmp_path / "alone")
    with pair(photographs, tmp_path / "pair", ALONE) as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "2 process(es)" in output
    assert output.count("best PSNR inside the hole") == 1
    alone, together = weights_of(tmp_path / "alone"), weights_of(tmp_path / "pair")
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-4)
    records = [json.loads(line) for line in (tmp_path / "pair" / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 3]  # the first process alone writes: losses, and validation


def test_a_signal_stops_the_whole_team(photographs: Path, tmp_path: Path) -> None:
    losses = LossWeights(adversarial=0.01)
    config = replace(ALONE, steps=100_000, checkpoint_every=1, losses=losses, discriminator_width=4)
    last = tmp_path / "pair" / LAST
    with pair(photographs, tmp_path / "pair", config) as process:
        deadline = time.monotonic() + 150
        while not last.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=100)
    assert load_checkpoint(last).step > 0, output
    assert "go on with --resume" in output
    assert process.returncode != 0  # torchrun has a code of its own for a job that did not end by itself
