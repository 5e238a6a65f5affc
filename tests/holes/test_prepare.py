import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.holes.prepare import HoleMap, hole_map
from inpaint_batch.types import Box, Header


def prepare(mask: np.ndarray, orientation: int = 1, mask_orientation: int = 1, **options: object) -> HoleMap:
    header = Header("png", mask.shape[1], mask.shape[0], 3, "uint8", False, orientation)
    return hole_map(mask, mask_orientation, header, RowConfig(**options))


class InPieces:
    """A mask that is read a few rows at a time."""

    num_bits = 8

    def __init__(self, grey: np.ndarray, alpha: np.ndarray | None = None, num_rows: int = 2) -> None:
        self.shape, self._num_rows = grey.shape, num_rows
        self.pieces = lambda: self._pieces(grey)
        self.alpha = None if alpha is None else lambda: self._pieces(alpha)

    def _pieces(self, values: np.ndarray) -> Iterator[tuple[Box, np.ndarray]]:
        for top in range(0, len(values), self._num_rows):
            rows = values[top : top + self._num_rows]
            yield Box(top, 0, *rows.shape), rows


@given(
    hnp.arrays(np.bool_, (7, 5), elements=st.sampled_from([False, False, True])),
    st.sampled_from(["white", "black"]),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_a_mask_in_pieces_is_the_same_mask(marks: np.ndarray, polarity: str, orientation: int, num_rows: int) -> None:
    marks[6, 4], marks[0, 0] = True, False
    mask = np.where(marks, 200, 50).astype(np.uint8)
    header = Header("png", *((7, 5) if orientation >= 5 else (5, 7)), 3, "uint8", False, orientation)
    config = RowConfig(mask_polarity=polarity)
    whole = hole_map(mask, 1, header, config)
    assert whole.num_marked_px == (marks if polarity == "white" else ~marks).sum()
    pieces = hole_map(InPieces(mask, num_rows=num_rows), 1, header, config)
    np.testing.assert_array_equal(pieces.marked, whole.marked)
    assert pieces.num_hole_px == whole.num_hole_px


def test_threshold_is_the_last_black_value() -> None:
    mask = np.array([[0, 126, 127, 128, 255]], np.uint8)
    np.testing.assert_array_equal(prepare(mask).hole, [[False, False, False, True, True]])
    np.testing.assert_array_equal(prepare(mask, mask_polarity="black").hole, [[True, True, True, False, False]])
    np.testing.assert_array_equal(prepare(mask, mask_threshold=0).hole, [[False, True, True, True, True]])
    np.testing.assert_array_equal(prepare(mask, mask_threshold=254).hole, [[False, False, False, False, True]])


@given(hnp.arrays(np.uint8, (4, 5)), st.integers(0, 254))
def test_polarities_are_complements(mask: np.ndarray, threshold: int) -> None:
    mask[0, 0], mask[0, 1] = 0, 255
    white = prepare(mask, mask_threshold=threshold)
    black = prepare(mask, mask_threshold=threshold, mask_polarity="black")
    np.testing.assert_array_equal(white.hole, ~black.hole)
    assert white.num_hole_px + black.num_hole_px == 20
    assert white.coverage + black.coverage == pytest.approx(1)


def test_the_noise_of_a_jpeg_mask_is_no_hole() -> None:
    clean = np.zeros((64, 96), np.uint8)
    clean[19:37, 21:50] = 255
    file = io.BytesIO()
    Image.fromarray(clean).save(file, "JPEG", quality=60)
    noisy = np.asarray(Image.open(file))
    assert len(np.unique(noisy)) > 2
    np.testing.assert_array_equal(prepare(noisy).hole, clean > 0)


def test_dilation_and_feather_make_one_disc() -> None:
    mask = np.zeros((21, 21), np.uint8)
    mask[10, 10] = 255
    assert prepare(mask, dilate_px=3).num_hole_px == 29
    assert prepare(mask, dilate_px=2, feather_px=3).num_hole_px == 81
    assert prepare(mask, dilate_px=2, feather_px=3).num_marked_px == 1


def test_weight_falls_linearly_across_the_rim() -> None:
    mask = np.zeros((11, 21), np.uint8)
    mask[5, 10] = 255
    weight = prepare(mask, dilate_px=2, feather_px=3).weight(Box(0, 0, 11, 21))
    assert weight.dtype == np.float32
    np.testing.assert_array_equal(weight[5, 10:17], np.float32([1, 1, 1, 0.75, 0.5, 0.25, 0]))
    assert weight[5 + 3, 10 + 3] == pytest.approx((6 - np.sqrt(18)) / 4)
    assert weight[5 + 4, 10 + 4] == 0  # 5.66 px away: nearer than 6, but not in the disc of 5


def test_without_feather_the_weight_is_the_hole() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:5, 3] = 255
    prepared = prepare(mask, dilate_px=1)
    np.testing.assert_array_equal(prepared.weight(Box(0, 0, 9, 9)), prepared.hole.astype(np.float32))


def test_maps_that_are_one_take_their_memory_once() -> None:
    mask = np.zeros((9, 7), np.uint8)
    mask[4, 4] = 255
    assert prepare(mask).num_bytes == 63
    assert prepare(mask, dilate_px=1).num_bytes == 2 * 63


@given(
    hnp.arrays(np.bool_, (17, 23), elements=st.sampled_from([False] * 9 + [True])),
    st.integers(0, 4),
    st.integers(0, 6),
    st.tuples(st.integers(-5, 16), st.integers(-5, 22), st.integers(1, 24), st.integers(1, 24)),
)
def test_a_weight_does_not_depend_on_the_box(
    marked: np.ndarray, dilate_px: int, feather_px: int, sides: tuple[int, int, int, int]
) -> None:
    try:
        prepared = prepare(marked.astype(np.uint8) * 255, dilate_px=dilate_px, feather_px=feather_px)
    except RowError:  # nothing or all is hole
        return
    box = Box(*sides)
    padded = np.zeros((17 + 60, 23 + 60), np.float32)
    whole = prepared.weight(Box(0, 0, 17, 23))
    padded[30:47, 30:53] = whole
    np.testing.assert_array_equal(prepared.weight(box), padded[box.shift(30, 30).slices])
    np.testing.assert_array_equal(whole > 0, prepared.hole)
    assert (whole[marked] == 1).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_hole_map_has_the_stored_layout(orientation: int) -> None:
    stored = np.zeros((4, 6), np.uint8)
    stored[0, :3] = stored[1, 0] = 255
    image = Image.new("L", (6, 4))
    image.getexif()[0x0112] = orientation
    turned = orientation >= 5
    header = Header("tiff", 6, 4, 1, "uint16", False, orientation)
    # undo the viewer's turn by hand for one tag of each kind
    upright = {
        1: stored, 2: np.fliplr(stored), 3: np.rot90(stored, 2), 4: np.flipud(stored),
        5: stored.T, 6: np.rot90(stored, 3), 7: np.rot90(stored, 2).T, 8: np.rot90(stored),
    }[orientation]  # fmt: skip
    assert upright.shape == ((6, 4) if turned else (4, 6))
    prepared = hole_map(upright, 1, header, RowConfig())
    np.testing.assert_array_equal(prepared.hole, stored > 0)
    assert prepared.hole.flags.c_contiguous
    assert prepared.orientation_by_rule is (orientation in (2, 3, 4))


def soft(width_px: int) -> np.ndarray:
    """A disc on black whose rim falls off over so many pixels."""
    rows, columns = np.ogrid[:200, :300]
    distance = np.hypot(rows - 100, columns - 150)
    return np.clip(255 * (80 - distance) / width_px, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("polarity", ["white", "black"])
def test_a_photograph_is_no_mask(polarity: str) -> None:
    photograph = np.add.outer(np.arange(200), np.arange(300) // 3).astype(np.uint8)
    photograph[20:30, 50:200] = 255  # with strokes painted on it
    with pytest.raises(RowError, match=r"a photograph.*name that copy as image.*--mask-threshold") as caught:
        prepare(photograph, mask_polarity=polarity)
    assert caught.value.code is FailureCode.MASK
    assert prepare(photograph, mask_polarity=polarity, mask_threshold=128).num_hole_px > 0
    assert prepare(photograph[:63], mask_polarity=polarity).num_hole_px > 0  # too small to be told by its tones


@pytest.mark.parametrize("mask", [soft(1), soft(60), 255 - soft(60), np.where(soft(1) > 0, 200, 90).astype(np.uint8)])
def test_soft_and_grey_masks_are_masks(mask: np.ndarray) -> None:
    assert prepare(mask).num_hole_px == np.count_nonzero(mask > 127)


@pytest.mark.parametrize(("tone", "told"), [(76, 72), (29, 24), (110, 104), (150, None), (12, None)])
def test_paint_that_is_too_dark_to_mark_is_told(tone: int, told: int | None) -> None:
    mask = soft(3)
    mask[20:25, 10:120] = tone
    assert prepare(mask).stray_tone == told
    assert prepare(np.where(mask > 0, mask, 40).astype(np.uint8), mask_threshold=126).stray_tone is None  # greys meant
    assert prepare(mask, mask_polarity="black").stray_tone is None


def test_rims_grounds_and_the_noise_of_a_jpeg_are_no_paint() -> None:
    strokes = np.zeros((200, 300), np.uint8)
    for column in range(20, 280, 20):
        strokes[20:180, column : column + 3] = 255
    small = Image.fromarray(strokes)
    jpeg = io.BytesIO()
    small.save(jpeg, "JPEG", quality=50)
    thin = small.rotate(7, Image.Resampling.BICUBIC).resize((150, 100), Image.Resampling.BICUBIC)
    for mask in (soft(60), np.asarray(Image.open(jpeg)), np.asarray(thin), np.where(strokes, 255, 90).astype(np.uint8)):
        assert prepare(mask).stray_tone is None


@pytest.mark.parametrize(("share", "is_photograph"), [(0.3, False), (0.24, True)])
def test_two_tones_must_make_up_half_of_a_mask(share: float, is_photograph: bool) -> None:
    """Three tones of the same share, and 26 others that share the rest."""
    rows = np.repeat(np.arange(3, 29), 100)
    rows[: 3 * round(100 * share) * 26] = np.repeat([0, 30, 31], round(100 * share) * 26)
    mask = np.tile(rows.astype(np.uint8)[:, None] * 8, (1, 64))
    if is_photograph:
        with pytest.raises(RowError, match="a photograph"):
            prepare(mask)
    else:
        assert prepare(mask).num_hole_px > 0
    assert prepare(mask, mask_from="alpha").num_hole_px > 0  # of transparency no photograph is made


@pytest.mark.parametrize(("polarity", "value"), [("white", 255), ("black", 0)])
def test_a_mask_that_marks_everything_is_not_taken_for_an_empty_one(polarity: str, value: int) -> None:
    everything = np.full((20, 30), value, np.uint8)
    with pytest.raises(RowError, match="marks the whole image") as caught:
        prepare(everything, mask_polarity=polarity, empty_mask="copy")
    assert caught.value.code == FailureCode.MASK
    assert prepare(255 - everything, mask_polarity=polarity, empty_mask="copy").num_hole_px == 0


def test_a_mask_whose_alpha_has_a_shape_is_not_taken_for_an_empty_one() -> None:
    """Black paint on a transparent layer, without being told that black is meant."""
    alpha = np.zeros((6, 8), np.uint8)
    alpha[2:4, 3] = 255
    painted, header = InPieces(np.zeros_like(alpha), alpha), Header("png", 8, 6, 3, "uint8", False)
    with pytest.raises(RowError, match="its alpha channel has a shape"):
        hole_map(painted, 1, header, RowConfig(empty_mask="copy"))
    assert hole_map(painted, 1, header, RowConfig(empty_mask="copy", mask_polarity="black")).num_hole_px == 2


@pytest.mark.parametrize("polarity", ["white", "black"])
def test_an_empty_mask_is_an_error(polarity: str) -> None:
    with pytest.raises(RowError, match="marks no hole") as caught:
        prepare(np.full((4, 4), 0 if polarity == "white" else 255, np.uint8), mask_polarity=polarity)
    assert caught.value.code is FailureCode.MASK


@pytest.mark.parametrize("polarity", ["white", "black"])
def test_a_full_mask_is_an_error(polarity: str) -> None:
    with pytest.raises(RowError, match="marks the whole image") as caught:
        prepare(np.full((4, 4), 255 if polarity == "white" else 0, np.uint8), mask_polarity=polarity)
    assert caught.value.code is FailureCode.MASK


ADVICE = "draw one, or say --empty-mask copy where images without damage are to be copied"
EMPTY_OR_FULL = [
    # values, options, what is said
    ((0, 0), {}, "the mask marks no hole (white is hole; all of it is 0); " + ADVICE),
    ((255, 255), {"mask_polarity": "black"}, "the mask marks no hole (black is hole; all of it is 255); " + ADVICE),
    (
        (0, 1),
        {},
        "the mask marks no hole (white is hole; its values are 0..1, the threshold is 127); --mask-threshold 0 would "
        "part them, or draw another",
    ),
    (
        (10, 90),
        {"mask_polarity": "black"},
        "the mask marks the whole image as hole (black is hole; its values are 10..90, the threshold is 127); "
        "--mask-threshold 50 would part them, or draw another",
    ),
    (
        (255, 255),
        {},
        "the mask marks the whole image as hole (white is hole; all of it is 255); nothing known is left to fill it "
        "from: draw another",
    ),
]


@pytest.mark.parametrize(("values", "options", "told"), EMPTY_OR_FULL)
def test_what_is_said_of_a_mask_that_marks_nothing_or_all_is_true(
    values: tuple[int, int], options: dict[str, Any], told: str
) -> None:
    mask = np.full((4, 4), values[0], np.uint8)
    mask[1, 2] = values[1]
    with pytest.raises(RowError) as caught:
        prepare(mask, **options)
    assert caught.value.message == told
    if "would part them" in told:
        threshold = int(told.partition("--mask-threshold ")[2].split()[0])
        assert prepare(mask, **{**options, "mask_threshold": threshold}).num_hole_px in (1, 15)


def test_a_colour_or_transparency_that_is_nowhere_is_named() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[0, 0] = 255 - 8 * 16
    far = "name the colour that the damage is painted in, or a mask file"
    told = {
        (
            "#ff00ff",
            "white",
            1,
        ): "no pixel of the image has the colour #ff00ff; the nearest is 16 of 255 off, and 15 are "
        f"allowed (--mask-threshold): {far}",
        ("#ff00ff", "white", 0): f"no pixel of the image has the colour #ff00ff; {far}",
        (
            "#ff00ff",
            "black",
            0,
        ): "no pixel of the image has the colour #ff00ff, and with --mask-polarity black all others "
        f"are the hole; {far}",
        (
            "alpha",
            "white",
            0,
        ): "no pixel of the image is transparent; make transparent what is missing and nothing else, "
        "or name a mask file",
    }
    for (mask_from, polarity, near), message in told.items():
        with pytest.raises(RowError) as caught:
            prepare(mask * near, mask_from=mask_from, mask_polarity=polarity)
        assert caught.value.message == message
    assert prepare(mask, mask_from="#ff00ff", mask_threshold=126).num_hole_px == 1
    with pytest.raises(RowError, match="every pixel of the image has the colour #ff00ff;"):
        prepare(np.full_like(mask, 255), mask_from="#ff00ff")


def test_a_hole_that_grows_over_all_is_an_error() -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 255
    with pytest.raises(RowError, match="smaller values") as caught:
        prepare(mask, dilate_px=3, feather_px=4)
    assert caught.value.code is FailureCode.MASK


def test_an_inverted_mask_that_grows_over_the_whole_image_is_told_to_be_one() -> None:
    scratches = np.full((40, 40), 255, np.uint8)
    scratches[:, 7:9] = 0
    with pytest.raises(RowError, match="marks 95% of it; if that is inverted, say --mask-polarity black; else") as told:
        prepare(scratches, dilate_px=2)
    assert told.value.code is FailureCode.MASK
    assert prepare(scratches, dilate_px=2, mask_polarity="black").num_marked_px == 80
    with pytest.raises(RowError, match="covers the whole image; choose smaller values"):
        prepare(255 - scratches, dilate_px=40)


def test_inversion_is_suspected_from_the_mask_and_not_from_dilation() -> None:
    mask = np.zeros((10, 10), np.uint8)
    mask[:6] = 255
    assert not prepare(mask).suspected_inversion
    assert not prepare(mask, dilate_px=3).suspected_inversion
    assert prepare(mask, dilate_px=3).coverage == pytest.approx(0.9)
    mask[6, 0] = 255
    assert prepare(mask).suspected_inversion


def test_another_size_is_an_error() -> None:
    with pytest.raises(RowError, match="5 × 4 px, the mask 4 × 4 px") as caught:
        hole_map(np.zeros((4, 4), np.uint8), 1, Header("png", 5, 4, 3, "uint8", False), RowConfig())
    assert caught.value.code is FailureCode.SIZE


def test_sides_that_are_swapped_are_told() -> None:
    image = Header("png", 5, 4, 3, "uint8", False)
    with pytest.raises(RowError, match=r"5 × 4 px, the mask 4 × 5 px; its sides are swapped: turn it by a quarter$"):
        hole_map(np.zeros((5, 4), np.uint8), 1, image, RowConfig())
    with pytest.raises(RowError, match=r"its sides are swapped: turn it by a quarter, or correct its orientation tag$"):
        hole_map(np.zeros((4, 5), np.uint8), 6, image, RowConfig())
    turned = Header("png", 5, 4, 3, "uint8", False, orientation=6)  # 4 × 5 px to a viewer
    with pytest.raises(RowError, match=r"the image is 4 × 5 px, the mask 5 × 4 px as .*its sides are swapped"):
        hole_map(np.zeros((5, 4), np.uint8), 6, turned, RowConfig())


def test_other_arrays_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="uint8"):
        prepare(np.zeros((4, 4), np.bool_))
