"""The settings of a run, put together from what it has already stored, a file, a model to start from, and flags."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig, load_train_config
from inpaint_batch.training.trainer import LAST


def settings_of_run(
    run: Path,
    file: Path | None = None,
    *,
    init: Path | None = None,
    resume: bool = False,
    steps: int | None = None,
    seed: int | None = None,
) -> TrainConfig:
    """`steps` and `seed`, where given, over `file`, or over the run's own settings (`resume`), or over defaults.

    A model to start from brings its sizes, unless `file` names some. Raises ConfigError or EngineError for what
    cannot be read.
    """
    if file is not None:
        settings = load_train_config(file)
    elif resume:
        settings = TrainConfig.from_dict(load_checkpoint(run / LAST).config)
    else:
        settings = TrainConfig()
    if init is not None and not (file is not None and _names_sizes(file)):
        settings = replace(settings, model=load_generator(init).spec)
    if steps is not None:
        settings = replace(settings, steps=steps)
    if seed is not None:
        settings = replace(settings, seed=seed)
    return settings


def _names_sizes(file: Path) -> bool:
    return "model" in tomllib.loads(file.read_text(encoding="utf-8"))
