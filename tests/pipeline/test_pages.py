"""One page of a TIFF of several, chosen in the manifest."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, noise, run

NUM_PAGES = 3


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """`scan.tif` with three pages of one size, and a mask for any of them."""
    gallery = Gallery(tmp_path / "in")
    hole = np.zeros((72, 72), np.uint8)
    hole[20:32, 24:40] = 255
    gallery.mask("mask.png", hole)
    with tifffile.TiffWriter(gallery.folder / "scan.tif") as file:
        for page in range(NUM_PAGES):
            file.write(noise(page, 72, "RGB"), compression="deflate", rowsperstrip=8, metadata=None)
    return gallery


def pages(path: Path) -> list[np.ndarray]:
    with tifffile.TiffFile(path) as file:
        return [page.asarray() for page in file.pages]


@pytest.mark.parametrize("page", [1, 2, 3])
def test_only_the_chosen_page_changes_and_only_in_its_hole(gallery: Gallery, tmp_path: Path, page: int) -> None:
    gallery.add_row("scan.tif", "mask.png", page=str(page))
    run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")
    before, after = pages(gallery.folder / "scan.tif"), pages(tmp_path / "out" / "scan.tif")
    assert len(after) == NUM_PAGES
    for number in range(1, NUM_PAGES + 1):
        changed = (before[number - 1] != after[number - 1]).any(axis=2)
        assert not changed[:20].any()
        assert not changed[32:].any()
        assert not changed[:, :24].any()
        assert not changed[:, 40:].any()
        assert (changed.mean() > 0.03) == (number == page)  # the hole is 3.7 % of the page


def test_two_rows_may_restore_two_pages_into_two_files(gallery: Gallery, tmp_path: Path) -> None:
    for page in ("1", "3"):
        gallery.add_row("scan.tif", "mask.png", id=f"page {page}", output=f"scan-{page}.tif", page=page)
    run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")
    first, third = pages(tmp_path / "out" / "scan-1.tif"), pages(tmp_path / "out" / "scan-3.tif")
    assert [(a == b).all() for a, b in zip(first, third, strict=True)] == [False, True, False]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("", "say which one in the column `page` (1 to 3"),
        ("4", "has no page 4; its pages are 1 to 3"),
        ("-1", "page must count from 1"),
        ("two", "page must be a whole number, not 'two'"),
    ],
)
def test_a_page_that_cannot_be_is_an_error_of_its_row(
    gallery: Gallery, tmp_path: Path, page: str, message: str
) -> None:
    gallery.add_row("scan.tif", "mask.png", page=page)
    run(gallery.manifest(), tmp_path / "out")
    (failed,) = (line for line in ledger_lines(tmp_path / "out") if line["status"] == "failed")
    assert message in failed["message"]


def test_another_format_has_only_its_first(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "in")
    gallery.add("a.png", page="1")
    gallery.add("b.png", page="2")
    run(gallery.manifest(), tmp_path / "out")
    status = {line["id"]: line for line in ledger_lines(tmp_path / "out") if line["status"] != "started"}
    assert status["a.png"]["status"] == "done"
    assert "has no page 2; only a TIFF can have several" in status["b.png"]["message"]


def test_another_page_is_another_result(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add_row("scan.tif", "mask.png", page="1")
    run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")
    gallery.rows[0]["page"] = "2"
    summary = run(gallery.manifest(), tmp_path / "out", engine="onnxruntime")
    assert (summary["rows"]["done"], summary["rows"]["skipped"]) == (1, 0)
