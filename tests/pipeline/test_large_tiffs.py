"""TIFFs larger than the memory they may take: the same bytes, and a peak that does not follow the image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from gallery import run, tree

from inpaint_batch.execution import prepare
from inpaint_batch.holes.sparse import SparseMap
from inpaint_batch.imaging import mask_pictures

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import gigapixel  # noqa: E402

LEAST = "400M"

KINDS: dict[str, dict[str, Any]] = {
    "rgb tiles": {"bands": 3, "tile": (256, 256), "compression": "zlib", "predictor": True},
    "grey strips": {"bands": 1, "rowsperstrip": 7, "compression": "lzw"},
    "planar tiles": {"bands": 3, "tile": (128, 320), "planarconfig": "separate", "compression": "zstd"},
    "one strip": {"bands": 1},
}


def picture(side: int, bands: int) -> np.ndarray:
    rng = np.random.default_rng(side)
    coarse = rng.uniform(0, 65535, (9, 9, bands)).astype(np.float32)
    samples = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC).reshape(side, side, bands)
    return (samples + rng.normal(0, 300, samples.shape)).clip(0, 65535).astype(np.uint16)


def damage(side: int) -> np.ndarray:
    """A diagonal through the whole, scratches, specks, and a hole deep enough for three levels."""
    rng = np.random.default_rng(1)
    drawn = np.zeros((side, side), np.uint8)
    cv2.line(drawn, (0, side // 3), (side - 1, side - 1), 255, 5)
    cv2.circle(drawn, (side // 2, side // 5), 70, 255, -1)
    for _ in range(6):
        start = rng.integers(0, side, 2)
        end = start + rng.integers(-300, 300, 2)
        cv2.line(drawn, tuple(start.tolist()), tuple(end.tolist()), 255, 3)
    return drawn


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mask_suffix", [".png", ".tif"])
def test_the_bytes_do_not_depend_on_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, mask_suffix: str
) -> None:
    side, options = 1300, dict(KINDS[kind])
    samples, drawn = picture(side, options.pop("bands")), damage(side)
    is_planar = options.get("planarconfig") == "separate"
    stored = samples.transpose(2, 0, 1) if is_planar else samples.squeeze()
    photometric = "rgb" if samples.shape[2] == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, metadata=None, **options)
    mask = tmp_path / f"mask{mask_suffix}"
    if mask_suffix == ".png":
        cv2.imwrite(str(mask), drawn)
    else:
        tifffile.imwrite(mask, drawn, tile=(64, 64), compression="zlib", metadata=None)
    (tmp_path / "m.csv").write_text(f"image,mask,output,dilate,feather\na.tif,{mask.name},a.tif,2,3\n")

    assert run(tmp_path / "m.csv", tmp_path / "whole")["exit_code"] == 0
    maps: list[int] = []
    init = SparseMap.__init__
    monkeypatch.setattr(SparseMap, "__init__", lambda self, shape: maps.append(1) or init(self, shape))  # type: ignore[func-returns-value]
    monkeypatch.setattr(prepare, "patches_bytes", lambda _: 1 << 16)
    monkeypatch.setattr(mask_pictures, "_PIECE_PX", 10_000)
    summary = run(tmp_path / "m.csv", tmp_path / "parts", max_memory=LEAST)
    assert summary["exit_code"] == 0
    assert maps
    assert tree(tmp_path / "parts") == tree(tmp_path / "whole")

    after = tifffile.imread(tmp_path / "parts" / "a.tif").reshape(stored.shape)
    after = after.transpose(1, 2, 0) if is_planar else after.reshape(samples.shape)
    reach = cv2.dilate(drawn, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))) > 0
    assert np.array_equal(after[~reach], samples[~reach])
    changed = (after != samples).any(axis=2)
    assert changed[drawn > 0].mean() > 0.99


@pytest.mark.slow
def test_memory_does_not_follow_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """4,500 x 4,500 RGB of 16 bits are 121 MB decoded, more than rows may take here."""
    command = f"gigapixel {tmp_path} --side 4500 --bands 3 --json {tmp_path}/report.json --"
    monkeypatch.setattr(gigapixel, "NUM_PATTERNS", 4)
    monkeypatch.setattr(sys, "argv", [*command.split(), "--engine", "identity", "--max-memory", LEAST])
    gigapixel.main()
    assert "| 4500² × 3 | scratches | tiff |" in capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["peak_memory_bytes"] < 400 << 20
    assert sum(report["tiles_by_side_px"].values()) >= 200

    drawn = tifffile.imread(tmp_path / "4500-scratches.tif") > 127
    with tifffile.TiffFile(tmp_path / "4500-3.tif") as old, tifffile.TiffFile(tmp_path / "out" / "4500-3.tif") as new:
        before, after = old.pages.first, new.pages.first
        assert before.tags.keys() == after.tags.keys()
        num_same = 0
        with (tmp_path / "4500-3.tif").open("rb") as one, (tmp_path / "out" / "4500-3.tif").open("rb") as other:
            for index, (offset, length) in enumerate(zip(before.dataoffsets, before.databytecounts, strict=True)):
                row, column = divmod(index, 18)
                hole = drawn[row * 256 : row * 256 + 256, column * 256 : column * 256 + 256]
                one.seek(offset)
                other.seek(after.dataoffsets[index])
                packed, repacked = one.read(length), other.read(after.databytecounts[index])
                if not hole.any():
                    assert packed == repacked
                    num_same += 1
                    continue
                was, became = (page.decode(data, index)[0][0] for page, data in ((before, packed), (after, repacked)))
                hole = np.pad(hole, ((0, 256 - hole.shape[0]), (0, 256 - hole.shape[1])))[..., None]
                assert np.array_equal(was, np.where(hole[: was.shape[0], : was.shape[1]], was, became))
                assert not became[hole[: was.shape[0], : was.shape[1], 0]].any()  # the identity engine leaves zeros
    assert 50 < num_same < 324 - 50
