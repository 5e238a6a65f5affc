"""One thread: these networks are so small that handing work to a second one costs more than it saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_networks import random_generator

from inpaint_batch.compile.export import PARITY_TOLERANCE, export_onnx
from inpaint_batch.models.dcf import DcfGenerator

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def generator() -> DcfGenerator:
    """One for all tests."""
    return random_generator()


@pytest.fixture(scope="session")
def fp32(generator: DcfGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    path = tmp_path_factory.mktemp("export") / "small.fp32.onnx"
    assert export_onnx(generator, path) <= PARITY_TOLERANCE
    return path
