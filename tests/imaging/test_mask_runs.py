"""Run-length encodings, by hand, against pycocotools, and broken ones."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pycocotools.mask as tools
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.polygons import Canvas
from inpaint_batch.imaging.runs import coco_runs, pair_runs

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, with NumPy 2

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def painted(height_px: int, width_px: int, runs: np.ndarray) -> np.ndarray:
    canvas = Canvas(height_px, width_px)
    canvas.runs(runs)
    return canvas.mask == 255


def lengths_of(mask: np.ndarray) -> list[int]:
    """Unmarked and marked in turn, down the columns."""
    flat = mask.ravel(order="F").astype(int)
    turns = np.flatnonzero(np.diff(flat, prepend=0))
    return np.diff(turns, prepend=0, append=flat.size).tolist()


def test_lengths_go_down_the_columns_and_begin_unmarked() -> None:
    expected = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0]], bool)
    np.testing.assert_array_equal(painted(3, 3, coco_runs([2, 1, 1, 4, 1], 9, "m")), expected)
    np.testing.assert_array_equal(painted(3, 3, coco_runs([0, 9], 9, "m")), True)
    np.testing.assert_array_equal(painted(3, 3, coco_runs([9], 9, "m")), False)
    np.testing.assert_array_equal(
        painted(3, 3, coco_runs([4, 0, 1, 1, 3, 0], 9, "m")), np.eye(9)[5].reshape(3, 3).T > 0
    )


def test_the_packed_text_by_hand() -> None:
    # 6 | 1 | 40 | 4 | 40 + 9: "6", "1", "X1" (40 = 8 + 32), 4 - 1 = 3 "3", and 49 - 40 = 9 "9"
    np.testing.assert_array_equal(coco_runs("61X139", 100, "m"), [[6, 7], [47, 51]])
    # 20 needs a second character, since its bit 16 would read as a sign: 20 | 32 is "d", then "0"; and -3 is "M"
    np.testing.assert_array_equal(coco_runs("d050M2", 20 + 5 + 0 + 2 + 2, "m"), [[20, 25], [25, 27]])


@given(masks)
def test_what_pycocotools_packs_is_read(mask: np.ndarray) -> None:
    packed = tools.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(painted(*mask.shape, coco_runs(packed, mask.size, "m")), mask)
    np.testing.assert_array_equal(painted(*mask.shape, coco_runs(lengths_of(mask), mask.size, "m")), mask)


def test_long_runs_are_packed_in_many_characters() -> None:
    mask = np.zeros((3000, 2000), np.uint8, order="F")
    mask[17:2990, 3:1990:7] = 1
    mask[:, 1000:1700] = 1
    packed = tools.encode(mask)["counts"].decode()
    np.testing.assert_array_equal(painted(3000, 2000, coco_runs(packed, mask.size, "m")), mask == 1)


@given(masks)
def test_pairs_of_start_and_length_are_read(mask: np.ndarray) -> None:
    lengths = lengths_of(mask)
    starts = np.cumsum(lengths)[::2] + 1
    words = [f"{start} {length}" for start, length in zip(starts, lengths[1::2], strict=False)]
    text = "\r\n".join(words).encode()
    if words:
        np.testing.assert_array_equal(painted(*mask.shape, pair_runs(text, mask.size, "m")), mask)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=12))
def test_runs_may_overlap_touch_and_be_empty(pairs: list[tuple[int, int]]) -> None:
    runs = np.array([(first, first + length) for first, length in pairs], np.int64).reshape(-1, 2)
    expected = np.zeros(50, bool)
    for first, end in runs:
        expected[first:end] = True
    np.testing.assert_array_equal(painted(5, 10, runs), expected.reshape(10, 5).T)


def test_several_encodings_are_joined() -> None:
    canvas = Canvas(3, 3)
    canvas.runs(np.array([[0, 2]]))
    canvas.runs(np.array([[1, 4]]))
    assert (canvas.mask == 255).sum() == 4


BROKEN = {
    "too short": ([3, 2], "add up"),
    "too long": ([3, 7], "add up"),
    "beyond any number": ([3, 1 << 70], "neither"),
    "negative": ([11, -2], "neither"),
    "fractions": ([4.5, 4.5], "neither"),
    "truth": ([True, 8], "neither"),
    "nothing": (None, "neither"),
    "no list": ({"a": 1}, "neither"),
    "empty list": ([], "add up"),
    "empty text": ("", "packing"),
    "foreign signs": ("né", "packing"),
    "low signs": ("1 2", "packing"),
    "high signs": ("19\x7f", "packing"),
    "cut off": ("1o", "packing"),
    "a number without end": ("oooooooo1", "longer than any image"),
    "a number without end among others": ("oooooooo18", "longer than any image"),
    "negative packed": ("1M", "add up"),
    "negative packed, but the sum is right": ("<M", "add up"),  # 12 and -3
    "runs back": ("5112M2", "add up"),
    "huge sum": ("ooooo0" * 6, "add up"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_lengths_are_refused(name: str) -> None:
    counts, words = BROKEN[name]
    with pytest.raises(RowError, match=words) as caught:
        coco_runs(counts, 9, "masks/a.json")
    assert caught.value.code is FailureCode.MASK
    assert "masks/a.json" in caught.value.message


@given(st.text(st.characters(min_codepoint=0, max_codepoint=140), max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(RowError):
        runs = coco_runs(text, 60, "m")
        assert painted(6, 10, runs).sum() == (runs[:, 1] - runs[:, 0]).sum()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"1 2 3", "pairs"),
        (b"0 2", "count from 1"),
        (b"8 3", "count from 1"),
        (b"1 99999999999999999", "count from 1"),
        (b"1 2 0 3", "count from 1"),
        (b"1 2 8 3", "count from 1"),
        (b"1 999999999999999999", "count from 1"),
        (b"9999999999999999999 1", "digits"),  # more than 64 bits hold
        (b"1 2 -1", "more than"),
        (b"1.5 2", "more than"),
    ],
)
def test_broken_pairs_are_refused(text: bytes, words: str) -> None:
    with pytest.raises(RowError, match=words):
        pair_runs(text, 9, "m")
