"""One thread: these networks are so small that handing work to a second one costs more than it saves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_generator import SPEC

from inpaint_batch.compile.export import PARITY_TOLERANCE, export_onnx
from inpaint_batch.models.dcf import DcfGenerator

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def generator() -> DcfGenerator:
    """Random weights, also where training starts at zero."""
    torch.manual_seed(1)
    generator = DcfGenerator(SPEC).eval()
    for parameter in generator.parameters():
        if parameter.ndim == 4 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return generator


@pytest.fixture(scope="session")
def fp32(generator: DcfGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export."""
    path = tmp_path_factory.mktemp("export") / "small.fp32.onnx"
    assert export_onnx(generator, path) <= PARITY_TOLERANCE
    return path
