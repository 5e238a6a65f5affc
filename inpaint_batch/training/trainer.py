"""The training loop, readable top to bottom."""

from __future__ import annotations

import json
import logging
import math
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor
from torch.nn import functional as F

from inpaint_batch.errors import ConfigError, StopRequestedError
from inpaint_batch.models.checkpoint import save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.training.checkpoint import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizers,
    save_checkpoint,
)
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Batch, Crops, list_photographs
from inpaint_batch.training.losses.boundary import boundary
from inpaint_batch.training.losses.charbonnier import charbonnier
from inpaint_batch.training.muon import Muon
from inpaint_batch.training.validation import ValidationSet, mean_hole_psnr

LAST = "last.safetensors"
BEST = "best.safetensors"
EXPORT = "model.safetensors"
LOG = "log.jsonl"
LOG_EVERY_STEPS = 25
MAX_BAD_STEPS = 20
"""Steps in a row with a loss that is not finite, before the run gives up."""

log = logging.getLogger(__name__)


def train(config: TrainConfig, data: Path, run: Path, *, damage: Path | None = None, resume: bool = False) -> float:
    """Train until `config.steps`; return the best mean PSNR (dB) inside the hole on the held-out photographs.

    `run` receives `last.safetensors` (to go on from), `best.safetensors`, `model.safetensors` (weights alone, of
    the best) and `log.jsonl`. SIGTERM, SIGUSR1 and SIGINT save and raise StopRequestedError. Raises ConfigError
    where `run` holds another run.
    """
    run.mkdir(parents=True, exist_ok=True)
    if (run / LAST).exists() and not resume:
        raise ConfigError(f"{run} already holds a training run; continue it with --resume, or choose another folder")
    photographs = list_photographs(data)
    num_validation = min(config.num_validation, len(photographs) // 2)
    held_out, learned = photographs[len(photographs) - num_validation :], photographs[: -num_validation or None]
    crops = Crops(learned, config, damage)
    validation = ValidationSet(held_out, config, damage)
    state = TrainingState(config)
    if resume:
        state.restore(run / LAST)
    log.info(
        "%d photographs to learn from, %d held out, %d parameters, step %d of %d",
        len(learned),
        len(held_out),
        sum(p.numel() for p in state.generator.parameters()),
        state.step,
        config.steps,
    )
    with _stop_on_signal() as stop:
        num_images, started = 0, time.monotonic()
        for batch in crops.prefetch(state.step, config.steps):
            loss = state.learn(batch)
            num_images += len(batch.image)
            if state.step % LOG_EVERY_STEPS == 0:
                rate = num_images / (time.monotonic() - started)
                _log_line(run, step=state.step, loss=loss, images_per_s=rate, learning_rate=state.learning_rate())
            done = state.step == config.steps
            if state.step % config.validate_every == 0 or done:
                psnr = mean_hole_psnr(state.averaged(), validation)
                _log_line(run, step=state.step, validation_psnr_db=psnr)
                if psnr > state.best_psnr:
                    state.best_psnr = psnr
                    save_generator(run / EXPORT, state.generator, state.average)
                    state.save(run / LAST)
                    shutil.copyfile(run / LAST, run / BEST)
            if state.step % config.checkpoint_every == 0 or done or stop:
                state.save(run / LAST)
            if stop and not done:
                raise StopRequestedError(f"stopped at step {state.step}; go on with --resume")
    return state.best_psnr


class TrainingState:
    """Everything that changes from step to step: weights, their average, the optimisers, the step itself."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.generator = DcfGenerator(config.model)
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.generator.state_dict().items()}
        self.optimizers = _optimizers(self.generator, config)
        self.step = 0
        self.best_psnr = -math.inf
        self.num_bad_steps = 0

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero at `config.steps`."""
        if self.step < self.config.warmup_steps:
            return self.config.learning_rate * (self.step + 1) / self.config.warmup_steps
        progress = (self.step - self.config.warmup_steps) / max(1, self.config.steps - self.config.warmup_steps)
        return self.config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def learn(self, batch: Batch) -> float:
        """One step; returns its loss. A step whose loss or gradient is not finite is left out and counted."""
        image, hole = torch.from_numpy(batch.image), torch.from_numpy(batch.hole)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            prior, prior_weight = self._prior(image, hole) if batch.with_prior else no_prior(image)
            filled = self.generator(image * (1 - hole), hole, prior, prior_weight).float()
        loss = charbonnier(filled, image, hole, self.config.charbonnier_epsilon)
        loss = loss + self.config.boundary_weight * boundary(filled, image, hole)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.generator.parameters(), self.config.gradient_clip)
        if torch.isfinite(loss) and torch.isfinite(norm):
            self._apply()
            self.num_bad_steps = 0
        else:
            self.num_bad_steps += 1
            log.warning("step %d left out: its loss or gradient is not finite", self.step)
            if self.num_bad_steps >= MAX_BAD_STEPS:
                raise ConfigError(f"{MAX_BAD_STEPS} steps in a row were not finite; lower learning_rate and --resume")
        self.step += 1
        return loss.item()

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

    @torch.no_grad()
    def _prior(self, image: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """The network's own fill at half resolution, enlarged: what the quadtree gives a finer tile."""
        known = 1 - hole
        share = F.avg_pool2d(known, 2)
        coarse_hole = (share < 0.5).float()
        coarse = F.avg_pool2d(image * known, 2) / share.clamp(min=0.25) * (1 - coarse_hole)
        filled = self.generator(coarse, coarse_hole, *no_prior(coarse)).float()
        enlarged = F.interpolate(filled, scale_factor=2.0, mode="bilinear", align_corners=False)
        return enlarged, torch.ones(len(image), 1, 1, 1)

    def averaged(self) -> DcfGenerator:
        """A generator with the averaged weights."""
        generator = DcfGenerator(self.config.model)
        generator.load_state_dict(self.average)
        return generator.eval()

    def save(self, path: Path) -> None:
        """Write all of it atomically."""
        weights = self.generator.state_dict()
        tensors = optimizer_tensors(self.optimizers)
        save_checkpoint(
            path, Checkpoint(self.step, self.config.to_dict(), weights, self.average, tensors, self.best_psnr)
        )

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint; the settings may differ in length and rate, not in the network."""
        checkpoint = load_checkpoint(path)
        if TrainConfig.from_dict(checkpoint.config).model != self.config.model:
            raise ConfigError(f"{path} holds a network of other sizes than the settings ask for")
        self.generator.load_state_dict(checkpoint.weights)
        self.average = checkpoint.average
        restore_optimizers(self.optimizers, checkpoint.optimizer)
        self.step, self.best_psnr = checkpoint.step, checkpoint.best_psnr


def no_prior(image: Tensor) -> tuple[Tensor, Tensor]:
    """The inputs that tell the network to start from its own push-pull fill."""
    return torch.zeros_like(image), torch.zeros(len(image), 1, 1, 1, dtype=image.dtype)


def _optimizers(generator: DcfGenerator, config: TrainConfig) -> list[torch.optim.Optimizer]:
    named = dict(generator.named_parameters())
    decay = config.weight_decay
    if config.optimizer == "adamw":
        return [torch.optim.AdamW(named.values(), lr=config.learning_rate, weight_decay=decay, betas=(0.9, 0.99))]
    inner = [n for n, p in named.items() if p.ndim == 4 and not n.startswith(("stem.", "head."))]
    outer = [p for n, p in named.items() if n not in inner]
    return [
        Muon([named[n] for n in inner], lr=config.learning_rate, weight_decay=decay),
        torch.optim.AdamW(outer, lr=config.learning_rate, weight_decay=decay, betas=(0.9, 0.99)),
    ]


def _log_line(run: Path, **values: float) -> None:
    rounded = {k: v if isinstance(v, int) else float(f"{v:.6g}") for k, v in values.items()}
    log.info(" ".join(f"{k}={v}" for k, v in rounded.items()))
    with (run / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")


@contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """A list that is empty until SIGTERM, SIGUSR1 or SIGINT arrives."""
    stop: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        stop.append(number)

    numbers = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    before = [signal.signal(number, note) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
