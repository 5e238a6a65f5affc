"""Which specks count: alone, in crowds, at the border, and among others of the other polarity."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.holes.specks import SpeckLimits, _quantiles, find_specks

LIMITS = SpeckLimits(threshold=5, min_contrast=0.01, min_area_px=4, min_size_px=1, max_size_px=12)
SIDE_PX = 160


def ground(seed: int = 0) -> np.ndarray:
    return 0.5 + 0.01 * np.random.default_rng(seed).standard_normal((SIDE_PX, SIDE_PX), np.float32)


def with_specks(places: list[tuple[int, int]], contrast: float, side_px: int = 4) -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros((SIDE_PX, SIDE_PX), bool)
    for top, left in places:
        truth[top : top + side_px, left : left + side_px] = True
    return ground() + np.float32(contrast) * truth, truth


def test_specks_close_to_each_other_are_no_uneven_ground():
    crowd = [(top, left) for top in range(40, 100, 9) for left in range(40, 100, 9)]
    grey, truth = with_specks(crowd, 0.3)
    bright, dark = find_specks(grey, LIMITS)
    assert bright[truth].mean() > 0.8
    assert not dark.any()


def test_a_speck_ends_where_it_meets_something_fainter():
    grey, truth = with_specks([(80, 80)], 0.3)
    grey[82:84, 20:140] += np.float32(0.08)  # a faint line through it, which would make it long
    grey[80:84, 80:84] = 0.8
    bright, _ = find_specks(grey, LIMITS)
    assert bright[truth].mean() > 0.8
    assert bright.sum() < 2 * truth.sum()


@pytest.mark.parametrize("top", [0, 2])
def test_nothing_is_known_of_what_lies_at_the_border(top):
    grey, _ = with_specks([(top, 80)], 0.3)
    assert not find_specks(grey, LIMITS)[0].any()


def test_on_uneven_ground_specks_of_the_other_polarity_explain_a_speck():
    places = [(top, left) for top in range(30, 130, 25) for left in range(30, 130, 25)]
    grey, truth = with_specks(places, 0.3)
    for top, left in places:  # a slope that MAX_UNEVEN allows and EVEN does not
        grey[top - 6 : top + 10, left - 6 : left + 10] += np.linspace(0, 0.15, 16, dtype=np.float32)
    assert find_specks(grey, LIMITS)[0][truth].mean() > 0.8
    dark_places = [(top + 12, left + 12) for top, left in places]
    for top, left in dark_places:
        grey[top : top + 4, left : left + 4] -= np.float32(0.49)  # they stand out more
    bright, dark = find_specks(grey, LIMITS)
    assert bright[truth].mean() < 0.1
    assert dark.any()  # these lie on even ground


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values, part):
    array = np.array(values, np.float32)
    assert _quantiles(array, part)[0] == pytest.approx(float(np.quantile(array.astype(np.float64), part)), abs=1e-6)
