"""VGG features from a file: the right layers, frozen weights, and clear words for the wrong file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from inpaint_batch.errors import EngineError
from inpaint_batch.models import vgg
from inpaint_batch.models.vgg import VggFeatures, load_vgg

TAPS = {16: (3, 8, 15, 22), 19: (3, 8, 17, 26)}
"""relu1_2, relu2_2, relu3_3 (relu3_4) and relu4_3 (relu4_4) in torchvision's numbering."""


def random_weights(depth: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(depth)
    weights = {name: torch.randn_like(value) * 0.05 for name, value in VggFeatures(depth).state_dict().items()}
    weights["classifier.0.weight"] = torch.zeros(2, 2)
    if depth == 19:
        weights["features.34.weight"] = torch.zeros(512, 512, 3, 3)  # of the fifth block, which only tells the depth
    return weights


@pytest.mark.parametrize(("depth", "suffix"), [(16, ".safetensors"), (19, ".pth")])
def test_features_are_those_of_torchvisions_numbering(tmp_path: Path, depth: int, suffix: str) -> None:
    weights = random_weights(depth)
    path = tmp_path / f"vgg{suffix}"
    if suffix == ".pth":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    vgg = load_vgg(path)
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    image = torch.rand(1, 3, 32, 32)
    x = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    expected = []
    pools = {16: (4, 9, 16), 19: (4, 9, 18)}[depth]
    index = 0
    while index <= TAPS[depth][-1]:  # a convolution and its relu take two numbers, a pooling one
        if index in pools:
            x = nn.functional.max_pool2d(x, 2)
            index += 1
            continue
        x = torch.relu(
            nn.functional.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1)
        )
        if index + 1 in TAPS[depth]:
            expected.append(x)
        index += 2
    features = vgg(image)
    assert [tuple(f.shape[1:]) for f in features] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    for one, other in zip(features, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot read VGG weights"):
        load_vgg(tmp_path / "missing.pth")
    (tmp_path / "bad.pth").write_bytes(b"not a torch file")
    with pytest.raises(EngineError, match="cannot read VGG weights"):
        load_vgg(tmp_path / "bad.pth")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EngineError, match=r"features\.0\.weight is missing"):
        load_vgg(tmp_path / "other.safetensors")
    weights = random_weights(16) | {"features.0.weight": torch.zeros(8, 3, 3, 3)}
    save_file(weights, tmp_path / "narrow.safetensors")
    with pytest.raises(EngineError, match="not those of a VGG network"):
        load_vgg(tmp_path / "narrow.safetensors")


def test_published_weights_are_fetched_and_their_hash_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a file of the same form in place of torchvision's server."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    weights = random_weights(16)
    torch.save(weights, tmp_path / "weights.pth")
    digest = hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()
    (tmp_path / "weights.pth").rename(tmp_path / f"vgg16-{digest[:8]}.pth")
    monkeypatch.setitem(vgg.HUB, "vgg16", (tmp_path / f"vgg16-{digest[:8]}.pth").as_uri())
    loaded = load_vgg(Path("vgg16"))
    assert torch.equal(loaded.state_dict()["features.0.weight"], weights["features.0.weight"])
    torch.save(random_weights(19), tmp_path / "vgg19-00000000.pth")
    monkeypatch.setitem(vgg.HUB, "vgg19", (tmp_path / "vgg19-00000000.pth").as_uri())
    with pytest.raises(EngineError, match=r"cannot fetch .*hash.*name the file in vgg_weights"):
        load_vgg(Path("vgg19"))
