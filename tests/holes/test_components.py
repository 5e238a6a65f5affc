import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from inpaint_batch.holes import components
from inpaint_batch.holes.components import Hole, find_holes
from inpaint_batch.types import Box


def drawn(*boxes: Box, shape: tuple[int, int] = (200, 300)) -> np.ndarray:
    hole = np.zeros(shape, np.bool_)
    for box in boxes:
        hole[box.slices] = True
    return hole


@pytest.mark.parametrize(
    ("box", "depth_px"),
    [
        (Box(10, 20, 5, 5), 3.0),
        (Box(10, 20, 1, 1), 1.0),
        (Box(10, 20, 1, 90), 1.0),
        (Box(10, 20, 2, 90), 1.0),
        (Box(60, 60, 9, 200), 5.0),  # over a border of blocks
        (Box(0, 20, 5, 100), 5.0),  # touches the upper border: nothing is known there
        (Box(195, 0, 5, 100), 5.0),
        (Box(0, 0, 5, 5), 5.0),  # (0, 0) to (5, 0)
        (Box(0, 0, 200, 30), 30.0),  # from border to border
    ],
)
def test_depth_of_a_box(box: Box, depth_px: float) -> None:
    assert find_holes(drawn(box)) == [Hole(box, box.area_px, depth_px)]


def test_depth_of_a_diamond_is_no_whole_number() -> None:
    rows, columns = np.indices((21, 21))
    diamond = abs(rows - 10) + abs(columns - 10) <= 4
    [hole] = find_holes(diamond)
    assert hole.area_px == 41
    assert hole.depth_px == pytest.approx(np.sqrt(13))  # from the centre to (3, 2), just outside


def test_diagonal_neighbours_are_one_hole() -> None:
    assert len(find_holes(drawn(Box(62, 62, 2, 2), Box(64, 64, 2, 2)))) == 1
    assert len(find_holes(drawn(Box(62, 62, 2, 2), Box(65, 65, 2, 2)))) == 2


def test_a_hole_around_a_hole() -> None:
    frame = drawn(Box(20, 20, 160, 200)) & ~drawn(Box(23, 23, 154, 194)) | drawn(Box(100, 100, 5, 5))
    assert [(hole.box, hole.depth_px) for hole in find_holes(frame)] == [
        (Box(20, 20, 160, 200), 2.0),
        (Box(100, 100, 5, 5), 3.0),
    ]


def test_no_hole_and_all_hole() -> None:
    assert find_holes(np.zeros((70, 90), np.bool_)) == []
    assert find_holes(np.ones((70, 90), np.bool_)) == [Hole(Box(0, 0, 70, 90), 6300, float("inf"))]


def test_order_is_top_then_left() -> None:
    boxes = [Box(10, 250, 3, 3), Box(100, 5, 3, 3), Box(100, 50, 3, 3), Box(150, 0, 3, 3)]
    assert [hole.box for hole in find_holes(drawn(*reversed(boxes)))] == boxes


def by_hand(hole: np.ndarray) -> list[Hole]:
    """Flood fill, and every pixel against every known one."""
    left = {(int(row), int(column)) for row, column in zip(*np.nonzero(hole), strict=True)}
    known = np.argwhere(~hole)
    found = []
    while left:
        todo = [left.pop()]
        members = []
        while todo:
            row, column = todo.pop()
            members.append((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            todo += near
        pixels = np.array(members)
        (top, first), (bottom, last) = pixels.min(axis=0), pixels.max(axis=0)
        squared = ((pixels[:, None] - known[None]) ** 2).sum(axis=-1).min(axis=1).max() if len(known) else np.inf
        box = Box(int(top), int(first), int(bottom - top + 1), int(last - first + 1))
        found.append(Hole(box, len(members), float(np.sqrt(np.float32(squared)))))
    return sorted(found, key=lambda each: (each.box, each.area_px, each.depth_px))


@given(
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)),
    hnp.arrays(np.bool_, (20, 20)),
    st.sampled_from([1, 3, 4, 64]),
)
def test_equals_the_definition(first: np.ndarray, second: np.ndarray, block_px: int) -> None:
    hole = first & second[: first.shape[0], : first.shape[1]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(components, "BLOCK_PX", block_px)
        assert find_holes(hole) == by_hand(hole)
        patch.setattr(components, "TILE_PX", block_px)  # many tiles, joined over their borders
        assert find_holes(hole) == by_hand(hole)


def solid(sides: list[tuple[int, int, int, int]], specks: list[tuple[int, int]]) -> np.ndarray:
    """Boxes that may overlap and leave the image, with known specks in them."""
    image = Box(0, 0, 40, 44)
    hole = drawn(*(Box(*each).intersect(image) for each in sides), shape=(40, 44))
    for row, column in specks:
        hole[row, column] = False
    return hole


@settings(max_examples=60)
@given(
    st.builds(
        solid,
        st.lists(st.tuples(*[st.integers(0, 39)] * 2, *[st.integers(1, 40)] * 2), min_size=1, max_size=4),
        st.lists(st.tuples(*[st.integers(0, 39)] * 2), max_size=3),
    )
)
def test_deep_holes_are_measured_in_cells(hole: np.ndarray) -> None:
    """Up to `EXACT_DEPTH_PX` to the pixel; beyond, the corners of two cells lie between the estimate and the truth."""
    with pytest.MonkeyPatch.context() as patch:
        sizes = {"BLOCK": 4, "TILE": 8, "CELL": 2, "EXACT_DEPTH": 4, "THIN": 1, "THIN_TILE": 4}
        for name, size in sizes.items():
            patch.setattr(components, f"{name}_PX", size)
        found, true = find_holes(hole), by_hand(hole)
    assert [(each.box, each.area_px) for each in found] == [(each.box, each.area_px) for each in true]
    for each, depth_px in zip(found, (each.depth_px for each in true), strict=True):
        if depth_px <= 4 or np.isinf(depth_px):
            assert each.depth_px == depth_px
        else:
            assert each.depth_px == pytest.approx(depth_px, abs=np.sqrt(2) + 1e-6)


def test_holes_that_face_each_other_across_an_empty_tile_are_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their blocks are one group, by way of the row of blocks below."""
    monkeypatch.setattr(components, "BLOCK_PX", 4)
    monkeypatch.setattr(components, "TILE_PX", 4)
    boxes = [Box(1, 3, 1, 1), Box(1, 8, 1, 1), Box(6, 2, 1, 8)]
    assert [hole.box for hole in find_holes(drawn(*boxes, shape=(8, 12)))] == boxes


def test_as_many_holes_as_a_tile_can_hold() -> None:
    """More than 16 bits can count, as in the screen of a halftone."""
    hole = np.zeros((512, 512), np.bool_)
    hole[::2, ::2] = True
    found = find_holes(hole)
    assert len(found) == 256 * 256
    assert {(each.area_px, each.depth_px) for each in found} == {(1, 1.0)}
