"""From a user's mask to the hole map of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes import mask_errors
from inpaint_batch.holes.distance import grow, ramp
from inpaint_batch.holes.orientation import Laying, lay_over
from inpaint_batch.holes.sparse import DENSE_MAP_PX, SparseMap, empty_map, mark, num_true
from inpaint_batch.types import BoolArray, Box, FloatArray, Header

Pieces = Iterator[tuple[Box, NDArray[np.uint8]]]
INVERSION_COVERAGE = 0.6
"""A mask that marks more than this share of the image is probably of the other polarity."""
TONE_BITS = 5
"""Tones are told apart by so many bits of a grey value."""
PHOTOGRAPH_TONES = 0.5
"""Where the two commonest tones make up less than this share of a mask, it is a photograph (docs/decisions.md)."""
STRAY_STEP_PX = 2
"""Of a mask every so manieth row and column is looked at for paint that marks nothing."""
STRAY_DARKEST, STRAY_SHARE, STRAY_OF_MARKED = 24, 0.5, 0.02
"""Such paint is brighter than that; one tone has that share of all between that and the threshold, where soft rims have
every tone; and it is that much of what is marked."""
STRAY_MIN_PX = 16
"""So much of it is seen at least."""
MIN_TONES_PX = 64
"""Of the shorter side of a mask whose tones are looked at; larger ones are sampled at this many places or more."""


@dataclass(frozen=True, slots=True, eq=False)
class HoleMap:
    """Which samples of one image may change, in the layout in which the file stores them."""

    hole: BoolArray | SparseMap
    """(h, w): every sample that may change: marked, dilated, and the rim in which fill and source are mixed."""
    marked: BoolArray | SparseMap
    """(h, w): what the mask marks, before dilation."""
    dilate_px: int
    feather_px: int
    num_hole_px: int
    """Number of true pixels in `hole`."""
    num_marked_px: int
    """Number of true pixels in `marked`."""
    orientation_by_rule: bool
    """The mask's size fits both the stored and the upright layout of an image with an orientation tag; it was taken as
    drawn on the upright view (see `holes/orientation.py`). Worth a warning in a check."""
    by_alpha: bool = False
    """The colours of the mask mark every pixel, so what is opaque in it counts: paint on a transparent layer."""
    num_unseen_px: int = 0
    """Pixels that the colours of the mask mark although they are fully transparent there: rubbed out, perhaps, by a
    program that keeps their colour or makes it white. Worth a warning."""
    stray_tone: int | None = None
    """Brightness of paint in the mask that is too dark to mark anything, such as strokes in red beside white ones; None
    where there is none. Worth a warning."""

    @property
    def num_pixels(self) -> int:
        """Of the image."""
        height_px, width_px = self.hole.shape
        return int(height_px * width_px)

    @property
    def num_bytes(self) -> int:
        """Memory that the maps take."""
        maps: list[BoolArray | SparseMap] = [self.hole] if self.marked is self.hole else [self.hole, self.marked]
        return sum(each.nbytes for each in maps)

    @property
    def coverage(self) -> float:
        """Share of the image in `hole`, 0..1."""
        return self.num_hole_px / self.num_pixels

    @property
    def suspected_inversion(self) -> bool:
        """Whether the mask marks so much that its polarity is probably the other one. A warning, not an error."""
        return self.num_marked_px > INVERSION_COVERAGE * self.num_pixels

    def weight(self, box: Box) -> FloatArray:
        """(box.height, box.width) float32 in [0, 1]: the share of the fill in each pixel; the rest is the source.

        1 in the dilated hole; across the feather rim it falls linearly with the distance, so that it would reach 0 one
        pixel beyond the rim; 0 outside `hole` and outside the image. One pixel has one weight, whatever the box.
        """
        weight = np.zeros((box.height, box.width), np.float32)
        inside = box.intersect(Box(0, 0, *self.hole.shape))
        if inside.area_px == 0:
            return weight
        hole = self.hole[inside.slices]
        if self.feather_px and hole.any():
            values = np.where(hole, ramp(self.marked, inside, self.dilate_px, self.feather_px), np.float32(0))
        else:
            values = hole.astype(np.float32)
        weight[inside.shift(-box.top, -box.left).slices] = values
        return weight


class MaskReader(Protocol):
    """A mask that is read piece by piece."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(h, w) of the whole mask."""
        ...

    @property
    def alpha(self) -> Callable[[], Pieces] | None:
        """As `pieces`, its alpha channel: 0 transparent to 255 opaque; None where it has none."""
        ...

    @property
    def num_bits(self) -> int:
        """Bits of a sample in its file; of more than 8 the upper 8 count."""
        ...

    def pieces(self) -> Pieces:
        """Grey values (box.height, box.width), box by box, until the whole mask was there."""
        ...


def hole_map(
    mask: NDArray[np.uint8] | MaskReader,
    mask_orientation: int,
    header: Header,
    config: RowConfig,
    *,
    dense_px: int = DENSE_MAP_PX,
) -> HoleMap:
    """The hole map that `mask` (h, w), 0..255, means for the image of `header`.

    White polarity: values above `mask_threshold` are marked; black polarity: all others are. The marked area is dilated
    by `dilate_px` and gets a rim of `feather_px`; a disc decides, so a pixel belongs to the hole if a marked one lies
    within `dilate_px + feather_px` of it. Where the colours mark every pixel, those are marked that are opaque (alpha
    above `mask_threshold`), if some are and some are not. Orientation is settled by the rule in `holes/orientation.py`.
    Of an image of more than `dense_px` pixels the maps are sparse, and no array as large as the image is made.

    Raises RowError(SIZE) where the mask does not fit the image, and RowError(MASK) where nothing (but see
    `RowConfig.empty_mask`) or all is hole, or the mask is a photograph; not so with another `mask_threshold` than the
    usual one, which says that greys are meant.
    """
    if len(mask.shape) != 2 or (isinstance(mask, np.ndarray) and mask.dtype != np.uint8):
        raise TypeError(f"a mask is (h, w) uint8, not {mask.shape} {getattr(mask, 'dtype', '')}")
    laying = lay_over((mask.shape[0], mask.shape[1]), mask_orientation, header)
    is_white, threshold = config.mask_polarity == "white", config.mask_threshold
    pieces = iter([(Box(0, 0, *mask.shape), mask)]) if isinstance(mask, np.ndarray) else mask.pieces()
    marked = empty_map((header.height_px, header.width_px), dense_px)
    tones, strays = np.zeros((2, 1 << TONE_BITS), np.int64)
    darkest, brightest = _mark(marked, _counted(pieces, tones, strays, min(mask.shape)), laying, is_white, threshold)
    num_marked_px = num_true(marked)
    none_or_all = num_marked_px in (0, header.num_pixels)
    by_alpha = False
    is_usual = config.mask_from == "file" and threshold == RowConfig().mask_threshold
    if is_usual and not none_or_all and np.sort(tones)[-2:].sum() < PHOTOGRAPH_TONES * tones.sum():
        raise RowError(FailureCode.MASK, mask_errors.PHOTOGRAPH)
    if none_or_all:
        opaque = _opaque(mask, laying, empty_map((header.height_px, header.width_px), dense_px), threshold)
        if num_marked_px == 0 or opaque is None:
            num_bits = 8 if isinstance(mask, np.ndarray) else mask.num_bits
            values = mask_errors.Values(darkest, brightest, num_bits, opaque is not None)
            means_nothing = num_marked_px == 0 and opaque is None and darkest == brightest
            if not (means_nothing and config.empty_mask == "copy"):
                raise RowError(FailureCode.MASK, mask_errors.explain(values, config, is_empty=num_marked_px == 0))
        else:
            marked, num_marked_px, by_alpha = opaque, num_true(opaque), True
    hole = grow(marked, config.dilate_px + config.feather_px)
    num_hole_px = num_true(hole)
    if num_hole_px == header.num_pixels:
        part = num_marked_px / header.num_pixels
        may_be_inverted = part > INVERSION_COVERAGE
        sentence = mask_errors.explain_grown(part, config, by_alpha=by_alpha, may_be_inverted=may_be_inverted)
        raise RowError(FailureCode.MASK, sentence)
    return HoleMap(
        hole=hole,
        marked=marked,
        dilate_px=config.dilate_px,
        feather_px=config.feather_px,
        num_hole_px=num_hole_px,
        num_marked_px=num_marked_px,
        orientation_by_rule=laying.by_rule,
        by_alpha=by_alpha,
        num_unseen_px=0 if none_or_all else _num_unseen(mask, laying, marked),
        stray_tone=_stray_tone(strays, threshold) if is_usual and is_white and not none_or_all else None,
    )


def _mark(
    marked: BoolArray | SparseMap, pieces: Pieces, laying: Laying, is_white: bool, threshold: int
) -> tuple[int, int]:
    """Mark what the mask marks; returns its smallest and its largest value."""
    darkest, brightest = 255, 0
    for box, grey in pieces:
        low, high = int(grey.min()), int(grey.max())
        darkest, brightest = min(darkest, low), max(brightest, high)
        if high <= threshold if is_white else low > threshold:
            continue  # marks nothing, as most pieces do
        above = laying.array(grey) > threshold
        mark(marked, laying.box(box), above if is_white else ~above)
    return darkest, brightest


def _counted(pieces: Pieces, tones: NDArray[np.int64], strays: NDArray[np.int64], side_px: int) -> Pieces:
    """The same pieces; on the way some of their pixels, evenly spread, are counted into `tones`, more into `strays`."""
    for box, grey in pieces:
        is_black = not grey.any()  # as most pieces are
        for counts, step in ((tones, side_px // MIN_TONES_PX), (strays, STRAY_STEP_PX)):
            if step and is_black:
                counts[0] += -(-grey.shape[0] // step) * -(-grey.shape[1] // step)
            elif step:
                counts += np.bincount((grey[::step, ::step] >> (8 - TONE_BITS)).ravel(), minlength=len(counts))
        yield box, grey


def _stray_tone(counts: NDArray[np.int64], threshold: int) -> int | None:
    """The brightness of paint that is too dark to mark anything, by how often each tone was counted."""
    first, end = STRAY_DARKEST >> (8 - TONE_BITS), threshold >> (8 - TONE_BITS)
    between, num_marked = counts[first:end], int(counts[end + 1 :].sum())
    most = int(between.max(initial=0))
    if most < max(STRAY_MIN_PX, STRAY_SHARE * between.sum(), STRAY_OF_MARKED * num_marked):
        return None
    tone = first + int(between.argmax())
    if tone == counts.argmax() or most < 2 * counts[tone - 1]:  # what the mask is painted on; the noise of a JPEG
        return None
    return tone << (8 - TONE_BITS)


def _opaque(
    mask: NDArray[np.uint8] | MaskReader, laying: Laying, opaque: BoolArray | SparseMap, threshold: int
) -> BoolArray | SparseMap | None:
    """`opaque`, which comes empty, with what is opaque in the mask marked; None where nothing or all of it is."""
    alpha = None if isinstance(mask, np.ndarray) else mask.alpha
    if alpha is None:
        return None
    _mark(opaque, alpha(), laying, True, threshold)
    return opaque if 0 < num_true(opaque) < opaque.shape[0] * opaque.shape[1] else None


def _num_unseen(mask: NDArray[np.uint8] | MaskReader, laying: Laying, marked: BoolArray | SparseMap) -> int:
    """How many marked pixels are fully transparent in the mask."""
    alpha = None if isinstance(mask, np.ndarray) else mask.alpha
    pieces = () if alpha is None else alpha()
    return sum(
        int(np.count_nonzero(marked[laying.box(box).slices] & (laying.array(piece) == 0)))
        for box, piece in pieces
        if not piece.all()
    )
