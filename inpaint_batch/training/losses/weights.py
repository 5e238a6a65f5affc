"""How much each loss counts. No torch here: the settings of a run are read without it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from inpaint_batch.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossWeights:
    """Weights of the losses, the table `[losses]` of the settings. A loss of weight 0 is not computed."""

    charbonnier: float = 1.0
    """Error of each missing pixel."""
    log_error: float = 0.0
    """Logarithm of the squared error: the PSNR inside the hole itself, for the end of a run."""
    boundary: float = 0.1
    """Gradients near the rim of the hole. The published recipe takes 5."""
    boundary_last: float | None = None
    """Where `boundary` goes, in a straight line over the run (the published recipe: 10). Unset: it stays."""
    total_variation: float = 0.0
    """Differences of neighbouring pixels in the fill: calms noise, blurs texture."""
    colour: float = 0.0
    """Mean colour of the fill in cells of 16 pixels."""
    transition: float = 0.0
    """Local brightness and contrast in a band around the rim."""
    focal_frequency: float = 0.0
    """Spectrum of the image, with most weight on the frequencies that are furthest off."""
    perceptual: float = 0.0
    """VGG features (the published recipe: 0.05). Needs `vgg_weights`."""
    style: float = 0.0
    """Gram matrices of VGG features (the published recipe: 30). Needs `vgg_weights`."""
    contextual: float = 0.0
    """VGG features of the truth found somewhere in the fill, wherever. Needs `vgg_weights`."""
    adversarial: float = 0.0
    """Hinge loss against a discriminator that is trained beside the generator."""
    feature_matching: float = 0.0
    """Features of that discriminator: texture without VGG weights."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"losses.{field.name} must not be negative, not {value}")
        if not any(getattr(self, field.name) for field in fields(self)):
            raise ConfigError("all losses are 0: there is nothing to learn by")

    @property
    def needs_vgg(self) -> bool:
        """Whether a loss on VGG features is asked for."""
        return self.perceptual > 0 or self.style > 0 or self.contextual > 0

    @property
    def needs_discriminator(self) -> bool:
        """Whether a loss on the discriminator is asked for."""
        return self.adversarial > 0 or self.feature_matching > 0

    def boundary_at(self, progress: float) -> float:
        """Weight of the boundary loss at `progress` (0..1) of the run."""
        last = self.boundary if self.boundary_last is None else self.boundary_last
        return self.boundary + (last - self.boundary) * progress
