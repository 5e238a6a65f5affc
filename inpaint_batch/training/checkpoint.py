"""Checkpoints of a training run: weights, their moving average, the optimiser's state, and where the run stands."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_batch.errors import EngineError
from inpaint_batch.models.checkpoint import FORMAT, read_tensors, write_tensors

GROUPS = ("weights", "average", "optimizer", "adversary")
"""Prefixes of the tensors of a checkpoint."""


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
    adversary: dict[str, Tensor] = field(default_factory=dict)
    """Discriminator and its optimiser; empty in a run without."""
    loss_scale: tuple[float, int] | None = None
    """Scale and number of good steps since it changed, of half precision."""
    damage: bool = False
    """Whether the run has learned from elements of damage; older checkpoints do not tell."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write atomically."""
    tensors: dict[str, Tensor] = {}
    for prefix in GROUPS:
        values: dict[str, Tensor] = getattr(checkpoint, prefix)
        tensors.update({f"{prefix}/{name}": value.detach().contiguous() for name, value in values.items()})
    progress = {name: getattr(checkpoint, name) for name in ("step", "config", "best_psnr", "loss_scale", "damage")}
    write_tensors(path, tensors, {"format": FORMAT, "kind": "training", "progress": json.dumps(progress)})


def load_checkpoint(path: Path) -> Checkpoint:
    """Raises EngineError where `path` is not a training checkpoint."""
    metadata, tensors = read_tensors(path)
    if metadata.get("kind") != "training":
        raise EngineError(f"{path} is not a training checkpoint; give the folder of a training run")
    progress = json.loads(metadata["progress"])
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in GROUPS}
    for name, value in tensors.items():
        prefix, _, rest = name.partition("/")
        parts[prefix][rest] = value
    scale = progress.get("loss_scale")  # older checkpoints have none
    return Checkpoint(
        progress["step"],
        progress["config"],
        best_psnr=progress["best_psnr"],
        loss_scale=tuple(scale) if scale else None,
        damage=progress.get("damage", False),
        **parts,
    )


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
