"""`report` behind real runs: which rows are on the page, what it says of them, that it is one harmless file."""

from __future__ import annotations

import errno
import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, noise, run
from PIL import Image
from typer.testing import CliRunner

from inpaint_batch.cli.main import app
from inpaint_batch.errors import StorageError, UsageError
from inpaint_batch.pipeline import report
from inpaint_batch.pipeline.report import write_report
from inpaint_batch.report import pulse
from inpaint_batch.storage import nearby


def written(output: Path, **settings: int) -> str:
    chosen = {"num_rows": 40, "max_image_bytes": 1 << 30, **settings}
    path = write_report(output, None, **chosen)
    assert path == output / ".inpaint-batch" / "report.html"
    return path.read_text("utf-8")


def names(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall(r"<figure><figcaption><b>(?:<a [^>]*>)?([^<]*)<", page)]


def test_every_row_that_is_done_stands_beside_its_source(every_format: Gallery, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(every_format.manifest(), output)
    page = written(output)
    assert sorted(names(page)) == sorted(row["output"] for row in every_format.rows)
    assert "cannot be shown" not in page
    assert page.count('src="data:image/png') == len(every_format.rows)
    assert page.count('alt="source"') >= len(every_format.rows)
    assert f"{len(every_format.rows)} of {len(every_format.rows)} rows done, 0 failed; exit code 0." in page


def test_what_has_changed_is_told_of_the_files_and_not_of_the_mask(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png", side=100, hole=(10, 10, 10, 20))
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    assert "hole 2.00%, changed 2.00%" in written(output)
    result = np.asarray(Image.open(output / "a.png")).copy()
    result[50:60] ^= 255  # somebody painted in it
    Image.fromarray(result).save(output / "a.png")
    assert "hole 2.00%, changed 12.00%" in written(output)


def test_a_page_of_many_results_is_not_made_in_silence(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery.add("a.png")
    gallery.add("b.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    capsys.readouterr()
    written(output)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(pulse, "LINE_EVERY_S", 0.0)
    written(output)
    assert "inpaint-batch: 1 of 2 results compared\n" in capsys.readouterr().err


def test_failures_and_warnings_are_listed(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("plain.png")
    gallery.add("mostly.png", hole=(0, 0, 72, 60))
    gallery.add_row("gone.png", "gone-mask.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    page = written(output)
    assert names(page) == ["mostly.png", "plain.png"]
    assert "marks 83% of the image" in page
    assert "<h2>Failed: 1</h2>" in page
    assert "<td>gone.png</td><td>read</td>" in page


def test_a_failure_that_no_manifest_names_any_more_is_not_listed(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("plain.png")
    gallery.add_row("gone.png", "gone-mask.png")
    gallery.add_row("away.png", "away-mask.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    del gallery.rows[1]  # its owner gave it up
    gallery.rows.append({**gallery.rows[0], "id": ""})
    run(gallery.manifest(), output)
    page = written(output)
    assert "1 of 3 rows done, 2 failed (1 read, 1 write); exit code 8." in page
    assert "<h2>Failed: 2</h2>" in page
    assert "<td>away.png</td><td>read</td>" in page
    assert "<td>plain.png</td><td>write</td>" in page
    assert "gone.png" not in page
    (output / ".inpaint-batch" / "failures.csv").write_text("somebody edited it\n")
    assert "<h2>Failed: 3</h2>" in written(output)  # as far as the ledger knows


def test_the_widest_holes_come_first_and_the_rest_by_chance(gallery: Gallery, tmp_path: Path) -> None:
    for number in range(24):
        gallery.add(f"{number:02}.png", hole=(5, 5, 2 + number, 10))
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    first = names(written(output, num_rows=9))
    assert first[:3] == ["23.png", "22.png", "21.png"]
    assert len(set(first)) == 9
    assert first[3:] != sorted(first[3:], reverse=True)
    assert names(written(output, num_rows=9)) == first
    assert "9 of the rows that are done are shown: first" in written(output, num_rows=9)
    for enough in (24, 25, 0):
        assert "All rows that are done are shown" in written(output, num_rows=enough)
    assert len(names(written(output, num_rows=0))) == 24
    run(gallery.manifest(), output, fresh=True)
    assert len(names(written(output, num_rows=0))) == 24
    assert "All rows that are done are shown" in written(output, num_rows=24)


def test_what_is_most_in_doubt_comes_first(gallery: Gallery, tmp_path: Path) -> None:
    """Of holes of one size those in noise, of those in noise the largest."""
    flat = np.full((72, 72, 3), 120, np.uint8)
    for name, samples, side in (("a", flat, 16), ("b", noise(1, 72, "RGB"), 8), ("c", noise(1, 72, "RGB"), 30)):
        Image.fromarray(samples).save(gallery.folder / f"{name}.png")
        drawn = np.zeros((72, 72), np.uint8)
        drawn[20 : 20 + side, 20 : 20 + side] = 255
        gallery.add_row(f"{name}.png", gallery.mask(f"{name}.mask.png", drawn))
    output = tmp_path / "out"
    run(gallery.manifest(), output, engine="auto", passes=2)
    page = written(output)
    assert names(page) == ["c.png", "b.png", "a.png"]
    told = {line["id"]: line["doubt"] for line in ledger_lines(output) if line["status"] == "done"}
    assert told["a.png"] < 2 < told["b.png"]
    assert f"hole 1.23%, doubt {told['b.png']:.1f}, changed " in page


def test_the_page_of_a_tiff_is_the_one_that_was_restored(gallery: Gallery, tmp_path: Path) -> None:
    with tifffile.TiffWriter(gallery.folder / "book.tif") as file:
        for number in range(3):
            file.write(np.full((64, 64), 40 * number, np.uint8), photometric="minisblack", metadata=None)
    mask = np.zeros((64, 64), np.uint8)
    mask[:16, :16] = 255
    gallery.mask("mask.png", mask)
    gallery.add_row("book.tif", "mask.png", page="2")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    assert "changed 6.25%" in written(output)


def test_files_that_are_gone_or_too_large_are_told(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("here.png")
    gallery.add("gone.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    (gallery.folder / "gone.png").unlink()
    page = written(output)
    assert page.count("cannot be shown") == 1
    assert "gone.png does not exist" in page
    assert written(output, max_image_bytes=100).count("cannot be shown") == 2


def test_names_of_files_cannot_write_into_the_page(gallery: Gallery, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&\"'.png"
    gallery.add(name)
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    page = written(output)
    assert "<img src=x" not in page
    assert names(page) == [name]
    assert "<script" not in page
    (link,) = re.findall(r'<a href="([^"]*)"', page)
    assert link == "../%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E%26%22%27.png"


def test_an_image_for_which_there_is_no_room_is_not_shown(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = pytest.importorskip("fsspec").filesystem("memory")
    gallery.add("a.png")
    gallery.add("b.png")
    store.pipe("/report/a.png", (gallery.folder / "a.png").read_bytes())
    gallery.rows[0]["image"] = "memory://report/a.png"
    output = tmp_path / "out"
    assert run(gallery.manifest(), output)["exit_code"] == 0

    def full(uri: str, path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(nearby, "fetch", full)
    page = written(output)
    assert page.count("cannot be shown: there is no room for a copy of the image memory://report/a.png") == 1
    assert page.count("cannot be shown") == 1


def test_where_there_was_no_run_there_is_no_page(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no run has begun"):
        write_report(tmp_path, None, num_rows=1, max_image_bytes=1)
    with pytest.raises(UsageError, match="--html"):
        write_report("memory://nowhere", None, num_rows=1, max_image_bytes=1)
    assert not list(tmp_path.iterdir())


def test_a_place_where_no_page_can_be_is_told_before_it_is_made(gallery: Gallery, tmp_path: Path, monkeypatch) -> None:
    gallery.add("a.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    monkeypatch.setattr(report, "compare", None)  # no picture is made before
    (tmp_path / "file").touch()
    for place, problem in ((output, "that is a folder"), (tmp_path / "file" / "page.html", "file is not a folder")):
        with pytest.raises(StorageError, match=f"{problem}; name another place with --html FILE"):
            write_report(output, place, num_rows=1, max_image_bytes=1)
    monkeypatch.setattr(os, "access", lambda path, mode: ".inpaint-batch" not in str(path))  # root may write anywhere
    with pytest.raises(StorageError, match=r"nothing may be written in \S*\.inpaint-batch; .* --html FILE"):
        write_report(output, None, num_rows=1, max_image_bytes=1)
    monkeypatch.undo()
    assert write_report(output, tmp_path / "new" / "page.html", num_rows=1, max_image_bytes=1 << 30).is_file()


def test_nothing_but_an_earlier_page_is_written_over(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    output, page = tmp_path / "out", tmp_path / "page.html"
    run(gallery.manifest(), output)
    before = b"<!DOCTYPE html><title>mine</title>"
    page.write_bytes(before)
    with pytest.raises(StorageError, match="a file that is no such page is there; name another place with --html"):
        write_report(output, page, num_rows=0, max_image_bytes=1 << 30)
    assert page.read_bytes() == before
    page.unlink()
    for _ in range(2):
        write_report(output, page, num_rows=0, max_image_bytes=1 << 30)
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")


def test_the_command_says_where_the_page_is(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    done = CliRunner().invoke(app, ["report", str(output), "--html", str(tmp_path / "look.html"), "--rows", "1"])
    assert (done.exit_code, done.output) == (0, f"{tmp_path / 'look.html'}\n")
    assert '<a href="out/a.png">' in (tmp_path / "look.html").read_text()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browsed(page: Path, profile: Path, *flags: str) -> str:
    """What the browser writes to standard output when it is shown a page."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")
@pytest.mark.parametrize("width_px", [500, 1000])
def test_words_in_the_list_of_failures_stay_whole(gallery: Gallery, tmp_path: Path, width_px: int) -> None:
    gallery.add_row("scan-01.png", "gone.png")  # its sentence names a path that is as wide as the page
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    page = written(output)
    assert "<p>No row is done yet.</p>" in page
    assert re.search(r"Made on 20\d\d-\d\d-\d\d at \d\d:\d\d UTC by inpaint-batch ", page)
    measured = tmp_path / "measured.html"
    lines = "[...document.querySelectorAll('th,td:nth-child(-n+2)')].map(cell => { const text = document.createRange();"
    lines += "text.selectNodeContents(cell); return text.getClientRects().length })"
    measured.write_text(page.replace("</body>", f"<script>document.title = {lines}</script></body>"), "utf-8")
    shown = browsed(measured, tmp_path / "profile", "--dump-dom", f"--window-size={width_px},900")
    assert "<title>1,1,1,1,1</title>" in shown  # each on one line


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")
def test_a_browser_shows_the_result_and_what_has_changed(gallery: Gallery, tmp_path: Path) -> None:
    Image.fromarray(np.full((400, 400, 3), (20, 160, 60), np.uint8)).save(gallery.folder / "a.png")
    mask = np.zeros((400, 400), np.uint8)
    mask[100:150, 100:150] = 255
    gallery.mask("mask.png", mask)
    gallery.add_row("a.png", "mask.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)  # the identity engine leaves the hole black
    path = write_report(output, None, num_rows=1, max_image_bytes=1 << 30)
    browsed(path, tmp_path / "profile", f"--screenshot={tmp_path / 'shot.png'}", "--window-size=1200,900")
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)

    def amount(colour: tuple[int, int, int]) -> int:
        return int((np.abs(shot - colour).max(axis=2) < 16).sum())

    assert amount((20, 160, 60)) > 400 * 400 - 50 * 50 + 10_000  # the whole, and a close-up
    assert 2000 < amount((235, 40, 120)) < 3000  # the mark on it, 50 × 50
    assert 2000 < amount((0, 0, 0)) < 2600  # the black fill in the close-up; text is lighter
