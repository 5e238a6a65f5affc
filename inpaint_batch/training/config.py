"""Hyper-parameters of a training run. Stored in every checkpoint; changed from a TOML file with `--config`."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.spec import MULTIPLE_OF_PX, DcfSpec
from inpaint_batch.tables import read_as
from inpaint_batch.training.losses.weights import LossWeights

Precision = Literal["fp32", "bf16", "fp16"]
Jitter = Literal["none", "lab", "hsv"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. Everything here is part of its identity: the same settings and seed give the same weights."""

    model: DcfSpec = field(default_factory=DcfSpec)
    """Sizes of the network, the table `[model]`."""
    losses: LossWeights = field(default_factory=LossWeights)
    """How much each loss counts, the table `[losses]`."""
    pretrain: bool = False
    """Teach the encoder alone, as a masked autoencoder: most of every crop is hidden, in squares of 16 pixels. A run
    that starts from its weights (`--init`) then learns to fill holes."""
    revive: bool = False
    """Draw hidden channels of residual blocks anew that are dead in the weights a run starts from (`--init`); the
    network computes what it did before, and they learn again."""
    seed: int = 0
    """Seed of crops, holes and initial weights."""
    steps: int = 6000
    """Optimiser steps in all; the learning rate falls to zero along a cosine over them."""
    batch_size: int = 16
    """128-pixel crops a step; steps on other sides hold as many pixels."""
    micro_batches: int = 1
    """Pieces in which a batch is learned one after the other (gradient accumulation): less memory, same batch."""
    max_samples: int | None = None
    """Learn from so many photographs only, the first in the order of a hash of their names. Unset: from all."""
    sides_px: tuple[int, ...] = (64, 128, 256)
    """Sides of the square crops."""
    side_shares: tuple[float, ...] = (0.1, 0.7, 0.2)
    """How often each side is drawn; sums to one."""
    progressive: bool = False
    """Begin with the smallest side alone and let in the next larger one in each equal part of the run."""
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
    vgg_weights: str | None = None
    """File of VGG16 or VGG19 weights (safetensors, or a torch file of tensors, in torchvision's naming) for the
    perceptual, style and contextual losses; or `vgg16` or `vgg19`, which are fetched from torchvision's server. Unset:
    they are left out, and the log says so."""
    discriminator_width: int = 48
    """Channels of the discriminator's first layer; doubled at each further one."""
    discriminator_learning_rate: float = 2e-4
    """Learning rate of the discriminator (Adam); it does not change over the run."""
    discriminator_every: int = 2
    """Steps of the generator for each one of the discriminator."""
    prior_share: float = 0.25
    """Share of steps in which the start is the network's own enlarged fill at half resolution, as the quadtree
    gives it; the coarse fill learns with the finer one."""
    hole_shares: tuple[float, ...] = (0.40, 0.20, 0.25, 0.15)
    """How often strokes, boxes, damage elements, mixtures of two kinds, polygons, text, and silhouettes are drawn;
    kinds left out at the end are not drawn."""
    stroke_area: tuple[float, float] = (0.03, 0.30)
    """Share of the crop that strokes cover."""
    box_area: tuple[float, float] = (0.03, 0.25)
    """Share of the crop that boxes cover."""
    damage_area: tuple[float, float] = (0.01, 0.12)
    """Share of the crop that damage elements cover; a single one that is larger may cover half as much again."""
    shape_area: tuple[float, float] = (0.03, 0.25)
    """Share of the crop that polygons, text and silhouettes cover."""
    pretrain_area: tuple[float, float] = (0.5, 0.75)
    """Share of the crop that is hidden where `pretrain` is on, whatever the shares above say."""
    curriculum: tuple[tuple[float, float], ...] = ()
    """Share of the crop that holes of any kind cover, for each equal part of the run, such as [[0.05, 0.10],
    [0.10, 0.15], [0.15, 0.25], [0.25, 0.50]]. Empty: the shares above throughout. A single damage element that is
    larger may cover half as much again."""
    smallest_scale: float = 0.6
    """Photographs are shrunk by a factor between this and 1 before cropping, where they are large enough."""
    native_share: float = 0.5
    """Share of the crops that are cut from photographs as they are, where these are large enough: shrinking by a little
    takes a quarter of the finest detail, which images to restore still have."""
    jpeg_share: float = 0.0
    """Share of the crops whose known pixels went through a JPEG file of quality 30 to 95."""
    grain_share: float = 0.0
    """Share of the crops whose known pixels get film grain with a standard deviation of up to 0.05."""
    colour_jitter: Jitter = "none"
    """Colour space in which crops are shifted, if any."""
    jitter_strength: float = 0.1
    """Largest shift, as a share of the range of a channel; contrast or saturation change by twice that share."""
    precision: Precision = "fp32"
    """What the forward pass computes in (autocast). `bf16` pays on processors with bfloat16 units and on GPUs; `fp16`
    on GPUs, with a loss scale that follows overflows."""
    torch_compile: bool = False
    """Compile the network with torch.compile: needs a compiler, costs minutes at the start."""
    num_validation: int = 96
    """Photographs held out for validation (the last ones in the order of a hash of their names)."""
    validation_crops: int = 1
    """Crops of each photograph that is held out, each with its own hole."""
    validate_start: bool = False
    """Measure the weights a run starts from before the first step, and export them until others are better."""
    validate_every: int = 500
    """Steps between validations."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if not self.sides_px or len(self.sides_px) != len(self.side_shares):
            raise ConfigError("sides_px and side_shares must have the same length, and not be empty")
        if any(side % MULTIPLE_OF_PX or side <= 0 for side in self.sides_px):
            raise ConfigError(f"sides_px must be positive multiples of {MULTIPLE_OF_PX}, not {self.sides_px}")
        larger = [side for side in self.sides_px if side > min(self.sides_px)]
        if self.prior_share and any(side % (2 * MULTIPLE_OF_PX) for side in larger):
            raise ConfigError(
                f"sides_px but the smallest must be multiples of {2 * MULTIPLE_OF_PX}, not {tuple(larger)}: priors "
                "come from crops of half the side. Or set prior_share = 0"
            )
        if not 1 <= len(self.hole_shares) <= 7:
            raise ConfigError(f"hole_shares must be one to seven fractions, not {self.hole_shares}")
        for name in ("side_shares", "hole_shares"):
            shares = getattr(self, name)
            if not (min(shares) >= 0 and abs(sum(shares) - 1) <= 1e-6):  # nor NaN
                raise ConfigError(f"{name} must be fractions that sum to 1, not {shares}")
        areas = (self.stroke_area, self.box_area, self.damage_area, self.shape_area, self.pretrain_area)
        for low, high in (*areas, *self.curriculum):
            if not 0 < low <= high < 1:
                raise ConfigError(f"an area must be two fractions, 0 < low <= high < 1, not {(low, high)}")
        numbers = ("steps", "batch_size", "micro_batches", "discriminator_every", "discriminator_width")
        for name in (*numbers, "validate_every", "checkpoint_every", "num_validation", "validation_crops"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("seed", "warmup_steps", "weight_decay", "learning_rate", "discriminator_learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be finite and not negative, not {getattr(self, name)}")
        if self.seed >= 1 << 63:
            raise ConfigError(f"seed must be below 2**63, not {self.seed}")
        for name in ("gradient_clip", "charbonnier_epsilon"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.max_samples is not None and self.max_samples < 1:
            raise ConfigError(f"max_samples must be at least 1, not {self.max_samples}")
        for name in ("prior_share", "native_share", "jpeg_share", "grain_share", "jitter_strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1], not {getattr(self, name)}")
        for name, choices in (("precision", get_args(Precision)), ("colour_jitter", get_args(Jitter))):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if self.optimizer not in ("adamw", "muon"):
            raise ConfigError(f"optimizer must be adamw or muon, not {self.optimizer!r}")
        if not 0 < self.smallest_scale <= 1:
            raise ConfigError(f"smallest_scale must lie in (0, 1], not {self.smallest_scale}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay must lie in [0, 1), not {self.ema_decay}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """The inverse of `to_dict`; raises ConfigError that says which setting is unknown, of another type, or out of
        range."""
        return read_as(cls, _from_older_versions(values))


def _from_older_versions(values: dict[str, Any]) -> dict[str, Any]:
    """Settings under their present names: `boundary_weight` moved to `losses`, and `bf16` became `precision`."""
    plain = dict(values)
    if "boundary_weight" in plain:
        plain["losses"] = {"boundary": plain.pop("boundary_weight"), **plain.get("losses", {})}
    if "bf16" in plain:
        plain.setdefault("precision", "bf16" if plain["bf16"] else "fp32")
        del plain["bf16"]
    return plain


def load_train_config(path: Path, defaults: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read a TOML file of TrainConfig fields, with tables `[model]` and `[losses]`.

    `defaults` stand in for fields that the file, or a table in it, leaves out. Raises ConfigError for what cannot be
    read, is unknown or out of range.
    """
    values = read_toml(path)
    try:
        return TrainConfig.from_dict(_over(defaults or {}, _from_older_versions(values)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _over(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values`, and of `defaults` what they leave out, in tables too."""
    merged = {**defaults, **values}
    for name, table in values.items():
        if isinstance(table, dict) and isinstance(defaults.get(name), dict):
            merged[name] = {**defaults[name], **table}
    return merged


def read_toml(path: Path) -> dict[str, Any]:
    """What a settings file says. Raises ConfigError where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot read training settings from {path}: {error}") from error
