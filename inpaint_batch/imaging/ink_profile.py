"""CMYK to sRGB and back through the ICC profile of a file, by libvips and its colour management."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from inpaint_batch.imaging import vips
from inpaint_batch.types import FloatArray, SampleArray, SampleType


@lru_cache(maxsize=16)
def is_usable(profile: bytes) -> bool:
    """Whether colours can be translated through the profile both ways; some are damaged, some go one way only."""
    probe = np.zeros((1, 1, 4), np.uint8)
    try:
        rgb_to_ink(ink_to_rgb(probe, profile), profile, "uint8")
    except vips.Error:
        return False
    return True


def ink_to_rgb(inks: SampleArray, profile: bytes) -> FloatArray:
    """sRGB float32 (h, w, 3) in [0, 1] of inks (h, w, 4) uint8 or uint16. Raises `vips.Error` for a useless profile."""
    image = vips.with_profile(vips.from_samples(inks, "cmyk"), profile)
    in_srgb = image.icc_import(embedded=True, intent="relative").icc_export(output_profile="srgb", depth=16)
    return np.asarray(vips.array(in_srgb) / np.float32(65535), np.float32)


def rgb_to_ink(rgb: FloatArray, profile: bytes, dtype: SampleType) -> SampleArray:
    """Inks (h, w, 4) in `dtype` (uint8, uint16) of sRGB float32 (h, w, 3) in [0, 1]. Raises `vips.Error` likewise."""
    steps = np.rint(rgb * np.float32(65535)).astype(np.uint16)
    in_lab = vips.from_samples(steps, "rgb16").icc_import(input_profile="srgb", intent="relative")
    depth = 8 if dtype == "uint8" else 16
    return vips.array(vips.with_profile(in_lab, profile).icc_export(intent="relative", depth=depth))
