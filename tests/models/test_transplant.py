"""Weights that change from one network to another of other sizes, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from small_networks import SMALLEST, random_generator
from torch import Tensor

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec
from inpaint_batch.models.transplant import fitting_weights

SPEC = replace(SMALLEST, stage_widths=(8, 6, 4), value_channels=(8, 4, 2))
"""Every stage has sizes of its own."""


def test_a_network_with_further_blocks_computes_the_same() -> None:
    source = random_generator(SPEC)
    target = DcfGenerator(replace(SPEC, encoder_blocks=(2, 1, 3, 2), decoder_blocks=(1, 1, 1))).eval()
    fitting = fitting_weights(source, target)
    assert fitting.keys() == source.state_dict().keys()
    target.load_state_dict(target.state_dict() | fitting)
    with torch.no_grad():
        torch.testing.assert_close(target(*a_tile()), source(*a_tile()))


@pytest.mark.parametrize(
    "wider",
    [
        {"width": 12},
        {"growth": 3},
        {"encoder_hidden": (12, 20, 33)},
        {"stage_widths": (12, 9, 6)},
        {"value_channels": (12, 6, 3)},
        {"bottleneck_hidden": 12},
        {"width": 12, "growth": 3, "encoder_hidden": (8, 20, 33), "encoder_blocks": (2, 3, 1, 2)},
    ],
    ids=["width", "growth", "hidden", "stages", "borrowed", "bottleneck", "all"],
)
def test_a_wider_network_computes_the_same_and_learns_with_all_of_itself(wider: dict[str, Any]) -> None:
    source = random_generator(SPEC)
    torch.manual_seed(3)
    target = DcfGenerator(replace(SPEC, **wider))
    theirs = source.state_dict()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    target.load_state_dict(before | fitting_weights(source, target))
    with torch.no_grad():
        torch.testing.assert_close(target(*a_tile()), source(*a_tile()))
    widened = {n for n, value in before.items() if n in theirs and value.shape != theirs[n].shape}
    assert widened
    unheard = {name: value.clone() for name, value in target.named_parameters()}
    for _ in range(2):  # at the first step old channels begin to listen to new ones, which can learn from then on
        target.zero_grad()
        target(*a_tile()).square().mean().backward()
        with torch.no_grad():
            for parameter in target.parameters():
                if parameter.grad is not None:
                    parameter -= 0.5 * parameter.grad
    for name in widened:
        moved = target.state_dict()[name] != unheard[name]
        moved[tuple(slice(size) for size in theirs[name].shape)] = False
        assert moved.any(), f"what is new in {name} does not learn"


def test_layers_that_would_compute_something_else_with_more_channels_begin_anew() -> None:
    def anew(source: DcfSpec, **changes: Any) -> set[str]:
        target = DcfGenerator(replace(source, **changes))
        return target.state_dict().keys() - fitting_weights(random_generator(source), target).keys()

    assert {name.split(".")[0] for name in anew(SPEC, key_channels=2 * SPEC.key_channels)} == {"match"}
    transformer = replace(SPEC, bottleneck="transformer")
    assert {name.split(".")[:2] == ["encoder", "3"] for name in anew(transformer, width=16)} == {True}
    assert anew(SPEC, width=16) == set()


@pytest.mark.parametrize(("old", "new"), [("transformer", "wavelet"), ("wavelet", "transformer")])
def test_blocks_of_another_kind_begin_as_the_identity(old: str, new: str) -> None:
    """Both have two 1×1 convolutions of the same names and shapes."""
    target = DcfGenerator(replace(SPEC, bottleneck=new))
    fitting = fitting_weights(random_generator(replace(SPEC, bottleneck=old)), target)
    target.load_state_dict(target.state_dict() | fitting)
    features = torch.rand(1, SPEC.widths[-1], 4, 4)
    with torch.no_grad():
        assert torch.equal(target.encoder[3](features), features)
    assert "encoder.2.0.conv_in.weight" in fitting


def test_stages_are_matched_by_resolution() -> None:
    """Of two stages the first, at 1/4, is the second of three."""
    source = random_generator(SPEC)
    shallow = replace(
        SPEC, encoder_blocks=(1, 1), decoder_blocks=(0, 0), stage_widths=(6, 4), value_channels=(4, 2), key_channels=4
    )
    target = DcfGenerator(shallow)
    fitting = fitting_weights(source, target)
    theirs = source.state_dict()
    assert fitting["stages.0.skip.weight"] is not None
    assert torch.equal(fitting["stages.0.refine.conv_in.weight"], theirs["stages.1.refine.conv_in.weight"])
    assert torch.equal(fitting["stages.1.reduce.weight"], theirs["stages.2.reduce.weight"])
    assert target.state_dict().keys() - fitting.keys() == {
        f"match.{layer}.{kind}" for layer in ("query", "key") for kind in ("weight", "bias")
    }
    back = fitting_weights(target, source)
    assert torch.equal(back["stages.2.skip.weight"], target.state_dict()["stages.1.skip.weight"])
    assert not any(name.startswith(("stages.0", "encoder.2", "downs.1")) for name in back)


def test_layers_that_have_become_narrower_begin_anew() -> None:
    source = random_generator(SPEC)
    target = DcfGenerator(replace(SPEC, stage_widths=(8, 6, 3)))
    missing = target.state_dict().keys() - fitting_weights(source, target).keys()
    assert missing == {
        "stages.2.refine.conv_in.weight",
        "stages.2.refine.conv_in.bias",
        "stages.2.refine.conv_out.weight",
    }


def test_without_attention_the_rest_is_as_it_was() -> None:
    """What attention borrows is added; where its last layers are zero, a network without it computes the same."""
    source = random_generator(SPEC)
    for stage in source.stages:
        torch.nn.init.zeros_(stage.gather.project.weight)
        torch.nn.init.zeros_(stage.gather.project.bias)
    target = DcfGenerator(replace(SPEC, key_channels=0)).eval()
    fitting = fitting_weights(source, target)
    assert fitting.keys() == target.state_dict().keys()
    left = {
        name.split(".")[0 if name.startswith("match") else 2] for name in source.state_dict().keys() - fitting.keys()
    }
    assert left == {"match", "gather"}
    target.load_state_dict(fitting)
    with torch.no_grad():
        assert torch.equal(target(*a_tile()), source(*a_tile()))


def a_tile() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, hole, prior and its weight of 64 px."""
    random = torch.Generator().manual_seed(7)
    image, hole = torch.rand(1, 3, 64, 64, generator=random), torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 20:40] = 1
    return image * (1 - hole), hole, image, torch.zeros(1, 1, 1, 1)
