"""Hyper-parameters of a training run. Stored in every checkpoint; changed from a TOML file with `--config`."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.spec import MULTIPLE_OF_PX, DcfSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. Everything here is part of its identity: the same settings and seed give the same weights."""

    model: DcfSpec = field(default_factory=DcfSpec)
    """Sizes of the network."""
    seed: int = 0
    """Seed of crops, holes and initial weights."""
    steps: int = 6000
    """Optimiser steps in all; the learning rate falls to zero along a cosine over them."""
    batch_size: int = 16
    """128-pixel crops a step; steps on other sides hold as many pixels."""
    sides_px: tuple[int, ...] = (64, 128, 256)
    """Sides of the square crops."""
    side_shares: tuple[float, ...] = (0.1, 0.7, 0.2)
    """How often each side is drawn; sums to one."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    optimizer: Literal["adamw", "muon"] = "muon"
    """`muon`: orthogonalised momentum for the convolutions inside the network, AdamW for biases, first and last
    convolution. `adamw`: AdamW for all."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 1e-4
    """Decoupled weight decay."""
    gradient_clip: float = 0.5
    """Largest norm of the whole gradient."""
    ema_decay: float = 0.998
    """Decay of the moving average of the weights, a step; the average is what is validated and exported."""
    charbonnier_epsilon: float = 1e-2
    """Error (of a colour in 0..1) below which the Charbonnier loss turns quadratic."""
    boundary_weight: float = 0.1
    """Weight of the boundary loss (gradients near the rim of the hole) against the Charbonnier loss."""
    prior_share: float = 0.25
    """Share of steps in which the start is the network's own enlarged fill at half resolution, as the quadtree
    gives it."""
    hole_shares: tuple[float, float, float, float] = (0.40, 0.20, 0.25, 0.15)
    """How often strokes, boxes, damage elements, and mixtures of two of them are drawn."""
    stroke_area: tuple[float, float] = (0.03, 0.30)
    """Share of the crop that strokes cover."""
    box_area: tuple[float, float] = (0.03, 0.25)
    """Share of the crop that boxes cover."""
    damage_area: tuple[float, float] = (0.01, 0.12)
    """Share of the crop that damage elements cover."""
    smallest_scale: float = 0.6
    """Photographs are shrunk by a factor between this and 1 before cropping, where they are large enough."""
    bf16: bool = False
    """Autocast to bfloat16. Pays only on processors with bfloat16 units."""
    num_validation: int = 96
    """Photographs held out for validation (the last ones in the order of a hash of their names)."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if len(self.sides_px) != len(self.side_shares):
            raise ConfigError("sides_px and side_shares must have the same length")
        if any(side % MULTIPLE_OF_PX or side <= 0 for side in self.sides_px):
            raise ConfigError(f"sides_px must be positive multiples of {MULTIPLE_OF_PX}, not {self.sides_px}")
        for name in ("side_shares", "hole_shares"):
            shares = getattr(self, name)
            if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                raise ConfigError(f"{name} must be fractions that sum to 1, not {shares}")
        if min(self.steps, self.batch_size, self.validate_every, self.checkpoint_every) < 1:
            raise ConfigError("steps, batch_size, validate_every and checkpoint_every must be at least 1")
        if not 0 < self.smallest_scale <= 1:
            raise ConfigError(f"smallest_scale must lie in (0, 1], not {self.smallest_scale}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie in [0, 1), not {self.ema_decay}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; raises ConfigError that names an unknown key and the nearest known one."""
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ConfigError(f"unknown training setting {name!r}{hint}")
        plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        if "model" in plain:
            plain["model"] = DcfSpec.from_dict(dict(plain["model"]))
        try:
            return cls(**plain)
        except TypeError as error:
            raise ConfigError(f"a training setting has the wrong type: {error}") from error


def load_train_config(path: Path) -> TrainConfig:
    """Read a TOML file of TrainConfig fields, with the network's sizes in a table `[model]`."""
    try:
        return TrainConfig.from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read training settings from {path}: {error}") from error
