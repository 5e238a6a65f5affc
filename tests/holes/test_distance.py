import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inpaint_batch.holes import distance
from inpaint_batch.holes.distance import distance_px, grow

MAPS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=24))


def by_hand(inside: np.ndarray) -> np.ndarray:
    """Every pixel against every false pixel."""
    rows, columns = np.indices(inside.shape)
    false_rows, false_columns = np.nonzero(~inside)
    if not len(false_rows):
        return np.full(inside.shape, np.inf, np.float32)
    squared = (rows[..., None] - false_rows) ** 2 + (columns[..., None] - false_columns) ** 2
    return np.sqrt(squared.min(axis=-1).astype(np.float32))


@given(MAPS)
def test_distance_equals_the_definition(inside: np.ndarray) -> None:
    np.testing.assert_array_equal(distance_px(inside), by_hand(inside))


def test_distance_is_exact_on_a_large_map() -> None:
    inside = np.ones((700, 900), np.bool_)
    inside[0, 0] = False
    rows, columns = np.indices(inside.shape)
    np.testing.assert_array_equal(distance_px(inside), np.sqrt((rows**2 + columns**2).astype(np.float32)))


@pytest.mark.parametrize(("radius_px", "num_px"), [(0, 1), (1, 5), (2, 13), (3, 29), (5, 81)])
def test_a_point_grows_to_a_disc(radius_px: int, num_px: int) -> None:
    """The numbers of grid points in a circle (Gauss): 1, 5, 13, 29, 49, 81."""
    marked = np.zeros((15, 15), np.bool_)
    marked[7, 7] = True
    grown = grow(marked, radius_px)
    assert grown.sum() == num_px
    np.testing.assert_array_equal(grown, grown.T)
    np.testing.assert_array_equal(grown, grown[::-1])


@given(MAPS, st.integers(1, 9), st.integers(1, 9))
def test_growing_does_not_depend_on_the_tiles(marked: np.ndarray, radius_px: int, tile_px: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distance, "TILE_PX", tile_px)
        tiled = grow(marked, radius_px)
    np.testing.assert_array_equal(tiled, by_hand(~marked) <= radius_px)
