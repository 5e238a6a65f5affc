"""The settings of a run, put together from what it has already stored, a file, a model to start from, and flags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig, load_train_config, read_toml
from inpaint_batch.training.trainer import LAST, check_run

FEW_SHOT: dict[str, Any] = {
    "steps": 200,
    "batch_size": 8,
    "learning_rate": 3e-4,
    "warmup_steps": 20,
    "ema_decay": 0.98,
    "num_validation": 4,
    "validation_crops": 8,
    "validate_start": True,
    "validate_every": 25,
    "checkpoint_every": 25,
}
"""Settings for a handful of photographs: a short run that ends with the weights it began with if it finds no better."""


def settings_of_run(
    run: Path,
    file: Path | None = None,
    *,
    init: Path | None = None,
    few_shot: bool = False,
    pretrain: bool = False,
    resume: bool = False,
    steps: int | None = None,
    seed: int | None = None,
) -> TrainConfig:
    """`steps` and `seed`, where given, over `file`, over the run's own settings (`resume`) or over defaults.

    The defaults are those of FEW_SHOT where `few_shot` is set. What `file` leaves out stays as it was in a run that
    goes on: it may have begun with a model or with flags that are not named again. A model to start from brings its
    sizes, unless `file` names some. Raises ConfigError or EngineError for what cannot be read, and ConfigError for
    `few_shot` alone.
    """
    if few_shot and not (init or resume):
        raise ConfigError("--few-shot adapts a model to a few photographs: name the model with --init")
    if resume:
        check_run(run, resume=True)
        defaults = TrainConfig.from_dict(load_checkpoint(run / LAST).config).to_dict()
    else:
        defaults = FEW_SHOT if few_shot else {}
    settings = load_train_config(file, defaults) if file is not None else TrainConfig.from_dict(defaults)
    if pretrain:
        settings = replace(settings, pretrain=True)
    if init is not None and not (file is not None and "model" in read_toml(file)):
        settings = replace(settings, model=load_generator(init).spec)
    if steps is not None:
        settings = replace(settings, steps=steps)
    if seed is not None:
        settings = replace(settings, seed=seed)
    return settings
