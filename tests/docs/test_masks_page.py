"""The notations on the page about masks are read as it says."""

import re
from pathlib import Path

import numpy as np
import pytest

from inpaint_batch.imaging import json_stream
from inpaint_batch.imaging.mask_json import ForImage
from inpaint_batch.imaging.masks import read_mask
from inpaint_batch.imaging.polygons import MAX_CROSSINGS
from inpaint_batch.types import Header

PAGE = (Path(__file__).parents[2] / "docs" / "masks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
HEADER = Header("tiff", 4000, 3000, 3, "uint8", has_alpha=False)


def read(path: Path, entry: str = "") -> np.ndarray:
    image = ForImage(HEADER, "/archive/scans/box12/003.tif", entry, 1 << 30)
    return read_mask(lambda: path, image, shown=str(path), version=lambda: f"{path}{path.stat().st_mtime_ns}").grey > 0


@pytest.fixture
def notations(tmp_path: Path) -> list[Path]:
    texts = [body for language, body in BLOCKS if language in ("json", "text")]
    paths = [tmp_path / f"{number}.json" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def test_the_examples(notations: list[Path]) -> None:
    geojson, coco, runs = notations
    area = np.zeros((3000, 4000), bool)
    area[80:140, 100:180] = True
    with_hole = area.copy()
    with_hole[90:110, 120:140] = False
    np.testing.assert_array_equal(read(geojson), with_hole)
    area[:30, 0] = True
    np.testing.assert_array_equal(read(coco), area)
    np.testing.assert_array_equal(read(coco, "17"), area)
    columns = np.zeros((3000, 4000), bool)
    columns[:30, 1:3] = True
    np.testing.assert_array_equal(read(runs), columns)


def test_the_limits() -> None:
    assert f"{MAX_CROSSINGS:,}" in PAGE
    assert "33.5 million" in PAGE
    assert abs((1 << 30) / json_stream.PARSED_BYTES_PER_CHARACTER - 33.5e6) < 1e5
