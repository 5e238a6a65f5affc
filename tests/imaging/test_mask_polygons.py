"""Which pixels a polygon holds, by hand and against slow or foreign ways of finding out."""

from __future__ import annotations

import numpy as np
import pycocotools.mask as tools
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import polygons
from inpaint_batch.imaging.polygons import Canvas


def painted(height_px: int, width_px: int, *polygon: list[tuple[float, float]]) -> list[str]:
    canvas = Canvas(height_px, width_px)
    canvas.polygon(*(np.array(ring, float) for ring in polygon[:1]), [np.array(ring, float) for ring in polygon[1:]])
    return ["".join("#" if value else "." for value in row) for row in canvas.mask]


def test_a_square_from_corner_to_corner() -> None:
    square = [(1, 1), (4, 1), (4, 3), (1, 3)]
    expected = [
        "......",
        ".###..",
        ".###..",
        "......",
    ]
    assert painted(4, 6, square) == expected
    assert painted(4, 6, square[::-1]) == expected
    assert painted(4, 6, [*square, square[0]]) == expected  # closed, as GeoJSON wants it


def test_a_triangle_takes_the_pixels_whose_centre_it_holds() -> None:
    assert painted(4, 5, [(0, 0), (4.2, 0), (0, 4.2)]) == ["####.", "###..", "##...", "#...."]
    assert painted(4, 5, [(0, 0), (4, 0), (0, 4)]) == ["###..", "##...", "#....", "....."]  # centres right on the edge
    assert painted(4, 5, [(4, 4), (4, 0), (0, 4)]) == ["...#.", "..##.", ".###.", "####."]  # belong to the other side


def test_what_holds_no_centre_marks_nothing_and_half_pixels_decide() -> None:
    assert painted(2, 3, [(0.6, 0.6), (1.4, 0.6), (1.4, 1.4), (0.6, 1.4)]) == ["...", "..."]
    assert painted(2, 3, [(0.5, 0.5), (1.5, 0.5), (1.5, 1.5), (0.5, 1.5)]) == ["#..", "..."]
    assert painted(2, 3, [(0.51, 0.5), (1.51, 0.5), (1.51, 1.5), (0.51, 1.5)]) == [".#.", "..."]


def test_holes_and_a_ring_that_crosses_itself() -> None:
    outer, inner = [(0, 0), (6, 0), (6, 5), (0, 5)], [(2, 1), (4, 1), (4, 4), (2, 4)]
    assert painted(5, 6, outer, inner) == ["######", "##..##", "##..##", "##..##", "######"]
    beyond = [(4, 1), (9, 1), (9, 4), (4, 4)]  # a hole that leaves its polygon takes nothing elsewhere
    assert painted(5, 8, outer, beyond) == ["######..", "####....", "####....", "####....", "######.."]
    bow = [(0, 0), (5, 4), (5, 0), (0, 4)]
    assert painted(4, 5, bow) == ["#...#", "##.##", "##.##", "#...#"]


def test_what_lies_outside_is_cut_off() -> None:
    assert painted(3, 3, [(-1e9, -1e9), (2e9, -1e9), (2e9, 1.5), (-1e9, 1.5)]) == ["###", "...", "..."]
    for away in ((-9, 0), (9, 0), (0, -9), (0, 9)):
        assert painted(3, 3, [(x + away[0], y + away[1]) for x, y in [(0, 0), (3, 0), (0, 3)]]) == ["..."] * 3
    assert painted(2, 4, [(-5, -5), (20, -5), (20, 20), (-5, 20)], [(1, -3), (2, -3), (2, 9), (1, 9)]) == ["#.##"] * 2


def test_polygons_are_joined_not_xored() -> None:
    canvas = Canvas(3, 4)
    for left in (0, 1):
        canvas.polygon(np.array([(left, 0), (left + 2, 0), (left + 2, 3), (left, 3)], float))
    assert canvas.mask.sum() == 9 * 255


eighths = st.floats(-3, 15, allow_nan=False).map(lambda value: round(value * 8) / 8)
coordinates = eighths | st.floats(-30, 40).map(lambda value: round(value, 9))  # shapely divides by zero below 1e-150
rings = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9)


def by_centre(ring: np.ndarray, x: float, y: float) -> bool:
    """The textbook's ray to the right, with plain numbers."""
    inside = False
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            inside ^= x0 + (y - y0) * ((x1 - x0) / (y1 - y0)) <= x
    return inside


@given(rings)
def test_any_ring_is_what_a_ray_from_each_centre_says(ring: list[tuple[float, float]]) -> None:
    points = np.array(ring)
    canvas = Canvas(10, 13)
    canvas.polygon(points)
    expected = [[by_centre(points, x + 0.5, y + 0.5) for x in range(13)] for y in range(10)]
    np.testing.assert_array_equal(canvas.mask == 255, expected)


@given(rings, rings)
def test_a_simple_polygon_is_what_shapely_says(
    ring: list[tuple[float, float]], hole: list[tuple[float, float]]
) -> None:
    outer, inner = shapely.Polygon(ring), shapely.Polygon(hole)
    if not outer.is_valid or not inner.is_valid:
        return
    area = outer.difference(inner)
    canvas = Canvas(10, 13)
    canvas.polygon(np.array(ring), [np.array(hole)])
    y, x = np.mgrid[0:10, 0:13] + 0.5
    off_the_edge = shapely.distance(shapely.points(x, y), shapely.union(outer.boundary, inner.boundary)) > 1e-9
    np.testing.assert_array_equal((canvas.mask == 255)[off_the_edge], shapely.contains_xy(area, x, y)[off_the_edge])


@given(st.lists(st.tuples(st.floats(0, 12), st.floats(0, 9)), min_size=1, max_size=4))
def test_a_fan_of_triangles_covers_its_square_once(points: list[tuple[float, float]]) -> None:
    """Areas that share an edge share no pixel and leave none out."""
    covered = np.zeros((9, 12), int)
    corners = [(0.0, 0.0), (12.0, 0.0), (12.0, 9.0), (0.0, 9.0)]
    middle = points[0]
    for start, end in zip(corners, [*corners[1:], corners[0]], strict=True):
        canvas = Canvas(9, 12)
        canvas.polygon(np.array([start, end, middle]))
        covered += canvas.mask == 255
    np.testing.assert_array_equal(covered, 1)


def test_large_areas_are_painted_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    ring, hole = rng.uniform(-20, 220, (60, 2)), rng.uniform(0, 200, (40, 2))
    whole = Canvas(200, 190)
    whole.polygon(ring, [hole])
    monkeypatch.setattr(polygons, "_BAND_PIXELS", 700)
    monkeypatch.setattr(polygons, "_CROSSINGS_AT_ONCE", 50)
    banded = Canvas(200, 190)
    banded.polygon(ring, [hole])
    assert 0 < whole.mask.mean() < 255
    np.testing.assert_array_equal(banded.mask, whole.mask)


def test_a_zigzag_without_end_is_refused_before_it_is_drawn() -> None:
    canvas = Canvas(10_000, 10)
    zigzag = np.tile([(0.0, -5.0), (9.0, 20_000.0)], (60_000, 1))
    with pytest.raises(RowError, match="simplify") as caught:
        canvas.polygon(zigzag)
    assert caught.value.code is FailureCode.MASK
    assert not canvas.mask.any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # theirs, with NumPy 2
def test_coco_tools_mark_the_same_but_for_rounding_at_the_edge() -> None:
    """They round coordinates to fifths of a pixel, so only pixels whose centre is that near to an edge may differ."""
    rng = np.random.default_rng(11)
    num_different = num_marked = 0
    for _ in range(40):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 17))
        ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(10, 28, (17, 1)) + rng.uniform(
            28, 34, 2
        )
        canvas = Canvas(64, 64)
        canvas.polygon(ring)
        theirs = tools.decode(tools.merge(tools.frPyObjects([ring.ravel().tolist()], 64, 64))).astype(bool)
        different = theirs != (canvas.mask == 255)
        y, x = np.argwhere(different).T + 0.5
        near = shapely.distance(shapely.points(x, y), shapely.Polygon(ring).exterior)
        assert near.max(initial=0) < 0.5
        num_different += int(different.sum())
        num_marked += int(theirs.sum())
    assert num_different < 0.02 * num_marked
