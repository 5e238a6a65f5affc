"""One thread: these networks are so small that handing work to a second one costs more than it saves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with structure: straight-edged stripes of a few widths and directions, in colour."""
    folder = tmp_path_factory.mktemp("photographs")
    y, x = np.mgrid[0:150, 0:160]
    for index in range(16):
        rng = np.random.default_rng(index)
        picture = np.zeros((150, 160, 3))
        for _ in range(4):
            wave = np.sin(y * rng.uniform(-0.1, 0.1) + x * rng.uniform(-0.1, 0.1) + rng.uniform(0, 6))
            picture += np.sign(wave)[..., None] * rng.uniform(0.2, 1, 3)
        cv2.imwrite(str(folder / f"{index:02}.png"), np.clip(128 + 30 * picture, 0, 255).astype(np.uint8))
    return folder
