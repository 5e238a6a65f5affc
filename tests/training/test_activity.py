"""Dead channels are counted where they are."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from small_training import CONFIG
from torch import nn

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.training import trainer
from inpaint_batch.training.activity import Activity
from inpaint_batch.training.trainer import train


class Twice(nn.Module):
    """One ReLU behind two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.bias = torch.tensor([1.0, -1.0, -3.0, 0.0]).reshape(1, 4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.relu(x + self.bias) - 2.5)


def test_channels_that_are_never_above_zero_are_dead() -> None:
    network = Twice()
    with Activity(network) as activity:
        network(torch.full((2, 4, 3, 3), 0.5))
        assert activity.dead() == {"relu 1": (2, 4), "relu 2": (4, 4)}
        one = torch.zeros(1, 4, 3, 3)
        one[0, :, 1, 2] = 2.0  # a single pixel wakes them
        network(one)
    assert activity.dead() == {"relu 1": (1, 4), "relu 2": (3, 4)}  # behind the first 3, 1, 0 and 2
    assert activity.dead_share() == pytest.approx(4 / 8)
    network(torch.full((1, 4, 3, 3), 9.0))
    assert activity.dead_share() == pytest.approx(4 / 8)  # it no longer watches


def test_a_stage_that_was_silenced_is_found() -> None:
    torch.manual_seed(0)
    generator = DcfGenerator(CONFIG.model)
    tile = torch.rand(2, 3, 64, 64)
    hole = torch.zeros(2, 1, 64, 64)
    hole[:, :, 20:40, 20:40] = 1
    with Activity(generator) as alive:
        generator(tile * (1 - hole), hole, torch.zeros_like(tile), torch.zeros(2, 1, 1, 1))
    with torch.no_grad():
        generator.stages[1].skip.bias.fill_(-100)  # type: ignore[union-attr,operator]
    with Activity(generator) as silenced:
        generator(tile * (1 - hole), hole, torch.zeros_like(tile), torch.zeros(2, 1, 1, 1))
    dead, channels = silenced.dead()["stages.1.relu 1"]
    assert dead == channels
    assert alive.dead()["stages.1.relu 1"][0] < channels / 4
    assert silenced.dead_share() > alive.dead_share()


def test_training_tells_of_it(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trainer, "WARN_ABOVE", -1.0)  # any layer will do
    with caplog.at_level(logging.WARNING):
        train(CONFIG, photographs, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    shares = [line["dead_share"] for line in lines if "validation_psnr_db" in line]
    assert shares
    assert all(0 <= share < 0.5 for share in shares)
    assert "channels behind stages.0.refine.relu 2 are zero on every held-out photograph" in caplog.text
