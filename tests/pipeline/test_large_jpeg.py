"""One scratch in a progressive JPEG, as `benchmarks/large_jpeg.py` measures it, on a smaller picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import large_jpeg  # noqa: E402


def test_a_scratch_changes_its_mcus_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"large_jpeg --size 803x517 --rounds 1 --json {tmp_path}/report.json -- --engine identity"
    monkeypatch.setattr(sys, "argv", command.split())
    large_jpeg.main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["num_mcus"] == 51 * 33
    assert 12 < report["num_touched_mcus"] < 50
    assert (report["num_blocks_changed_outside"], report["num_pixels_changed_outside"]) == (0, 0)
    assert report["num_pixels_changed"] > 1000
    assert "| 0.4 megapixels |" in capsys.readouterr().out


def test_what_changes_elsewhere_is_seen(tmp_path: Path) -> None:
    picture = large_jpeg.made_up(320, 300)
    large_jpeg.save(picture, tmp_path / "a.jpg")
    large_jpeg.save(np.where(np.arange(320)[:, None] < 40, np.uint8(9), picture), tmp_path / "b.jpg")
    found = large_jpeg.differences(tmp_path / "a.jpg", tmp_path / "b.jpg", large_jpeg.scratch(300, 320))
    assert found["num_blocks_changed_outside"] >= 3 * 19 * 2
    assert found["num_pixels_changed_outside"] > 250 * 38
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.info["progressive"]
