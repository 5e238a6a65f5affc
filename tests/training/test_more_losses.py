"""The losses beyond Charbonnier and boundary, against values worked out by hand, and their sum."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import pytest
import torch
from small_training import CONFIG

from inpaint_batch.errors import ConfigError
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.device import Device
from inpaint_batch.training.losses.adversarial import (
    feature_matching,
    hinge_discriminator,
    hinge_generator,
    patches_with_holes,
)
from inpaint_batch.training.losses.boundary import boundary
from inpaint_batch.training.losses.charbonnier import charbonnier
from inpaint_batch.training.losses.colour import colour_consistency
from inpaint_batch.training.losses.contextual import contextual
from inpaint_batch.training.losses.frequency import focal_frequency
from inpaint_batch.training.losses.perceptual import perceptual
from inpaint_batch.training.losses.regions import grown, rim_band
from inpaint_batch.training.losses.style import gram, style
from inpaint_batch.training.losses.total import TotalLoss
from inpaint_batch.training.losses.total_variation import total_variation
from inpaint_batch.training.losses.transition import VARIANCE_FLOOR, smooth_transition
from inpaint_batch.training.losses.weights import LossWeights


def square_hole(side: int, low: int, high: int) -> torch.Tensor:
    hole = torch.zeros(1, 1, side, side)
    hole[..., low:high, low:high] = 1
    return hole


def test_regions() -> None:
    hole = square_hole(20, 8, 12)
    assert grown(hole, 2).sum() == 8 * 8
    # Outside up to 3 pixels away, inside all: the hole is 4 wide, no pixel deeper than 2.
    assert rim_band(hole, 3).sum() == 10 * 10
    assert rim_band(square_hole(20, 5, 15), 1).sum() == 12 * 12 - 8 * 8


def test_total_variation_by_hand() -> None:
    filled = torch.zeros(1, 3, 3, 3)
    filled[:, :, 1, 1] = 0.5
    filled[:, :, 0, 0] = 9.0  # its neighbours are known: does not count
    # Four differences of 0.5 are all that touch the missing pixel.
    assert total_variation(filled, square_hole(3, 1, 2)).item() == pytest.approx(0.5)
    assert total_variation(torch.full((1, 3, 8, 8), 0.7), square_hole(8, 2, 6)).item() == 0


def test_colour_consistency_by_hand() -> None:
    truth = torch.full((1, 3, 32, 32), 0.5)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 0:4, 0:4] = 1  # 16 pixels in the first cell
    hole[..., 16:24, 16:22] = 1  # 48 in the last
    filled = truth.clone()
    filled[:, 0, 0:4, 0:4] += 0.2  # one channel of three
    filled[..., 16:24, 16:19] += 0.3  # the two halves of the last cell cancel out
    filled[..., 16:24, 19:22] -= 0.3
    filled[..., 8, 8] = 0.0  # known
    assert colour_consistency(filled, truth, hole).item() == pytest.approx(0.2 / 3 * 16 / 64, rel=1e-4)


def test_smooth_transition_by_hand() -> None:
    hole = square_hole(40, 10, 30)
    truth = torch.full((1, 3, 40, 40), 0.5)
    # The same shift everywhere: every local mean off by 0.1, no deviation anywhere.
    assert smooth_transition(truth + 0.1, truth, hole).item() == pytest.approx(0.1, rel=1e-4)
    # A chequerboard of +-0.1 in a window of 49 (25 of one kind, 24 of the other): mean 0.1/49, deviation near 0.1.
    board = (torch.arange(40)[:, None] + torch.arange(40)) % 2 * 0.2 - 0.1
    mean = 0.1 / 49
    deviation = math.sqrt(0.01 - mean**2 + VARIANCE_FLOOR) - math.sqrt(VARIANCE_FLOOR)
    assert smooth_transition(truth + board, truth, hole).item() == pytest.approx(mean + deviation, rel=1e-3)
    inside = truth.clone()
    inside[..., 18:22, 18:22] += 0.3  # further from the band than the window reaches
    assert smooth_transition(inside, truth, hole).item() == pytest.approx(0, abs=1e-6)


def test_focal_frequency_by_hand() -> None:
    truth = torch.rand(2, 3, 8, 8)
    # A constant shift lies in one frequency alone, which so has weight 1: the plain squared error remains.
    assert focal_frequency(truth + 0.2, truth).item() == pytest.approx(0.04, rel=1e-4)
    wave = torch.cos(math.pi * torch.arange(8.0))  # the highest frequency, alone
    both = truth + 0.2 + 0.1 * wave
    # Amplitudes 2 : 1, so weights 1 and 1/2: 0.2² + 0.1²/2, where alpha 0 would give the plain squared error.
    assert focal_frequency(both, truth).item() == pytest.approx(0.04 + 0.01 / 2, rel=1e-3)
    assert focal_frequency(both, truth, alpha=0.0).item() == pytest.approx(0.05, rel=1e-3)
    assert focal_frequency(truth, truth).item() == 0


def test_contextual_by_hand() -> None:
    truth = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)  # two places with opposite features (less the mean)
    assert contextual([truth], [truth]).item() == pytest.approx(0, abs=1e-4)
    assert contextual([truth.flip(3)], [truth]).item() == pytest.approx(0, abs=1e-4)  # where it is does not matter
    one_twice = truth[..., :1].expand(1, 2, 1, 2)  # half of the truth is nowhere in the fill
    assert contextual([one_twice], [truth]).item() == pytest.approx(math.log(2), abs=1e-4)
    assert contextual([truth, one_twice], [truth, truth]).item() == pytest.approx(math.log(2) / 2, abs=1e-4)


def test_contextual_pools_large_layers_and_has_a_gradient() -> None:
    truth = torch.rand(2, 8, 64, 64, generator=torch.Generator().manual_seed(1))
    filled = torch.rand(2, 8, 64, 64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    loss = contextual([filled], [truth])
    loss.backward()
    assert loss.item() > contextual([truth], [truth]).item() + 0.1
    assert filled.grad is not None
    assert torch.isfinite(filled.grad).all()
    assert (filled.grad != 0).float().mean() > 0.5


def test_gram_and_style_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0], [0.0, 3.0]]).view(1, 2, 1, 2)
    # Rows (1, 2) and (0, 3): products 5, 6, 6, 9, over 2 channels and 2 places.
    assert torch.equal(gram(features)[0], torch.tensor([[5.0, 6.0], [6.0, 9.0]]) / 4)
    moved = features.flip(3)  # the same features in other places: the same style
    assert style([features], [moved]).item() == 0
    assert style([features, features], [moved, torch.zeros_like(features)]).item() == pytest.approx(26 / 16 / 2)
    assert perceptual([features, features], [moved, features]).item() == pytest.approx((1 + 1 + 3 + 3) / 4 / 2)


def test_hinge_losses_by_hand() -> None:
    hole = torch.zeros(1, 1, 16, 16)
    hole[..., 0, 0:9] = 1  # one missing pixel is enough: patches (0, 0) and (0, 1) of 2×2
    real = torch.tensor([[[[0.5, 2.0], [9.0, -9.0]]]])
    fake = torch.tensor([[[[-0.5, 1.0], [9.0, -9.0]]]])
    assert patches_with_holes(hole, real).flatten().tolist() == [1, 1, 0, 0]
    assert hinge_discriminator(real, fake, hole).item() == pytest.approx(((0.5 + 0.5) + (0 + 2)) / 2)
    assert hinge_generator(fake, hole).item() == pytest.approx(-0.25)


def test_feature_matching_by_hand_moves_the_fill_only() -> None:
    fake = [torch.ones(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 1, 1, 1, requires_grad=True)]
    real = [torch.zeros(1, 2, 2, 2, requires_grad=True), torch.full((1, 1, 1, 1), 0.5, requires_grad=True)]
    loss = feature_matching(fake, real)
    assert loss.item() == pytest.approx((1.0 + 0.5) / 2)
    loss.backward()
    assert fake[0].grad is not None
    assert real[0].grad is None


def total(weights: LossWeights, progress: float = 0.0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    filled, truth = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    hole = (torch.rand(2, 1, 32, 32) > 0.6).float()
    return TotalLoss(replace(CONFIG, losses=weights), Device("cpu"))(filled, truth, hole, progress)


def test_the_sum_is_that_of_its_weighted_parts() -> None:
    names = ("charbonnier", "boundary", "total_variation", "colour", "transition", "focal_frequency")
    weights = {name: 0.1 * (index + 1) for index, name in enumerate(names)}
    value, parts = total(LossWeights(**weights))
    assert set(parts) == set(names)
    assert all(part.item() > 0 for part in parts.values())
    assert value.item() == pytest.approx(sum(weights[name] * part.item() for name, part in parts.items()), rel=1e-5)


def test_defaults_are_charbonnier_and_a_tenth_of_boundary() -> None:
    torch.manual_seed(0)
    filled, truth = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    hole = (torch.rand(2, 1, 32, 32) > 0.6).float()
    value, parts = total(LossWeights())
    assert set(parts) == {"charbonnier", "boundary"}
    assert value.item() == (charbonnier(filled, truth, hole, 0.01) + 0.1 * boundary(filled, truth, hole)).item()


def test_the_boundary_weight_may_grow_over_the_run() -> None:
    weights = LossWeights(charbonnier=0.0, boundary=5.0, boundary_last=10.0)
    values = [total(weights, progress)[0].item() for progress in (0.0, 0.5, 1.0)]
    part = total(weights)[1]["boundary"].item()
    assert values == pytest.approx([5 * part, 7.5 * part, 10 * part])
    assert set(total(LossWeights(boundary=0.0, boundary_last=1.0))[1]) == {"charbonnier", "boundary"}


def test_nothing_is_learned_by_losses_that_are_all_off() -> None:
    losses = LossWeights(charbonnier=0.0, boundary=0.0, style=30.0)
    with pytest.raises(ConfigError, match="without vgg_weights there is no loss to learn by"):
        TotalLoss(TrainConfig(losses=losses), Device("cpu"))


def test_without_vgg_weights_those_losses_are_off_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _, parts = total(LossWeights(perceptual=0.05, style=30.0, contextual=0.1))
    assert set(parts) == {"charbonnier", "boundary"}
    assert [record.message for record in caplog.records] == [
        "perceptual, style and contextual losses are off: vgg_weights does not name a file of VGG weights"
    ]


def test_unknown_and_negative_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean total_variation"):
        TrainConfig.from_dict({"losses": {"totalvariation": 1.0}})
    with pytest.raises(ConfigError, match=r"losses\.colour must not be negative"):
        TrainConfig.from_dict({"losses": {"colour": -1.0}})
    with pytest.raises(ConfigError, match="colour must be a number, not 'much'"):
        TrainConfig.from_dict({"losses": {"colour": "much"}})
    with pytest.raises(ConfigError, match="nothing to learn by"):
        TrainConfig.from_dict({"losses": {"charbonnier": 0.0, "boundary": 0.0}})
