"""What has changed is found, counted and shown where it is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from inpaint_batch.errors import RowError
from inpaint_batch.imaging.read import open_image
from inpaint_batch.report.comparison import CLOSE_UP_PX, Comparison, close_up_boxes, compare
from inpaint_batch.types import Box


def compared(before: Path, after: Path) -> Comparison:
    return compare(open_image(before, max_bytes=1 << 30), open_image(after, max_bytes=1 << 30))


def saved(path: Path, samples: np.ndarray, **options: object) -> Path:
    Image.fromarray(samples).save(path, **options)
    return path


def decoded(content: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)


def test_each_changed_pixel_counts_once_and_one_alone_is_seen(tmp_path: Path) -> None:
    samples = np.full((900, 1500, 3), 90, np.uint8)
    changed = samples.copy()
    changed[10, 20] = 91  # every band
    changed[700, 1300, 2] = 255  # one band
    found = compared(saved(tmp_path / "a.png", samples), saved(tmp_path / "b.png", changed))
    assert (found.num_pixels, found.num_changed) == (900 * 1500, 2)
    marks = decoded(found.marks)
    assert marks.shape == (225, 375, 4)  # a quarter of the size: 1500 px is to be at most 480
    assert sorted(zip(*np.nonzero(marks[..., 3]), strict=True)) == [(10 // 4, 20 // 4), (700 // 4, 1300 // 4)]
    assert decoded(found.overview).shape == (225, 375, 3)
    assert len(found.close_ups) == 2


def test_close_ups_show_source_and_result_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.integers(0, 8, (20, 30, 3), np.uint8).repeat(32, axis=0).repeat(32, axis=1) * 30
    changed = samples.copy()
    changed[300:340, 500:540] = (255, 0, 0)
    found = compared(saved(tmp_path / "a.png", samples), saved(tmp_path / "b.png", changed))
    assert found.num_changed == 1600
    (close,) = found.close_ups
    side = CLOSE_UP_PX[0]
    top, left = 320 - side // 2, 520 - side // 2
    for content, whole in ((close.before, samples), (close.after, changed)):
        picture = decoded(content)[..., ::-1]
        assert picture.shape == (side, side, 3)
        difference = np.abs(picture.astype(int) - whole[top : top + side, left : left + side])
        assert np.median(difference) <= 2  # JPEG
        assert difference.mean() < 6


def test_nothing_changed_is_nothing_shown(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    values[3, 3] = np.nan
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack", metadata=None)
    found = compared(tmp_path / "a.tif", tmp_path / "b.tif")
    assert (found.num_changed, found.close_ups) == (0, ())
    assert not decoded(found.marks).any()


def test_floats_are_shown_between_the_levels_that_are_in_them(tmp_path: Path) -> None:
    values = np.full((40, 40), 5000, np.float32)
    values[:, 20:] = 9000
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, values, photometric="minisblack", metadata=None)
    overview = decoded(compared(tmp_path / "a.tif", tmp_path / "b.tif").overview)
    assert overview[:, :16].max() < 20
    assert overview[:, 24:].min() > 235


def test_pictures_are_upright(tmp_path: Path) -> None:
    samples = np.zeros((40, 80, 3), np.uint8)
    samples[:, :8] = 255  # on the left as stored: on top once turned to the right
    exif = Image.Exif()
    exif[0x0112] = 6
    changed = samples.copy()
    changed[5, 70] = 128
    found = compared(saved(tmp_path / "a.png", samples, exif=exif), saved(tmp_path / "b.png", changed, exif=exif))
    overview = decoded(found.overview)
    assert overview.shape == (80, 40, 3)
    assert overview[:6].min() > 200
    assert overview[12:60].max() < 60
    assert list(zip(*np.nonzero(decoded(found.marks)[..., 3]), strict=True)) == [(70, 34)]  # (x, height - 1 - y)


@pytest.mark.parametrize("tile", [(64, 128), None])
def test_parts_of_any_kind_make_one_picture(tmp_path: Path, tile: tuple[int, int] | None) -> None:
    """Neither tiles nor strips begin where the cells of the small picture do."""
    rng = np.random.default_rng(1)
    samples = rng.integers(0, 256, (10, 15, 3), np.uint8).repeat(100, axis=0).repeat(100, axis=1)[:997, :1499]
    changed = samples.copy()
    places = [(0, 0), (63, 127), (64, 128), (500, 1498), (996, 3)]
    for place in places:
        changed[place] ^= 1
    for name, values in (("a.tif", samples), ("b.tif", changed)):
        layout = {"tile": tile} if tile else {"rowsperstrip": 7}
        tifffile.imwrite(tmp_path / name, values, photometric="rgb", metadata=None, **layout)
    found = compared(tmp_path / "a.tif", tmp_path / "b.tif")
    assert found.num_changed == 5
    marks = decoded(found.marks)
    assert marks.shape == (250, 375, 4)
    assert set(zip(*np.nonzero(marks[..., 3]), strict=True)) == {(row // 4, column // 4) for row, column in places}
    small = samples[:996, :1496].reshape(249, 4, 374, 4, 3).mean(axis=(1, 3))
    difference = np.abs(decoded(found.overview)[:249, :374, ::-1] - small)
    assert np.median(difference) <= 2  # JPEG


def test_images_of_different_sizes_are_not_compared(tmp_path: Path) -> None:
    first = saved(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    second = saved(tmp_path / "b.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(RowError, match="differ in size or bands"):
        compared(first, second)


def test_the_largest_changes_are_chosen_and_near_ones_are_one() -> None:
    changed = np.zeros((500, 500), np.bool_)
    changed[10:12, 10:12] = True  # 4 cells
    changed[100:110, 100:110] = True  # 100, and 25 more near by
    changed[115:120, 100:105] = True
    changed[300:330, 300:330] = True  # 900
    changed[450:453, 20:23] = True  # 9
    boxes = close_up_boxes(changed, 2, Box(0, 0, 1000, 1000))
    assert boxes == [Box(550, 550, 160, 160), Box(140, 130, 160, 160), Box(823, 0, 160, 160)]


def test_of_a_long_change_the_busiest_part_is_shown() -> None:
    changed = np.zeros((400, 400), np.bool_)
    changed[np.arange(400), np.arange(400)] = True
    changed[100:110, 100:110] = True
    (box,) = close_up_boxes(changed, 8, Box(0, 0, 3200, 3200))
    assert (box.height, box.width) == (CLOSE_UP_PX[1], CLOSE_UP_PX[1])
    assert box.contains(Box(800, 800, 80, 80))


def test_what_is_in_doubt_is_shown_before_larger_changes() -> None:
    changed = np.zeros((500, 500), np.bool_)
    changed[100:103, 400:403] = True
    changed[300:330, 300:330] = True
    changed[450:460, 20:30] = True
    boxes = close_up_boxes(changed, 2, Box(0, 0, 1000, 1000), Box(190, 780, 30, 40))
    assert boxes == [Box(123, 723, 160, 160), Box(550, 550, 160, 160), Box(830, 0, 160, 160)]
    assert len(close_up_boxes(changed, 2, Box(0, 0, 1000, 1000), Box(600, 600, 60, 60))) == 3  # none twice
    assert close_up_boxes(changed, 2, Box(0, 0, 1000, 1000), Box(0, 0, 9, 9)) == [boxes[1], boxes[2], boxes[0]]
