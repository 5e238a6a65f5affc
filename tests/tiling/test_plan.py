from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling_cases import hole_maps

from inpaint_batch.config import TilingConfig
from inpaint_batch.holes.components import Hole, find_holes
from inpaint_batch.holes.sparse import SparseMap
from inpaint_batch.tiling.boxes import Window
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.tiling.pyramid import coarse_box, level_size, reduce_hole
from inpaint_batch.tiling.quadtree import _merge_neighbours, cover
from inpaint_batch.types import BoolArray, Box

CONFIG = TilingConfig(bridge_depth_px=48, second_start_px=0)
CONFIGS = st.sampled_from(
    [
        CONFIG,
        TilingConfig(margin_px=0),
        TilingConfig(buckets_px=(32, 64), margin_px=12, bridge_depth_px=9, second_start_px=4),
    ]
)


def plan(hole: BoolArray, config: TilingConfig = CONFIG) -> list[Window]:
    return plan_windows(hole, find_holes(hole), config)


def cost(windows: list[Window]) -> int:
    return sum(tile.side_px**2 for window in windows for level in window.levels for tile in level.tiles)


def num_tiles(windows: list[Window]) -> int:
    return sum(len(level.tiles) for window in windows for level in window.levels)


@settings(max_examples=60, deadline=None)
@given(hole=hole_maps(), config=CONFIGS)
def test_every_hole_sample_lies_in_exactly_one_core_and_every_tile_has_a_hole(
    hole: BoolArray, config: TilingConfig
) -> None:
    windows = plan(hole, config)
    answered = np.zeros(hole.shape, dtype=np.int32)
    for window in windows:
        assert [level.scale_log2 for level in window.levels] == list(range(len(window.levels)))[::-1]
        for level in window.levels:
            image = Box(0, 0, *level_size(*hole.shape, level.scale_log2))
            region = coarse_box(window.box, level.scale_log2)
            at_level = reduce_hole(hole, region, level.scale_log2)
            count = np.zeros(at_level.shape, dtype=np.int32)
            for tile in level.tiles:
                assert region.contains(tile.core)
                core = tile.core.shift(-region.top, -region.left).slices
                assert at_level[core].any()
                count[core] += 1
                if level.scale_log2 == 0:
                    answered[tile.core.slices] += 1
                assert tile.side_px in config.buckets_px
                assert (tile.box.height, tile.box.width) == (tile.side_px, tile.side_px)
                assert tile.box.contains(tile.core.expand(config.margin_px).intersect(image))
                for start, stop, size in (
                    (tile.box.top, tile.box.bottom, image.height),
                    (tile.box.left, tile.box.right, image.width),
                ):
                    assert (start >= 0 and stop <= size) if size >= tile.side_px else (start <= 0 and stop >= size)
            assert count.max(initial=0) <= 1
            assert (count[at_level] == 1).all()
    assert answered.max() == 1
    assert (answered[hole] == 1).all()
    for number, window in enumerate(windows):
        assert all(window.box.intersect(other.box).area_px == 0 for other in windows[number + 1 :])


@settings(max_examples=20, deadline=None)
@given(hole=hole_maps(300))
def test_the_plan_does_not_depend_on_the_order_of_the_holes(hole: BoolArray) -> None:
    holes = find_holes(hole)
    assert plan_windows(hole, holes[::-1], CONFIG) == plan_windows(hole, holes, CONFIG)


@settings(max_examples=30, deadline=None)
@given(hole=hole_maps())
def test_a_map_of_blocks_has_the_same_plan(hole: BoolArray) -> None:
    blocks = SparseMap((hole.shape[0], hole.shape[1]))
    blocks.add(Box(0, 0, *hole.shape), hole)
    assert plan_windows(blocks, find_holes(blocks), CONFIG) == plan(hole)


@pytest.mark.parametrize(
    ("depth_px", "levels"),
    [
        (10, [(0, 0.0)]),
        (10.1, [(1, 0.0), (0, 0.5)]),
        (24, [(1, 0.0), (0, 0.5)]),
        (24.1, [(2, 0.0), (1, 0.5), (0, 1.0)]),  # 12 px deep at 1/2
        (90, [(3, 0.0), (2, 0.5), (1, 1.0), (0, 1.0)]),  # 22.5 px at 1/4
    ],
)
def test_a_deep_hole_starts_at_two_levels(depth_px: float, levels: list[tuple[int, float]]) -> None:
    hole = np.zeros((700, 700), dtype=np.bool_)
    hole[300:400, 300:400] = True
    (found,) = find_holes(hole)
    (window,) = plan_windows(hole, [replace(found, depth_px=depth_px)], TilingConfig())
    assert [(level.scale_log2, level.prior_weight) for level in window.levels] == levels


def test_an_image_of_one_small_tile_has_no_coarser_level() -> None:
    hole = np.zeros((64, 64), dtype=np.bool_)
    hole[10:50, 10:50] = True
    (window,) = plan(hole, TilingConfig())
    assert [(level.scale_log2, level.prior_weight) for level in window.levels] == [(0, 0.0)]


def test_holes_all_over_a_256_px_image_are_one_tile() -> None:
    hole = np.zeros((256, 256), dtype=np.bool_)
    hole[2::11, 3::9] = True
    (window,) = plan(hole)
    ((tile,),) = (level.tiles for level in window.levels)
    assert tile.box == Box(0, 0, 256, 256)


def test_a_small_scratch_is_one_small_tile_centred_on_it() -> None:
    hole = np.zeros((900, 900), dtype=np.bool_)
    hole[400:403, 500:514] = True
    (window,) = plan(hole)
    ((tile,),) = (level.tiles for level in window.levels)
    assert tile.core == window.box == Box(400, 500, 3, 14)
    assert tile.box == Box(369, 475, 64, 64)


@pytest.mark.parametrize("shape", [(40, 500), (20, 20), (1, 1), (100, 64)])
def test_an_image_smaller_than_its_tile_lies_at_the_tiles_corner(shape: tuple[int, int]) -> None:
    hole = np.zeros(shape, dtype=np.bool_)
    hole[0, 0] = True
    (window,) = plan(hole)
    (tile,) = window.levels[0].tiles
    assert (tile.box.top, tile.box.left) == (0, 0)


def test_far_specks_stay_apart_and_near_ones_share_a_tile() -> None:
    hole = np.zeros((600, 600), dtype=np.bool_)
    hole[100, 100] = hole[110, 108] = True
    hole[100, 400] = hole[100, 450] = True
    assert [window.box for window in plan(hole)] == [Box(100, 100, 11, 9), Box(100, 400, 1, 1), Box(100, 450, 1, 1)]


def _specks(height: int, width: int, count: int) -> BoolArray:
    rng = np.random.default_rng(7)
    hole = np.zeros((height, width), dtype=np.bool_)
    hole[rng.integers(0, height, count), rng.integers(0, width, count)] = True
    return hole


@pytest.mark.parametrize(
    ("side", "most_tiles"),
    [(1000, 40), (3000, 320), (9000, 4800)],
)
def test_dense_specks_share_tiles(side: int, most_tiles: int) -> None:
    hole = _specks(side, side, 5000)
    windows = plan_windows(hole, [Hole(Box(int(r), int(c), 1, 1), 1, 1.0) for r, c in np.argwhere(hole)], CONFIG)
    assert num_tiles(windows) <= most_tiles
    assert cost(windows) <= 5000 * 64**2


@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 62, 90])
def test_a_long_scratch_costs_its_length_and_not_its_box(degrees: int) -> None:
    length, centre = 3000, 1600
    step = length / 2 * np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
    hole = np.zeros((2 * centre, 2 * centre), dtype=np.uint8)
    first, last = (tuple(round(v) for v in centre + sign * step) for sign in (-1, 1))
    cv2.line(hole, first, last, 1, thickness=3)
    assert num_tiles(plan(hole.astype(np.bool_))) <= 2 * length / (256 - 2 * CONFIG.margin_px)


@settings(max_examples=25, deadline=None)
@given(
    scratches=st.lists(
        st.tuples(
            st.integers(0, 399), st.integers(0, 399), st.integers(0, 399), st.integers(0, 399), st.integers(1, 7)
        ),
        min_size=1,
        max_size=6,
    ),
    offset=st.tuples(st.integers(0, 1600), st.integers(0, 1600)),
)
def test_cost_grows_with_the_holes_and_not_with_the_image(
    scratches: list[tuple[int, int, int, int, int]], offset: tuple[int, int]
) -> None:
    rim = 256  # far enough from the border that no margin is cut short in either canvas
    patch = np.zeros((400, 400), dtype=np.uint8)
    for top, left, bottom, right, thickness in scratches:
        cv2.line(patch, (left, top), (right, bottom), 1, thickness=thickness)
    small = np.pad(patch, rim).astype(np.bool_)
    large = np.zeros((4 * small.shape[0], 4 * small.shape[1]), dtype=np.bool_)
    large[offset[0] : offset[0] + small.shape[0], offset[1] : offset[1] + small.shape[1]] = small
    shifted = find_holes(small)
    shifted = [replace(hole, box=hole.box.shift(*offset)) for hole in shifted]
    assert cost(plan_windows(large, shifted, CONFIG)) == cost(plan(small))


def test_a_deep_hole_starts_where_it_can_be_bridged() -> None:
    hole = np.zeros((1800, 1700), dtype=np.uint8)
    cv2.circle(hole, (850, 900), 600, 1, thickness=-1)
    (window,) = plan(hole.astype(np.bool_))
    assert [level.scale_log2 for level in window.levels] == [4, 3, 2, 1, 0]
    assert len(window.levels[0].tiles) == 1
    assert len(window.levels[-1].tiles) <= 7 * 7


def test_a_hole_without_any_known_pixel_still_ends() -> None:
    hole = np.ones((500, 300), dtype=np.bool_)
    (window,) = plan_windows(hole, [Hole(Box(0, 0, 500, 300), 150000, float("inf"))], CONFIG)
    assert [level.scale_log2 for level in window.levels] == [3, 2, 1, 0]


def test_specks_inside_the_box_of_a_scratch_join_its_window() -> None:
    hole = np.zeros((1200, 1200), dtype=np.uint8)
    cv2.line(hole, (100, 100), (1000, 1000), 1, thickness=3)
    hole[900, 200] = 1
    hole[20, 600] = hole[1190, 600] = 1  # above and below
    above, window, below = plan(hole.astype(np.bool_))
    assert [tile.side_px for tile in window.levels[0].tiles if tile.core.contains(Box(900, 200, 1, 1))] == [64]
    assert (above.box, below.box) == (Box(20, 600, 1, 1), Box(1190, 600, 1, 1))


def test_no_holes_no_windows() -> None:
    assert plan_windows(np.zeros((10, 10), dtype=np.bool_), [], CONFIG) == []


@pytest.mark.parametrize(("width_px", "sides_px"), [(40, [64, 64]), (41, [128])])
@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_at_an_edge_of_the_image_a_hole_needs_no_margin_towards_it(
    width_px: int, sides_px: list[int], quarter_turns: int
) -> None:
    """Of 40 + 24 px each of the two fits a tile of 64 px, cheaper than one of 128; of 41 + 24 px neither does."""
    upright = np.zeros((900, 300), dtype=np.bool_)
    upright[400:404, :width_px] = upright[430:434, :width_px] = True
    for hole in (np.rot90(upright, quarter_turns), np.rot90(upright[:, ::-1].T, quarter_turns)):
        windows = plan(np.ascontiguousarray(hole))
        assert [tile.side_px for window in windows for tile in window.levels[0].tiles] == sides_px


def test_the_coarsest_level_is_where_the_longer_side_fits_the_smallest_tile() -> None:
    hole = np.ones((20, 513), dtype=np.bool_)
    for width_px, coarsest in ((512, 3), (513, 4)):
        (window,) = plan_windows(hole[:, :width_px], [Hole(Box(0, 0, 20, width_px), 20 * width_px, np.inf)], CONFIG)
        assert window.levels[0].scale_log2 == coarsest


def test_a_hole_as_deep_as_can_be_bridged_has_one_level() -> None:
    hole = np.zeros((300, 300), dtype=np.bool_)
    hole[100:150, 100:150] = True
    for depth_px, num_levels in ((48.0, 1), (48.5, 2), (96.0, 2), (96.5, 3)):
        (window,) = plan_windows(hole, [Hole(Box(100, 100, 50, 50), 2500, depth_px)], CONFIG)
        assert len(window.levels) == num_levels


def test_a_core_that_fits_one_tile_is_split_only_where_that_halves_its_cost() -> None:
    """A line of 100 + 48 px needs a tile of 256, its halves of 50 + 48 px two of 128: half the cost; and they are not
    joined again. One of 40 + 48 px needs a tile of 128, and so would each of its halves."""
    for length_px, cores in ((100, [Box(300, 200, 1, 50), Box(300, 250, 1, 50)]), (40, [Box(300, 200, 1, 40)])):
        hole = np.zeros((600, 600), dtype=np.bool_)
        hole[300, 200 : 200 + length_px] = True
        (window,) = plan(hole)
        assert [(tile.core, tile.side_px) for tile in window.levels[0].tiles] == [(core, 128) for core in cores]


def test_only_the_axis_that_is_too_long_is_cut() -> None:
    """Across the image no margin is needed, so its 256 px fit a tile; 600 rows in thirds need 200 + 48."""
    hole = np.zeros((1000, 256), dtype=np.bool_)
    hole[100:700] = True
    (window,) = plan_windows(hole, [Hole(Box(100, 0, 600, 256), 153600, 40.0)], CONFIG)
    assert [tile.core for tile in window.levels[0].tiles] == [Box(top, 0, 200, 256) for top in (100, 300, 500)]


@settings(max_examples=30, deadline=None)
@given(hole=hole_maps(400), above=st.integers(0, 90), before=st.integers(0, 90))
def test_a_part_cut_out_of_the_map_has_the_same_tiles(hole: BoolArray, above: int, before: int) -> None:
    whole = np.pad(hole, ((above, 5), (before, 20)))
    image = Box(0, 0, *whole.shape)
    part = Box(above, before, *hole.shape)
    assert cover(hole, (above, before), image, CONFIG) == cover(whole, (0, 0), image, CONFIG, within=part)


@pytest.mark.parametrize(
    ("cores", "merged"),
    [
        ([(200, 8), (208, 8)], [(200, 16)]),
        ([(200, 8), (208, 9)], [(200, 8), (208, 9)]),
        ([(200, 4), (204, 6), (210, 8)], [(200, 10), (210, 8)]),  # what has joined the first is not the third's to join
        ([(200, 4), (230, 8), (245, 30)], [(200, 75)]),  # the last two, and then the first with both
        ([(200, 8), (208, 6), (214, 4)], [(200, 8), (208, 10)]),
        ([(200, 70), (290, 70)], [(200, 70), (290, 70)]),
    ],
)
def test_neighbours_are_joined_where_that_costs_no_more(
    cores: list[tuple[int, int]], merged: list[tuple[int, int]]
) -> None:
    """Of 4 rows each: up to 16 columns take a tile of 64 px, up to 80 one of 128."""
    boxes = [Box(300, left, 4, width) for left, width in cores]
    for turned in (False, True):
        before = [Box(box.left, box.top, box.width, box.height) if turned else box for box in boxes]
        found = _merge_neighbours(before, Box(0, 0, 900, 900), CONFIG)
        found = [Box(box.left, box.top, box.width, box.height) if turned else box for box in found]
        assert [(box.left, box.width) for box in found] == merged
        assert all((box.top, box.height) == (300, 4) for box in found)


def test_of_two_neighbours_the_one_that_saves_more_is_joined() -> None:
    """The middle one and the last need a tile of 128 each, and one together; the first needs one of 64 only."""
    cores = [Box(300, 190, 16, 16), Box(300, 230, 2, 20), Box(300, 260, 4, 20)]
    assert _merge_neighbours(cores, Box(0, 0, 900, 900), CONFIG) == [cores[0], Box(300, 230, 4, 50)]


def test_a_speck_that_shares_the_tile_of_a_deep_hole_does_not_make_it_shallow() -> None:
    hole = np.zeros((400, 400), dtype=np.bool_)
    hole[200:260, 200:260] = True
    hole[230, 265] = hole[230, 195] = True
    (window,) = plan(hole, replace(CONFIG, bridge_depth_px=29))
    assert window.box == Box(200, 195, 60, 71)
    assert len(window.levels) == 2  # 30 px deep


@pytest.mark.parametrize(
    ("specks", "boxes"),
    [
        ([(0, 79), (1, 0), (79, 0), (79, 79)], [Box(340, 340, 80, 80)]),  # four tiles of 64 px cost one of 128
        ([(0, 79), (1, 0), (79, 79)], [Box(340, 419, 1, 1), Box(341, 340, 1, 1), Box(419, 419, 1, 1)]),
        ([(0, 0), (0, 80), (79, 0)], [Box(340, 340, 1, 1), Box(340, 420, 1, 1), Box(419, 340, 1, 1)]),
        ([(0, 0), (0, 15), (15, 0)], [Box(340, 340, 16, 16)]),  # 16 + 48 px fit one tile of 64
        ([(0, 0), (5, 20), (10, 15)], [Box(340, 340, 11, 16), Box(345, 360, 1, 1)]),  # the last is not shared by both
        # Lines of four specks each need a tile of 128 px; four of them cost one of 256.
        (
            [(row, column) for row in (0, 207) for column in (0, 26, 53, 79, 128, 154, 181, 207)],
            [Box(340, 340, 208, 208)],
        ),
        # Eight specks each: a tile of 128 px for either costs half as much as one of 256 for both.
        (
            [(row, left + column) for left in (0, 128) for row in (0, 79) for column in (0, 20, 59, 79)],
            [Box(340, 340, 80, 80), Box(340, 468, 80, 80)],
        ),
    ],
)
def test_specks_share_a_tile_where_it_costs_no_more(specks: list[tuple[int, int]], boxes: list[Box]) -> None:
    hole = np.zeros((900, 900), dtype=np.bool_)
    for row, column in specks:
        hole[340 + row, 340 + column] = True
    assert [window.box for window in plan(hole)] == boxes


@pytest.mark.parametrize("top", [200, 700])
def test_a_deep_hole_inside_the_box_of_a_scratch_keeps_its_levels(top: int) -> None:
    hole = np.zeros((1200, 1200), dtype=np.uint8)
    cv2.line(hole, (100, 100), (1000, 1000), 1, thickness=3)
    left = 900 - top
    hole[top : top + 120, left : left + 120] = 1
    (window,) = plan(hole.astype(np.bool_))
    assert len(window.levels) == 2  # 60 px deep
