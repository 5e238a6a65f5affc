"""Checkpoints: one safetensors file with weights, their moving average, the optimiser's state, and where the run stands.

Nothing in it can execute code. It is written under a temporary name and renamed, so a kill leaves the one before.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inpaint_batch.errors import EngineError
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec

FORMAT = "inpaint-batch/1"


@dataclass(slots=True)
class Checkpoint:
    """A training run at the end of `step` steps."""

    step: int
    config: dict[str, Any]
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    """State tensors by `optimiser index/parameter index/name`."""
    best_psnr: float


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically."""
    tensors: dict[str, Tensor] = {}
    groups = (("weights", checkpoint.weights), ("average", checkpoint.average), ("optimizer", checkpoint.optimizer))
    for prefix, values in groups:
        tensors.update({f"{prefix}/{name}": value.detach().contiguous() for name, value in values.items()})
    progress = {"step": checkpoint.step, "config": checkpoint.config, "best_psnr": checkpoint.best_psnr}
    _save_atomically(path, tensors, {"format": FORMAT, "kind": "training", "progress": json.dumps(progress)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises EngineError where `path` is not a training checkpoint."""
    metadata, tensors = _load(path)
    if metadata.get("kind") != "training":
        raise EngineError(f"{path} is not a training checkpoint; give the folder of a training run")
    progress = json.loads(metadata["progress"])
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "average": {}, "optimizer": {}}
    for name, value in tensors.items():
        prefix, _, rest = name.partition("/")
        parts[prefix][rest] = value
    return Checkpoint(progress["step"], progress["config"], best_psnr=progress["best_psnr"], **parts)


def save_generator(path: Path, generator: DcfGenerator, weights: dict[str, Tensor]) -> None:
    """Write weights and sizes alone: what is compiled and shipped."""
    metadata = {"format": FORMAT, "kind": "generator", "spec": json.dumps(generator.spec.to_dict())}
    _save_atomically(path, {name: value.detach().contiguous() for name, value in weights.items()}, metadata)


def load_generator(path: Path) -> DcfGenerator:
    """The generator in evaluation mode, from a shipped file or (its moving average) from a training checkpoint."""
    metadata, tensors = _load(path)
    if metadata.get("kind") == "training":
        checkpoint = load_checkpoint(path)
        spec, weights = DcfSpec.from_dict(checkpoint.config["model"]), checkpoint.average
    else:
        spec, weights = DcfSpec.from_dict(json.loads(metadata["spec"])), tensors
    generator = DcfGenerator(spec)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise EngineError(f"the weights in {path} do not fit their sizes: {error}") from error
    return generator.eval()


def _load(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except (OSError, SafetensorError) as error:
        raise EngineError(f"cannot read weights from {path}: {error}") from error
    if metadata.get("format") != FORMAT:
        raise EngineError(f"{path} was not written by this program (format {metadata.get('format')!r})")
    return metadata, tensors


def _save_atomically(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata=metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """State of all optimisers as named tensors."""
    tensors = {}
    for which, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state_dict()["state"].items():
            for name, value in state.items():
                tensors[f"{which}/{parameter}/{name}"] = value
    return tensors


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`, into optimisers of the same groups."""
    for which, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            index, parameter, name = key.split("/")
            if int(index) == which:
                state.setdefault(int(parameter), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
