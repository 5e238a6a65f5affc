"""How a graph wants to be asked: names, types and ranges of what goes in and comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.types import FloatArray

INPUT_CHANNELS = {"image": 3, "hole": 1, "prior": 3, "prior_weight": 1}
"""Inputs of this package's own graphs, by name."""
OUTPUT = "filled"
"""Their output, three channels."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output as a graph declares it."""

    type: str
    """As ONNX Runtime writes it: `tensor(float)`, `tensor(uint8)`, ..."""
    shape: tuple[Any, ...]
    """A number where the size is fixed, a name or None where it is free."""


class Convention(Protocol):
    """Between the tiles of this package and one kind of graph."""

    @property
    def identity(self) -> str:
        """Goes into the identity of the engine; empty where the file of the model says everything."""

    @property
    def output(self) -> str:
        """Name of the output to fetch."""

    @property
    def sides_px(self) -> tuple[int, ...]:
        """Sides of tiles that the graph takes, ascending."""

    def faults(self, inputs: dict[str, TensorFacts], outputs: dict[str, TensorFacts]) -> list[str]:
        """What keeps a graph with these inputs and outputs from being asked this way; empty where nothing does."""

    def shortcut(self, tile: TileBatch, /) -> FloatArray | None:
        """The fill of a batch of one where the network is not needed for it."""

    def feed(self, tile: TileBatch) -> dict[str, NDArray[Any]]:
        """The inputs for a batch of one."""

    def filled(self, output: Any, tile: TileBatch, /) -> Any:
        """The fill, (1, 3, s, s) float32 in [0, 1], from what the graph returned for that batch of one."""


class OwnConvention:
    """That of the graphs which `inpaint-batch compile` writes.

    Inputs `image` (B, 3, s, s), `hole` (B, 1, s, s), `prior` (B, 3, s, s) and `prior_weight` (B, 1, 1, 1), output
    `filled` (B, 3, s, s) with the known pixels passed through, all float32, batch and sides free.
    """

    identity = ""
    output = OUTPUT

    def __init__(self, sides_px: tuple[int, ...]) -> None:
        self.sides_px = sides_px

    def faults(self, inputs: dict[str, TensorFacts], outputs: dict[str, TensorFacts]) -> list[str]:
        """See `Convention.faults`."""
        faults = [f"input `{name}` is missing" for name in INPUT_CHANNELS if name not in inputs]
        faults += [f"input `{name}` is unknown" for name in inputs if name not in INPUT_CHANNELS]
        if OUTPUT not in outputs:
            faults.append(f"output `{OUTPUT}` is missing")
        for name, channels in {**INPUT_CHANNELS, OUTPUT: 3}.items():
            facts = {**inputs, **outputs}.get(name)
            if facts is None:
                continue
            if facts.type != "tensor(float)":
                faults.append(f"`{name}` is {facts.type}, not float32")
            shape = facts.shape
            if len(shape) != 4 or (isinstance(shape[1], int) and shape[1] != channels):
                faults.append(f"`{name}` has shape {list(shape)}, not (batch, {channels}, height, width)")
            elif isinstance(shape[0], int) or (name != "prior_weight" and any(isinstance(n, int) for n in shape[2:])):
                faults.append(f"`{name}` has a fixed size {list(shape)}; batch, height and width must be free")
        return faults

    def shortcut(self, _tile: TileBatch) -> FloatArray | None:
        """Never: the network refines every prior."""
        return None

    def feed(self, tile: TileBatch) -> dict[str, NDArray[Any]]:
        """See `Convention.feed`."""
        return {name: np.ascontiguousarray(getattr(tile, name), dtype=np.float32) for name in INPUT_CHANNELS}

    def filled(self, output: Any, _tile: TileBatch) -> Any:
        """As it comes."""
        return output
