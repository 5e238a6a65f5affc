"""What identifies a network without building it: its name and its sizes. No torch here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from inpaint_batch.errors import ConfigError
from inpaint_batch.tables import read_as

MULTIPLE_OF_PX = 32
"""Tile sides must be multiples of this."""


Bottleneck = Literal["conv", "transformer", "wavelet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DcfSpec:
    """Sizes of the DCF generator; stored inside every checkpoint."""

    width: int = 48
    """Channels at 1/2 resolution."""
    growth: int = 2
    """How many times as many channels each further halving has."""
    encoder_blocks: tuple[int, ...] = (1, 2, 2, 1)
    """Residual blocks at 1/2, 1/4, 1/8 and 1/16. With two or three numbers the network ends at 1/4 or 1/8: less to
    compute, and a shorter reach."""
    encoder_hidden: tuple[int, ...] = ()
    """Hidden channels of those blocks at 1/2, 1/4 and 1/8. None: as many as there are channels."""
    decoder_blocks: tuple[int, ...] = (1, 1, 1)
    """Residual blocks at 1/8, 1/4 and 1/2 on the way up, before each refinement stage. A network that ends at 1/4 has
    two stages, at 1/4 and 1/2, and two numbers here and below."""
    bottleneck: Bottleneck = "conv"
    """What the blocks at 1/16 are made of: 3×3 convolutions, self-attention over the tile, or convolutions on Haar
    sub-bands."""
    bottleneck_hidden: int = 192
    """Hidden channels of the blocks at 1/16."""
    stage_widths: tuple[int, ...] = (128, 64, 32)
    """Hidden channels of the refinement stages at 1/8, 1/4 and 1/2."""
    key_channels: int = 48
    """Channels in which attention compares cells. 0: there is no attention, and `value_channels` say nothing."""
    value_channels: tuple[int, ...] = (128, 32, 8)
    """Channels borrowed through attention at each stage; times the cell area they cost the same at each."""

    def __post_init__(self) -> None:
        sizes = (
            *(self.width, self.growth, self.bottleneck_hidden),
            *(*self.encoder_hidden, *self.stage_widths, *self.value_channels),
        )
        if min(sizes) < 1 or self.key_channels < 0:
            raise ConfigError(f"all sizes of a DCF generator must be at least 1 (key_channels 0): {self}")
        if not 2 <= self.num_levels <= 4:
            raise ConfigError(f"encoder_blocks must be two to four numbers, not {list(self.encoder_blocks)}")
        if min(*self.encoder_blocks, *self.decoder_blocks) < 0:
            raise ConfigError(f"encoder_blocks and decoder_blocks must not be negative: {self}")
        for name in ("decoder_blocks", "stage_widths", "value_channels"):
            if len(numbers := getattr(self, name)) != self.num_stages:
                raise ConfigError(
                    f"{name} must be {self.num_stages} numbers, one for each refinement stage, not {list(numbers)}"
                )
        if self.encoder_hidden and len(self.encoder_hidden) != self.num_stages:
            raise ConfigError(
                f"encoder_hidden must be {self.num_stages} numbers, one for each resolution, or none, not "
                f"{list(self.encoder_hidden)}"
            )
        if self.bottleneck not in get_args(Bottleneck):
            raise ConfigError(f"bottleneck must be one of {', '.join(get_args(Bottleneck))}, not {self.bottleneck!r}")
        if self.bottleneck != "conv" and self.num_levels < 4:
            raise ConfigError(f"bottleneck {self.bottleneck!r} lives at 1/16: give encoder_blocks a fourth number")

    @property
    def num_levels(self) -> int:
        """Resolutions that the encoder sees, from 1/2 on."""
        return len(self.encoder_blocks)

    @property
    def num_stages(self) -> int:
        """Refinement stages, the last at 1/2."""
        return min(self.num_levels, 3)

    @property
    def widths(self) -> list[int]:
        """Channels at each resolution that the encoder sees, 1/2 first."""
        return [self.width * self.growth**level for level in range(self.num_levels)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DcfSpec:
        """The inverse of `to_dict`; raises ConfigError for a size that this version does not know, and for what
        is none."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown sizes of a DCF generator: {', '.join(unknown)}; was it made by a newer version?"
            )
        return read_as(cls, values)
