"""What makes crops more like what comes in: files that went through JPEG, film with grain, faded colours.

All of it is off unless the settings ask for it. Images are (side, side, 3) float32, RGB in [0, 1].
"""

from __future__ import annotations

import cv2
import numpy as np

from inpaint_batch.training.config import TrainConfig
from inpaint_batch.types import BoolArray, FloatArray

JPEG_QUALITY = (30, 95)
LARGEST_GRAIN = 0.05
"""Standard deviation of the coarsest grain."""


def augmented(rng: np.random.Generator, crop: FloatArray, hole: BoolArray, config: TrainConfig) -> FloatArray:
    """Colours shifted everywhere; JPEG and grain at known pixels only.

    The truth inside the hole stays clean: noise that nobody can predict teaches a network to blur.
    """
    if config.colour_jitter == "lab":
        crop = jitter_lab(rng, crop, config.jitter_strength)
    elif config.colour_jitter == "hsv":
        crop = jitter_hsv(rng, crop, config.jitter_strength)
    worn = crop
    if rng.random() < config.jpeg_share:
        worn = through_jpeg(worn, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)))
    if rng.random() < config.grain_share:
        worn = with_grain(rng, worn, float(rng.uniform(0.0, LARGEST_GRAIN)))
    return np.where(hole[..., None], crop, worn).astype(np.float32)


def through_jpeg(image: FloatArray, quality: int) -> FloatArray:
    """What a JPEG file of this quality (0..100) gives back."""
    samples = np.round(image[..., ::-1] * 255.0).astype(np.uint8)
    done, encoded = cv2.imencode(".jpg", samples, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded[..., ::-1].astype(np.float32) / np.float32(255.0)


def with_grain(rng: np.random.Generator, image: FloatArray, deviation: float) -> FloatArray:
    """Grain of this standard deviation in mid-tones, less in black and white; the same in all channels, as on film."""
    noise = cv2.GaussianBlur(rng.standard_normal(image.shape[:2]).astype(np.float32), (0, 0), 0.6)
    grain = noise / max(float(noise.std()), 1e-12)
    luma = image.mean(axis=2)
    strength = deviation * np.sqrt(np.clip(4.0 * luma * (1.0 - luma), 0.0, 1.0))
    return np.asarray(np.clip(image + (grain * strength)[..., None], 0.0, 1.0), np.float32)


def jitter_lab(rng: np.random.Generator, image: FloatArray, strength: float) -> FloatArray:
    """Lightness stretched about its mean and shifted; a and b shifted. In CIE L*a*b*, where equal steps look equal."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    shift = rng.uniform(-strength, strength, 3) * (50.0, 50.0, 50.0)
    mean = lab[..., 0].mean()
    lab[..., 0] = (lab[..., 0] - mean) * (1.0 + 2.0 * rng.uniform(-strength, strength)) + mean
    back = cv2.cvtColor((lab + shift).astype(np.float32), cv2.COLOR_Lab2RGB)
    return np.clip(back, 0.0, 1.0).astype(np.float32)


def jitter_hsv(rng: np.random.Generator, image: FloatArray, strength: float) -> FloatArray:
    """Hue turned, saturation multiplied, value multiplied."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)  # degrees, 0..1, 0..1
    hsv[..., 0] = (hsv[..., 0] + 360.0 * rng.uniform(-strength, strength)) % 360.0
    hsv[..., 1] = np.clip(hsv[..., 1] * (1.0 + 2.0 * rng.uniform(-strength, strength)), 0.0, 1.0)
    hsv[..., 2] = np.clip(hsv[..., 2] * (1.0 + rng.uniform(-strength, strength)), 0.0, 1.0)
    return np.clip(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), 0.0, 1.0).astype(np.float32)
