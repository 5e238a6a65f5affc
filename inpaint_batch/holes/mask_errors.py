"""What to say of a mask that marks nothing, or everything, and what to do about it."""

from __future__ import annotations

from typing import NamedTuple

from inpaint_batch.config import MaskPolarity, RowConfig
from inpaint_batch.imaging.mask_json import NOTHING_DRAWN

PHOTOGRAPH = (
    "the mask looks like a photograph, not like white marks on black; save the marks alone. Where they are painted on "
    "a copy of the image, name that copy as image, and their colour, such as #ff0000, as mask in a manifest. If greys "
    "are meant, give another --mask-threshold than 127"
)
"""What to say of a mask that is one."""


def other_polarity(polarity: MaskPolarity) -> MaskPolarity:
    """What to say where the mask was meant the other way round."""
    return "black" if polarity == "white" else "white"


def if_inverted(polarity: MaskPolarity, *, by_alpha: bool) -> str:
    """What to do about a mask of which too much is marked, by what is opaque in it (`by_alpha`) or by its colours."""
    advice = "save its alpha channel as a grey PNG" if by_alpha else f"say --mask-polarity {other_polarity(polarity)}"
    return f"if that is inverted, {advice}"


class Values(NamedTuple):
    """What a mask holds."""

    darkest: int
    """0 black to 255 white, as is `brightest`."""
    brightest: int
    num_bits: int
    """Bits of a sample in its file; of more than 8 the upper 8 count."""
    has_shape_in_alpha: bool
    """Some of it is opaque and some is transparent."""


def explain(values: Values, config: RowConfig, *, is_empty: bool) -> str:
    """One sentence on a mask that marks no pixel (`is_empty`) or every pixel of its image.

    To turn the polarity around would only turn one into the other, unless alpha has a shape.
    """
    if config.mask_from != "file":
        return _explain_drawn(values, config, is_empty)
    marks = "marks no hole" if is_empty else "marks the whole image as hole"
    depth = f" in the upper 8 of its {values.num_bits} bits, which count" if values.num_bits > 8 else ""
    if values.darkest == values.brightest:
        found = f"all of it is {values.darkest}{depth}"
    else:
        found = f"its values are {values.darkest}..{values.brightest}{depth}, the threshold is {config.mask_threshold}"
    told = f"the mask {marks} ({config.mask_polarity} is hole; {found})"
    if values.has_shape_in_alpha:
        other = other_polarity(config.mask_polarity)
        return (
            f"{told}; its alpha channel has a shape: to fill what is opaque say --mask-polarity {other}, to fill what "
            "is transparent save that channel as a grey PNG, white where pixels are missing"
        )
    if values.darkest < values.brightest:
        return f"{told}; --mask-threshold {(values.darkest + values.brightest) // 2} would part them, or draw another"
    if depth and values.brightest == 0:
        return f"{told}; draw one, with 65535 for white: labels such as 0 and 1 need a file of 8 bits"
    return f"{told}; " + (NOTHING_DRAWN if is_empty else "nothing known is left to fill it from: draw another")


def explain_grown(part: float, config: RowConfig, *, by_alpha: bool, may_be_inverted: bool) -> str:
    """One sentence on a hole that covers the whole image once it is grown, of which the mask marks `part`, 0..1."""
    told = f"grown by dilate {config.dilate_px} px and feather {config.feather_px} px the hole covers the whole image"
    if may_be_inverted:
        advice = if_inverted(config.mask_polarity, by_alpha=by_alpha)
        return f"{told}, as the mask alone marks {part:.0%} of it; {advice}; else choose smaller values"
    return f"{told}; choose smaller values"


def _explain_drawn(values: Values, config: RowConfig, is_empty: bool) -> str:
    """Of a mask that is drawn in the image itself."""
    is_white = config.mask_polarity == "white"
    no_pixel = is_empty == is_white
    others = "" if is_white else ", and with --mask-polarity black all others are the hole"
    if config.mask_from == "alpha":
        told = f"{'no' if no_pixel else 'every'} pixel of the image is transparent{others}"
        return f"{told}; make transparent what is missing and nothing else, or name a mask file"
    told = f"{'no' if no_pixel else 'every'} pixel of the image has the colour {config.mask_from}{others}"
    advice = "name the colour that the damage is painted in, or a mask file"
    if no_pixel and values.brightest:
        off, allowed = (255 - values.brightest) // 8, (254 - config.mask_threshold) // 8
        advice = f"the nearest is {off} of 255 off, and {allowed} are allowed (--mask-threshold): {advice}"
    return f"{told}; {advice}"
