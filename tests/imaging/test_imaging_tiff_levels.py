"""Pyramids and thumbnails in TIFFs: filled along with their page, and nothing else of them changed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import imaging_cases as cases
import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff_levels
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.tiff_levels import _Cells
from inpaint_batch.imaging.write import verify_written
from inpaint_batch.types import Box, Patch

SIZE = (501, 630)


def pyramid(path: Path, kind: str = "rgb", dtype: str = "uint8", **options: object) -> None:
    image = pyvips.Image.new_from_array(cases.picture(kind, *SIZE, dtype=dtype))
    image.tiffsave(str(path), pyramid=True, tile=True, tile_width=64, tile_height=64, **options)


def levels(path: Path, page: int = 0) -> list[np.ndarray]:
    """The page and its copies, the largest first, (h, w, bands)."""
    with tifffile.TiffFile(path) as file:
        chosen = file.pages[page]
        followers = [each for each in file.pages[page + 1 :] if int(each.subfiletype) & 1]
        found = [each.asarray() for each in (chosen, *(chosen.pages or ()), *followers)]
    return [each.reshape(*each.shape[:2], -1) for each in found]


PYRAMIDS: dict[str, Callable[[Path], None]] = {
    "pages, Deflate": lambda path: pyramid(path, compression="deflate"),
    "sub-images, LZW, BigTIFF": lambda path: pyramid(path, compression="lzw", subifd=True, bigtiff=True),
    "16 bits, grey, predictor": lambda path: pyramid(
        path, "grey", "uint16", compression="deflate", predictor="horizontal"
    ),
    "alpha": lambda path: pyramid(path, "rgba", compression="deflate"),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_every_level_shows_the_fill_and_nothing_else_changes(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    PYRAMIDS[kind](path)
    source, patches = cases.restore(path, out)
    before, after = levels(path), levels(out)
    assert [each.shape for each in before] == [each.shape for each in after]
    assert len(before) == 1 + len(source.reduced) > 3
    np.testing.assert_array_equal(after[0], cases.filled(before[0], source, patches))
    hole, colours = cases.hole_map(source, patches), source.header.num_colours
    for halvings, (old, new) in enumerate(zip(before[1:], after[1:], strict=True), start=1):
        side = 1 << halvings
        height_px, width_px = (length * side for length in old.shape[:2])
        cells = hole[:height_px, :width_px].reshape(old.shape[0], side, old.shape[1], side)
        # The last cell takes in what a program that halves has left out.
        is_whole = np.ones(old.shape[:2], np.bool_)
        is_whole[-1], is_whole[:, -1] = False, False
        touched = cells.any(axis=(1, 3))
        np.testing.assert_array_equal(old[~touched & is_whole], new[~touched & is_whole])
        np.testing.assert_array_equal(old[..., colours:], new[..., colours:])
        covered = cells.all(axis=(1, 3)) & is_whole
        if covered.any():
            means = after[0][:height_px, :width_px].astype(float).reshape(*cells.shape, -1).mean(axis=(1, 3))
            difference = np.abs(new.astype(float) - means)[covered][:, :colours]
            assert difference.max() <= halvings  # a rounding at each level
            assert (old != new)[covered].any()


def test_levels_compressed_with_jpeg(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    pyramid(path, compression="jpeg", Q=85)
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches)
    for before, after in zip(levels(path), levels(out), strict=True):
        size = before.shape[1::-1]
        covered = cv2.resize(hole.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        near = cv2.dilate((covered > 0).astype(np.uint8), np.ones((35, 35), np.uint8)) > 0
        np.testing.assert_array_equal(before[~near], after[~near])
        inside = cv2.erode((covered == 1).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if inside.any():
            meant = cv2.resize(cases.filled(levels(path)[0], source, patches), size, interpolation=cv2.INTER_AREA)
            assert np.abs(after[inside].astype(int) - meant[inside]).mean() < 8
            assert np.abs(before[inside].astype(int) - meant[inside]).mean() > 20


@pytest.mark.parametrize("side_px", [512, 40])
@pytest.mark.parametrize("layout", [{"tile": (64, 64)}, {"rowsperstrip": 16}])
def test_nothing_of_the_damage_stays_in_copies_compressed_with_jpeg(
    tmp_path: Path, layout: dict[str, Any], side_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_levels, "_SIDE_PX", side_px)  # 40: of a page in strips a row of cells is made at a time
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    whole = cases.picture("rgb", 512, 640)
    scratch = np.zeros(whole.shape[:2], np.float32)
    cv2.line(scratch, (30, 20), (600, 480), 1, 5)
    hole = scratch > 0
    damaged = np.where(hole[..., None], np.uint8([255, 0, 255]), whole)
    sizes = [(640 // step, 512 // step) for step in (2, 4, 8)]
    with tifffile.TiffWriter(path) as file:
        file.write(damaged, photometric="rgb", compression="zlib", metadata=None, **layout)
        for size in sizes:
            small = cv2.resize(damaged, size, interpolation=cv2.INTER_AREA)
            encoded = cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]]  # it translates nothing by itself
            jpeg = {"compression": "jpeg", "compressionargs": {"level": 75}, "subsampling": (2, 2)}
            file.write(encoded, photometric="ycbcr", subfiletype=1, tile=(64, 64), metadata=None, **jpeg)
    cases.restore(path, out, [Patch(Box(0, 0, 512, 640), whole, hole)])
    for size, copy in zip(sizes, levels(out)[1:], strict=True):
        meant = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(np.float64)
        is_near = cv2.dilate(cv2.resize(scratch, size, interpolation=cv2.INTER_AREA), np.ones((3, 3))) > 0
        difference = np.abs(copy - meant)
        assert difference[is_near].mean() < 1.2 * difference[~is_near].mean()


def test_a_thumbnail_of_any_size(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    full = cases.picture("rgb", 300, 420)
    with tifffile.TiffWriter(path) as file:
        file.write(full, photometric="rgb", compression="zlib", metadata=None)
        small = cv2.resize(full, (128, 91), interpolation=cv2.INTER_AREA)
        file.write(small, photometric="rgb", subfiletype=1, metadata=None)
    box = Box(100, 200, 50, 60)
    patch = Patch(box, np.full((50, 60, 3), 9, np.uint8), np.ones((50, 60), np.bool_))
    for page in (None, 1):
        cases.restore(path, out, [patch], page=page)
        before, after = levels(path)[1], levels(out)[1]
        changed = (before != after).any(axis=2)
        rows, columns = np.nonzero(changed)
        # A pixel of the thumbnail stands for 300 / 91 rows and 420 / 128 columns; where they begin is rounded down.
        assert (rows.min(), rows.max()) == (30, 45)
        assert (columns.min(), columns.max()) == (61, 79)
        assert (after[31:45, 62:78] == 9).all()


@pytest.mark.parametrize("turned", [False, True])
def test_a_copy_that_is_wider_or_taller_than_the_one_before_is_made_of_the_page(tmp_path: Path, turned: bool) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    page, sizes, hole = (300, 400), [(100, 132), (99, 133)], Box(100, 120, 60, 80)
    if turned:
        page, sizes, hole = (400, 300), [(132, 100), (133, 99)], Box(120, 100, 80, 60)
    full = cases.picture("rgb", *page)
    with tifffile.TiffWriter(path) as file:
        file.write(full, photometric="rgb", metadata=None)
        for height, width in sizes:
            small = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
            file.write(small, photometric="rgb", subfiletype=1, metadata=None)
    shape = hole.height, hole.width
    cases.restore(path, out, [Patch(hole, np.full((*shape, 3), 9, np.uint8), np.ones(shape, np.bool_))])
    before, after = levels(path)[2], levels(out)[2]
    assert before.shape[:2] == sizes[1]
    rows, columns = np.nonzero((before != after).any(axis=2))
    # 99 px stand for 300 and 133 for 400: a cell begins at number * length // cells.
    short, long = (columns, rows) if turned else (rows, columns)
    assert (short.min(), short.max()) == (33, 52)  # pixels 100..102 and 157..159
    assert (long.min(), long.max()) == (40, 66)  # pixels 120..122 and 198..200
    assert (after[rows.min() + 1 : rows.max(), columns.min() + 1 : columns.max()] == 9).all()


def test_only_the_copies_of_the_chosen_page_change(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        for seed in (0, 1):
            page = cases.picture("rgb", 200, 240, seed=seed)
            file.write(page, photometric="rgb", compression="lzw", metadata=None)
            file.write(page[::2, ::2], photometric="rgb", subfiletype=1, compression="lzw", metadata=None)
    with pytest.raises(RowError, match="4 pages"):
        open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="page 4 of a TIFF, a reduced copy of another"):
        open_image(path, max_bytes=cases.NO_LIMIT, page=4)
    cases.restore(path, out, page=3)
    with tifffile.TiffFile(path) as one, tifffile.TiffFile(out) as two:
        same = [np.array_equal(a.asarray(), b.asarray()) for a, b in zip(one.pages, two.pages, strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize(
    ("copy", "message"),
    [
        (cases.picture("grey", 50, 60), "another kind"),
        (cases.picture("rgb", 50, 90), "another shape"),
        (cases.picture("rgb", 50, 60, dtype="uint16"), "another kind"),
    ],
)
def test_copies_that_cannot_be_made_anew_are_refused(tmp_path: Path, copy: np.ndarray, message: str) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(cases.picture("rgb", 100, 120), photometric="rgb")
        photometric = "rgb" if copy.ndim == 3 else "minisblack"
        file.write(copy, photometric=photometric, subfiletype=1)
    with pytest.raises(RowError, match=message) as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert caught.value.code == FailureCode.READ


def test_a_copy_that_is_not_written_is_not_taken_for_its_page(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    full = cases.picture("rgb", 100, 120)
    with tifffile.TiffWriter(path) as file:
        file.write(full, photometric="rgb", compression="lzw")
        file.write(full[::2, ::2], photometric="rgb", subfiletype=1, compression="webp")
    with pytest.raises(RowError, match="reduced copies of a kind that is not written") as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert caught.value.code == FailureCode.READ


def test_verification_looks_at_the_copies(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    pyramid(path, compression="none")
    source, patches = cases.restore(path, out)
    with tifffile.TiffFile(out) as file:
        segments = [page.dataoffsets[5] for page in file.pages[1:2]]
    sound = out.read_bytes()
    for offset in segments:
        data = bytearray(sound)
        data[offset + 100] ^= 1
        out.write_bytes(data)
        with pytest.raises(RowError, match="read back wrong"):
            verify_written(source, patches, out, jpeg="patch")


@given(st.integers(1, 400), st.integers(1, 400), st.data())
def test_cells_share_a_side_out(one: int, other: int, data: st.DataObject) -> None:
    length_px, copy_px = max(one, other), min(one, other)
    cells = _Cells(length_px, copy_px)
    starts = [*cells.starts(range(copy_px)), length_px]
    assert starts[0] == 0
    assert all(before < after for before, after in pairwise(starts))
    start = data.draw(st.integers(0, length_px - 1))
    stop = data.draw(st.integers(start + 1, length_px))
    found = cells.touching(start, stop)
    assert starts[found.start] <= start < starts[found.start + 1]
    assert starts[found.stop - 1] <= stop - 1 < starts[found.stop]


@pytest.mark.parametrize(
    ("length_px", "starts"),
    [
        (11, [0, 2, 4, 6, 8]),  # the last cell takes in the row that halving has left out
        (11, [0, 2, 4, 6, 8, 10]),  # or that row has a cell of its own
        (23, [0, 4, 8, 12, 16]),
        (23, [0, 4, 8, 12, 16, 20]),
        (22, [0, 3, 6, 9, 12, 15, 18]),  # no halving makes 7 of 22
        (7, [0, 1, 2, 4, 5]),  # nor 5 of 7
        (5, [0, 1, 2, 3, 4]),
    ],
)
def test_a_copy_by_halving_has_cells_of_one_size(length_px: int, starts: list[int]) -> None:
    cells = _Cells(length_px, len(starts))
    assert cells.starts(range(len(starts))).tolist() == starts
    assert [cells.touching(start, start + 1) for start in starts] == [range(n, n + 1) for n in range(len(starts))]
    assert cells.start(len(starts)) == length_px


def test_masks_beside_page_and_copies_stay_as_they_are(tmp_path: Path) -> None:
    # As GDAL lays cloud-optimised files out: page, its mask, a copy, the mask of the copy.
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    full, mask = cases.picture("rgb", 256, 320), np.ones((256, 320), np.bool_)
    with tifffile.TiffWriter(path) as file:
        for page, bit in ((full, 0), (full[::2, ::2], 1)):
            file.write(page, photometric="rgb", compression="zlib", subfiletype=bit, metadata=None)
            small = mask[: len(page), : page.shape[1]]
            file.write(small, photometric=4, subfiletype=4 | bit, metadata=None)
    for page in (None, 1):
        source, _ = cases.restore(path, out, page=page)
        assert len(source.reduced) == 1
        with tifffile.TiffFile(path) as one, tifffile.TiffFile(out) as two:
            same = [np.array_equal(a.asarray(), b.asarray()) for a, b in zip(one.pages, two.pages, strict=True)]
        assert same == [False, True, False, True]


def test_copies_that_mean_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    rgba, turned = cases.picture("rgba", 100, 120), [(274, 3, 1, 3, True)]
    cases_of_pages = [
        (({"extrasamples": ["assocalpha"]}, {"extrasamples": ["unassalpha"]}), "another kind"),
        (({"extrasamples": ["unassalpha"], "extratags": turned}, {"extrasamples": ["unassalpha"]}), "turned"),
    ]
    for (page, copy), message in cases_of_pages:
        with tifffile.TiffWriter(path) as file:
            file.write(rgba, photometric="rgb", metadata=None, **page)
            file.write(rgba[::2, ::2], photometric="rgb", subfiletype=1, metadata=None, **copy)
        with pytest.raises(RowError, match=message) as caught:
            open_image(path, max_bytes=cases.NO_LIMIT)
        assert caught.value.code == FailureCode.READ


def test_sub_images_that_only_a_chain_leads_to_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    full = cases.picture("rgb", 100, 120)
    with tifffile.TiffWriter(path) as file:
        file.write(full, photometric="rgb", subifds=2, metadata=None)
        for step in (2, 4):
            file.write(full[::step, ::step], photometric="rgb", subfiletype=1, metadata=None)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        tag, sub = file.pages.first.tags[330], file.pages.first.pages[0]
        first, second = tag.value
        end = first + 2 + 12 * len(sub.tags)
    data[end : end + 4] = struct.pack("<I", second)
    path.write_bytes(data)
    assert len(open_image(path, max_bytes=cases.NO_LIMIT).reduced) == 2
    data[tag.offset + 4 : tag.offset + 12] = struct.pack("<II", 1, first)
    path.write_bytes(data)
    with pytest.raises(RowError, match="chains of sub-images"):
        open_image(path, max_bytes=cases.NO_LIMIT)


@pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
@pytest.mark.parametrize("tile", [(64, 80), None])
def test_many_specks_against_a_slow_reference(
    tmp_path: Path, tile: tuple[int, int] | None, in_memory_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_levels, "_PATCHES_BYTES", in_memory_bytes)
    monkeypatch.setattr(tiff_levels, "_SIDE_PX", 48)
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    full = cases.picture("rgb", 301, 420)
    sizes = [(150, 210), (75, 105), (31, 43)]  # two that halve, and a thumbnail of any size
    with tifffile.TiffWriter(path) as file:
        file.write(full, photometric="rgb", compression="zlib", tile=tile, metadata=None)
        for height, width in sizes:
            small = cv2.resize(full, (width, height), interpolation=cv2.INTER_AREA)
            file.write(small, photometric="rgb", compression="zlib", tile=tile, subfiletype=1, metadata=None)
    rng = np.random.default_rng(0)
    patches = []
    for top in range(0, 300, 30):
        for left in range(0, 410, 41):
            samples = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
            patches.append(Patch(Box(top, left, 7, 9), samples, rng.random((7, 9)) < 0.3))
    source, _ = cases.restore(path, out, patches)
    large, hole = cases.filled(full, source, patches), cases.hole_map(source, patches)
    for before, after in list(zip(levels(path), levels(out), strict=True))[1:]:
        height, width = before.shape[:2]
        is_halved = (large.shape[0] // 2, large.shape[1] // 2) == (height, width)
        meant, touched = before.copy(), np.zeros((height, width), np.bool_)
        edges = [
            [number * 2 if is_halved else number * length // parts for number in range(parts)] + [length]
            for length, parts in zip(large.shape, (height, width), strict=False)
        ]
        for row, column in np.ndindex(height, width):
            cell = slice(*edges[0][row : row + 2]), slice(*edges[1][column : column + 2])
            if hole[cell].any():
                touched[row, column] = True
                meant[row, column] = np.rint(large[cell].mean(axis=(0, 1)))
        assert 0 < touched.mean() < 1
        np.testing.assert_array_equal(after, meant)
        large, hole = meant, touched


@pytest.mark.parametrize("no_data", [float("nan"), -9999.0])
def test_what_stands_for_no_data_has_no_part_in_a_mean(tmp_path: Path, no_data: float) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    full = cases.picture("grey", 200, 240).astype(np.float32)
    full[:, :101] = no_data
    tag = [] if np.isnan(no_data) else [(42113, 2, 0, str(no_data), True)]
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2):
            page = full[::step, ::step]
            file.write(page, photometric="minisblack", subfiletype=step - 1, extratags=tag, metadata=None)
    hole = np.ones((20, 21), np.bool_)
    hole[:2] = False
    hole[0, 0] = True
    patch = Patch(Box(50, 101, 20, 21), np.full((20, 21, 1), 7, np.float32), hole)
    beside = Patch(Box(80, 20, 4, 4), np.full((4, 4, 1), no_data, np.float32), np.ones((4, 4), np.bool_))
    cases.restore(path, out, [patch, beside])
    before, after = (each[1][..., 0] for each in (levels(path), levels(out)))
    assert (after[26:35, 50:61] == 7).all()
    np.testing.assert_array_equal(after[40:42, 10:12], np.full((2, 2), no_data))
    after[25:35, 50:61] = before[25:35, 50:61]
    np.testing.assert_array_equal(after, before)


def test_colours_of_a_copy_are_no_more_than_its_alpha(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        for subfile, side, alpha in ((0, 64, 200), (1, 32, 150)):
            page = np.full((side, side, 2), alpha, np.uint8)
            page[..., 0] = 90
            options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["assocalpha"]}
            file.write(page, subfiletype=subfile, metadata=None, **options)
    patch = Patch(Box(10, 10, 8, 8), np.full((8, 8, 2), 190, np.uint8), np.ones((8, 8), np.bool_))
    cases.restore(path, out, [patch])
    small = levels(out)[1]
    assert (small[5:9, 5:9, 0] == 150).all()
    assert (small[..., 1] == 150).all()


@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_a_copy_becomes_opaque_where_its_page_does(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        for subfile, step in ((0, 1), (1, 2)):
            page = np.full((64, 64, 4), 90, np.uint8)
            page[10:18, 10:18] = 0
            file.write(page[::step, ::step], photometric="rgb", subfiletype=subfile, extrasamples=[kind], metadata=None)
    samples = np.full((8, 8, 4), 190, np.uint8)
    samples[..., 3] = 255
    cases.restore(path, out, [Patch(Box(10, 10, 8, 8), samples, np.ones((8, 8), np.bool_), with_alpha=True)])
    meant = np.full((32, 32, 4), 90, np.uint8)
    meant[5:9, 5:9] = 190, 190, 190, 255
    np.testing.assert_array_equal(levels(out)[1], meant)


@pytest.mark.parametrize("tile", [(64, 80), None])
def test_parts_of_a_patch_may_have_no_hole_and_a_cell_may_be_larger_than_a_part(
    tmp_path: Path, tile: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiff_levels, "_SIDE_PX", 8)
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    full = cases.picture("grey", 120, 160)
    with tifffile.TiffWriter(path) as file:
        for subfile, step in ((0, 1), (1, 10)):
            file.write(full[::step, ::step], photometric="minisblack", subfiletype=subfile, tile=tile, metadata=None)
    hole = np.zeros((80, 100), np.bool_)
    hole[:10, :10] = hole[-10:, -10:] = True
    cases.restore(path, out, [Patch(Box(20, 30, 80, 100), np.full((80, 100, 1), 7, np.uint8), hole)])
    meant = levels(path)[1]
    meant[2, 3] = meant[9, 12] = 7
    np.testing.assert_array_equal(levels(out)[1], meant)
