"""The demo as it lies in the checkout: small, complete, and what its manifest says."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MANIFESTS = Path(__file__).parents[2] / "manifests"
ROWS = list(csv.DictReader((MANIFESTS / "demo.csv").read_text(encoding="utf-8").splitlines()))
FORMATS = {"scratches": "JPEG", "stains": "PNG", "large-loss": "TIFF", "removed-object": "WEBP"}


def test_four_kinds_of_damage_in_four_formats_and_no_stray_file() -> None:
    named = {MANIFESTS / row[column] for row in ROWS for column in ("image", "mask")}
    assert set((MANIFESTS / "demo").iterdir()) == named
    assert sum(path.stat().st_size for path in named) < 1_500_000
    assert [row["id"] for row in ROWS] == list(FORMATS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["id"])
def test_a_mask_fits_its_image_and_marks_a_part_of_it(row: dict[str, str]) -> None:
    with Image.open(MANIFESTS / row["image"]) as image, Image.open(MANIFESTS / row["mask"]) as mask:
        assert image.format == FORMATS[row["id"]]
        assert image.size == mask.size
        assert image.mode == "RGB"
        assert 0.01 < np.asarray(mask.convert("L")).mean() / 255 < 0.2


def test_the_jpeg_carries_metadata_that_must_survive() -> None:
    with Image.open(MANIFESTS / ROWS[0]["image"]) as image:
        assert image.getexif()[0x013B] == "NASA"
        assert image.info["icc_profile"]
        assert image.info["dpi"] == (300, 300)
