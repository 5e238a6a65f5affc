"""Channels that have died: a ReLU that is never above zero learns nothing any more, and nobody sees it in the loss.

The network goes on with what is left of it: the first model that was shipped had lost 122 of the 128 channels of its
coarsest refinement stage before anybody looked.
"""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

DEAD_BELOW = 1e-3
"""A channel that is not above this anywhere is dead; living ones reach about 1."""


class Activity:
    """While it is entered, the greatest value of each channel behind each ReLU of a network in evaluation."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self.greatest: dict[str, Tensor] = {}
        """Of each channel, by ReLU and which of its calls: `stages.0.refine.relu 2`."""
        self._calls: Counter[str] = Counter()  # one ReLU may serve several layers
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Activity:
        self._hooks.append(self._network.register_forward_pre_hook(lambda *_: self._calls.clear()))
        for name, module in self._network.named_modules():
            if isinstance(module, nn.ReLU):
                self._hooks.append(module.register_forward_hook(self._watch(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()

    def _watch(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], values: Tensor) -> None:  # noqa: ARG001
            self._calls[name] += 1
            place = f"{name} {self._calls[name]}"
            greatest = values.detach().amax(dim=(0, 2, 3)).cpu()
            known = self.greatest.get(place)
            self.greatest[place] = greatest if known is None else torch.maximum(known, greatest)

        return hook

    def dead(self) -> dict[str, tuple[int, int]]:
        """How many channels are dead, of how many, by ReLU and call (see `greatest`)."""
        return {place: (int((of < DEAD_BELOW).sum()), len(of)) for place, of in self.greatest.items()}

    def dead_share(self) -> float:
        """Part of all channels that are dead, 0..1."""
        counts = self.dead().values()
        return sum(dead for dead, _ in counts) / max(1, sum(channels for _, channels in counts))
