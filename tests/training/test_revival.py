"""Dead channels begin anew: they live again, the network computes what it did, and what lives stays as it was."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_training import CONFIG

from inpaint_batch.models.checkpoint import load_generator, save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.layers.blocks import ResidualBlock
from inpaint_batch.training.activity import Activity
from inpaint_batch.training.photographs import split_photographs
from inpaint_batch.training.revival import revive
from inpaint_batch.training.trainer import EXPORT, train
from inpaint_batch.training.validation import ValidationSet, fill

BLOCK = "stages.1.refine"
KILLED = [0, 3]


def network_with_dead_channels() -> DcfGenerator:
    torch.manual_seed(3)
    generator = DcfGenerator(CONFIG.model)
    with torch.no_grad():
        for parameter in generator.parameters():
            if not parameter.any():  # a fresh block is the identity, and would hide what this is about
                parameter.normal_(std=0.05)
        block = generator.get_submodule(BLOCK)
        assert isinstance(block, ResidualBlock)
        block.conv_in.bias[KILLED] = -100.0  # type: ignore[index]
    return generator


@pytest.fixture
def validation(photographs: Path) -> ValidationSet:
    return ValidationSet(split_photographs(photographs, CONFIG)[1], CONFIG, None)


def test_dead_channels_live_and_nothing_else_changes(validation: ValidationSet) -> None:
    generator = network_with_dead_channels()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    filled = fill(generator, validation.images, validation.holes)
    num_revived = revive(generator, validation, seed=5)
    assert num_revived >= len(KILLED)
    with Activity(generator) as activity:
        assert torch.allclose(fill(generator, validation.images, validation.holes), filled, atol=1e-6)
    blocks = [name for name, module in generator.named_modules() if isinstance(module, ResidualBlock)]
    assert not any(activity.dead()[f"{block}.relu 1"][0] for block in blocks)
    after = generator.state_dict()
    weight, norms = after[f"{BLOCK}.conv_in.weight"], before[f"{BLOCK}.conv_in.weight"].flatten(1).norm(dim=1)
    living = [channel for channel in range(len(weight)) if channel not in KILLED]
    assert torch.equal(weight[living], before[f"{BLOCK}.conv_in.weight"][living])
    assert torch.allclose(weight[KILLED].flatten(1).norm(dim=1), norms[living].median())
    assert not after[f"{BLOCK}.conv_in.bias"][KILLED].any()
    assert not after[f"{BLOCK}.conv_out.weight"][:, KILLED].any()
    assert torch.equal(after[f"{BLOCK}.conv_out.weight"][:, living], before[f"{BLOCK}.conv_out.weight"][:, living])
    others = [name for name in before if not any(name.startswith(block) for block in blocks)]
    assert all(torch.equal(after[name], before[name]) for name in others)
    assert revive(generator, validation, seed=5) == 0


def test_the_seed_says_what_is_drawn(validation: ValidationSet) -> None:
    drawn = []
    for seed in (1, 1, 2):
        generator = network_with_dead_channels()
        revive(generator, validation, seed)
        drawn.append(generator.state_dict()[f"{BLOCK}.conv_in.weight"][KILLED])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_an_encoder_that_is_taught_alone_is_revived_alone(photographs: Path, tmp_path: Path) -> None:
    generator = network_with_dead_channels()
    encoder = generator.get_submodule("encoder.1.0")
    assert isinstance(encoder, ResidualBlock)
    with torch.no_grad():
        encoder.conv_in.bias[KILLED] = -100.0  # type: ignore[index]
    save_generator(tmp_path / "dead.safetensors", generator, generator.state_dict())
    config = replace(CONFIG, steps=1, pretrain=True, revive=True, learning_rate=0.0)
    train(config, photographs, tmp_path / "run", init=tmp_path / "dead.safetensors")
    after = load_generator(tmp_path / "run" / EXPORT).state_dict()
    assert not after["encoder.1.0.conv_in.bias"][KILLED].any()
    assert torch.equal(after[f"{BLOCK}.conv_in.bias"], generator.state_dict()[f"{BLOCK}.conv_in.bias"])


def test_a_run_begins_with_them_alive(photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = network_with_dead_channels()
    save_generator(tmp_path / "dead.safetensors", generator, generator.state_dict())
    first = {}
    with caplog.at_level(logging.INFO):
        for revived in (False, True):
            config = replace(CONFIG, steps=1, validate_start=True, revive=revived)
            train(config, photographs, tmp_path / str(revived), init=tmp_path / "dead.safetensors")
            lines = (tmp_path / str(revived) / "log.jsonl").read_text().splitlines()
            first[revived] = next(json.loads(line) for line in lines if "dead_share" in line)
    assert first[True]["dead_share"] < first[False]["dead_share"]
    assert first[True]["validation_psnr_db"] == pytest.approx(first[False]["validation_psnr_db"], abs=1e-4)
    assert any("dead channels begin anew" in message for message in caplog.messages)
