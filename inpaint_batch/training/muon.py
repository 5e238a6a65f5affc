"""Muon: momentum whose matrix-shaped updates are made orthogonal before they are applied.

(Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale that lets it share
AdamW's learning rate is from Liu et al., "Muon is Scalable for LLM Training", 2025, section 2.2.) torch has one of
its own, but it takes 2-D weights only and iterates in bfloat16, which processors without bfloat16 units emulate
slowly; this one takes convolutions, in float32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration (Jordan et al.): they push singular values towards 1 quickly, not exactly."""
NUM_ITERATIONS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly (singular values in about 0.7..1.2); shape and dtype are kept."""
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.mT if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For weights with two or more dimensions; the first is the output, all others are flattened together."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Apply one update. `closure` is not supported."""
        if closure is not None:
            raise ValueError("Muon does not take a closure")
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"]
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                nesterov = weight.grad.lerp(momentum, group["momentum"])
                update = orthogonalise(nesterov.reshape(weight.shape[0], -1))
                scale = 0.2 * max(update.shape) ** 0.5  # the RMS that AdamW's updates usually have
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)
