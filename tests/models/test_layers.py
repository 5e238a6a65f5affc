"""Building blocks against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from inpaint_batch.models.layers.attention import ContextualGather, ContextualMatch
from inpaint_batch.models.layers.blocks import ResidualBlock
from inpaint_batch.models.layers.pushpull import PushPull


def test_push_pull_fills_a_constant_image_with_its_constant() -> None:
    known = torch.ones(1, 1, 64, 64)
    known[:, :, 10:50, 5:60] = 0
    colour = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
    filled = PushPull()(colour * known, known)
    torch.testing.assert_close(filled, colour.expand_as(filled), atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_known", [1, 2, 3, 4])
def test_push_pull_by_hand(num_known: int) -> None:
    """One cell of 2×2 with some known pixels stands for all that is known, however many those are."""
    image, known = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    for index in range(num_known):
        row, column = 6 + index // 2, 8 + index % 2
        image[..., row, column] = 0.1 * (index + 1)
        known[..., row, column] = 1
    filled = PushPull()(image, known)
    mean = 0.05 * (num_known + 1)
    missing = known.expand_as(filled) == 0
    torch.testing.assert_close(filled[missing], torch.full_like(filled[missing], mean), atol=1e-6, rtol=0)


def test_push_pull_of_two_cells_by_hand() -> None:
    """Two cells of one 4×4 block, one with a single known pixel and one with four, count the same above them."""
    image, known = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    known[..., 0, 0] = 1  # black
    known[..., 2:4, 2:4] = image[..., 2:4, 2:4] = 1.0  # white
    filled = PushPull()(image, known)
    torch.testing.assert_close(filled[..., 16:, 16:], torch.full((1, 3, 16, 16), 0.5), atol=1e-6, rtol=0)


def test_push_pull_where_nothing_is_known_is_black() -> None:
    assert (PushPull()(torch.zeros(1, 3, 32, 64), torch.zeros(1, 1, 32, 64)) == 0).all()


def test_push_pull_keeps_known_pixels() -> None:
    image, known = torch.rand(1, 3, 32, 32), (torch.rand(1, 1, 32, 32) > 0.4).float()
    filled = PushPull()(image * known, known)
    mask = known.expand_as(image) == 1
    assert torch.equal(filled[mask], image[mask])


def test_push_pull_takes_the_nearer_side() -> None:
    """Left half black, right half white, a narrow vertical hole between: darker on the left, brighter on the right."""
    image, known = torch.zeros(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    image[..., 32:] = 1
    known[..., 24:40] = 0
    row = PushPull()(image * known, known)[0, 0, 32, 24:40]
    assert (row.diff() >= -1e-4).all()
    assert row[0] < 0.25
    assert row[-1] > 0.75


def test_fresh_residual_block_is_the_identity_on_what_a_relu_gives() -> None:
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(ResidualBlock(4, 6, dilation=2)(x), x)


def test_residual_block_by_hand() -> None:
    block = ResidualBlock(1)
    with torch.no_grad():
        block.conv_in.weight.fill_(1.0)
        block.conv_out.weight.zero_()
        block.conv_out.weight[0, 0, 1, 1] = 2.0
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 3.0
    out = block(x)[0, 0]
    assert out[2, 2] == 3 + 2 * 3  # itself, and twice the sum over its 3×3 neighbourhood
    assert out[1, 1] == 2 * 3
    assert out[0, 0] == 0


def test_match_ignores_holes_and_sums_to_one() -> None:
    match = ContextualMatch(4, 4)
    known = torch.ones(1, 1, 2, 2)
    known[0, 0, 0, 1] = 0
    attention = match(torch.rand(1, 4, 2, 2), known)
    torch.testing.assert_close(attention.sum(dim=-1), torch.ones(1, 4))
    assert (attention[:, :, 1] == 0).all()


@pytest.mark.parametrize("key_channels", [1, 9])
def test_match_by_hand(key_channels: int) -> None:
    """Scores are divided by the root of the number of channels that are summed up."""
    match = ContextualMatch(1, key_channels)
    with torch.no_grad():
        for layer in (match.query, match.key):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    attention = match(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    e = math.exp(key_channels**0.5)
    torch.testing.assert_close(attention[0], torch.tensor([[0.5, 0.5], [1 / (1 + e), e / (1 + e)]]))


@pytest.mark.parametrize("cell", [1, 2, 4])
def test_gather_copies_whole_cells(cell: int) -> None:
    """Every cell looks at cell 3 alone: afterwards each holds what cell 3 holds, in the same arrangement."""
    gather = ContextualGather(2, 2, cell)
    with torch.no_grad():
        for layer in (gather.value, gather.project):
            layer.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
            layer.bias.zero_()
    features = torch.rand(1, 2, 2 * cell, 2 * cell)
    attention = torch.zeros(1, 4, 4)
    attention[:, :, 3] = 1
    source = features[:, :, cell:, cell:]
    torch.testing.assert_close(gather(features, attention) - features, source.repeat(1, 1, 2, 2))
