"""Blocks of the deepest features, against values worked out by hand; and the encoder that learns alone."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from small_networks import small, woken
from torch import nn

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.checkpoint import load_generator, save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.layers.bottlenecks import TransformerBlock, WaveletBlock, haar_filters
from inpaint_batch.models.masked_autoencoder import MaskedAutoencoder
from inpaint_batch.models.spec import DcfSpec


@pytest.mark.parametrize("kind", [TransformerBlock, WaveletBlock])
def test_a_fresh_block_is_the_identity(kind: type[nn.Module]) -> None:
    x = torch.rand(2, 8, 4, 6)
    torch.testing.assert_close(kind(8, 16)(x), x)


def test_the_haar_transform_is_orthonormal_and_its_transpose_inverts_it() -> None:
    filters = haar_filters()
    flat = filters.flatten(1)
    torch.testing.assert_close(flat @ flat.T, torch.eye(4))
    x = torch.rand(1, 1, 6, 4)
    bands = torch.nn.functional.conv2d(x, filters, stride=2)
    torch.testing.assert_close(torch.nn.functional.conv_transpose2d(bands, filters, stride=2), x)
    assert bands[0, 0, 0, 0] == pytest.approx(float(x[0, 0, :2, :2].sum()) / 2)


def test_wavelet_block_by_hand() -> None:
    """A bias on the band of means alone lifts every cell by half of it."""
    block = WaveletBlock(1, 1)
    with torch.no_grad():
        block.bands.bias.copy_(torch.tensor([0.6, 0.0, 0.0, 0.0]))
    x = torch.rand(1, 1, 4, 4)
    torch.testing.assert_close(block(x), x + 0.3)


def test_attention_by_hand() -> None:
    """One channel, two cells with values 0 and 2, normalised to -1 and 1; query, key and value are the features."""
    block = TransformerBlock(1, 1)
    with torch.no_grad():
        for layer in (block.mix, block.project):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
    x = torch.tensor([0.0, 2.0]).view(1, 1, 1, 2)
    mean = (math.e - 1 / math.e) / (math.e + 1 / math.e)  # of -1 and 1, weighed by e**(±1)
    torch.testing.assert_close(block(x).flatten(), torch.tensor([0.0, 2.0 + mean]), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "spec",
    [
        small((1, 2, 2, 1), bottleneck="transformer"),
        small((1, 2, 2, 1), bottleneck="wavelet"),
        small((1, 1, 2)),
        small((1, 3)),
    ],
)
def test_every_depth_and_bottleneck_makes_a_generator(spec: DcfSpec, tmp_path: Path) -> None:
    """Known pixels pass through, a tile does not depend on its batch, the file brings back the network."""
    generator = woken(DcfGenerator(spec))
    assert isinstance(generator, DcfGenerator)
    image, hole = torch.rand(3, 3, 64, 96), torch.zeros(3, 1, 64, 96)
    hole[:, :, 20:40, 30:60] = 1
    inputs = (image, hole, torch.zeros_like(image), torch.zeros(3, 1, 1, 1))
    with torch.no_grad():
        filled = generator(*inputs)
        alone = generator(*(x[1:2] for x in inputs))
    known = hole.expand_as(image) == 0
    assert torch.equal(filled[known], image[known])
    torch.testing.assert_close(filled[1:2], alone, atol=1e-4, rtol=0)
    save_generator(tmp_path / "model.safetensors", generator, generator.state_dict())
    again = load_generator(tmp_path / "model.safetensors")
    assert again.spec == spec
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), filled)


@pytest.mark.parametrize("num_levels", [2, 3])
def test_a_network_of_fewer_levels_is_one_whose_coarsest_say_nothing(num_levels: int) -> None:
    """The same weights give the same where nothing comes up from below, and nothing is borrowed."""
    blocks = (1, 2, 2, 1)
    deep = woken(DcfGenerator(small(blocks)))
    shallow = DcfGenerator(small(blocks[:num_levels])).eval()
    left_out = 3 - shallow.spec.num_stages  # the stages of the deep one that the other has not got
    reduce = deep.stages[3 - num_levels].reduce  # type: ignore[index]
    weights = {}
    with torch.no_grad():
        for parameter in (*reduce.parameters(), *(stage.gather.project for stage in deep.stages)):  # type: ignore
            (parameter if isinstance(parameter, nn.Parameter) else parameter.weight).zero_()
        for name in shallow.state_dict():
            source = name
            if name.startswith("stages."):
                source = f"stages.{int(name[7]) + left_out}{name[8:]}"
            fits = not name.startswith("match.") or num_levels == 3
            weights[name] = deep.state_dict()[source] if fits else shallow.state_dict()[name]
    shallow.load_state_dict(weights)
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[:, :, 20:40, 20:40] = 1
    inputs = (image * (1 - hole), hole, torch.zeros_like(image), torch.zeros(1, 1, 1, 1))
    with torch.no_grad():
        torch.testing.assert_close(shallow(*inputs), deep(*inputs))
        reduce.bias.fill_(0.5)
        assert not torch.allclose(shallow(*inputs), deep(*inputs))


def test_a_network_of_two_levels_borrows_from_known_places_too() -> None:
    """What lies far outside of any convolution's reach changes the fill, through attention."""
    generator = woken(DcfGenerator(small((1, 1))))
    hole = torch.zeros(1, 1, 64, 256)
    hole[..., 24:40, 8:24] = 1
    image = torch.rand(1, 3, 64, 256) * (1 - hole)
    other = image.clone()
    other[..., 200:] = 1 - other[..., 200:]
    rest = (hole, image, torch.ones(1, 1, 1, 1))  # with a prior, so that the start is no way from there to here
    with torch.no_grad():
        assert not torch.equal(generator(image, *rest)[..., :24], generator(other, *rest)[..., :24])
        for stage in generator.stages:  # type: ignore[union-attr]
            stage.gather.project.weight.zero_()
        torch.testing.assert_close(generator(image, *rest)[..., :24], generator(other, *rest)[..., :24])


@pytest.mark.parametrize(
    ("encoder_blocks", "dilations"),
    [
        ((2, 5), [[1, 1], [1, 2, 4, 1, 2]]),
        ((1, 3, 2), [[1], [1, 2, 1], [1, 2]]),
        ((1, 2, 3, 3), [[1], [1, 2], [1, 2, 1], [1, 2, 1]]),
    ],
)
def test_how_far_apart_a_block_looks(encoder_blocks: tuple[int, ...], dilations: list[list[int]]) -> None:
    """No weight tells of it: with others, networks that were trained before would fill otherwise."""
    encoder = DcfGenerator(small(encoder_blocks)).encoder
    found = [[block.conv_in.dilation for block in blocks] for blocks in encoder]  # type: ignore[attr-defined]
    assert found == [[(step, step) for step in steps] for steps in dilations]


def test_an_unknown_bottleneck_is_refused() -> None:
    with pytest.raises(ConfigError, match="conv, transformer, wavelet, not 'fourier'"):
        small((1, 2, 2, 1), bottleneck="fourier")
    with pytest.raises(ConfigError, match="'wavelet' lives at 1/16"):
        small((1, 1, 1), bottleneck="wavelet")
    with pytest.raises(ConfigError, match=r"two to four numbers, not \[1\]"):
        small((1,))
    with pytest.raises(ConfigError, match=r"stage_widths must be 2 numbers.*not \[128, 64, 32\]"):
        DcfSpec(encoder_blocks=(1, 3), decoder_blocks=(1, 0))


@pytest.mark.parametrize("encoder_blocks", [(1, 2, 2, 1), (1, 1, 1)])
def test_a_masked_autoencoder_guesses_from_the_deepest_features_alone(
    encoder_blocks: tuple[int, ...], tmp_path: Path
) -> None:
    network = woken(MaskedAutoencoder(small(encoder_blocks)))
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[:, :, 16:32, 16:48] = 1
    inputs = (image * (1 - hole), hole, torch.zeros_like(image), torch.zeros(1, 1, 1, 1))
    with torch.no_grad():
        before = network(*inputs)
        assert torch.equal(before[:, :, :16], image[:, :, :16])
        for parameter in network.stages.parameters():  # type: ignore[union-attr]
            parameter.add_(1.0)
        assert torch.equal(network(*inputs), before)
        network.guess.bias.add_(0.01)  # type: ignore[operator, union-attr]
        assert not torch.equal(network(*inputs), before)
    save_generator(tmp_path / "model.safetensors", network, network.state_dict())  # type: ignore[arg-type]
    generator = load_generator(tmp_path / "model.safetensors")
    assert type(generator) is DcfGenerator
    assert torch.equal(generator.stem.weight, network.stem.weight)  # type: ignore[union-attr]
