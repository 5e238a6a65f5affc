"""Blocks of the deepest features, against values worked out by hand; and the encoder that learns alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.checkpoint import load_generator, save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.layers.bottlenecks import TransformerBlock, WaveletBlock, haar_filters
from inpaint_batch.models.masked_autoencoder import MaskedAutoencoder
from inpaint_batch.models.spec import DcfSpec


def small(bottleneck: Any = "conv", encoder_blocks: tuple[int, ...] = (1, 2, 2, 1)) -> DcfSpec:
    return DcfSpec(
        width=8,
        encoder_blocks=encoder_blocks,
        bottleneck=bottleneck,
        bottleneck_hidden=8,
        stage_widths=(8, 8, 8),
        key_channels=8,
        value_channels=(8, 4, 4),
    )


def woken(network: nn.Module) -> nn.Module:
    """Weights that start at zero get values, so that everything counts."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return network.eval()


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


@pytest.mark.parametrize("spec", [small("transformer"), small("wavelet"), small(encoder_blocks=(1, 1, 2))])
def test_every_bottleneck_makes_a_generator(spec: DcfSpec, tmp_path: Path) -> None:
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


def test_a_network_without_a_sixteenth_is_one_whose_sixteenth_says_nothing() -> None:
    """Three levels give what four give where nothing comes up from 1/16 and the features at 1/8 pass as they are."""
    deep = woken(DcfGenerator(small()))
    shallow = DcfGenerator(small(encoder_blocks=(1, 2, 2))).eval()
    with torch.no_grad():
        coarsest = deep.stages[0]  # type: ignore[index]
        coarsest.reduce.weight.zero_()
        coarsest.reduce.bias.zero_()
        coarsest.skip.weight.copy_(torch.eye(32).view(32, 32, 1, 1))
        coarsest.skip.bias.zero_()
    kept = shallow.state_dict().keys()
    shallow.load_state_dict({name: value for name, value in deep.state_dict().items() if name in kept})
    assert not any(name.startswith(("downs.2", "encoder.3", "stages.0.reduce")) for name in kept)
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[:, :, 20:40, 20:40] = 1
    inputs = (image * (1 - hole), hole, torch.zeros_like(image), torch.zeros(1, 1, 1, 1))
    with torch.no_grad():
        torch.testing.assert_close(shallow(*inputs), deep(*inputs))
        coarsest.reduce.bias.fill_(0.5)
        assert not torch.equal(shallow(*inputs), deep(*inputs))


def test_an_unknown_bottleneck_is_refused() -> None:
    with pytest.raises(ConfigError, match="conv, transformer, wavelet, not 'fourier'"):
        small("fourier")
    with pytest.raises(ConfigError, match="'wavelet' lives at 1/16"):
        small("wavelet", encoder_blocks=(1, 1, 1))
    with pytest.raises(ConfigError, match=r"three or four numbers, not \[1, 1\]"):
        small(encoder_blocks=(1, 1))


@pytest.mark.parametrize("encoder_blocks", [(1, 2, 2, 1), (1, 1, 1)])
def test_a_masked_autoencoder_guesses_from_the_deepest_features_alone(
    encoder_blocks: tuple[int, ...], tmp_path: Path
) -> None:
    network = woken(MaskedAutoencoder(small(encoder_blocks=encoder_blocks)))
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
