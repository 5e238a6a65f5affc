"""From a generator in torch to an FP32 ONNX file that every engine starts from."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from inpaint_batch.compile.lean import fold_unshuffle, lean, shuffle_by_rows
from inpaint_batch.errors import EngineError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import MULTIPLE_OF_PX
from inpaint_batch.runtime.convention import INPUT_CHANNELS, OUTPUT

OPSET = 18
PARITY_TOLERANCE = 1e-4
"""Largest difference (of a colour in 0..1) between torch and ONNX Runtime that an export may show."""


def export_onnx(generator: DcfGenerator, destination: Path) -> float:
    """Write the generator as one ONNX file with free batch, height and width; return the largest difference to torch.

    Inputs and output are those of `DcfGenerator.forward`, float32, with the names of INPUT_CHANNELS and OUTPUT. Raises
    EngineError where the file, run by ONNX Runtime on tiles of several sizes, does not agree with torch within
    PARITY_TOLERANCE; nothing is left behind then. The graph is that of `lean`; it is compared with the generator as it
    was given.
    """
    generator = generator.eval()
    batch, rows, columns = (torch.export.Dim(name, min=1, max=4096) for name in ("batch", "rows", "columns"))
    sides = {0: batch, 2: MULTIPLE_OF_PX * rows, 3: MULTIPLE_OF_PX * columns}
    temporary = destination.with_name(f".{destination.name}.{os.getpid()}.tmp")
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter itself
            program = torch.onnx.export(
                lean(generator),
                example_inputs(2, 96, 128),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(INPUT_CHANNELS),
                output_names=[OUTPUT],
                dynamic_shapes=(sides, dict(sides), dict(sides), {0: batch}),
                verbose=False,
            )
        if program is None:  # pragma: no cover  (dynamo=True always returns a program)
            raise EngineError("the exporter returned nothing")
        program.save(temporary, external_data=False)
        model = onnx.load(temporary)
        fold_unshuffle(model)
        shuffle_by_rows(model)
        _forget_sources(model)
        onnx.checker.check_model(model)
        onnx.save(model, temporary)
        difference = parity(generator, temporary)
        if difference > PARITY_TOLERANCE:
            raise EngineError(
                f"the exported graph differs from torch by {difference:.2g} (allowed {PARITY_TOLERANCE:g})"
            )
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
        exporter_log.setLevel(level)
    return difference


def _forget_sources(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes of the code that made each node: its lines and the folder that it lies in.

    The same weights, wherever they are exported, give the same bytes then.
    """
    for noted in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del noted.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def example_inputs(batch: int, height: int, width: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random inputs of a generator: (B, 3, H, W), (B, 1, H, W), (B, 3, H, W), (B, 1, 1, 1); every other tile has a
    prior."""
    random = torch.Generator().manual_seed(seed)
    hole = (torch.rand(batch, 1, height // 8, width // 8, generator=random) < 0.3).float()
    hole = torch.nn.functional.interpolate(hole, scale_factor=8.0, mode="nearest")
    image = torch.rand(batch, 3, height, width, generator=random) * (1 - hole)
    prior = torch.rand(batch, 3, height, width, generator=random)
    weight = (torch.arange(batch) % 2).float().view(batch, 1, 1, 1)
    return image, hole, prior * weight, weight


@torch.no_grad()
def parity(generator: DcfGenerator, path: Path) -> float:
    """Largest absolute difference between torch and ONNX Runtime over batches of 1 to 3 tiles of four sizes."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for batch, height, width in ((1, 64, 64), (3, 128, 128), (2, 256, 256), (1, 96, 160)):
        inputs = example_inputs(batch, height, width, seed=batch)
        expected = generator(*inputs).numpy()
        (found,) = session.run([OUTPUT], {name: x.numpy() for name, x in zip(INPUT_CHANNELS, inputs, strict=True)})
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst
