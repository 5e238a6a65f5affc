import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from inpaint_batch.evaluation.suites import (
    BOX_AREA,
    DAMAGE_AREA,
    KINDS,
    MID_GREY,
    STROKE_AREAS,
    Suite,
    as_image,
    find_photos,
    hole_maker,
    read_rgb,
    write_png,
    write_suite,
)

AREAS = {**STROKE_AREAS, "boxes": BOX_AREA, "damage": DAMAGE_AREA}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three small photographs, one of them a JPEG in a sub-folder, and a file that is none."""
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        write_png(folder / name, rng.integers(0, 256, (96, 128, 3), np.uint8))
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (80, 100, 3), np.uint8), (0, 0), 3)
    (folder / "deeper" / "a.jpg").write_bytes(cv2.imencode(".jpg", smooth)[1].tobytes())
    (folder / "notes.txt").write_text("no photograph")
    return folder


@pytest.fixture
def damage(tmp_path: Path) -> Path:
    """Two damage elements: a long scratch and a blot, grey, 255 is damage."""
    folder = tmp_path / "damage"
    for name, draw in {"scratches": ((20, 10), (180, 190), 5), "spots": ((100, 100), (101, 101), 14)}.items():
        element = np.zeros((200, 200), np.uint8)
        cv2.line(element, draw[0], draw[1], 255, draw[2])
        (folder / name).mkdir(parents=True)
        write_png(folder / name / "one.png", element)
    return folder


def build(kind: str, photos: Path, damage: Path, folder: Path, seed: int = 0) -> Suite:
    return write_suite(kind, find_photos(photos), folder, hole_maker(kind, damage), seed=seed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_suite_hides_the_truth_and_nothing_else(kind: str, photos: Path, damage: Path, tmp_path: Path) -> None:
    suite = build(kind, photos, damage, tmp_path / "suite")
    with suite.manifest.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(suite.items) == 3
    assert len({row["output"] for row in rows}) == 3
    low, high = AREAS[kind]
    for row, item in zip(rows, suite.items, strict=True):
        image = read_rgb(suite.manifest.parent / row["image"])
        mask = read_rgb(suite.manifest.parent / row["mask"])[..., 0]
        truth = read_rgb(Path(row["truth"]))
        assert set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(mask == 255, item.hole)
        assert low * 0.5 <= item.hole.mean() <= high * 1.1
        assert (image[item.hole] == MID_GREY).all()
        np.testing.assert_array_equal(image[~item.hole], truth[~item.hole])


def test_a_photograph_keeps_its_hole_whatever_the_company(photos: Path, damage: Path, tmp_path: Path) -> None:
    all_three = build("strokes_5_25", photos, damage, tmp_path / "all")
    alone = write_suite(
        "strokes_5_25", [all_three.items[1].truth], tmp_path / "alone", hole_maker("strokes_5_25"), seed=0
    )
    np.testing.assert_array_equal(alone.items[0].hole, all_three.items[1].hole)
    other_seed = build("strokes_5_25", photos, damage, tmp_path / "other", seed=1)
    assert (other_seed.items[1].hole != all_three.items[1].hole).any()


def test_a_limit_spreads_over_the_folder(tmp_path: Path) -> None:
    for index in range(10):
        (tmp_path / f"{index}.JPG").touch()
    assert [photo.stem for photo in find_photos(tmp_path, 4)] == ["0", "2", "5", "7"]
    assert len(find_photos(tmp_path, 99)) == 10


def test_what_cannot_be_built_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no photograph"):
        find_photos(tmp_path)
    with pytest.raises(ValueError, match="unknown kind of hole 'stars'"):
        hole_maker("stars")
    with pytest.raises(ValueError, match="folder of damage elements"):
        hole_maker("damage")
    for content in (b"", b"not an image"):
        (tmp_path / "x.png").write_bytes(content)
        with pytest.raises(ValueError, match="not an image"):
            read_rgb(tmp_path / "x.png")


def test_images_are_float32_between_zero_and_one() -> None:
    image = as_image(np.array([[[0, 51, 255]]], np.uint8))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0, 0], [0, 0.2, 1])
