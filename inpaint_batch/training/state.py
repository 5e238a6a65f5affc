"""What changes from step to step of a training run, and the one step that changes it."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.checkpoint import load_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.masked_autoencoder import GUESS, MaskedAutoencoder
from inpaint_batch.models.transplant import fitting_weights
from inpaint_batch.training.adversary import Adversary
from inpaint_batch.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizers,
    save_checkpoint,
)
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Batch
from inpaint_batch.training.device import Device
from inpaint_batch.training.holes import DAMAGE
from inpaint_batch.training.loss_scale import LossScale
from inpaint_batch.training.losses.total import TotalLoss
from inpaint_batch.training.muon import Muon
from inpaint_batch.training.revival import revive
from inpaint_batch.training.team import Team
from inpaint_batch.training.validation import ValidationSet

MAX_BAD_STEPS = 20
"""Steps in a row with a loss that is not finite, before the run gives up."""

log = logging.getLogger(__name__)


class TrainingState:
    """Weights, their average, the optimisers, the discriminator if there is one, the step itself."""

    def __init__(
        self, config: TrainConfig, device: Device | None = None, team: Team | None = None, *, damage: bool = False
    ) -> None:
        """`damage`: whether there are elements of damage to learn from."""
        torch.manual_seed(config.seed)
        self.config = config
        self.damage = damage
        self.device = device or Device("cpu", config.precision)
        self.team = team or Team(self.device.torch)
        self.generator = self._new_generator()
        self.network: Any = torch.compile(self.generator) if config.torch_compile else self.generator
        self.average = self._copied()
        self.optimizers = _optimizers(self.generator, config)
        self.loss = TotalLoss(config, self.device)
        self.adversary = Adversary(config, self.device) if config.losses.needs_discriminator else None
        self.scale = LossScale(config.precision == "fp16")
        self.step = 0
        self.best_psnr = -math.inf
        self.num_bad_steps = 0

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero at `config.steps`."""
        if self.step < self.config.warmup_steps:
            return self.config.learning_rate * (self.step + 1) / self.config.warmup_steps
        progress = (self.step - self.config.warmup_steps) / max(1, self.config.steps - self.config.warmup_steps)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; returns its `loss` and the parts of it, over the whole batch.

        A step whose loss or gradient is not finite is left out and counted.
        """
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        pieces, sums = [], dict.fromkeys(("loss", *self.loss.names), 0.0)
        for image, hole in self._pieces(batch):
            filled, parts = self._backward(image, hole, batch.with_prior, len(image) / batch.num_images)
            pieces.append((filled.detach(), image, hole))
            for name, value in parts.items():
                sums[name] += value
        parameters = list(self.generator.parameters())
        self.team.sum_gradients(parameters)
        totals = torch.tensor(list(sums.values()), dtype=torch.float64, device=self.device.torch)
        self.team.sum(totals)
        values = dict(zip(sums, totals.tolist(), strict=True))
        if self.scale.value != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad /= self.scale.value
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.config.gradient_clip)
        self._finish(math.isfinite(values["loss"]) and bool(torch.isfinite(norm)))
        if self.adversary is not None and self.step % self.config.discriminator_every == 0:
            values["discriminator"] = self.adversary.learn(pieces, 1 / batch.num_images, self.team)
        self.step += 1
        return values

    def _pieces(self, batch: Batch) -> list[tuple[Tensor, Tensor]]:
        """Images and holes of the batch, cut for gradient accumulation; empty where this process has no share."""
        image, hole = self.device.tensor(batch.image), self.device.tensor(batch.hole)
        size = math.ceil(len(image) / self.config.micro_batches)
        return list(zip(torch.split(image, size), torch.split(hole, size), strict=True)) if len(image) else []

    def _backward(self, image: Tensor, hole: Tensor, with_prior: bool, share: float) -> tuple[Tensor, dict[str, float]]:
        """Add the gradients of one piece, `share` of the batch; return its fill and its part of the losses."""
        with self.device.autocast():
            prior, prior_weight = self._prior(image, hole) if with_prior else no_prior(image)
            filled = self.network(image * (1 - hole), hole, prior, prior_weight).float()
        progress = min(1.0, self.step / self.config.steps)
        total, parts = self.loss(filled, image, hole, progress, self.adversary)
        (total * share * self.scale.value).backward()  # type: ignore[no-untyped-call]
        return filled, {name: value.item() * share for name, value in {"loss": total, **parts}.items()}

    def _finish(self, finite: bool) -> None:
        """Apply the gradients, or leave the step out."""
        self.scale.update(finite)
        if finite:
            self._apply()
            self.num_bad_steps = 0
            return
        self.num_bad_steps += 1
        log.warning("step %d left out: its loss or gradient is not finite", self.step)
        if self.num_bad_steps >= MAX_BAD_STEPS:
            raise ConfigError(
                f"{MAX_BAD_STEPS} steps in a row were not finite; lower learning_rate and go on with --resume, or "
                "begin anew where nothing has been saved yet, or where that ends the same way"
            )

    def _apply(self) -> None:
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
            optimizer.step()
        # A young average would remember the initial weights: let it follow faster at first.
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.generator.state_dict().items():
                self.average[name].lerp_(value, 1 - decay)

    def _prior(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """The network's own fill at half resolution, enlarged: what the quadtree gives a finer tile.

        What is learned of the finer fill reaches the coarse one: it is judged by what it is good for.
        """
        known = 1 - hole
        share = F.avg_pool2d(known, 2)
        coarse_hole = (share < 0.5).float()
        coarse = F.avg_pool2d(image * known, 2) / share.clamp(min=0.25) * (1 - coarse_hole)
        filled = self.network(coarse, coarse_hole, *no_prior(coarse)).float()
        enlarged = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        return enlarged, torch.ones(len(image), 1, 1, 1, device=image.device)

    def averaged(self) -> DcfGenerator:
        """A generator with the averaged weights."""
        return self.with_weights(self.average)

    def with_weights(self, weights: dict[str, Tensor]) -> DcfGenerator:
        """A generator of this run's kind and sizes with other weights, to look at."""
        generator = self._new_generator()
        generator.load_state_dict(weights)
        return generator.eval()

    def _new_generator(self) -> DcfGenerator:
        kind = MaskedAutoencoder if self.config.pretrain else DcfGenerator
        return self.device.place(kind(self.config.model))

    def _copied(self) -> dict[str, Tensor]:
        """The present weights: where an average begins."""
        return {name: value.detach().clone() for name, value in self.generator.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write all of it atomically."""
        checkpoint = Checkpoint(
            self.step,
            self.config.to_dict(),
            self.generator.state_dict(),
            self.average,
            optimizer_tensors(self.optimizers),
            self.best_psnr,
            self.adversary.tensors() if self.adversary else {},
            (self.scale.value, self.scale.num_good) if self.scale.enabled else None,
            self.damage,
        )
        save_checkpoint(path, checkpoint)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; the settings may differ in length and rate, not in what is stored there."""
        checkpoint = load_checkpoint(path)
        config = TrainConfig.from_dict(checkpoint.config)
        if config.model != self.config.model:
            raise ConfigError(f"{path} holds a network of other sizes than the settings ask for")
        if config.pretrain != self.config.pretrain:
            raise ConfigError(
                f"{path} is a run {'with' if config.pretrain else 'without'} pretrain; start a new run with --init"
            )
        same = ("optimizer", *(("discriminator_width",) if self.adversary and checkpoint.adversary else ()))
        for name in same:
            if (was := getattr(config, name)) != (wanted := getattr(self.config, name)):
                raise ConfigError(f"{path} is a run with {name} {was}, not {wanted}; start a new run with --init")
        if checkpoint.damage and not self.damage and any(self.config.hole_shares[DAMAGE : DAMAGE + 1]):
            raise ConfigError(
                f"{path} is a run with --damage: name its folder again; or, to go on without, give damage elements no "
                "share in the hole_shares of a --config"
            )
        self.generator.load_state_dict(checkpoint.weights)
        self.average = {name: value.to(self.device.torch) for name, value in checkpoint.average.items()}
        restore_optimizers(self.optimizers, checkpoint.optimizer)
        if self.adversary and checkpoint.adversary:
            self.adversary.restore(checkpoint.adversary)
        elif self.adversary:
            log.warning("%s holds no discriminator; a new one starts to learn at step %d", path, checkpoint.step)
        if self.scale.enabled and checkpoint.loss_scale:
            self.scale.value, self.scale.num_good = checkpoint.loss_scale
        self.step, self.best_psnr = checkpoint.step, checkpoint.best_psnr

    def start_from(self, path: Path) -> None:
        """Take the weights of a generator or of a run's checkpoint (its average); everything else is new.

        Of a network of other sizes what fits (see `fitting_weights`). Raises ConfigError where it has more channels.
        """
        generator = load_generator(path)
        if generator.spec.width > self.config.model.width:
            raise ConfigError(
                f"{path} holds a network of width {generator.spec.width}, and the settings ask for "
                f"{self.config.model.width}: nothing of it fits. A network can be made wider, not narrower"
            )
        own = self.generator.state_dict()  # a masked autoencoder keeps its own fresh guess
        fitting = fitting_weights(generator, self.generator)
        self.generator.load_state_dict(own | fitting)
        if generator.spec != self.config.model:
            anew = sorted({name.rpartition(".")[0] for name in own.keys() - fitting.keys()})
            log.info("%d of %d weights are those of %s", len(fitting), len(own), path)
            log.info("these layers begin anew: %s", ", ".join(anew) or "none")
        self.average = self._copied()

    def revive(self, validation: ValidationSet) -> None:
        """Let dead channels begin anew, before the first step."""
        num_revived = revive(self.generator, validation, self.config.seed)
        self.average = self._copied()
        log.info("%d dead channels begin anew", num_revived)


def no_prior(image: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs that tell the network to start from its own push-pull fill."""
    return torch.zeros_like(image), torch.zeros(len(image), 1, 1, 1, dtype=image.dtype, device=image.device)


def _optimizers(generator: DcfGenerator, config: TrainConfig) -> list[torch.optim.Optimizer]:
    named = dict(generator.named_parameters())
    decay = config.weight_decay
    if config.optimizer == "adamw":
        return [torch.optim.AdamW(named.values(), lr=config.learning_rate, weight_decay=decay, betas=(0.9, 0.99))]
    inner = [n for n, p in named.items() if p.ndim == 4 and not n.startswith(("stem.", "head.", GUESS))]
    outer = [p for n, p in named.items() if n not in inner]
    return [
        Muon([named[n] for n in inner], lr=config.learning_rate, weight_decay=decay),
        torch.optim.AdamW(outer, lr=config.learning_rate, weight_decay=decay, betas=(0.9, 0.99)),
    ]
