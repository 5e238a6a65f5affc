"""All losses of the generator in one sum, with the parts by name for the log."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from inpaint_batch.errors import ConfigError
from inpaint_batch.models.vgg import VggFeatures, load_vgg
from inpaint_batch.training.adversary import Adversary
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.device import Device
from inpaint_batch.training.losses.adversarial import feature_matching, hinge_generator
from inpaint_batch.training.losses.boundary import boundary
from inpaint_batch.training.losses.charbonnier import charbonnier
from inpaint_batch.training.losses.colour import colour_consistency
from inpaint_batch.training.losses.contextual import contextual
from inpaint_batch.training.losses.frequency import focal_frequency
from inpaint_batch.training.losses.log_error import log_error
from inpaint_batch.training.losses.perceptual import perceptual
from inpaint_batch.training.losses.style import style
from inpaint_batch.training.losses.total_variation import total_variation
from inpaint_batch.training.losses.transition import smooth_transition

log = logging.getLogger(__name__)


class TotalLoss:
    """The weighted sum that the generator descends."""

    def __init__(self, config: TrainConfig, device: Device) -> None:
        """Reads the VGG weights where a loss needs them; without a file those losses are left out, once logged.

        Raises ConfigError where that leaves none.
        """
        self.weights = config.losses
        self.epsilon = config.charbonnier_epsilon
        self.device = device
        self.vgg = None
        if self.weights.needs_vgg and config.vgg_weights:
            self.vgg = device.place(load_vgg(Path(config.vgg_weights)))
        elif self.weights.needs_vgg:
            log.warning(
                "perceptual, style and contextual losses are off: vgg_weights does not name a file of VGG weights"
            )
        off = {"boundary_last", *(("perceptual", "style", "contextual") if self.vgg is None else ())}
        values = asdict(self.weights) | {"boundary": self.weights.boundary + self.weights.boundary_at(1.0)}
        self.names = [name for name, weight in values.items() if weight and name not in off]
        """Names of the parts that are computed."""
        if not self.names:
            raise ConfigError(
                "without vgg_weights there is no loss to learn by; name a file of them, or give another loss a weight"
            )

    def __call__(
        self, filled: Tensor, truth: Tensor, hole: Tensor, progress: float, adversary: Adversary | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the weighted sum and its parts, each without its weight.

        `filled`, `truth`: (B, 3, H, W) in [0, 1], float32; `hole`: (B, 1, H, W); `progress`: share of the run done.
        """
        parts: dict[str, Tensor] = {}
        if "charbonnier" in self.names:
            parts["charbonnier"] = charbonnier(filled, truth, hole, self.epsilon)
        if "log_error" in self.names:
            parts["log_error"] = log_error(filled, truth, hole)
        if "boundary" in self.names:
            parts["boundary"] = boundary(filled, truth, hole)
        if "total_variation" in self.names:
            parts["total_variation"] = total_variation(filled, hole)
        if "colour" in self.names:
            parts["colour"] = colour_consistency(filled, truth, hole)
        if "transition" in self.names:
            parts["transition"] = smooth_transition(filled, truth, hole)
        if "focal_frequency" in self.names:
            parts["focal_frequency"] = focal_frequency(filled, truth)
        if self.vgg is not None:
            parts |= self._vgg_parts(self.vgg, filled, truth)
        if adversary is not None:
            parts |= self._adversarial_parts(adversary, filled, truth, hole)
        weights = asdict(self.weights) | {"boundary": self.weights.boundary_at(progress)}
        return sum((weights[name] * part for name, part in parts.items()), filled.new_zeros(())), parts

    def _vgg_parts(self, vgg: VggFeatures, filled: Tensor, truth: Tensor) -> dict[str, Tensor]:
        with self.device.autocast():
            of_fill = vgg(filled)
            with torch.no_grad():
                of_truth = vgg(truth)
        of_fill, of_truth = [f.float() for f in of_fill], [f.float() for f in of_truth]
        parts = {}
        if "perceptual" in self.names:
            parts["perceptual"] = perceptual(of_fill, of_truth)
        if "style" in self.names:
            parts["style"] = style(of_fill, of_truth)
        if "contextual" in self.names:
            parts["contextual"] = contextual(of_fill, of_truth)
        return parts

    def _adversarial_parts(
        self, adversary: Adversary, filled: Tensor, truth: Tensor, hole: Tensor
    ) -> dict[str, Tensor]:
        scores, features = adversary.judge(filled, hole)
        parts = {}
        if "adversarial" in self.names:
            parts["adversarial"] = hinge_generator(scores, hole)
        if "feature_matching" in self.names:
            with torch.no_grad():
                _, real = adversary.judge(truth, hole)
            parts["feature_matching"] = feature_matching(features, real)
        return parts
