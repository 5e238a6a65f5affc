"""Networks that were not made here: a TOML file beside the model says how it wants to be asked.

`lama.onnx` is described by `lama.toml` in the same folder (engines/adapters/ has examples)::

    sides_px = [512]                      # sides of the tiles that the network takes

    [[inputs]]
    name = "image"
    parts = [{ of = "image", range = [0.0, 1.0] }]

    [[inputs]]
    name = "mask"
    parts = [{ of = "hole" }]

    [output]
    name = "output"
    range = [0.0, 255.0]

    [tiling]
    margin_px = 64
    bridge_depth_px = 160.0

Such a network knows nothing of priors. Where a hole is too deep to be bridged at full resolution, it is filled at the
first halving where it can be, and that fill is enlarged: soft, but of one piece.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import EngineError
from inpaint_batch.runtime.convention import TensorFacts
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.tables import read_as
from inpaint_batch.types import FloatArray

Order = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc"]

ONNX_TYPES = {"float32": "tensor(float)", "uint8": "tensor(uint8)"}


@dataclass(frozen=True, slots=True)
class Part:
    """Some channels of an input."""

    of: Literal["image", "hole", "known"]
    """The photograph (3 channels), 1 where pixels are missing, or 1 where they are not (1 channel each)."""
    range: tuple[float, float] = (0.0, 1.0)
    """What 0 and 1 become."""
    order: Order = "rgb"
    """Of the channels of `image`."""
    in_hole: float = 0.0
    """What `image` shows in the hole, 0..1, before `range` is applied."""

    def __post_init__(self) -> None:
        if not 0 <= self.in_hole <= 1:
            raise ValueError(f"in_hole must lie in 0..1, not {self.in_hole}")

    def values(self, tile: TileBatch) -> FloatArray:
        """(1, C, s, s) float32."""
        if self.of == "image":
            plain = tile.image * (1 - tile.hole) + np.float32(self.in_hole) * tile.hole
            plain = plain[:, ::-1] if self.order == "bgr" else plain
        else:
            plain = tile.hole if self.of == "hole" else 1 - tile.hole
        low, high = np.float32(self.range[0]), np.float32(self.range[1])
        stretched: FloatArray = low + plain * (high - low)
        return stretched


@dataclass(frozen=True, slots=True)
class Input:
    """One input tensor of the graph."""

    name: str
    parts: tuple[Part, ...]
    """Stacked along the channels, in this order."""
    type: Literal["float32", "uint8"] = "float32"
    """`uint8` values are rounded; their range is usually [0, 255]."""
    layout: Layout = "nchw"

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError(f"the input {self.name} has no parts")

    def values(self, tile: TileBatch) -> NDArray[Any]:
        """The tensor for a batch of one."""
        stacked: NDArray[Any] = np.concatenate([part.values(tile) for part in self.parts], axis=1)
        if self.type == "uint8":
            stacked = np.clip(np.rint(stacked), 0, 255).astype(np.uint8)
        return np.ascontiguousarray(stacked.transpose(0, 2, 3, 1) if self.layout == "nhwc" else stacked)

    @property
    def num_channels(self) -> int:
        """Of all parts together."""
        return sum(3 if part.of == "image" else 1 for part in self.parts)


@dataclass(frozen=True, slots=True)
class Output:
    """The tensor that holds the fill; what it says of known pixels is not used."""

    name: str
    range: tuple[float, float] = (0.0, 1.0)
    """The values that mean 0 and 1."""
    order: Order = "rgb"
    layout: Layout = "nchw"

    def __post_init__(self) -> None:
        if self.range[0] == self.range[1]:
            raise ValueError(f"the range of the output {self.name} is empty: {list(self.range)}")


@dataclass(frozen=True, slots=True)
class Tiling:
    """What suits the network, where the user has not said otherwise. See `TilingConfig`."""

    margin_px: int = 24
    bridge_depth_px: float = 24.0


@dataclass(frozen=True, slots=True)
class Description:
    """The whole file."""

    sides_px: tuple[int, ...]
    """Sides of the tiles that the network takes; multiples of 32."""
    inputs: tuple[Input, ...]
    output: Output
    tiling: Tiling = Tiling()

    def __post_init__(self) -> None:
        if not self.sides_px or any(side <= 0 or side % 32 for side in self.sides_px):
            raise ValueError(f"sides_px must be positive multiples of 32, not {list(self.sides_px)}")


class Adapter:
    """A `Convention` that was read from a file."""

    def __init__(self, description: Description, identity: str) -> None:
        """`identity` changes with every change of the file."""
        self._inputs = description.inputs
        self._fetched = description.output
        self.output = description.output.name
        self.sides_px = tuple(sorted(set(description.sides_px)))
        self.tiling = description.tiling
        self.identity = identity

    def faults(self, inputs: dict[str, TensorFacts], outputs: dict[str, TensorFacts]) -> list[str]:
        """See `Convention.faults`."""
        described = {each.name for each in self._inputs}
        faults = [f"its input `{name}` is not described in the adapter" for name in inputs if name not in described]
        for each in self._inputs:
            if each.name not in inputs:
                faults.append(f"it has no input `{each.name}`, only {', '.join(inputs)}")
                continue
            facts = inputs[each.name]
            if facts.type != ONNX_TYPES[each.type]:
                faults.append(f"its input `{each.name}` is {facts.type}, not {each.type}")
            faults += self._size_faults(f"its input `{each.name}`", facts.shape, each.num_channels, each.layout)
        if self.output not in outputs:
            faults.append(f"it has no output `{self.output}`, only {', '.join(outputs)}")
        else:
            shape = outputs[self.output].shape
            faults += self._size_faults(f"its output `{self.output}`", shape, 3, self._fetched.layout)
        return faults

    def shortcut(self, tile: TileBatch) -> FloatArray | None:
        """Where there is a prior, that is the fill."""
        if not tile.prior_weight.item():
            return None
        return tile.image * (1 - tile.hole) + tile.prior * tile.hole

    def feed(self, tile: TileBatch) -> dict[str, NDArray[Any]]:
        """See `Convention.feed`."""
        return {each.name: each.values(tile) for each in self._inputs}

    def filled(self, output: Any, tile: TileBatch) -> Any:
        """See `Convention.filled`; known pixels are those of the tile."""
        values = np.asarray(output, dtype=np.float32)
        if self._fetched.layout == "nhwc" and values.ndim == 4:
            values = values.transpose(0, 3, 1, 2)
        if values.shape != tile.image.shape:
            return values  # the engine says what is wrong with it
        if self._fetched.order == "bgr":
            values = values[:, ::-1]
        low, high = self._fetched.range
        values = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
        # NaN in a known place is none of our business: choose, do not multiply.
        return np.where(tile.hole > 0, values, tile.image)

    def _size_faults(self, what: str, shape: tuple[Any, ...], channels: int, layout: Layout) -> list[str]:
        if len(shape) != 4:
            return [f"{what} has {len(shape)} dimensions, not 4"]
        places = (1, (2, 3)) if layout == "nchw" else (3, (1, 2))
        faults = []
        if isinstance(shape[0], int) and shape[0] != 1:
            faults.append(f"{what} takes {shape[0]} tiles at once; export it for one, or for any number")
        if isinstance(shape[places[0]], int) and shape[places[0]] != channels:
            faults.append(f"{what} has {shape[places[0]]} channels, the adapter describes {channels} ({layout})")
        fixed = {shape[place] for place in places[1] if isinstance(shape[place], int)}
        if unfit := [side for side in self.sides_px if fixed - {side}]:
            faults.append(f"{what} has the fixed size {sorted(fixed)} px, so sides_px cannot hold {unfit}")
        return faults


def adapter_path(model: Path) -> Path:
    """Where the adapter of a model file is looked for."""
    return model.with_suffix(".toml")


def find_adapter(model: Path) -> Adapter | None:
    """The adapter beside a model file, if there is one. Raises EngineError where it cannot be used."""
    if not model.name:  # `/`, or nothing at all: no model, as others will say
        return None
    path = adapter_path(model)
    try:
        content = path.read_bytes()
        document = tomllib.loads(content.decode("utf-8-sig"))
        description: Description = read_as(Description, document)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineError(f"cannot read the adapter {path} ({error.strerror})") from error
    except ValueError as error:
        raise EngineError(f"the adapter {path} cannot be used: {error}; engines/README.md describes it") from error
    return Adapter(description, "adapter-" + hashlib.sha256(content).hexdigest()[:16])
