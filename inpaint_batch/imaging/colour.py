"""Between the samples of a file and the RGB that engines see.

Grey and RGB of 8 and 16 bits are exact there and back, for every value. Elsewhere only the fill is ever translated
back: a palette index is the nearest opaque entry, light that is stored multiplied by alpha is so again, ink is what
the profile of the file or, without one, the ink around the hole says, and 32-bit samples lie between the levels that
were found in the image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import ink
from inpaint_batch.types import BoolArray, FloatArray, Header, SampleArray

_CHUNK_PIXELS = 1 << 13
"""Pixels compared with a whole palette at once: 256 entries then take 8 MiB."""
_MAX_ENTRIES = 256
_OPAQUE = 255
_COLOUR_SPACE = slice(16, 20)
"""Where an ICC profile says what it describes."""


def as_ink_profile(profile: bytes) -> bytes:
    """`profile` if its head says that it is an ICC profile of CMYK, else nothing."""
    return profile if profile[_COLOUR_SPACE] == b"CMYK" else b""


def samples_to_rgb(samples: SampleArray, header: Header) -> FloatArray:
    """RGB float32 (h, w, 3) in [0, 1] of file samples (h, w, bands): grey is replicated, alpha left out.

    Samples beyond `header.levels` are clipped, and NaN is black: a hole in the data must not reach an engine.
    """
    colours = samples[..., : header.num_colours]
    if header.model == "palette":
        return _palette_colours(header)[np.minimum(colours[..., 0], _MAX_ENTRIES - 1)]
    if header.model == "ink":
        return _ink_to_rgb(colours, header)
    rgb = np.empty((*samples.shape[:2], 3), np.float32)
    if header.is_premultiplied:
        alpha = samples[..., -1:]
        rgb[...] = 0
        np.divide(colours, alpha, out=rgb, where=alpha > 0, dtype=np.float32)
        return np.minimum(rgb, np.float32(1), out=rgb)
    if header.levels is None:
        np.divide(colours, np.float32(header.white), out=rgb, dtype=np.float32)
        return rgb
    black, white = header.levels
    # In double precision: 32-bit integers have more digits than float32, and float32 may overflow on the way.
    rgb[...] = np.clip(np.nan_to_num((colours.astype(np.float64) - black) / (white - black)), 0.0, 1.0)
    return rgb


def is_absent(samples: SampleArray, header: Header) -> BoolArray | None:
    """(h, w): pixels of file samples (h, w, bands) that have no value: NaN, or what the file names as such in all
    bands. None where there are none, and for palettes and few bits, whose every value is a colour.
    """
    if header.model == "palette" or _has_few_bits(header) or (header.dtype != "float32" and header.no_data is None):
        return None
    colours = samples[..., : header.num_colours]
    absent = np.zeros(samples.shape[:2], np.bool_)
    for band in range(header.num_colours if header.dtype == "float32" else 0):
        absent |= np.isnan(colours[..., band])
    if header.no_data is not None:
        with np.errstate(over="ignore"):  # it may be beyond what the type can hold
            absent |= (colours == header.no_data).all(axis=2)
    return absent if absent.any() else None


def known_rgb(samples: SampleArray, header: Header) -> FloatArray:
    """As `samples_to_rgb`, but NaN where nobody knows a colour: where pixels are absent, or light is stored multiplied
    by an alpha of 0.
    """
    rgb = samples_to_rgb(samples, header)
    absent = is_absent(samples, header)
    if absent is not None:
        rgb[absent] = np.nan
    if header.is_premultiplied:
        rgb[samples[..., -1] == 0] = np.nan
    return rgb


def mend_rim(samples: SampleArray, original_samples: SampleArray, weight: FloatArray, header: Header) -> SampleArray:
    """`samples`, in which fill and source were mixed as RGB, with what the source lost on that way: of what lies beyond
    the levels its share, and pixels without a value as they were. All are (h, w, bands), but `weight` of the fill
    (h, w).
    """
    original = original_samples[..., : header.num_colours]
    share = 1 - weight.astype(np.float64)[..., None]
    if header.levels is not None and not _has_few_bits(header):
        low, high = sorted(header.levels)
        exact = original.astype(np.float64)
        with np.errstate(invalid="ignore"):  # of infinity, where it has no share
            beyond = np.where(share > 0, share * (exact - np.clip(exact, low, high)), 0)
        mixed = samples[..., : header.num_colours] + beyond
        samples[..., : header.num_colours] = mixed if samples.dtype.kind == "f" else np.rint(mixed)
    absent = is_absent(original_samples, header)
    if absent is not None:
        np.copyto(samples[..., : header.num_colours], original, where=absent[..., None] & (share > 0))
    return samples


def rgb_to_samples(
    rgb: FloatArray,
    original_samples: SampleArray,
    header: Header,
    hole: BoolArray | None = None,
    black: ink.Black = ink.AS_MUCH_AS_POSSIBLE,
) -> SampleArray:
    """File samples (h, w, bands) of RGB float32 (h, w, 3), clipped to [0, 1] and rounded to the nearest step.

    Grey is the mean of the three channels; alpha is that of `original_samples` (h, w, bands). Only samples under `hole`
    (h, w) are needed; the others may be the original ones. `black` is for CMYK without a profile.
    Raises `RowError` (nonfinite) where `rgb` holds NaN or infinity.
    """
    if not np.isfinite(rgb).all():
        raise RowError(
            FailureCode.NONFINITE, "The engine returned NaN or infinity; try --precision fp32 or another engine."
        )
    samples = original_samples.copy()
    if header.model != "light":  # a table or a profile is asked for every pixel
        needed = np.ones(rgb.shape[:2], np.bool_) if hole is None else hole
        wanted = rgb[needed][None]
        found = _nearest_entry(wanted, header) if header.model == "palette" else _rgb_to_ink(wanted, header, black)
        samples[needed, : header.num_colours] = found[0]
        return samples
    # Not `mean`, which takes ten times as long along so short an axis.
    colours = (rgb[..., :1] + rgb[..., 1:2] + rgb[..., 2:]) / np.float32(3) if header.num_colours == 1 else rgb
    colours = np.clip(colours, 0.0, 1.0)
    if header.is_premultiplied:
        steps = np.rint(colours * samples[..., -1:].astype(np.float32))
    elif header.levels is None:
        steps = np.rint(colours * np.float32(header.white))
    else:
        low, high = header.levels
        steps = low + colours.astype(np.float64) * (high - low)
        if samples.dtype.kind != "f":
            steps = np.rint(steps)
    filled = steps.astype(samples.dtype)
    if header.no_data is not None and filled.dtype.kind in "ui" and not _has_few_bits(header):
        filled[(filled == header.no_data).all(axis=2), -1] ^= filled.dtype.type(1)  # a fill is a value
    samples[..., : header.num_colours] = filled
    return samples


def rgb_step(header: Header) -> float | None:
    """One step of the samples in RGB of 0..1; None where there is nothing between two colours: palettes, few bits."""
    if header.model == "palette" or _has_few_bits(header):
        return None
    if header.levels is None:
        return 1 / header.white
    black, white = header.levels
    return 1 / (white - black) if header.dtype in ("uint32", "int32") else 0.0


def robust_levels(samples: SampleArray) -> tuple[float, float]:
    """Values that stand for black and white among samples (any shape) of no fixed range, such as 32-bit floats.

    All finite samples but the outermost thousandth on each side lie between them. Both differ, whatever the samples.
    """
    finite = samples[np.isfinite(samples)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(finite.astype(np.float64), [0.001, 0.999], method="nearest"))
    if low < high:
        return low, high
    step = max(1.0, abs(low))  # towards zero, where the type has room
    return (low - step, low) if low > 0 else (low, low + step)


def is_bilevel(header: Header) -> bool:
    """Whether samples are black or white and nothing between."""
    return header.model == "light" and _has_few_bits(header) and header.levels == (0, 1)


def _has_few_bits(header: Header) -> bool:
    """Whether samples have 1, 2 or 4 bits."""
    return header.levels is not None and header.dtype == "uint8"


def _palette_entries(header: Header) -> NDArray[np.uint8]:
    return np.frombuffer(header.palette, np.uint8).reshape(-1, 4)


def _palette_colours(header: Header) -> FloatArray:
    """(256, 3) RGB in [0, 1]; entries that the file does not define are black."""
    entries = _palette_entries(header)
    table = np.zeros((_MAX_ENTRIES, 3), np.float32)
    table[: len(entries)] = entries[:, :3] / np.float32(255)
    return table


def _nearest_entry(rgb: FloatArray, header: Header) -> NDArray[np.uint8]:
    """(h, w, 1) indices of the entries closest to `rgb` in sRGB, first of equals; transparent ones only where there are
    not two opaque colours, or every fill would be of one colour.
    """
    entries = _palette_entries(header)
    (usable,) = np.nonzero(entries[:, 3] == _OPAQUE)
    if not (entries[usable] != entries[usable[:1]]).any():
        usable = np.arange(len(entries))
    # Whole numbers, so that ties are ties on every machine.
    colours = entries[usable, :3].astype(np.int32)
    pixels = np.rint(np.clip(rgb, 0.0, 1.0) * np.float32(255)).astype(np.int32).reshape(-1, 3)
    nearest = np.empty(len(pixels), np.uint8)
    for start in range(0, len(pixels), _CHUNK_PIXELS):
        chunk = pixels[start : start + _CHUNK_PIXELS]
        distance = np.zeros((len(chunk), len(colours)), np.int32)
        for band in range(3):
            distance += (chunk[:, band, None] - colours[:, band]) ** 2
        nearest[start : start + len(chunk)] = usable[distance.argmin(axis=1)]
    return nearest.reshape(*rgb.shape[:2], 1)


def has_simple_inks(header: Header) -> bool:
    """Whether samples are CMYK of which no profile says what they look like."""
    if header.model != "ink":
        return False
    if not header.ink_profile:
        return True
    from inpaint_batch.imaging import ink_profile  # brings libvips, which few files need

    return not ink_profile.is_usable(header.ink_profile)


def _ink_to_rgb(inks: SampleArray, header: Header) -> FloatArray:
    if has_simple_inks(header):
        return ink.light_of(np.asarray(inks / np.float32(header.white), np.float32))
    from inpaint_batch.imaging import ink_profile

    return ink_profile.ink_to_rgb(inks, header.ink_profile)


def _rgb_to_ink(rgb: FloatArray, header: Header, black: ink.Black) -> SampleArray:
    clipped = np.clip(rgb, np.float32(0), np.float32(1))
    if has_simple_inks(header):
        steps: FloatArray = np.rint(ink.inks_of(clipped, black) * np.float32(header.white))
        return steps.astype(np.uint8) if header.dtype == "uint8" else steps.astype(np.uint16)
    from inpaint_batch.imaging import ink_profile

    return ink_profile.rgb_to_ink(clipped, header.ink_profile, header.dtype)
