from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiling_cases import hole_maps

from inpaint_batch.config import TilingConfig
from inpaint_batch.holes.components import find_holes
from inpaint_batch.tiling.blend import LevelFill, reach, tile_weights
from inpaint_batch.tiling.boxes import Level, Tile, Window
from inpaint_batch.tiling.cost import estimate
from inpaint_batch.tiling.fill import FillSteps, TileInput, TileRequest, WindowFill, fill_window
from inpaint_batch.tiling.plan import plan_windows
from inpaint_batch.types import BoolArray, Box, FloatArray

CONFIG = TilingConfig(bridge_depth_px=48, second_start_px=0)
SMALL = TilingConfig(buckets_px=(32, 64), margin_px=10, bridge_depth_px=6, second_start_px=3)


def picture(hole: BoolArray, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).random((*hole.shape, 3), dtype=np.float32)


def run_fill(steps: FillSteps, fill_tile: Callable[[TileInput], FloatArray]) -> WindowFill:
    """What comes of a window whose tiles are filled one by one."""
    try:
        requests = next(steps)
        while True:
            requests = steps.send([fill_tile(request.load()) for request in requests])
    except StopIteration as stop:
        return stop.value


class Truth:
    """An engine that knows the answer: the image itself at level 0, anything at all at coarser levels."""

    def __init__(self, image: FloatArray) -> None:
        self.image = image
        self.rng = np.random.default_rng(1)

    def __call__(self, request: TileRequest, level: int) -> FloatArray:
        box = request.tile.box
        if level:
            return self.rng.random((3, box.height, box.width), dtype=np.float32)
        filled = np.full((box.height, box.width, 3), np.nan, dtype=np.float32)
        inside = box.intersect(Box(0, 0, *self.image.shape[:2]))
        filled[inside.shift(-box.top, -box.left).slices] = self.image[inside.slices]
        return filled.transpose(2, 0, 1)


def restore(image: FloatArray, hole: BoolArray, config: TilingConfig) -> FloatArray:
    """Cut the holes out of `image`, fill them with a `Truth` engine, paste the pieces."""
    damaged = np.where(hole[..., None], np.float32(0.5), image)
    truth = Truth(image)
    for window in plan_windows(hole, find_holes(hole), config):
        order = [level.scale_log2 for level in window.levels for _ in level.tiles]
        steps = fill_window(lambda box: damaged[box.slices], hole, window, config, max_requests=3)
        try:
            requests = next(steps)
            while True:
                loaded = [request.load() for request in requests]
                check(loaded, requests)
                requests = steps.send([truth(request, order.pop(0)) for request in requests])
        except StopIteration as stop:
            for piece in stop.value:
                target = damaged[piece.box.slices]
                target[piece.hole] = piece.rgb[piece.hole]
    return damaged


def check(loaded: list[TileInput], requests: list[TileRequest]) -> None:
    for tile, request in zip(loaded, requests, strict=True):
        side = request.side_px
        assert tile.image.shape == tile.prior.shape == (3, side, side)
        assert tile.hole.shape == (1, side, side)
        for array in (tile.image, tile.hole, tile.prior):
            assert array.dtype == np.float32
            assert array.flags.c_contiguous
            assert np.isfinite(array).all()
        assert set(np.unique(tile.hole)) <= {0.0, 1.0}
        assert (tile.image[np.broadcast_to(tile.hole == 1, tile.image.shape)] == 0).all()
        assert tile.prior_weight in (0.0, 0.5, 1.0)
        if tile.prior_weight == 0:
            assert not tile.prior.any()


@settings(max_examples=40, deadline=None)
@given(hole=hole_maps(400), config=st.sampled_from([CONFIG, SMALL]))
def test_an_engine_that_knows_the_truth_gives_the_image_back_bit_for_bit(hole: BoolArray, config: TilingConfig) -> None:
    image = picture(hole)
    np.testing.assert_array_equal(restore(image, hole, config), image)


@settings(max_examples=30, deadline=None)
@given(hole=hole_maps(400), config=st.sampled_from([CONFIG, SMALL]))
def test_weights_of_all_tiles_sum_to_one_at_every_hole_pixel(hole: BoolArray, config: TilingConfig) -> None:
    """Fill tile k with the constant k-th unit: the blend of unit vectors is then the vector of weights."""
    for window in plan_windows(hole, find_holes(hole), config):
        level = window.levels[-1]
        image_box = Box(0, 0, *hole.shape)
        share = np.zeros(hole.shape)
        total = np.zeros(hole.shape)
        for tile in level.tiles:
            near = reach(tile, config.margin_px)
            weights = tile_weights(tile, near, image_box, config.margin_px)
            assert weights.min() > 0
            assert weights.max() <= 1
            core = tile.core.shift(-near.top, -near.left)
            assert (weights[core.slices] == 1).all()
            near_image = near.intersect(image_box)
            total[near_image.slices] += weights[near_image.shift(-near.top, -near.left).slices]
        for index, tile in enumerate(level.tiles):
            fill = LevelFill(level.tiles, hole, 0, image_box, config.margin_px)
            for other in range(len(level.tiles)):
                side = level.tiles[other].side_px
                fill.add(other, np.full((3, side, side), float(other == index), dtype=np.float32))
            near = reach(tile, config.margin_px).intersect(image_box)
            expected = tile_weights(tile, near, image_box, config.margin_px) / total[near.slices]
            for box, rgb, inside in fill.pieces():
                share[box.slices][inside] += rgb[inside][:, 0]
                common = box.intersect(near)
                if common.area_px:
                    mine = rgb[common.shift(-box.top, -box.left).slices][..., 0]
                    where = inside[common.shift(-box.top, -box.left).slices]
                    wanted = expected[common.shift(-near.top, -near.left).slices]
                    np.testing.assert_allclose(mine[where], wanted[where], atol=1e-5)
            if index > 6:  # the share of the others is tested by other examples
                break
        else:
            covered = hole[window.box.slices]
            np.testing.assert_allclose(share[window.box.slices][covered], 1, atol=1e-5)


def test_weights_fall_across_the_margin_and_not_where_it_reaches_an_edge_of_the_image() -> None:
    """With a margin of 3 px the distances are quarters: 1 - 0.999 (3 d² - 2 d³) is 0.84391, 0.5005 and 0.15709."""
    fall = np.float32([1, 0.84390625, 0.5005, 0.15709375])
    tile = Tile(Box(10, 20, 4, 5), Box(0, 0, 32, 32), 32)
    near = reach(tile, 3)
    assert near == Box(7, 17, 10, 11)
    down, across = ([*fall[:0:-1], *[1] * length, *fall[1:]] for length in (4, 5))
    inside = tile_weights(tile, near, Box(-1, -1, 34, 34), 3)
    np.testing.assert_allclose(inside, np.outer(down, across), rtol=1e-6)
    for image, rows, columns in (
        (Box(0, 0, 32, 32), down, across),  # the tile ends with the image, what it contributes to does not
        (Box(7, -1, 26, 34), [*[1] * 7, *fall[1:]], across),
        (Box(-1, -1, 18, 34), [*fall[:0:-1], *[1] * 7], across),
        (Box(-1, 17, 34, 16), down, [*[1] * 8, *fall[1:]]),
        (Box(-1, -1, 34, 29), down, [*fall[:0:-1], *[1] * 8]),
    ):
        np.testing.assert_allclose(tile_weights(tile, near, image, 3), np.outer(rows, columns), rtol=1e-6)


def _disc(size: int, radius: int) -> BoolArray:
    hole = np.zeros((size, size), dtype=np.uint8)
    cv2.circle(hole, (size // 2, size // 2), radius, 1, thickness=-1)
    return hole.astype(np.bool_)


def _bar(height: int, width: int, *boxes: Box) -> BoolArray:
    hole = np.zeros((height, width), dtype=np.bool_)
    for box in boxes:
        hole[box.slices] = True
    return hole


@pytest.mark.parametrize(
    "hole",
    [
        _bar(300, 900, Box(140, 200, 30, 500)),
        _bar(152, 265, Box(63, 15, 24, 233), Box(35, 132, 89, 21)),  # a cross in an image smaller than the tiles
        _bar(332, 483, Box(246, 196, 21, 287), Box(172, 310, 138, 29)),  # one whose tiles reach the borders
    ],
)
def test_a_seam_between_tiles_is_a_ramp_and_not_a_step(hole: BoolArray) -> None:
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)
    tiles = window.levels[0].tiles
    assert len(tiles) > 1
    fill = LevelFill(tiles, hole, 0, Box(0, 0, *hole.shape), CONFIG.margin_px)
    for index, tile in enumerate(tiles):
        fill.add(index, np.full((3, tile.side_px, tile.side_px), float(index % 2), dtype=np.float32))
    filled = np.zeros(hole.shape, dtype=np.float32)
    for box, rgb, _ in fill.pieces():
        filled[box.slices] += rgb[..., 0]
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        steps = np.abs(filled[after] - filled[before])[hole[after] & hole[before]]
        assert steps.max() < 0.06


def test_the_prior_is_the_enlarged_coarser_fill() -> None:
    """A smooth picture, filled perfectly at each level, must come back as prior with little error."""
    hole = _disc(1024, 130)
    rows, columns = np.mgrid[0:1024, 0:1024].astype(np.float32) / 1024
    image = np.stack([rows, columns, (rows + columns) / 2], axis=-1)
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)
    assert [level.scale_log2 for level in window.levels] == [2, 1, 0]
    reduced = {
        scale: image.reshape(1024 >> scale, 1 << scale, 1024 >> scale, 1 << scale, 3).mean(axis=(1, 3))
        for scale in (0, 1, 2)
    }
    scales = [level.scale_log2 for level in window.levels for _ in level.tiles]
    steps = fill_window(lambda box: image[box.slices], hole, window, CONFIG)
    requests = next(steps)
    errors = []
    while requests:
        filled = []
        for request in requests:
            scale = scales.pop(0)
            tile = request.load()
            truth = reduced[scale][request.tile.box.slices].transpose(2, 0, 1)
            if tile.prior_weight:
                errors.append(np.abs(tile.prior - truth).max())
            filled.append(truth)
        try:
            requests = steps.send(filled)
        except StopIteration:
            requests = []
    assert len(errors) == len(window.levels[1].tiles) + len(window.levels[2].tiles)
    assert max(errors) < 0.01


def test_a_pixel_has_the_same_prior_in_every_tile() -> None:
    hole = _disc(700, 160)
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)
    image = picture(hole)
    steps = fill_window(lambda box: image[box.slices], hole, window, CONFIG, max_requests=100)
    requests = next(steps)
    num_compared = 0
    for level in window.levels[:-1]:
        requests = steps.send(
            [picture(np.empty((tile.side_px,) * 2, np.bool_)).transpose(2, 0, 1) for tile in level.tiles]
        )
        priors = [(request.tile.box, request.load().prior) for request in requests]
        for number, (box, prior) in enumerate(priors):
            for other_box, other in priors[:number]:
                common = box.intersect(other_box)
                here, there = (common.shift(-each.top, -each.left).slices for each in (box, other_box))
                np.testing.assert_array_equal(prior[:, *here], other[:, *there])
                num_compared += common.area_px > 0
    assert num_compared > 5


def test_other_windows_have_no_influence() -> None:
    hole = _disc(700, 100)
    hole[20:30, 20:60] = True
    hole[349, 215:222] = True  # near the disc, in the context of its tiles, but a window of its own
    windows = plan_windows(hole, find_holes(hole), CONFIG)
    assert len(windows) == 3
    deep = max(windows, key=lambda window: len(window.levels))
    image = picture(hole)
    other = image.copy()
    for window in windows:
        if window is not deep:
            other[window.box.slices][hole[window.box.slices]] = 9  # what stands in a hole must never be seen

    def fill(source: FloatArray) -> list[FloatArray]:
        steps = fill_window(lambda box: source[box.slices], hole, deep, CONFIG)
        return [piece.rgb for piece in run_fill(steps, lambda tile: tile.image + tile.prior * 0.5)]

    for first, second in zip(fill(image), fill(other), strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_hole_of_another_window_is_smoothed_over_in_the_prior() -> None:
    """In a picture of one colour the prior is that colour everywhere: not black where another window will fill."""
    hole = _disc(700, 100)
    hole[346:352, 206:216] = True  # in the context of the disc's tiles, and still a hole at half the resolution
    windows = plan_windows(hole, find_holes(hole), CONFIG)
    assert len(windows) == 2
    deep = max(windows, key=lambda window: len(window.levels))
    image = np.full((700, 700, 3), 0.25, np.float32)
    image[hole] = 9
    priors = []

    def fill(tile: TileInput) -> FloatArray:
        if tile.prior_weight:
            priors.append(tile.prior)
        return np.full_like(tile.image, 0.25)

    run_fill(fill_window(lambda box: image[box.slices], hole, deep, CONFIG), fill)
    assert priors
    for prior in priors:
        np.testing.assert_array_equal(prior, np.float32(0.25))


@pytest.mark.parametrize("max_requests", [1, 2, 1000])
def test_how_requests_are_cut_has_no_influence(max_requests: int) -> None:
    hole = _disc(600, 150)
    image = picture(hole)
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)

    def fill(count: int) -> list[FloatArray]:
        steps = fill_window(lambda box: image[box.slices], hole, window, CONFIG, max_requests=count)
        return [piece.rgb for piece in run_fill(steps, lambda tile: np.tanh(tile.image + tile.prior))]

    for first, second in zip(fill(max_requests), fill(16), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_hole_that_vanishes_at_the_coarse_level_leaves_a_plain_prior() -> None:
    """A thin, wide-spread hole with a forged depth has coarse levels without a single hole pixel."""
    hole = np.zeros((400, 400), dtype=np.bool_)
    hole[200, 100:300] = True
    (found,) = find_holes(hole)
    (window,) = plan_windows(hole, [replace(found, depth_px=90.0)], CONFIG)
    assert [len(level.tiles) for level in window.levels] == [0, 1]
    image = np.full((400, 400, 3), 0.25, dtype=np.float32)
    steps = fill_window(lambda box: image[box.slices], hole, window, CONFIG)
    (request,) = next(steps)
    tile = request.load()
    assert tile.prior_weight == 1.0
    assert (tile.prior == np.float32(0.25)).all()


def test_the_wrong_number_of_answers_is_refused() -> None:
    hole = _disc(200, 10)
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)
    steps = fill_window(lambda box: picture(hole)[box.slices], hole, window, CONFIG)
    next(steps)
    with pytest.raises(ValueError, match="1 tiles were asked for, 0 came back"):
        steps.send([])


def test_nothing_outside_the_hole_is_returned() -> None:
    hole = _disc(500, 120)
    (window,) = plan_windows(hole, find_holes(hole), CONFIG)
    pieces = run_fill(
        fill_window(lambda box: picture(hole)[box.slices], hole, window, CONFIG), lambda tile: np.ones_like(tile.image)
    )
    seen = np.zeros(hole.shape, dtype=np.int32)
    for piece in pieces:
        seen[piece.box.slices] += piece.hole
        assert (piece.rgb[~piece.hole] == 0).all()
        assert (piece.rgb[piece.hole] == 1).all()
    np.testing.assert_array_equal(seen, hole)
    assert pieces[-1].box == pieces[len(pieces) - 1].box
    with pytest.raises(IndexError):
        pieces[len(pieces)]


def _windows(hole: BoolArray) -> list[Window]:
    return plan_windows(hole, find_holes(hole), CONFIG)


def test_the_budget_adds_up() -> None:
    hole = _disc(900, 200)
    hole[5, 5] = True
    windows = _windows(hole)
    sides = [tile.side_px for window in windows for level in window.levels for tile in level.tiles]
    budget = estimate(windows, seconds_per_tile={64: 0.01, 256: 0.1})
    assert budget.num_tiles == {side: sides.count(side) for side in sorted(set(sides))}
    times = {64: 0.01, 128: 0.04, 256: 0.1}
    assert budget.seconds == pytest.approx(sum(times[side] for side in sides))
    assert 20 * np.count_nonzero(hole) < budget.peak_bytes < 60e6


def test_memory_is_that_of_a_level_and_of_the_coarser_one_in_the_largest_window() -> None:
    """20 bytes a pixel of a core, 40 a pixel of a tile; of the tiles only the 16 largest are asked for at once."""

    def tiles(*sides_px: int) -> tuple[Tile, ...]:
        return tuple(Tile(Box(0, 0, 10, 10), Box(0, 0, side_px, side_px), side_px) for side_px in sides_px)

    coarse, fine = Level(1, tiles(128), 0.0), Level(0, tiles(*[64] * 16, 256), 1.0)
    coarse_bytes = 100 * 20 + 128**2 * 40
    fine_bytes = 17 * 100 * 20 + (256**2 + 15 * 64**2) * 40
    windows = [Window(Box(0, 0, 9, 9), (coarse, fine)), Window(Box(50, 0, 9, 9), (coarse,))]
    assert estimate(windows, seconds_per_tile={}).peak_bytes == coarse_bytes + fine_bytes
    assert estimate(windows[1:], seconds_per_tile={}).peak_bytes == coarse_bytes


def test_an_empty_plan_costs_nothing() -> None:
    budget = estimate([], seconds_per_tile={})
    assert (budget.num_tiles, budget.seconds, budget.peak_bytes) == ({}, 0.0, 0)
    assert estimate(_windows(_disc(100, 5)), seconds_per_tile={}).seconds == 0.0
