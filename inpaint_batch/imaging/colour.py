"""Between the samples of a file and the RGB that engines see. Exact there and back, for every 8- and 16-bit value."""

from __future__ import annotations

import numpy as np

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.types import FloatArray, Header, SampleArray


def samples_to_rgb(samples: SampleArray, header: Header) -> FloatArray:
    """RGB float32 (h, w, 3) in [0, 1] of file samples (h, w, bands): grey is replicated, alpha left out."""
    colours = samples[..., : header.num_colours]
    rgb = np.empty((*samples.shape[:2], 3), np.float32)
    np.divide(colours, np.float32(_white(header)), out=rgb, dtype=np.float32)
    return rgb


def rgb_to_samples(rgb: FloatArray, original_samples: SampleArray, header: Header) -> SampleArray:
    """File samples (h, w, bands) of RGB float32 (h, w, 3), clipped to [0, 1] and rounded to the nearest step.

    Grey is the mean of the three channels; alpha is that of `original_samples` (h, w, bands).
    Raises `RowError` (nonfinite) where `rgb` holds NaN or infinity.
    """
    if not np.isfinite(rgb).all():
        raise RowError(
            FailureCode.NONFINITE, "The engine returned NaN or infinity; try --precision fp32 or another engine."
        )
    colours = rgb.mean(axis=2, keepdims=True) if header.num_colours == 1 else rgb
    samples = original_samples.copy()
    steps = np.rint(np.clip(colours, 0.0, 1.0) * np.float32(_white(header)))
    samples[..., : header.num_colours] = steps.astype(samples.dtype)
    return samples


def _white(header: Header) -> int:
    return 255 if header.dtype == "uint8" else 65535
