"""The generator: its limits, its pass-through, and its start."""

from __future__ import annotations

import pytest
import torch
from small_networks import SMALL, random_generator, small
from torch.utils.flop_counter import FlopCounterMode

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.dcf import INPUT_CHANNELS, DcfGenerator
from inpaint_batch.models.spec import DcfSpec


def tile(batch: int = 2, height: int = 64, width: int = 96) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(batch, 3, height, width, generator=generator)
    hole = torch.zeros(batch, 1, height, width)
    hole[:, :, 20:40, 30:60] = 1
    return image, hole, torch.rand(batch, 3, height, width, generator=generator)


def test_default_generator_stays_within_its_limits() -> None:
    generator = DcfGenerator()
    image, hole, prior = tile(1, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(image * (1 - hole), hole, prior, torch.zeros(1, 1, 1, 1))
    assert sum(p.numel() for p in generator.parameters()) == 5_588_420
    assert counter.get_total_flops() / 2 == pytest.approx(8.60e9, rel=0.01)  # multiply-adds
    assert generator.stem.in_channels == INPUT_CHANNELS * 4 == 20


def test_known_pixels_pass_through_exactly() -> None:
    image, hole, prior = tile()
    known = hole.expand_as(image) == 0
    with torch.no_grad():
        filled = random_generator()(image * (1 - hole), hole, prior, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    assert torch.equal(filled[known], image[known])
    assert filled.min() >= 0
    assert filled.max() <= 1


def test_hole_content_has_no_influence() -> None:
    """Whatever stands under the hole in `image` is ignored: polarity flipped anywhere would make this fail."""
    image, hole, prior = tile()
    generator = random_generator()
    with torch.no_grad():
        clean = generator(image * (1 - hole), hole, prior, torch.zeros(2, 1, 1, 1))
        dirty = generator(image, hole, prior, torch.zeros(2, 1, 1, 1))
    assert torch.equal(clean, dirty)
    assert not torch.equal(clean[:, :, 20:40, 30:60], image[:, :, 20:40, 30:60])


def test_prior_is_used_where_its_weight_is_one_and_only_there() -> None:
    image, hole, prior = tile()
    generator = random_generator()
    weight = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    with torch.no_grad():
        first = generator(image * (1 - hole), hole, prior, weight)
        second = generator(image * (1 - hole), hole, 1 - prior, weight)
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[1], second[1])


def test_fresh_generator_returns_the_start_image() -> None:
    image, hole, prior = tile()
    generator = DcfGenerator(SMALL).eval()
    with torch.no_grad():
        from_prior = generator(image * (1 - hole), hole, prior, torch.ones(2, 1, 1, 1))
        from_nothing = generator(image * (1 - hole), hole, prior, torch.zeros(2, 1, 1, 1))
        smooth = generator.push_pull(image * (1 - hole), 1 - hole)
    torch.testing.assert_close(from_prior, image * (1 - hole) + hole * prior)
    torch.testing.assert_close(from_nothing, image * (1 - hole) + hole * smooth)


def test_a_tile_does_not_depend_on_its_batch() -> None:
    image, hole, prior = tile(3)
    generator = random_generator()
    inputs = (image * (1 - hole), hole, prior, torch.zeros(3, 1, 1, 1))
    with torch.no_grad():
        together = generator(*inputs)
        alone = generator(*(x[1:2] for x in inputs))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [(32, 32), (64, 160), (256, 32)])
def test_any_multiple_of_32_is_a_tile(side: tuple[int, int]) -> None:
    image, prior = torch.rand(1, 3, *side), torch.zeros(1, 3, *side)
    hole = torch.zeros(1, 1, *side)
    hole[..., :8, :8] = 1
    with torch.no_grad():
        assert random_generator()(image, hole, prior, torch.zeros(1, 1, 1, 1)).shape == image.shape


def test_a_tile_that_is_all_hole_stays_finite() -> None:
    """The outside of a small image counts as hole: nothing may divide by the number of known pixels."""
    hole = torch.ones(1, 1, 64, 64)
    with torch.no_grad():
        filled = random_generator()(torch.zeros(1, 3, 64, 64), hole, torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, 1, 1))
    assert torch.isfinite(filled).all()


def test_spec_survives_a_round_trip_and_refuses_what_it_does_not_know() -> None:
    values = {k: list(v) if isinstance(v, tuple) else v for k, v in SMALL.to_dict().items()}
    assert DcfSpec.from_dict(values) == SMALL
    with pytest.raises(ConfigError, match=r"unknown sizes.*depth"):
        DcfSpec.from_dict({"depth": 3})
    with pytest.raises(ConfigError, match="at least 1"):
        DcfSpec(width=0)
    with pytest.raises(ConfigError, match=r"encoder_hidden must be 2 numbers, .* or none, not \[8\]"):
        DcfSpec(
            encoder_blocks=(1, 1),
            decoder_blocks=(0, 0),
            stage_widths=(4, 4),
            value_channels=(4, 4),
            encoder_hidden=(8,),
        )


def test_channels_of_each_resolution_are_those_asked_for() -> None:
    """Two levels: 1/2 with 8 channels, 1/4 with 24; blocks there are 12 channels wide inside."""
    generator = DcfGenerator(small((1, 2), growth=3, encoder_hidden=(8, 12)))
    assert generator.spec.widths == [8, 24]
    assert generator.downs[0].weight.shape == (24, 8, 3, 3)
    shapes = {name: tuple(value.shape[:2]) for name, value in generator.named_parameters() if value.ndim == 4}
    assert shapes["encoder.0.0.conv_in.weight"] == (8, 8)
    assert shapes["encoder.1.1.conv_in.weight"] == (12, 24)
    assert shapes["encoder.1.1.conv_out.weight"] == (24, 12)
    assert shapes["stages.1.reduce.weight"] == (8, 24)
