"""`mask` as a person uses it: find, look, edit, list again, run."""

import csv
import errno
import html
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from inpaint_batch.cli.main import main
from inpaint_batch.holes.orientation import turn
from inpaint_batch.pipeline import detect as pipeline
from inpaint_batch.storage import atomic, nearby, outputs

SIDE_PX = 160


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["inpaint-batch", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def interrupt_at_the_second(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have the search end as by Ctrl-C at its second image; returns the names of those begun, as they come."""
    seen: list[str] = []
    read = pipeline.grey_of

    def interrupted(source, box):
        seen.append(source.path.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return read(source, box)

    monkeypatch.setattr(pipeline, "grey_of", interrupted)
    return seen


def picture(seed: int = 0, *, scratched: bool = True) -> np.ndarray:
    """Grey levels 0..1 with noise and, if asked for, one bright scratch and a speck of dust."""
    grey = 0.4 + 0.02 * np.random.default_rng(seed).standard_normal((SIDE_PX, SIDE_PX))
    return np.where(truth(), 0.9, grey) if scratched else grey


def samples(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image).copy()


def truth() -> np.ndarray:
    drawn = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.line(drawn, (20, 15), (120, 60), 1, 3)
    cv2.circle(drawn, (40, 120), 3, 1, -1)
    return drawn.astype(bool)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two damaged photographs and a clean one, in a tree."""
    folder = tmp_path / "photos"
    (folder / "box").mkdir(parents=True)
    eight = np.rint(picture() * 255).clip(0, 255).astype(np.uint8)
    Image.fromarray(np.dstack([eight] * 3)).save(folder / "box" / "a.jpg", quality=95)
    Image.fromarray((picture(1) * 65535).clip(0, 65535).astype(np.uint16)).save(folder / "b.png")
    Image.fromarray(np.rint(picture(2, scratched=False) * 255).astype(np.uint8)).save(folder / "clean.tif")
    return folder


def rows(manifest: Path) -> list[dict[str, str]]:
    with manifest.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_find_look_and_run(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    told = capsys.readouterr().out
    assert f"[2/3] {photos / 'clean.tif'}: no mask" in told
    assert "2 images with a mask" in told
    assert "1 without" in told
    assert [row["mask"] for row in rows(masks / "manifest.csv")] == ["b.png.png", "box/a.jpg.png"]
    assert (masks / "clean.txt").read_text() == f"{photos / 'clean.tif'}\n"
    for row in rows(masks / "manifest.csv"):
        mask = samples(masks / row["mask"])
        assert mask.shape == (SIDE_PX, SIDE_PX)
        assert set(np.unique(mask)) == {0, 255}
        assert (mask[truth()] == 255).mean() > 0.9
        assert (mask == 255).sum() < 3 * truth().sum()
    assert call(monkeypatch, "check", masks / "manifest.csv") == 0
    restored = tmp_path / "restored"
    assert call(monkeypatch, "run", masks / "manifest.csv", "--output", restored, "--engine", "identity") == 0
    assert (restored / "box" / "a.jpg").is_file()
    assert samples(restored / "b.png").shape == (SIDE_PX, SIDE_PX)


def test_the_command_that_it_ends_with_can_be_pasted(monkeypatch, photos, tmp_path, capsys):
    assert call(monkeypatch, "mask", photos, "--output", tmp_path / "Müller's masks") == 0
    words = shlex.split(capsys.readouterr().out.rpartition("then: ")[2])
    assert words == ["inpaint-batch", "run", str(tmp_path / "Müller's masks" / "manifest.csv"), "--output", "RESTORED"]


@pytest.mark.parametrize("name", ["fotos", "foto.jpg", "fotos.csv"])
def test_what_does_not_exist_is_told_at_once(monkeypatch, tmp_path, capsys, name):
    assert call(monkeypatch, "mask", tmp_path / name, "--output", tmp_path / "masks") == 4
    assert f"{tmp_path / name} does not exist; name a folder of images, a list" in capsys.readouterr().err
    assert not (tmp_path / "masks").exists()


def test_edited_masks_are_kept_and_listed_again(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    (masks / "b.png.png").unlink()
    edited = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    edited[5:9, 5:9] = 255
    Image.fromarray(edited).save(masks / "box" / "a.jpg.png")
    capsys.readouterr()
    assert call(monkeypatch, "mask", photos, "--output", masks, "--polarity", "bright") == 7
    told = capsys.readouterr().err
    assert "--relist" in told
    assert "(polarity)" in told
    for flags in ((), ("--relist",)):
        assert call(monkeypatch, "mask", photos, "--output", masks, *flags) == 0
        assert [row["output"] for row in rows(masks / "manifest.csv")] == ["box/a.jpg"]
        assert len((masks / "clean.txt").read_text().splitlines()) == 2
        assert (samples(masks / "box" / "a.jpg.png") == edited).all()
    run = ("run", masks / "manifest.csv", "--output", tmp_path / "restored", "--engine", "identity")
    assert call(monkeypatch, *run) == 0
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh") == 0
    assert len(rows(masks / "manifest.csv")) == 2
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh", "--max-area", "0.01") == 0
    told = capsys.readouterr().out
    assert f"[3/3] {photos / 'box' / 'a.jpg'}: its mask was edited or added by hand, and stays" in told
    assert "1 image with a mask, 2 without (1 mask edited or added by hand left as before; delete one," in told
    assert [row["output"] for row in rows(masks / "manifest.csv")] == ["box/a.jpg"]
    assert (samples(masks / "box" / "a.jpg.png") == edited).all()
    (masks / "box" / "a.jpg.png").unlink()
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh") == 0
    assert len(rows(masks / "manifest.csv")) == 2
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh", "--max-area", "0.01") == 0
    assert rows(masks / "manifest.csv") == []
    assert "0 images with a mask, 3 without; there is nothing to run" in capsys.readouterr().out
    assert not list(masks.rglob("*.png"))  # a mask of an image that is clean now would mislead


def test_a_mask_that_was_saved_under_another_name_is_told(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks, "--review") == 0
    assert capsys.readouterr().err == ""
    edited = Image.open(masks / "box" / "a.jpg.png")
    edited.save(masks / "box" / "a.jpg.jpg")  # as a program that exports JPEGs by default names it
    edited.save(masks / "clean.png")  # for clean.tif
    (masks / "b.png.xcf").write_bytes(b"gimp xcf")  # what the mask was drawn in
    assert call(monkeypatch, "mask", photos, "--output", masks, "--relist") == 0
    told = capsys.readouterr().err
    assert "2 pictures that manifest.csv leaves out" in told
    assert "clean.png, box/a.jpg.jpg; the mask of a/b.jpg must be called a/b.jpg.png" in told
    (masks / "clean.png").rename(masks / "clean.tif.png")
    (masks / "box" / "a.jpg.jpg").unlink()
    assert call(monkeypatch, "mask", photos / "b.png", "--output", masks, "--relist") == 0
    assert "1 picture that manifest.csv leaves out" in capsys.readouterr().err  # that of clean.tif, which was not named
    assert call(monkeypatch, "mask", photos, "--output", tmp_path) == 0
    assert capsys.readouterr().err == ""  # what lies elsewhere is nobody's mask, the photographs above all
    (photos / "broken.jpg").write_bytes(b"")
    assert call(monkeypatch, "mask", photos, "--output", masks) == 8
    assert "leaves out" not in capsys.readouterr().err
    assert call(monkeypatch, "run", masks / "manifest.csv", "--output", masks, "--engine", "identity") == 0
    assert call(monkeypatch, "mask", photos, "--output", masks) == 8
    assert "leaves out" not in capsys.readouterr().err  # results may lie beside the masks


def test_dark_paint_on_a_transparent_layer_is_not_passed_over(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    for name, alpha in (("b.png.png", 0), ("box/a.jpg.png", 255)):
        layer = np.full((SIDE_PX, SIDE_PX, 4), alpha, np.uint8)
        layer[..., :3] = 0
        layer[5:9, 5:9, 3] = 255
        Image.fromarray(layer).save(masks / name)
    assert call(monkeypatch, "mask", photos, "--output", masks, "--relist") == 0
    assert [row["output"] for row in rows(masks / "manifest.csv")] == ["b.png"]
    run = ("run", masks / "manifest.csv", "--output", tmp_path / "restored", "--engine", "identity")
    assert call(monkeypatch, *run) == 8
    assert call(monkeypatch, *run, "--mask-polarity", "black") == 0


def test_a_second_call_goes_on_after_the_first(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks, "--workers", 1) == 0
    first = {path: path.stat().st_mtime_ns for path in masks.rglob("*.png")}
    lines = (masks / "found.jsonl").read_text().splitlines(keepends=True)
    (masks / "found.jsonl").write_text("".join(lines[:2]) + lines[2][:20])  # as if it had been killed
    (masks / "box" / "a.jpg.png").unlink()
    (masks / "manifest.csv").unlink()
    cut_short = masks / "box" / f".c.png.inpaint-batch-{os.getpid()}-{atomic._HOST}01234567.tmp"
    cut_short.touch()
    (photos / "new.png").write_bytes((photos / "b.png").read_bytes())
    capsys.readouterr()
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    told = capsys.readouterr().out
    assert not cut_short.exists()
    assert "(1 of all looked at before)" in told
    assert "box/a.jpg" in told
    assert [row["output"] for row in rows(masks / "manifest.csv")] == ["b.png", "new.png", "box/a.jpg"]
    assert (masks / "b.png.png").stat().st_mtime_ns == first[masks / "b.png.png"]
    assert (samples(masks / "b.png.png") == samples(masks / "new.png.png")).all()
    Image.fromarray(np.full((SIDE_PX, SIDE_PX), 90, np.uint8)).save(photos / "new.png")  # a changed image is seen anew
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    assert not (masks / "new.png.png").exists()
    assert len(rows(masks / "manifest.csv")) == 2


def test_an_interrupted_call_goes_on_later(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    seen = interrupt_at_the_second(monkeypatch)
    assert call(monkeypatch, "mask", photos, "--output", masks, "--workers", 1) == 130
    assert seen[:2] == ["b.png", "clean.tif"]
    assert not (masks / "manifest.csv").exists()
    capsys.readouterr()
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    assert seen.count("b.png") == 1
    assert "of all looked at before)" in capsys.readouterr().out
    assert len(rows(masks / "manifest.csv")) == 2


def test_what_a_fresh_call_did_not_come_to_is_found_anew_by_the_next(monkeypatch, photos, tmp_path):
    masks, other = tmp_path / "masks", tmp_path / "other"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    assert call(monkeypatch, "mask", photos, "--output", other, "--dilate", 5) == 0
    seen = interrupt_at_the_second(monkeypatch)
    again = ("mask", photos, "--output", masks, "--dilate", 5, "--workers", 1)
    assert call(monkeypatch, *again, "--fresh") == 130
    seen[2:] = []  # the third may have begun, or come to its end, by the time that the second ended it
    assert call(monkeypatch, *again) == 0
    assert sorted({*seen[2:], "a.jpg"}) == ["a.jpg", "clean.tif"]
    for name in ("b.png.png", "box/a.jpg.png"):
        assert (samples(masks / name) == samples(other / name)).all()


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_ends_it_and_a_later_call_goes_on(photos, tmp_path, number, code):
    for copy in range(80):
        (photos / f"copy{copy}.png").write_bytes((photos / "b.png").read_bytes())
    masks = tmp_path / "masks"
    command = [sys.executable, "-m", "inpaint_batch", "mask", str(photos), "--output", str(masks)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("[1/83]")
        process.send_signal(signal.Signals[number])
        process.stdout.read()
        told = process.stderr.read()
    assert process.returncode == code
    by = "interrupted" if number == "SIGINT" else f"stopped by {number}; what was done is kept,"
    assert told in (f"inpaint-batch: {by} run again to go on\n", f"inpaint-batch: {by}; run again to go on\n")
    assert not (masks / "manifest.csv").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1 <= int(re.findall(r"\((\d+) of all looked at before\)", done.stdout)[0]) < 83
    assert len(rows(masks / "manifest.csv")) == 82
    assert not [path for path in masks.rglob("*") if path.suffix == ".tmp"]


def test_no_mask_of_a_person_is_written_over(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    (masks / "box").mkdir(parents=True)
    drawn = Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), ((0, SIDE_PX - 9), (0, SIDE_PX - 9))))
    drawn.save(masks / "box" / "a.jpg.png")  # before the first call,
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    drawn.save(masks / "b.png.png")  # after it,
    drawn.save(masks / "clean.tif.png")
    for name in ("b.png", "clean.tif"):
        (photos / name).write_bytes((photos / "b.png").read_bytes())  # and though the image has changed
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    for name in ("b.png", "clean.tif", "box/a.jpg"):
        assert (samples(masks / f"{name}.png") == np.asarray(drawn)).all()
    assert len(rows(masks / "manifest.csv")) == 3
    for name in ("b.png", "clean.tif", "box/a.jpg"):  # nor when a call has met the mask before
        Image.fromarray(np.rint(picture(4) * 255).clip(0, 255).astype(np.uint8)).save(photos / name)
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    for name in ("b.png", "clean.tif", "box/a.jpg"):
        assert (samples(masks / f"{name}.png") == np.asarray(drawn)).all()
    (masks / "found.jsonl").unlink()  # nor when nothing is known of it
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh") == 0
    for name in ("b.png", "clean.tif", "box/a.jpg"):
        assert (samples(masks / f"{name}.png") == np.asarray(drawn)).all()


def test_a_mask_that_is_edited_while_its_image_is_looked_at_stays(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    drawn = np.pad(np.full((9, 9), 255, np.uint8), ((0, SIDE_PX - 9), (0, SIDE_PX - 9)))
    read = pipeline.grey_of

    def edited(source, box):
        if source.path.name == "b.png":
            Image.fromarray(drawn).save(masks / "b.png.png")
        return read(source, box)

    monkeypatch.setattr(pipeline, "grey_of", edited)
    assert call(monkeypatch, "mask", photos, "--output", masks, "--fresh") == 0
    assert (samples(masks / "b.png.png") == drawn).all()


def test_a_manifest_that_was_edited_by_hand_is_kept(monkeypatch, photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    for _ in range(2):
        assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    assert not list(masks.glob("manifest-*.csv"))
    for number, name in enumerate(["manifest-edited.csv", "manifest-edited-1.csv"]):
        text = (masks / "manifest.csv").read_text().replace("output", "output,dilate")
        (masks / "manifest.csv").write_text(text)
        assert call(monkeypatch, "mask", photos, "--output", masks, *[["--relist"], ["--fresh"]][number]) == 0
        assert f"that one is {masks / name} now" in capsys.readouterr().err
        assert (masks / name).read_text() == text
        assert "dilate" not in (masks / "manifest.csv").read_text()
    (masks / "b.png.png").unlink()
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    assert capsys.readouterr().err == ""  # of the program's own there is nothing to keep


@pytest.mark.parametrize("home", ["", "elsewhere", "project/photos/box"])
def test_paths_count_from_the_manifest_where_both_lie_in_one_project(monkeypatch, photos, tmp_path, home):
    monkeypatch.setenv("HOME", str(tmp_path / home))
    project = tmp_path / "project"
    project.mkdir()
    photos = photos.rename(project / "photos")
    listed = photos / "list.csv"
    listed.write_text("image,truth,id\nbox/a.jpg,b.png,..\n")
    assert call(monkeypatch, "mask", listed, "--output", project / "masks") == 0
    (row,) = rows(project / "masks" / "manifest.csv")
    assert (row["image"], row["truth"], row["id"]) == (
        (str(photos / "box" / "a.jpg"), str(photos / "b.png"), "..")
        if home == "project/photos/box"  # what holds the home folder is nobody's project
        else ("../photos/box/a.jpg", "../photos/b.png", "..")
    )
    monkeypatch.setenv("HOME", str(project))
    assert call(monkeypatch, "mask", listed, "--output", project / "masks", "--relist") == 0
    assert rows(project / "masks" / "manifest.csv")[0]["image"] == str(photos / "box" / "a.jpg")
    monkeypatch.setenv("HOME", "/")
    (tmp_path / "link").symlink_to(project)
    for around, image in (
        (tmp_path / "link", tmp_path / "link" / "photos" / "box" / "a.jpg"),
        (project, "../photos/box/a.jpg"),
    ):
        assert call(monkeypatch, "mask", around / "photos", "--output", around / "masks", "--relist") == 0
        assert rows(project / "masks" / "manifest.csv")[0]["image"] == str(image)


def test_found_masks_are_known_without_notes(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    (masks / "clean.tif.png").write_bytes((masks / "b.png.png").read_bytes())  # a person's, under another name
    with Image.open(masks / "box" / "a.jpg.png") as mask:
        seal = PngInfo()
        seal.add_text(*next(iter(mask.text.items())))
        edited = np.asarray(mask).copy()
    edited[:5, :5] = 255
    Image.fromarray(edited).save(masks / "box" / "a.jpg.png", pnginfo=seal)  # by a program that keeps what it finds
    drawn = (masks / "clean.tif.png").read_bytes()
    (masks / "found.jsonl").unlink()
    again = ("mask", photos, "--output", masks, "--max-area", "0.01")
    assert call(monkeypatch, *again) == 7
    assert call(monkeypatch, *again, "--fresh") == 0
    assert not (masks / "b.png.png").exists()
    assert (masks / "clean.tif.png").read_bytes() == drawn
    assert (samples(masks / "box" / "a.jpg.png") == edited).all()


def test_copied_masks_are_still_those_that_were_found(monkeypatch, photos, tmp_path):
    masks, copy = tmp_path / "masks", tmp_path / "copy"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 0
    shutil.copytree(masks, copy, copy_function=shutil.copyfile)  # with times of its own
    assert call(monkeypatch, "mask", photos, "--output", copy, "--fresh", "--max-area", "0.01") == 0
    assert not list(copy.rglob("*.png"))


def test_every_kind_of_file_gets_the_same_mask(monkeypatch, tmp_path):
    folder, masks = tmp_path / "photos", tmp_path / "masks"
    folder.mkdir()
    eight = np.rint(picture().clip(0, 1) * 255).astype(np.uint8)
    grey = Image.fromarray(eight)
    grey.save(folder / "grey.png")
    grey.convert("RGBA").save(folder / "alpha.png")
    grey.convert("CMYK").save(folder / "cmyk.tif")
    grey.quantize(256).save(folder / "palette.png")
    grey.convert("RGB").save(folder / "lossless.webp", lossless=True)
    Image.fromarray(eight.astype(np.uint16) * 257).save(folder / "sixteen.png")
    tifffile.imwrite(folder / "float.tif", eight.astype(np.float32) / 255, metadata=None)
    tifffile.imwrite(folder / "white-is-zero.tif", 255 - eight, photometric="miniswhite", metadata=None)
    assert call(monkeypatch, "mask", folder, "--output", masks) == 0
    listed = rows(masks / "manifest.csv")
    assert len(listed) == 8
    grey_mask = samples(masks / "grey.png.png")
    for row in listed:
        assert (samples(masks / row["mask"]) != grey_mask).mean() < 0.005, row["image"]


def test_threads_write_what_one_writes(monkeypatch, photos, tmp_path):
    for number in range(5):
        (photos / f"copy-{number}.png").write_bytes((photos / "b.png").read_bytes())
    for workers in (1, 3):
        assert call(monkeypatch, "mask", photos, "--output", tmp_path / f"masks{workers}", "--workers", workers) == 0
    one, three = tmp_path / "masks1", tmp_path / "masks3"
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file() and path.name != "found.jsonl")
    assert len(files) == 7 + 2
    assert all((one / path).read_bytes() == (three / path).read_bytes() for path in files)


def test_review_pages_show_every_mask(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    (photos / "review").mkdir()
    (photos / "review" / "b.png").write_bytes((photos / "clean.tif").read_bytes())  # no mask of it may come up
    assert call(monkeypatch, "mask", photos, "--output", masks, "--review") == 0
    page = (masks / "review.html").read_text()
    assert page.count("<figure>") == 2
    assert 'src=".review/box/a.jpg.png"' in page
    again = re.search("<code>(.*?)</code>", page)
    assert again is not None
    assert call(monkeypatch, *shlex.split(html.unescape(again[1]))[1:]) == 0  # as it stands there
    marks = samples(masks / ".review" / "b.png.png")
    assert ((marks[..., 3] > 0) == (samples(masks / "b.png.png") > 0)).all()
    shown = samples(masks / ".review" / "b.png.jpg")
    assert abs(float(shown.mean()) - 255 * picture(1).clip(0, 1).mean()) < 3
    edited = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    edited[5:9, 5:9] = 255
    Image.fromarray(edited).save(masks / "b.png.png")
    assert call(monkeypatch, "mask", photos, "--output", masks, "--relist", "--review") == 0
    assert (samples(masks / ".review" / "b.png.png")[..., 3] == edited).all()
    assert "edited" in (masks / "review.html").read_text()
    Image.fromarray(0 * edited).save(masks / "b.png.png")  # every mark was wrong
    assert call(monkeypatch, "mask", photos, "--output", masks, "--review") == 0
    assert [row["output"] for row in rows(masks / "manifest.csv")] == ["box/a.jpg"]
    assert "b.png" in (masks / "clean.txt").read_text()
    assert (masks / "review.html").read_text().count("<figure>") == 1


def test_pages_after_calls_without_review_show_what_is_there(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks, "--review") == 0
    edited = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    edited[5:9, 5:9] = 255
    Image.fromarray(edited).save(masks / "b.png.png")
    other = np.rint(picture(3) * 255).clip(0, 255).astype(np.uint8)[::-1]
    Image.fromarray(other).save(photos / "box" / "a.jpg")
    for review in ([], ["--review"]):
        assert call(monkeypatch, "mask", photos, "--output", masks, *review) == 0
    assert (samples(masks / ".review" / "b.png.png")[..., 3] == edited).all()
    marks = samples(masks / ".review" / "box" / "a.jpg.png")
    assert ((marks[..., 3] > 0) == (samples(masks / "box" / "a.jpg.png") > 0)).all()

    Image.fromarray(np.full((SIDE_PX, SIDE_PX), 200, np.uint8)).save(photos / "b.png")  # below a mask that stays
    for review in ([], ["--review"]):
        assert call(monkeypatch, "mask", photos, "--output", masks, *review) == 0
    assert abs(float(samples(masks / ".review" / "b.png.jpg").mean()) - 200) < 2


def test_pages_of_a_scan_have_masks_of_their_own(monkeypatch, tmp_path, capsys):
    with tifffile.TiffWriter(tmp_path / "scan.tif") as file:
        for number in range(2):
            page = np.rint(picture(number, scratched=number == 1).clip(0, 1) * 255).astype(np.uint8)
            file.write(page, rowsperstrip=16, metadata=None)
    (tmp_path / "list.csv").write_text("image,page\nscan.tif,1\nscan.tif,2\n")
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", tmp_path / "list.csv", "--output", masks) == 0
    (row,) = rows(masks / "manifest.csv")
    assert (row["page"], row["mask"]) == ("2", "scan-2.tif.png")
    run = ("run", masks / "manifest.csv", "--output", tmp_path / "restored", "--engine", "identity")
    assert call(monkeypatch, *run) == 0
    (tmp_path / "list.csv").write_text("image, page\nscan.tif,none\nscan.tif,2.0\n")
    capsys.readouterr()
    assert call(monkeypatch, "mask", tmp_path / "list.csv", "--output", masks) == 8
    assert "list.csv: read: page must be a whole number, not 'none'" in capsys.readouterr().err
    (row,) = rows(masks / "manifest.csv")
    assert (row["page"], row["mask"]) == ("2.0", "scan-2.tif.png")


def test_list_and_images_may_lie_in_a_store(monkeypatch, photos, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    store.pipe("/scans/a/b.png", (photos / "b.png").read_bytes())
    store.pipe("/scans/list.csv", b"image\na/b.png\na/missing.png\n")
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", "memory://scans/list.csv", "--output", masks) == 8
    (row,) = rows(masks / "manifest.csv")
    assert (row["image"], row["mask"]) == ("memory://scans/a/b.png", "a/b.png.png")
    assert (samples(masks / "a" / "b.png.png")[truth()] == 255).mean() > 0.9


def test_no_room_for_a_copy_fails_that_image_alone(monkeypatch, photos, tmp_path, capsys):
    store = pytest.importorskip("fsspec").filesystem("memory")
    for name in ("a.png", "b.png"):
        store.pipe(f"/full/{name}", (photos / "b.png").read_bytes())
    store.pipe("/full/list.csv", b"image\na.png\nb.png\n")
    fetch = nearby.fetch

    def full(uri: str, path: Path) -> None:
        if uri.endswith("a.png"):
            raise OSError(errno.ENOSPC, "No space left on device")
        fetch(uri, path)

    monkeypatch.setattr(nearby, "fetch", full)
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", "memory://full/list.csv", "--output", masks) == 8
    assert "there is no room for a copy of the image memory://full/a.png" in capsys.readouterr().err
    assert [row["image"] for row in rows(masks / "manifest.csv")] == ["memory://full/b.png"]


def test_a_list_of_images_and_a_damaged_file(monkeypatch, photos, tmp_path, capsys):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    listed = photos / "list.csv"
    listed.write_text("id,image,output\nfirst,box/a.jpg,reviewed/a.jpg\n,broken.jpg,\n,missing.png,\n,clean.tif,\n")
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", listed, "--output", masks) == 8
    captured = capsys.readouterr()
    assert "broken.jpg" in captured.err
    assert "missing.png" in captured.err
    assert "2 of 4 images could not be looked at" in captured.err
    assert "1 image with a mask" in captured.out
    assert f"then: inpaint-batch run {masks / 'manifest.csv'} --output" in captured.out.splitlines()[-1]
    (row,) = rows(masks / "manifest.csv")
    assert (row["id"], row["output"], row["mask"]) == ("first", "reviewed/a.jpg", "reviewed/a.jpg.png")
    run = ("run", masks / "manifest.csv", "--output", tmp_path / "restored", "--engine", "identity")
    assert call(monkeypatch, *run) == 0
    assert (tmp_path / "restored" / "reviewed" / "a.jpg").is_file()


def test_a_name_that_no_manifest_can_hold_fails_alone(monkeypatch, photos, tmp_path, capsys):
    (Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))).write_bytes((photos / "b.png").read_bytes())
    (photos / "a\\b.png").write_bytes((photos / "b.png").read_bytes())
    masks = tmp_path / "masks"
    assert call(monkeypatch, "mask", photos, "--output", masks) == 8
    told = capsys.readouterr().err
    assert "caf\\udce9.png' is not UTF-8; rename the file" in told
    assert "'a\\\\b.png' contains a backslash" in told
    assert [row["output"] for row in rows(masks / "manifest.csv")] == ["b.png", "box/a.jpg"]


def test_no_mask_is_written_over_where_case_makes_no_difference(monkeypatch, photos, tmp_path, capsys):
    (photos / "B.png").write_bytes((photos / "b.png").read_bytes())
    masks = tmp_path / "masks"
    monkeypatch.setattr(outputs, "folds_names", lambda folder: folder == masks and (masks / "found.jsonl").exists())
    for _ in range(2):
        assert call(monkeypatch, "mask", photos, "--output", masks) == 8
        told = capsys.readouterr().err
        assert f"{photos / 'b.png'}: write: its mask b.png.png would be that of {photos / 'B.png'}" in told
        assert "choose one on another disk, or rename the image" in told
        assert [row["output"] for row in rows(masks / "manifest.csv")] == ["B.png", "box/a.jpg"]
        assert sorted(path.name for path in masks.rglob("*.png")) == ["B.png.png", "a.jpg.png"]


def test_a_list_is_a_manifest_without_masks(monkeypatch, photos, tmp_path, capsys):
    listed, masks = photos / "list.jsonl", tmp_path / "masks"
    listed.write_text(
        '{"image": "b.png", "mask": "old.png", "mask_polarity": "black", "dilate": 3}\n'
        '{"image": "box/a.jpg", "id": "first"}\n{"image": "b.png"}\n{"image": ""}\n{"picture": "b.png"}\n'
    )
    assert call(monkeypatch, "mask", listed, "--output", masks) == 8
    assert [(row["id"], row["mask"], row["dilate"]) for row in rows(masks / "manifest.csv")] == [
        ("", "b.png.png", "3"),
        ("first", "box/a.jpg.png", ""),
    ]
    assert "mask_polarity" not in rows(masks / "manifest.csv")[0]
    told = capsys.readouterr().err
    for number, reason in ((3, "already that of an earlier row"), (4, "the image cell is empty"), (5, "unknown key")):
        assert any(f"line {number} of" in line and reason in line for line in told.splitlines())
    (photos / "list.csv").write_text("image,pages\nb.png,1\n")
    assert call(monkeypatch, "mask", photos / "list.csv", "--output", masks) == 4
    assert "unknown column 'pages'; the nearest known one is 'page'" in capsys.readouterr().err


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_turned_photograph_keeps_its_layout(monkeypatch, tmp_path, orientation):
    (tmp_path / "photos").mkdir()
    eight = np.rint(picture()[:120] * 255).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(eight).save(tmp_path / "photos" / "a.png", exif=exif)
    masks, restored = tmp_path / "masks", tmp_path / "restored"
    assert call(monkeypatch, "mask", tmp_path / "photos" / "a.png", "--output", masks) == 0
    mask = samples(masks / "a.png.png")
    assert mask.shape == (120, SIDE_PX)
    assert (mask[truth()[:120]] == 255).mean() > 0.9
    run = ("run", masks / "manifest.csv", "--output", restored, "--engine", "identity")
    assert call(monkeypatch, *run) == 0
    changed = samples(restored / "a.png") != eight
    assert changed.any()
    assert not (changed & (mask == 0)).any()
    assert turn(mask, orientation).size == mask.size


def test_wrong_settings_and_inputs(monkeypatch, photos, tmp_path):
    masks = tmp_path / "masks"
    basics = ("mask", photos, "--output", masks)
    assert call(monkeypatch, "mask", photos) == 2
    assert call(monkeypatch, *basics, "--relist", "--fresh") == 2
    assert call(monkeypatch, *basics, "--kinds", "tears") == 3
    assert call(monkeypatch, *basics, "--polarity", "grey") == 3
    assert call(monkeypatch, *basics, "--threshold", "0") == 3
    assert call(monkeypatch, *basics, "--workers", "0") == 2
    assert call(monkeypatch, "mask", tmp_path / "none.csv", "--output", masks) == 4
    for inside in (photos, photos / "box" / "masks"):
        assert call(monkeypatch, "mask", photos, "--output", inside) == 7
    (tmp_path / "empty").mkdir()
    assert call(monkeypatch, "mask", tmp_path / "empty", "--output", masks) == 4
    assert not masks.exists()


def test_help_names_every_option_with_its_default(monkeypatch, capsys):
    assert call(monkeypatch, "mask", "--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    for option in ("--kinds", "--threshold", "--max-size", "--min-length", "--polarity", "--dilate", "--relist",
                   "--max-area", "--review", "--workers"):  # fmt: skip
        assert option in told
    assert told.count("Default:") >= 12
