"""Ways to begin other than from nothing: an encoder taught alone, and a model adapted to a few photographs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import CONFIG, check_resuming, weights_of

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.holes import HoleMaker
from inpaint_batch.training.settings import FEW_SHOT, settings_of_run
from inpaint_batch.training.trainer import EXPORT, train

PRETRAIN = replace(CONFIG, pretrain=True)


def validations(run: Path) -> list[tuple[int, float]]:
    """Of each its step and PSNR, which is none where the weights have gone beyond all numbers."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    told = [(r["step"], r["validation_psnr_db"]) for r in records if "validation_psnr_db" in r]
    return [(step, -math.inf if psnr is None else psnr) for step, psnr in told]


def test_cells_of_sixteen_pixels_are_hidden() -> None:
    hidden = HoleMaker(replace(PRETRAIN, pretrain_area=(0.5, 0.5)), None).draw(np.random.default_rng(1), 64)
    assert hidden.mean() == 0.5
    cells = hidden.reshape(4, 16, 4, 16).mean(axis=(1, 3))
    assert set(np.unique(cells)) == {0.0, 1.0}


def test_an_encoder_is_taught_and_handed_on(photographs: Path, tmp_path: Path) -> None:
    """The guess and what lies before it learn; what comes after stays; --init takes the result."""
    train(PRETRAIN, photographs, tmp_path / "first")
    taught = load_generator(tmp_path / "first" / EXPORT)
    torch.manual_seed(PRETRAIN.seed)
    fresh = type(taught)(taught.spec)
    moved = {n.split(".")[0] for n, p in fresh.named_parameters() if not torch.equal(p, taught.get_parameter(n))}
    assert moved == {"stem", "downs", "encoder"}
    train(CONFIG, photographs, tmp_path / "second", init=tmp_path / "first" / EXPORT)
    assert load_generator(tmp_path / "second" / EXPORT).spec == taught.spec


def test_teaching_the_encoder_resumes_bit_exactly(photographs: Path, tmp_path: Path) -> None:
    whole = check_resuming(PRETRAIN, photographs, tmp_path, 5)
    assert "guess.weight" in whole
    with pytest.raises(ConfigError, match=r"is a run with pretrain; start a new run with --init"):
        train(CONFIG, photographs, tmp_path / "broken", resume=True)


def test_learning_to_guess_lowers_the_error(photographs: Path, tmp_path: Path) -> None:
    config = replace(PRETRAIN, steps=60, validate_every=60, validate_start=True, learning_rate=3e-3)
    train(config, photographs, tmp_path / "run")
    (_, before), (_, after) = validations(tmp_path / "run")
    assert after > before + 0.3


def test_few_shot_never_ends_with_less_than_it_began_with(photographs: Path, tmp_path: Path) -> None:
    """Steps so large that they can only do harm: what is exported are the weights of the start."""
    train(CONFIG, photographs, tmp_path / "first")
    start = tmp_path / "first" / EXPORT
    settings = settings_of_run(tmp_path / "second", init=start, few_shot=True, steps=4)
    assert settings == replace(TrainConfig.from_dict({**FEW_SHOT, "steps": 4}), model=CONFIG.model)
    harmful = replace(settings, batch_size=2, learning_rate=3.0, warmup_steps=1, ema_decay=0.0, validate_every=2)
    best = train(harmful, photographs, tmp_path / "second", init=start)
    (step, before), *later = validations(tmp_path / "second")
    assert step == 0
    assert max(psnr for _, psnr in later) < before == pytest.approx(best, abs=1e-3)
    for name, value in load_generator(start).state_dict().items():
        assert torch.equal(load_generator(tmp_path / "second" / EXPORT).get_parameter(name), value)
    assert weights_of(tmp_path / "second")


def test_few_shot_wants_a_model() -> None:
    with pytest.raises(ConfigError, match="name the model with --init"):
        settings_of_run(Path("run"), few_shot=True)


def test_a_file_overrules_the_settings_for_few_photographs(tmp_path: Path, photographs: Path) -> None:
    train(CONFIG, photographs, tmp_path / "first")
    (tmp_path / "own.toml").write_text("steps = 7\n")
    settings = settings_of_run(tmp_path / "x", tmp_path / "own.toml", init=tmp_path / "first" / EXPORT, few_shot=True)
    assert (settings.steps, settings.learning_rate) == (7, FEW_SHOT["learning_rate"])
