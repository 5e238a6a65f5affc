"""The feature layers of VGG16 and VGG19 (Simonyan and Zisserman, ICLR 2015), for the perceptual and style losses.

No weights come with this package. They are read from a file in torchvision's naming (`features.0.weight` ...), or
fetched from where torchvision publishes them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inpaint_batch.errors import EngineError

BLOCKS = {16: (2, 2, 3, 3), 19: (2, 2, 4, 4)}
"""Convolutions in each block; the fifth block is not used."""
WIDTHS = (64, 128, 256, 512)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's channels: what the published weights expect to be taken out."""


HUB = {
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "vgg19": "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
}
"""torchvision's weights for ImageNet; the end of each name is the beginning of its SHA-256, which is checked."""


class VggFeatures(nn.Module):
    """The activations after the last convolution of the first four blocks. Its weights are not trained."""

    def __init__(self, depth: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        self.taps: list[int] = []
        channels = 3
        for num_convs, width in zip(BLOCKS[depth], WIDTHS, strict=True):
            for _ in range(num_convs):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            self.taps.append(len(layers) - 1)
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers[:-1])
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> list[Tensor]:
        """(B, 3, H, W) in [0, 1] -> four tensors: 64, 128, 256, 512 channels at 1, 1/2, 1/4, 1/8."""
        x = (image - self.get_buffer("mean")) / self.get_buffer("deviation")
        tapped = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                tapped.append(x)
        return tapped


def load_vgg(path: Path) -> VggFeatures:
    """From a safetensors file, or a torch file of plain tensors; `vgg16` and `vgg19`, where no such file is, are
    fetched once and kept in torch's cache. EngineError where that fails or the file holds neither of the two."""
    if str(path) in HUB and not path.exists():
        return _vgg_with(_fetched(HUB[str(path)]), path)
    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its reader trips over
        raise EngineError(f"cannot read VGG weights from {path}: {error}") from error
    return _vgg_with(tensors, path)


def _fetched(url: str) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise EngineError(
            f"cannot fetch {url}: {error}; fetch it where there is a network and name the file in vgg_weights"
        ) from error
    return tensors


def _vgg_with(tensors: dict[str, Tensor], path: Path) -> VggFeatures:
    vgg = VggFeatures(19 if "features.34.weight" in tensors else 16)
    wanted = vgg.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise EngineError(f"{path} does not hold VGG weights in torchvision's naming: {missing[0]} is missing")
    try:
        vgg.load_state_dict({name: tensors[name] for name in wanted})
    except RuntimeError as error:
        raise EngineError(f"the weights in {path} are not those of a VGG network: {error}") from error
    return vgg
