"""The discriminator: one score for each 8×8 cell, what a score sees, and spectral norms near one."""

from __future__ import annotations

import torch

from inpaint_batch.models.discriminator import PatchDiscriminator


def test_shapes() -> None:
    scores, features = PatchDiscriminator(8)(torch.rand(2, 3, 64, 96), torch.ones(2, 1, 64, 96))
    assert scores.shape == (2, 1, 8, 12)
    assert [tuple(f.shape[1:]) for f in features] == [(8, 32, 48), (16, 16, 24), (32, 8, 12), (64, 8, 12)]


def test_a_score_sees_54_pixels() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 128, 128, requires_grad=True)
    scores, _ = PatchDiscriminator(8).eval()(image, torch.zeros(1, 1, 128, 128))
    scores[0, 0, 8, 8].backward()
    assert image.grad is not None
    rows = image.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten()
    assert int(rows.max() - rows.min()) + 1 == 54


def test_a_hole_changes_the_scores_that_see_it() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8).eval()
    image, hole = torch.rand(1, 3, 128, 128), torch.zeros(1, 1, 128, 128)
    with torch.no_grad():
        before, _ = discriminator(image, hole)
        hole[..., :8, :8] = 1.0
        after, _ = discriminator(image, hole)
    seen = torch.zeros(16, 16, dtype=torch.bool)
    seen[:4, :4] = True  # the cell 3 sees pixels 1 to 54, the cell 4 begins at 9
    assert torch.equal(before[0, 0] != after[0, 0], seen)


def test_spectral_norms_come_near_one() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(8)
    for _ in range(30):  # each training pass is one power iteration
        discriminator(torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32))
    with torch.no_grad():
        discriminator.eval()
        for layer in discriminator.layers:
            assert abs(torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() - 1) < 0.05
