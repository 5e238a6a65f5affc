"""The scripts in benchmarks/ without the command line behind them: a fake restorer stands in for it."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from inpaint_batch.errors import ManifestError
from inpaint_batch.evaluation import suites
from inpaint_batch.evaluation.suites import read_rgb, write_png

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import contact_sheet  # noqa: E402
import quality  # noqa: E402


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
        write_png(folder / f"{index}.png", np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8))
    return folder


def cheat(manifest: Path, output: Path, options: list[str]) -> None:
    """Hand back the truth with one grey level of error in every hole sample."""
    output.mkdir()
    for mask in (manifest.parent / "masks").iterdir():
        truth = read_rgb(manifest.parents[2] / "photos" / f"{mask.stem.split('_')[1]}.png").astype(int)
        hole = read_rgb(mask) > 127
        write_png(output / mask.name, (truth + np.where(truth < 255, 1, -1) * hole).astype(np.uint8))


def test_quality_prints_a_table_and_writes_numbers_and_a_sheet(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality, "restore", cheat)
    monkeypatch.setattr(quality.os, "nice", lambda _: 0)
    monkeypatch.setattr(quality.tempfile, "tempdir", str(tmp_path))
    report, sheet = tmp_path / "report.json", tmp_path / "sheets" / "sheet.png"
    command = f"quality --data {photos} --kinds strokes_5_25 boxes damage --json {report} --sheet {sheet} --seed 3"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--", "--precision", "int8"])
    quality.main()

    printed = capsys.readouterr().out
    assert "### photos: 3 photographs, seed 3" in printed
    assert printed.count("| inpaint-batch | 3 | 48.13 |") == 2  # 20·log10(255); no damage folder, no such line
    written = json.loads(report.read_text())
    assert written["settings"]["run_options"] == ["--precision", "int8"]
    ours = written["results"]["photos"]["boxes"]["inpaint-batch"]
    assert len(ours["images"]) == 3
    assert ours["mean"]["hole_psnr_db"] == pytest.approx(48.1308, abs=1e-3)
    assert ours["mean"]["hole_l1"] == pytest.approx(1 / 255, abs=1e-6)
    assert read_rgb(sheet).shape[1] == 2 * len(quality.PANELS) * (quality.SHEET_PANEL_PX + contact_sheet.GAP_PX)


def test_quality_refuses_a_result_that_touched_what_was_known(photos: Path, tmp_path: Path) -> None:
    suite = suites.write_suite("boxes", suites.find_photos(photos), tmp_path / "suite", suites.hole_maker("boxes"))
    (tmp_path / "restored").mkdir()
    for item in suite.items:
        write_png(tmp_path / "restored" / item.name, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(SystemExit, match="known sample was changed"):
        quality.compare(suite, tmp_path / "restored")


def test_quality_runs_the_real_command_line(photos: Path, tmp_path: Path) -> None:
    suite = suites.write_suite("boxes", suites.find_photos(photos), tmp_path / "suite", suites.hole_maker("boxes"))
    quality.restore(suite.manifest, tmp_path / "restored", ["--engine", "identity"])  # leaves holes black
    for item in suite.items:
        restored = read_rgb(tmp_path / "restored" / item.name)
        assert (restored[item.hole] == 0).all()
    measured, panels = quality.compare(suite, tmp_path / "restored", num_panels=2, first_panel=2)
    assert {name: len(metrics) for name, metrics in measured.items()} == dict.fromkeys(
        [*quality.CLASSICAL, "inpaint-batch"], 3
    )
    assert len(panels) == 2


def test_quality_passes_on_how_the_command_line_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        quality.restore(tmp_path / "missing.csv", tmp_path / "out", [])
    assert ended.value.code == ManifestError.exit_code
    assert capsys.readouterr().err.strip()


def test_contact_sheet_shows_before_hole_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "a.png", np.full((50, 100, 3), 200, np.uint8))
    mask = np.full((50, 100), 255, np.uint8)
    mask[:, :50] = 0
    write_png(tmp_path / "a.mask.png", mask)
    (tmp_path / "out").mkdir()
    write_png(tmp_path / "out" / "renamed.png", np.full((50, 100, 3), 90, np.uint8))
    manifest = tmp_path / "m.csv"
    manifest.write_text("image,mask,output,mask_polarity\na.png,a.mask.png,renamed.png,black\n")
    sheet = tmp_path / "docs" / "sheet.png"
    command = f"contact_sheet {manifest} {tmp_path / 'out'} --sheet {sheet} --width 50"
    monkeypatch.setattr(sys, "argv", command.split())
    contact_sheet.main()

    drawn = read_rgb(sheet)
    step, top = 50 + contact_sheet.GAP_PX, contact_sheet.LABEL_HEIGHT_PX + contact_sheet.GAP_PX
    assert drawn.shape == (top + 25 + contact_sheet.GAP_PX, 3 * step, 3)
    before, hole, after = (drawn[top : top + 25, left : left + 50] for left in (0, step, 2 * step))
    assert (before == 200).all()
    assert (hole[:, :24] == contact_sheet.HOLE_COLOUR).all()  # black marks the hole here
    assert (hole[:, 26:] == 200).all()
    assert (after == 90).all()
