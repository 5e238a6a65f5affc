"""A run of a network so small that a step takes a tenth of a second, for all tests of training."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small_networks import SMALLEST

from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.photographs import list_photographs
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.trainer import LAST, train

CONFIG = TrainConfig(
    model=SMALLEST,
    steps=8,
    batch_size=2,
    sides_px=(64, 128),
    side_shares=(0.5, 0.5),
    warmup_steps=2,
    num_validation=4,
    validate_every=4,
    checkpoint_every=2,
)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    """All that a run has learned, its average and its discriminator included."""
    checkpoint = load_checkpoint(run / LAST)
    groups = {"average": checkpoint.average, "adversary": checkpoint.adversary, "optimizer": checkpoint.optimizer}
    rest = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    return {**checkpoint.weights, **rest}


def check_resuming(config: TrainConfig, photographs: Path, folder: Path, num_steps: int) -> dict[str, torch.Tensor]:
    """A run that is taken up after `num_steps` steps ends as an unbroken one, which it returns all weights of."""
    train(config, photographs, folder / "whole")
    state = TrainingState(config)
    for batch in Crops(list_photographs(photographs)[: -config.num_validation], config, None).prefetch(0, num_steps):
        state.learn(batch)
    (folder / "broken").mkdir()
    state.save(folder / "broken" / LAST)
    train(config, photographs, folder / "broken", resume=True)
    whole, broken = weights_of(folder / "whole"), weights_of(folder / "broken")
    assert whole.keys() == broken.keys()
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    return whole


def write_settings(config: TrainConfig, file: Path) -> Path:
    """The settings as a file for `--config`."""
    settings = config.to_dict()
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items() if not isinstance(value, dict)]
    lines = [line for line in lines if not line.endswith("= null")]
    for table in ("model", "losses"):
        lines.append(f"[{table}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in settings[table].items() if value is not None]
    file.write_text("\n".join(lines))
    return file
