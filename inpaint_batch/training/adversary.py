"""The other side of adversarial training: a discriminator, its optimiser, and what must be kept of both."""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_batch.models.discriminator import PatchDiscriminator
from inpaint_batch.training.checkpoint import optimizer_tensors, restore_optimizers
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.device import Device
from inpaint_batch.training.losses.adversarial import hinge_discriminator
from inpaint_batch.training.team import Team

BETAS = (0.0, 0.9)
"""Of Adam, as usual with hinge losses: no momentum, since the opponent moves."""


class Adversary:
    """Learns to tell fills from truth. The generator looks at it through `judge`."""

    def __init__(self, config: TrainConfig, device: Device) -> None:
        self.device = device
        self.discriminator = device.place(PatchDiscriminator(config.discriminator_width))
        rate = config.discriminator_learning_rate
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=rate, betas=BETAS)
        self.freeze(True)

    def freeze(self, frozen: bool) -> None:
        """Frozen, it neither collects gradients nor iterates its spectral norms: what the generator looks at."""
        self.discriminator.requires_grad_(not frozen)
        self.discriminator.train(not frozen)

    def judge(self, image: Tensor, hole: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Scores and features in float32, see PatchDiscriminator."""
        with self.device.autocast():
            scores, features = self.discriminator(image, hole)
        return scores.float(), [one.float() for one in features]

    def learn(self, pieces: list[tuple[Tensor, Tensor, Tensor]], share: float, team: Team) -> float:
        """One step on (filled, truth, hole) pieces, each of `share` of the whole team's batch; returns its loss.

        A step whose loss or gradient is not finite is left out.
        """
        self.freeze(False)
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device.torch)
        for filled, truth, hole in pieces:
            real, _ = self.judge(truth, hole)
            fake, _ = self.judge(filled, hole)
            loss = hinge_discriminator(real, fake, hole) * share * len(filled)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        parameters = list(self.discriminator.parameters())
        team.sum_gradients(parameters)
        team.sum(total)
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if torch.isfinite(total) and torch.isfinite(norm):
            self.optimizer.step()
        # A member without images has not iterated its spectral norms: all take those of the first.
        team.take_from_first(list(self.discriminator.buffers()))
        self.freeze(True)
        return total.item()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that changes, by name."""
        weights = {f"weights/{name}": value for name, value in self.discriminator.state_dict().items()}
        states = {f"optimizer/{name}": value for name, value in optimizer_tensors([self.optimizer]).items()}
        return weights | states

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `tensors`."""
        parts: dict[str, dict[str, Tensor]] = {"weights": {}, "optimizer": {}}
        for name, value in tensors.items():
            prefix, _, rest = name.partition("/")
            parts[prefix][rest] = value
        self.discriminator.load_state_dict(parts["weights"])
        restore_optimizers([self.optimizer], parts["optimizer"])
