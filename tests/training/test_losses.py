"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from inpaint_batch.training.losses.boundary import boundary, rim_weight
from inpaint_batch.training.losses.charbonnier import charbonnier
from inpaint_batch.training.losses.log_error import log_error


def test_charbonnier_by_hand() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    filled = torch.zeros(2, 3, 4, 4)
    hole = torch.zeros(2, 1, 4, 4)
    hole[0, 0, 0, 0] = 1  # one missing pixel, all three samples wrong by 0.3
    filled[0, :, 0, 0] = 0.3
    hole[1, 0, :2, :2] = 1  # four missing pixels, one sample of twelve wrong by 0.4
    filled[1, 1, 0, 0] = 0.4
    filled[:, :, 3, 3] = 9.0  # known pixels do not count
    first = math.sqrt(0.09 + 0.01) - 0.1
    second = (math.sqrt(0.16 + 0.01) - 0.1) / 12
    assert charbonnier(filled, truth, hole, 0.1).item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_log_error_by_hand() -> None:
    """Two images with one missing pixel each, wrong by 0.1 and by nothing: half of ln(1 + 0.01 / 0.0001) / 2."""
    truth, filled, hole = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4)
    hole[:, 0, 1, 2] = 1
    filled[0, :, 1, 2] = 0.1
    filled[:, :, 0, 0] = 1  # known: does not count
    assert log_error(filled, truth, hole).item() == pytest.approx(math.log(101) / 4, rel=1e-5)


def test_charbonnier_of_a_perfect_fill_is_zero() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert charbonnier(image, image, torch.ones(1, 1, 8, 8), 0.01).item() == pytest.approx(0, abs=1e-8)


def test_rim_weight_falls_inwards_and_is_zero_outside() -> None:
    hole = torch.zeros(1, 1, 40, 40)
    hole[..., 10:30, 10:30] = 1
    weight = rim_weight(hole)[0, 0]
    assert (weight[hole[0, 0] == 0] == 0).all()
    # At the middle of the left rim 4 of the 9 columns of the box are known: 2 · 4/9.
    assert weight[20, 10].item() == pytest.approx(8 / 9)
    assert weight[20, 11].item() == pytest.approx(6 / 9)
    assert weight[20, 14].item() == pytest.approx(0)


def test_boundary_sees_a_step_at_the_rim_but_not_a_shift_far_inside() -> None:
    truth = torch.full((1, 3, 40, 40), 0.5)
    hole = torch.zeros(1, 1, 40, 40)
    hole[..., 8:32, 8:32] = 1
    step = truth + 0.1 * hole
    inside = truth.clone()
    inside[..., 14:26, 14:26] += 0.1
    assert boundary(truth, truth, hole).item() == 0
    assert boundary(inside, truth, hole).item() == 0
    assert boundary(step, truth, hole).item() > 0.005
    one_pixel = torch.zeros(1, 1, 3, 3)
    one_pixel[0, 0, 1, 1] = 1
    spot = torch.zeros(1, 3, 3, 3)
    spot[:, :, 1, 1] = 0.25
    # Its four gradients are all wrong by 0.25, and no other gradient has any weight.
    assert boundary(spot, torch.zeros(1, 3, 3, 3), one_pixel).item() == pytest.approx(0.25)
