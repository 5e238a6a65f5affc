"""Ways to train: in pieces, against a discriminator, in half precision, from other weights, over a full disk."""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from small_networks import SMALLEST
from small_training import CONFIG, check_resuming, weights_of

from inpaint_batch.errors import ConfigError, StorageError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.models.vgg import VggFeatures
from inpaint_batch.training import state as training_state
from inpaint_batch.training.adversary import Adversary
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.device import Device
from inpaint_batch.training.loss_scale import FIRST, LossScale
from inpaint_batch.training.losses.weights import LossWeights
from inpaint_batch.training.photographs import list_photographs
from inpaint_batch.training.settings import FEW_SHOT, settings_of_run
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.team import Team
from inpaint_batch.training.trainer import BEST, EXPORT, LAST, train

SHORT = replace(CONFIG, steps=6, sides_px=(64,), side_shares=(1.0,), checkpoint_every=3, validate_every=6)
ADVERSARIAL = replace(
    SHORT,
    losses=LossWeights(adversarial=0.01, feature_matching=1.0, focal_frequency=1.0),
    discriminator_width=4,
)


def test_adversarial_resume_is_bit_exact(photographs: Path, tmp_path: Path) -> None:
    whole = check_resuming(ADVERSARIAL, photographs, tmp_path, 3)
    assert any(name.startswith("adversary/optimizer/0/") for name in whole)


def test_the_discriminator_learns_every_second_step_and_the_generator_leaves_it_alone(photographs: Path) -> None:
    state = TrainingState(ADVERSARIAL)
    assert state.adversary is not None
    crops = Crops(list_photographs(photographs), ADVERSARIAL, None)
    moved = []
    for step in range(4):
        before = {name: value.clone() for name, value in state.adversary.discriminator.state_dict().items()}
        losses = state.learn(crops.batch(step))
        after = state.adversary.discriminator.state_dict()
        moved.append(any(not torch.equal(before[name], after[name]) for name in before))
        assert ("discriminator" in losses) == moved[-1]
        assert {"loss", "charbonnier", "boundary", "adversarial", "feature_matching", "focal_frequency"} <= set(losses)
    assert moved == [True, False, True, False]


def test_a_discriminator_learns_to_tell_flat_fills_from_texture() -> None:
    torch.manual_seed(0)
    device = Device("cpu")
    adversary = Adversary(replace(CONFIG, discriminator_width=8), device)
    truth, hole = torch.rand(4, 3, 64, 64), torch.zeros(4, 1, 64, 64)
    hole[..., 16:48, 16:48] = 1
    piece = (truth * (1 - hole) + 0.5 * hole, truth, hole)
    losses = [adversary.learn([piece], 1 / 4, Team(device.torch)) for _ in range(50)]
    assert losses[0] == pytest.approx(2.0, abs=0.1)  # it does not know: both scores are near zero
    assert losses[-1] < 0.6


def test_going_on_with_a_discriminator_that_was_not_there(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(replace(SHORT, steps=1), photographs, tmp_path)
    with caplog.at_level(logging.WARNING):
        train(replace(ADVERSARIAL, steps=2), photographs, tmp_path, resume=True)
    assert "holds no discriminator" in caplog.text


def test_learning_in_pieces_is_learning_at_once(photographs: Path) -> None:
    plain = replace(SHORT, batch_size=2, losses=LossWeights(boundary=0.0), optimizer="adamw")
    gradients = []
    for config in (plain, replace(plain, micro_batches=3)):
        state = TrainingState(config)
        batch = Crops(list_photographs(photographs), config, None).batch(0)
        assert batch.num_images == 8
        loss = state.learn(batch)["loss"]
        gradients.append((loss, [p.grad.clone() for p in state.generator.parameters() if p.grad is not None]))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    for one, other in zip(gradients[0][1], gradients[1][1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_goes_on_exactly(photographs: Path, tmp_path: Path, precision: Any) -> None:
    config = replace(SHORT, precision=precision, steps=4, checkpoint_every=2)
    train(config, photographs, tmp_path / "whole")
    state = TrainingState(config)
    for batch in Crops(list_photographs(photographs)[:-4], config, None).prefetch(0, 2):
        state.learn(batch)
    (tmp_path / "again").mkdir()
    state.save(tmp_path / "again" / LAST)
    train(config, photographs, tmp_path / "again", resume=True)
    assert load_checkpoint(tmp_path / "whole" / LAST).loss_scale == ((FIRST, 4) if precision == "fp16" else None)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "again")
    assert all(torch.isfinite(value).all() for value in one.values())
    assert all(torch.equal(one[name], other[name]) for name in one)
    full = TrainingState(replace(config, precision="fp32"))
    half = TrainingState(config)
    batch = Crops(list_photographs(photographs), config, None).batch(0)
    assert half.learn(batch)["loss"] == pytest.approx(full.learn(batch)["loss"], rel=0.02)


def test_the_loss_scale_follows_overflows() -> None:
    scale = LossScale(enabled=True)
    scale.update(finite=False)
    assert scale.value == FIRST / 2
    for _ in range(500):
        scale.update(finite=True)
    assert scale.value == FIRST
    off = LossScale(enabled=False)
    off.update(finite=False)
    assert off.value == 1.0


def test_starting_from_weights(photographs: Path, tmp_path: Path) -> None:
    train(replace(SHORT, steps=2), photographs, tmp_path / "first")
    start = load_generator(tmp_path / "first" / EXPORT)
    settings = settings_of_run(tmp_path / "second", init=tmp_path / "first" / EXPORT, steps=1)
    assert settings.model == SMALLEST
    config = replace(SHORT, steps=1, learning_rate=0.0, seed=5)
    train(config, photographs, tmp_path / "second", init=tmp_path / "first" / EXPORT)
    second = weights_of(tmp_path / "second")
    assert all(torch.equal(second[name], value) for name, value in start.state_dict().items())
    with pytest.raises(ConfigError, match="a network of width 8, and the settings ask for 4"):
        train(
            replace(config, model=replace(SMALLEST, width=4)),
            photographs,
            tmp_path / "x",
            init=tmp_path / "first" / EXPORT,
        )
    with pytest.raises(ConfigError, match="leave out --init"):
        train(config, photographs, tmp_path / "second", init=tmp_path / "first" / EXPORT, resume=True)


def test_settings_of_a_run_are_its_own_unless_others_are_given(photographs: Path, tmp_path: Path) -> None:
    config = replace(SHORT, steps=1, learning_rate=3e-4)
    train(config, photographs, tmp_path)
    assert settings_of_run(tmp_path, resume=True) == config
    assert settings_of_run(tmp_path, resume=True, steps=9, seed=2) == replace(config, steps=9, seed=2)
    file = tmp_path / "other.toml"
    file.write_text("steps = 3\n[model]\nwidth = 16\n")
    assert settings_of_run(tmp_path, file, init=tmp_path / EXPORT).model.width == 16
    assert settings_of_run(tmp_path, file, resume=True).steps == 3


def test_a_run_that_goes_on_keeps_what_the_file_leaves_out(photographs: Path, tmp_path: Path) -> None:
    """Its sizes came from a model, its gentle steps from a flag; --resume names neither, but the same file."""
    train(replace(SHORT, steps=1), photographs, tmp_path / "first")
    init = tmp_path / "first" / EXPORT
    file = tmp_path / "mine.toml"
    file.write_text("steps = 3\nnum_validation = 4\nvalidation_crops = 1\nsides_px = [64]\nside_shares = [1]\n")
    began = settings_of_run(tmp_path / "run", file, init=init, few_shot=True)
    assert (began.model, began.learning_rate) == (SHORT.model, FEW_SHOT["learning_rate"])
    train(replace(began, steps=1, batch_size=2), photographs, tmp_path / "run", init=init)
    assert settings_of_run(tmp_path / "run", file, resume=True) == replace(began, batch_size=2)
    file.write_text("boundary_weight = 0.3\nbf16 = true\n[losses]\ncolour = 0.5\n")  # older names win as well
    changed = settings_of_run(tmp_path / "run", file, resume=True)
    losses = replace(began.losses, boundary=0.3, colour=0.5)
    assert changed == replace(began, steps=1, batch_size=2, precision="bf16", losses=losses)


def test_what_a_checkpoint_cannot_go_on_with_is_refused(photographs: Path, tmp_path: Path) -> None:
    train(replace(ADVERSARIAL, steps=1), photographs, tmp_path)
    for other in ({"optimizer": "adamw"}, {"discriminator_width": 2 * ADVERSARIAL.discriminator_width}):
        with pytest.raises(ConfigError, match=f"is a run with {next(iter(other))} .*; start a new run with --init"):
            train(replace(ADVERSARIAL, steps=2, **other), photographs, tmp_path, resume=True)
    train(replace(SHORT, steps=2, discriminator_width=8), photographs, tmp_path, resume=True)


def test_settings_of_older_checkpoints_are_understood() -> None:
    older = {"boundary_weight": 0.3, "bf16": True, "hole_shares": [0.4, 0.2, 0.25, 0.15]}
    config = TrainConfig.from_dict(older)
    assert (config.losses.boundary, config.precision) == (0.3, "bf16")
    assert TrainConfig.from_dict({"boundary_weight": 0.1, "bf16": False}) == TrainConfig()
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"precision": "fp8"}, "fp32 or bf16 or fp16, not 'fp8'"),
        ({"optimizer": "sgd"}, "adamw or muon"),
        ({"steps": "many"}, "steps must be a whole number, not 'many'"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"pretrain": "yes"}, "pretrain must be true or false"),
        ({"sides_px": 64}, "sides_px must be a list, not 64"),
        ({"sides_px": [64, 96, 128]}, r"multiples of 64, not \(96, 128\)"),
        ({"native_share": 1.5}, "native_share must lie in"),
        ({"stroke_area": [0.1]}, "stroke_area must be a list of 2"),
        ({"curriculum": [0.1, 0.2]}, r"curriculum\[0\] must be a list of 2"),
        ({"hole_shares": ["a"]}, r"hole_shares\[0\] must be a number"),
        ({"losses": 3}, "losses must be a table"),
        ({"model": "dcf"}, "model must be a table"),
        ({"model": {"width": 8.5}}, r"model\.width must be a whole number"),
        ({"model": {"encoder_blocks": 3}}, r"model\.encoder_blocks must be a list"),
        ({"model": {"encoder_blocks": [1, -1], "decoder_blocks": [1, 1]}}, "must not be negative"),
        ({"seed": -1}, "seed must be finite and not negative"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite and not negative"),
        ({"gradient_clip": 0}, "gradient_clip must be above 0"),
        ({"num_validation": 0}, "num_validation must be at least 1"),
        ({"micro_batches": 0}, "micro_batches must be at least 1"),
        ({"curriculum": [[0.2, 0.1]]}, "two fractions"),
        ({"jpeg_share": 2.0}, "jpeg_share must lie in"),
        ({"max_samples": 0}, "max_samples"),
        ({"hole_shares": [0.1] * 8}, "one to seven"),
        ({"sides_px": [], "side_shares": []}, "sides_px and side_shares must have the same length, and not be empty"),
        ({"side_shares": [float("nan"), 0.5, 0.5]}, "side_shares must be fractions that sum to 1"),
        ({"hole_shares": [0.5, float("nan")]}, "hole_shares must be fractions that sum to 1"),
        ({"seed": 1 << 63}, r"seed must be below 2\*\*63"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainConfig.from_dict(setting)


def test_a_full_disk_costs_a_checkpoint_but_not_the_run(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = replace(SHORT, steps=4, checkpoint_every=1)
    real = training_state.save_checkpoint
    full = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    def save(path: Path, checkpoint: Any) -> None:
        if checkpoint.step in (2, 3):
            raise full
        real(path, checkpoint)

    monkeypatch.setattr(training_state, "save_checkpoint", save)
    with caplog.at_level(logging.ERROR):
        train(config, photographs, tmp_path / "passing")
    assert caplog.text.count("training goes on") == 2
    assert "No space left" in caplog.text
    assert load_checkpoint(tmp_path / "passing" / LAST).step == 4

    def save_first(path: Path, checkpoint: Any) -> None:
        if checkpoint.step > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, checkpoint)

    monkeypatch.setattr(training_state, "save_checkpoint", save_first)
    with pytest.raises(StorageError, match="still there"):
        train(config, photographs, tmp_path / "ending")
    assert load_checkpoint(tmp_path / "ending" / LAST).step == 1
    assert not (tmp_path / "ending" / BEST).exists()
    assert not list((tmp_path / "ending").glob("*.tmp"))


def test_vgg_losses_take_their_weights_from_the_file(photographs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "vgg.safetensors"
    save_file({name: 0.02 * torch.randn_like(value) for name, value in VggFeatures().state_dict().items()}, path)
    config = replace(
        SHORT, batch_size=1, losses=LossWeights(perceptual=0.05, style=30.0, contextual=0.1), vgg_weights=str(path)
    )
    config = replace(config, sides_px=(32,), side_shares=(1.0,), micro_batches=16)
    losses = TrainingState(config).learn(Crops(list_photographs(photographs), config, None).batch(0))
    assert losses["perceptual"] > 0
    assert losses["style"] > 0
    assert losses["contextual"] > 0


def test_torch_compile_is_used_where_asked_for(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def compile_(network: torch.nn.Module) -> torch.nn.Module:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_)
    assert TrainingState(SHORT).network not in compiled
    state = TrainingState(replace(SHORT, torch_compile=True))
    assert compiled == [state.generator]
    assert "_orig_mod" not in "".join(state.generator.state_dict())


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        Device("abacus")
    with pytest.raises(ConfigError, match="auto, cpu, cuda"):
        Device("meta")
    with pytest.raises(ConfigError, match="no device cuda:99"):
        Device("cuda:99")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_everything_runs_on_a_gpu(photographs: Path, tmp_path: Path, precision: Any) -> None:
    config = replace(ADVERSARIAL, precision=precision, steps=4)
    train(config, photographs, tmp_path, device="cuda")
    train(replace(config, steps=6), photographs, tmp_path, device="cuda", resume=True)
    assert load_checkpoint(tmp_path / LAST).step == 6
