"""A run from manifest to summary, in this process."""

from __future__ import annotations

import csv
import errno
import json
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, ledger_lines, noise, run, tree
from PIL import Image

from inpaint_batch.errors import EngineError, ManifestError, StorageError, UsageError
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.storage import outputs
from inpaint_batch.types import STAGES


def samples(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def png_that_claims(width: int, height: int) -> bytes:
    """A 1-bit PNG; whoever reads its header knows enough to refuse it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def statuses(output: Path) -> list[tuple[str, str]]:
    return [(line["id"], line["status"]) for line in ledger_lines(output) if line["status"] != "started"]


@pytest.mark.parametrize("earlier", ["a-old.png", "a-1.png"])
def test_a_row_that_is_given_another_output_gets_it(gallery, tmp_path, earlier):
    """Also where the earlier name looks like one that a conflict gave."""
    gallery.add("a.png", output=earlier)
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    gallery.rows[0]["output"] = "a.png"
    summary = run(gallery.manifest(), output)
    assert summary["rows"]["redone"] == {"output": 1}
    assert sorted(path.name for path in output.glob("*.png")) == sorted([earlier, "a.png"])
    assert run(gallery.manifest(), output)["rows"]["skipped"] == 1


def test_every_format_keeps_what_is_known(every_format, tmp_path):
    output = tmp_path / "out"
    summary = run(every_format.manifest(), output)
    assert summary["exit_code"] == 0
    assert summary["rows"]["done"] == len(every_format.rows) == 11
    assert summary["tiles_by_side_px"] == {"64": 11}
    assert set(summary["seconds_by_stage"]) == set(STAGES)
    assert summary["megapixels"] == pytest.approx(sum((72 + n) ** 2 for n in range(11)) / 1e6)
    assert set(tree(output)) == {row["output"] for row in every_format.rows}
    for row in every_format.rows:
        before, after = samples(every_format.folder / row["image"]), samples(output / row["output"])
        assert before.shape == after.shape
        known = np.ones(before.shape[:2], bool)
        if row["image"].startswith("jpg"):  # whole MCUs around the hole move
            known[15:33, 15:49] = False
            assert after[24:28, 28:36].mean() < 40
        else:
            known[20:32, 24:40] = False
            colours = after[20:32, 24:40]
            if row["image"].split("/")[1].startswith(("LA", "RGBA")):
                assert np.array_equal(colours[..., -1], before[20:32, 24:40, -1])
                colours = colours[..., :-1]
            assert not colours.any()  # the identity engine leaves zeros in holes
        assert np.array_equal(before[known], after[known])


@pytest.mark.parametrize(("passes", "tiles"), [(1, {"256": 1}), (2, {"128": 1, "256": 1})])
def test_a_deep_hole_has_a_second_start_where_there_is_a_second_pass(
    gallery: Gallery, tmp_path: Path, passes: int, tiles: dict[str, int]
) -> None:
    """Its hole is 20 px deep and 150 px wide: it fits a tile of 256 px, and at half the resolution one of 128."""
    gallery.add("a.png", side=260, hole=(60, 50, 40, 150))
    assert run(gallery.manifest(), tmp_path / "out", passes=passes)["tiles_by_side_px"] == tiles


def test_a_second_run_does_nothing(every_format, tmp_path):
    output = tmp_path / "out"
    manifest = every_format.manifest()
    run(manifest, output)
    before = tree(output), [path.stat().st_mtime_ns for path in sorted(output.rglob("*.png"))], ledger_lines(output)
    summary = run(manifest, output)
    assert (summary["exit_code"], summary["rows"]["done"], summary["rows"]["skipped"]) == (0, 0, 11)
    after = tree(output), [path.stat().st_mtime_ns for path in sorted(output.rglob("*.png"))], ledger_lines(output)
    assert before == after


def test_workers_do_not_change_a_byte(every_format, tmp_path):
    manifest = every_format.manifest()
    run(manifest, tmp_path / "one", workers=1)
    run(manifest, tmp_path / "four", workers=4)
    assert tree(tmp_path / "one") == tree(tmp_path / "four")


def test_each_bad_row_fails_alone_with_its_own_reason(gallery, tmp_path):
    good = ["first.png", "last.png"]
    gallery.add(good[0])
    whole = gallery.add("truncated.png", side=200)
    whole.write_bytes(whole.read_bytes()[:-4000])
    gallery.add_row("missing.png", gallery.mask("m1.png", np.full((8, 8), 255, np.uint8)))
    (gallery.folder / "empty.png").touch()
    gallery.add_row("empty.png", "m1.png")
    (gallery.folder / "text.jpg").write_text("dear reader")
    gallery.add_row("text.jpg", "m1.png")
    gallery.add("other-size.png")
    gallery.rows[-1]["mask"] = "m1.png"
    gallery.add("nothing.png", hole=(0, 0, 0, 0))
    gallery.add("everything.png", hole=(0, 0, 72, 72))
    gallery.add("no-mask.png")
    gallery.rows[-1]["mask"] = "nowhere.png"
    gallery.add("option.png", dilate="many")
    gallery.add("escaping.png")
    gallery.rows[-1]["output"] = "../escaped.png"
    gallery.add("twin.png")
    gallery.rows[-1]["output"] = good[0]
    gallery.add("renamed.png")
    gallery.rows[-1]["output"] = "renamed.jpg"
    gallery.add(good[1])
    (gallery.folder / "bomb.png").write_bytes(png_that_claims(100_000, 20_000))
    gallery.add_row("bomb.png", "m1.png")
    manifest = gallery.manifest()
    with manifest.open("a") as file:
        file.write("ragged,row\n")
    output = tmp_path / "out"
    summary = run(manifest, output)
    assert summary["exit_code"] == 8
    assert sorted(tree(output)) == sorted(good)
    assert not (tmp_path / "escaped.png").exists()
    with (output / ".inpaint-batch" / "failures.csv").open(newline="") as file:
        told = {Path(line["image"]).name: (line["code"], line["message"]) for line in csv.DictReader(file)}
    codes = {name: code for name, (code, _) in told.items()}
    assert codes == {
        "truncated.png": "read",
        "missing.png": "read",
        "empty.png": "read",
        "text.jpg": "read",
        "other-size.png": "size",
        "nothing.png": "mask",
        "everything.png": "mask",
        "no-mask.png": "read",
        "option.png": "read",
        "escaping.png": "write",
        "twin.png": "write",
        "renamed.png": "write",
        "bomb.png": "memory",
        "row": "read",
    }
    assert len({message for _, message in told.values()}) == len(told)
    assert summary["rows"]["failed_by_code"] == {"mask": 2, "memory": 1, "read": 7, "size": 1, "write": 3} | {
        "read": sum(code == "read" for code in codes.values())
    }
    assert not list(output.rglob("*.tmp"))

    again = run(manifest, output, max_image_bytes=1 << 30)
    assert (again["exit_code"], again["rows"]["skipped"], again["rows"]["failed"]) == (8, 2, 14)
    assert again["rows"]["failed_now"] == 0
    assert len(statuses(output)) == 16  # nothing was added


def test_what_only_looks_like_a_uri_is_the_trouble_of_its_row(gallery, tmp_path):
    gallery.add("good.png")
    gallery.add_row("x://far.png", "good.png.mask.png", output="far.png")
    gallery.add_row("web/http://host/y.png", "good.png.mask.png", output="y.png")  # a file below a folder `http:`
    summary = run(gallery.manifest(), tmp_path / "out")
    assert (summary["exit_code"], summary["rows"]["done"], summary["rows"]["failed_by_code"]) == (8, 1, {"read": 2})


def test_a_mended_file_is_done_without_being_asked(gallery, tmp_path):
    path = gallery.add("a.png")
    sound = path.read_bytes()
    path.write_bytes(b"")
    manifest = gallery.manifest()
    assert run(manifest, tmp_path / "out")["exit_code"] == 8
    path.write_bytes(sound)
    assert run(manifest, tmp_path / "out")["exit_code"] == 0
    assert statuses(tmp_path / "out") == [("a.png", "failed"), ("a.png", "done")]


def test_failures_are_a_manifest_and_are_retried_when_asked(gallery, tmp_path):
    gallery.add("sub/a.png", side=90, feather="2")
    gallery.add("sub/b.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    summary = run(manifest, output, engine="faulty:n")
    assert summary["rows"]["failed_by_code"] == {"nonfinite": 2}
    assert "nonfinite" in (output / ".inpaint-batch" / "failures.csv").read_text()
    failures = output / ".inpaint-batch" / "failures.csv"
    listed = failures.read_text()
    again = run(failures, output, engine="faulty:n")
    assert (again["exit_code"], again["rows"]["failed_now"], again["rows"]["failed"]) == (8, 0, 2)
    assert failures.read_text() == listed
    retried = run(failures, output, engine="faulty:n", retry_failed=True)
    assert (retried["exit_code"], retried["rows"]["failed_now"]) == (8, 2)
    done = run(failures, output, engine="identity")
    assert (done["exit_code"], done["rows"]["done"]) == (0, 2)
    assert set(tree(output)) == {"sub/a.png", "sub/b.png"}
    assert failures.read_text().count("\n") == 1


@pytest.mark.parametrize("row", [{}, {"image": "../in/sub/a.png"}])
def test_a_row_is_the_same_in_failures_where_links_lead_to_its_image(gallery, tmp_path, row):
    gallery.add("sub/a.png")
    gallery.rows[0] |= row
    gallery.manifest()
    (tmp_path / "in").rename(tmp_path / "disk")
    (tmp_path / "in").symlink_to(tmp_path / "disk")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "deep" / "er")
    manifest, output = tmp_path / "in" / "manifest.csv", tmp_path / "out"
    assert run(manifest, output, engine="faulty:n")["exit_code"] == 8
    retried = run(output / ".inpaint-batch" / "failures.csv", output, engine="faulty:n", retry_failed=True)
    assert retried["rows"]["redone"] == {"failed": 1}
    again = run(manifest, output, engine="faulty:n")
    assert (again["rows"]["redone"], again["rows"]["failed_now"]) == ({}, 0)


@pytest.mark.parametrize(("schedule", "code"), [("x", "infer"), ("e", "infer"), ("n", "nonfinite")])
def test_a_fault_of_the_engine_fails_rows_and_not_the_run(gallery, tmp_path, schedule, code):
    for number in range(3):
        gallery.add(f"{number}.png")
    summary = run(gallery.manifest(), tmp_path / "out", engine=f"faulty:{schedule}")
    assert summary["exit_code"] == 8
    assert summary["rows"]["failed_by_code"] == {code: 3}
    log = tmp_path / "out" / ".inpaint-batch" / "run.log"
    assert log.exists() == (schedule == "e")
    if schedule == "e":
        assert "RuntimeError" in log.read_text()


def test_the_failure_limit_ends_the_run(gallery, tmp_path):
    for number in range(200):
        gallery.add_row(f"{number}.png", "none.png")
    summary = run(gallery.manifest(), tmp_path / "out", max_failures=3)
    assert summary["exit_code"] == 9
    assert 4 <= summary["rows"]["failed"] < 200
    assert "--max-failures 3" in summary["error"]


@pytest.mark.parametrize("name", ["failures.csv", "left.csv"])
def test_a_run_over_its_own_list_that_ends_early_leaves_the_list_to_the_next(gallery, tmp_path, name):
    """Nothing else names the rows that it did not come to: the next run of the same line said that all was done."""
    output, state = tmp_path / "out", tmp_path / "out" / ".inpaint-batch"
    for number in range(5):
        gallery.add(f"{number}.png")
        away = output if name == "left.csv" else gallery.folder
        away.mkdir(exist_ok=True)
        if name == "left.csv":
            (output / f"{number}.png").write_bytes(b"somebody's")
        else:
            (gallery.folder / f"{number}.png").rename(gallery.folder / f"{number}.away")
    run(gallery.manifest(), output, on_conflict="skip")
    before = (state / name).read_text()
    assert len(before.splitlines()) == 6
    for number in range(5):
        if name == "left.csv":
            (output / f"{number}.png").unlink()
        else:
            (gallery.folder / f"{number}.away").rename(gallery.folder / f"{number}.png")
    stop = Stop()
    stop.request("SIGTERM")
    assert run(state / name, output, stop=stop, retry_failed=True)["exit_code"] == 75
    assert (state / name).read_text() == before
    assert run(state / name, output, retry_failed=True)["rows"]["done"] == 5
    assert len((state / name).read_text().splitlines()) == 1


def test_changed_settings_redo_the_row_and_say_so(gallery, tmp_path):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    run(manifest, output)
    before = tree(output)
    summary = run(manifest, output, row={"dilate_px": 3})
    assert summary["rows"]["done"] == 1
    assert "done again" in summary["notes"][0]
    assert tree(output) != before
    assert set(tree(output)) == {"a.png"}


def test_a_deleted_output_is_made_again(gallery, tmp_path):
    gallery.add("a.png")
    run(gallery.manifest(), tmp_path / "out")
    before = tree(tmp_path / "out")
    (tmp_path / "out" / "a.png").unlink()
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1
    assert tree(tmp_path / "out") == before


def test_fresh_does_everything_again_over_its_own_outputs(gallery, tmp_path):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    run(manifest, output)
    for _ in range(2):
        summary = run(manifest, output, fresh=True)
        assert (summary["exit_code"], summary["rows"]["done"]) == (0, 1)
    assert run(manifest, output)["rows"]["skipped"] == 1


@pytest.mark.parametrize(
    ("policy", "exit_code", "files"),
    [
        ("error", 8, {"a.png", "b.png"}),
        ("skip", 0, {"a.png", "b.png"}),
        ("overwrite", 0, {"a.png", "b.png"}),
        ("suffix", 0, {"a.png", "a-1.png", "b.png"}),
    ],
)
def test_foreign_files_in_the_output(gallery, tmp_path, policy, exit_code, files):
    gallery.add("a.png")
    gallery.add("b.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    output.mkdir()
    (output / "a.png").write_bytes(b"precious")
    for attempt in range(2):
        summary = run(manifest, output, on_conflict=policy)
        assert summary["exit_code"] == exit_code
        assert set(tree(output)) == files
        assert ((output / "a.png").read_bytes() == b"precious") == (policy != "overwrite")
        assert summary["rows"]["done"] == (0 if attempt else {"error": 1, "skip": 1}.get(policy, 2))
    if policy == "error":  # doing what the message says is enough
        summary = run(manifest, output, on_conflict="overwrite")
        assert (summary["exit_code"], summary["rows"]["redone"]) == (0, {"failed": 1})


def test_fresh_keeps_the_names_that_conflicts_gave(gallery, tmp_path):
    """Each such run left a set of results more beside those of the last."""
    gallery.add("a.png")
    gallery.add_row("a.png", "a.png.mask.png", id="again", output="b.png")
    output = tmp_path / "out"
    output.mkdir()
    for name in ("a.png", "b.png"):
        (output / name).write_bytes(b"somebody's")
    for fresh in (False, True, True):
        assert run(gallery.manifest(), output, on_conflict="suffix", fresh=fresh)["rows"]["done"] == 2
        assert set(tree(output)) == {"a-1.png", "a.png", "b-1.png", "b.png"}
    assert (output / "a.png").read_bytes() == b"somebody's"
    (output / "a-1.png").unlink()
    (output / "a-2.png").write_bytes(b"somebody's")
    assert run(gallery.manifest(), output, on_conflict="suffix", fresh=True)["rows"]["done"] == 2
    assert (output / "a-2.png").read_bytes() == b"somebody's"


def test_another_manifest_does_not_replace_results_of_the_first(gallery, tmp_path):
    gallery.add("a.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    before = tree(output)
    other = Gallery(tmp_path / "other")
    other.folder.mkdir()
    other.add("b.png")
    other.rows[0] |= {"id": "a.png", "output": "a.png"}
    assert run(other.manifest(), output)["exit_code"] == 8
    assert tree(output) == before
    assert run(other.manifest(), output, on_conflict="suffix")["exit_code"] == 0
    assert set(tree(output)) == {"a.png", "a-1.png"}
    assert tree(output)["a.png"] == before["a.png"]


def test_images_that_were_moved_are_done_again_as_the_message_says(gallery, tmp_path):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    run(manifest, output)
    moved = gallery.folder.rename(tmp_path / "moved") / manifest.name
    assert run(moved, output)["rows"]["failed_by_code"] == {"write": 1}
    told = (output / ".inpaint-batch" / "failures.csv").read_text(encoding="utf-8")
    assert "--on-conflict overwrite (also where the images were moved since)" in told
    summary = run(moved, output, on_conflict="overwrite")
    assert (summary["exit_code"], summary["rows"]["done"]) == (0, 1)


def test_the_source_is_never_overwritten(gallery, tmp_path):
    path = gallery.add("a.png")
    before = path.read_bytes()
    summary = run(gallery.manifest(), gallery.folder, on_conflict="overwrite")
    assert summary["rows"]["failed_by_code"] == {"write": 1}
    assert path.read_bytes() == before


def test_a_lossless_jpeg_becomes_a_png_and_never_meets_another_row(gallery, tmp_path):
    gallery.add("a.jpg")
    gallery.add("a.png")
    output = tmp_path / "out"
    summary = run(gallery.manifest(), output, row={"jpeg": "lossless"})
    assert summary["rows"]["failed_by_code"] == {"write": 1}
    assert set(tree(output)) == {"a.png"}
    before, after = samples(gallery.folder / "a.jpg"), samples(output / "a.png")
    known = np.ones((72, 72), bool)
    known[20:32, 24:40] = False
    assert np.array_equal(before[known], after[known])
    assert run(gallery.manifest(), output, row={"jpeg": "lossless"})["rows"]["skipped"] == 1


def test_a_file_system_that_cannot_sync_folders_will_do(gallery, tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    gallery.add("a.png")
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 1


def test_a_group_may_share_an_output_folder(gallery, tmp_path):
    gallery.add("a.png")
    before = os.umask(0o002)
    try:
        run(gallery.manifest(), tmp_path / "out", sidecar=True, shard="1/1")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").rglob("*")}
    assert {path for path, mode in modes.items() if mode != (0o775 if path.is_dir() else 0o664)} == set()
    assert len(modes) > 8


def test_no_result_goes_where_case_makes_no_difference_and_another_lies(gallery, tmp_path, monkeypatch):
    for name in ("a.png", "A.png", "B.png", "b.png", "e\u0301.png", "\u00e9.png"):
        gallery.add(name)
    output = tmp_path / "out"
    monkeypatch.setattr(outputs, "folds_names", lambda folder: True)
    for _ in range(2):
        summary = run(gallery.manifest(), output)
        assert summary["rows"]["failed_by_code"] == {"write": 3}
        assert set(tree(output)) == {"a.png", "B.png", "e\u0301.png"}
    failures = (output / ".inpaint-batch" / "failures.csv").read_text()
    assert failures.count("names that differ in case alone are one file in this folder") == 3
    assert run(gallery.manifest(), output, on_conflict="suffix")["rows"]["done"] == 3
    assert set(tree(output)) == {"a.png", "A-1.png", "B.png", "b-1.png", "e\u0301.png", "\u00e9-1.png"}


def test_feather_mixes_fill_and_source(gallery, tmp_path):
    path = gallery.add("a.tif", mode="L")
    Image.fromarray(np.full((72, 72), 200, np.uint8)).save(path)
    run(gallery.manifest(), tmp_path / "out", row={"feather_px": 3})
    row = samples(tmp_path / "out" / "a.tif")[26]
    assert (row[24:40] == 0).all()
    assert row[20] == 200
    assert 0 < row[23] < row[22] < row[21] < 200


def test_a_warning_is_told_and_the_row_done(gallery, tmp_path):
    gallery.add("a.png", hole=(0, 0, 72, 60))
    summary = run(gallery.manifest(), tmp_path / "out")
    assert (summary["exit_code"], summary["rows"]["warnings"]) == (0, 1)
    assert "--mask-polarity" in ledger_lines(tmp_path / "out")[-1]["warnings"][0]


@pytest.mark.parametrize(("dilate_px", "num_warnings"), [(0, 1), (2, 0)])
def test_a_mask_that_ends_where_a_soft_scratch_does_is_told(gallery, tmp_path, dilate_px, num_warnings):
    path = gallery.add("a.tif", side=120, mode="L", hole=(30, 0, 6, 120))
    soft = np.array([0.3, 1, 1, 1, 1, 1, 1, 0.3])[:, None]
    picture = np.full((120, 120), 60.0)
    picture[29:37] += 150 * soft
    Image.fromarray(picture.astype(np.uint8)).save(path)
    summary = run(gallery.manifest(), tmp_path / "out", row={"dilate_px": dilate_px})
    assert (summary["exit_code"], summary["rows"]["warnings"]) == (0, num_warnings)
    told = ledger_lines(tmp_path / "out")[-1].get("warnings", [])
    assert ["--dilate 2" in warning for warning in told] == [True] * num_warnings


def test_a_folder_of_images_and_one_of_masks(tmp_path):
    for name in ("a.png", "sub/b.png"):
        for folder, picture in (("in", noise(1, 64, "RGB")), ("masks", np.eye(64, dtype=np.uint8) * 255)):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(tmp_path / folder / name)
    summary = run(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")
    assert summary["exit_code"] == 0
    assert set(tree(tmp_path / "out")) == {"a.png", "sub/b.png"}
    with pytest.raises(StorageError, match="inside the input"):
        run(tmp_path / "in", tmp_path / "in" / "out", masks=tmp_path / "masks")


def test_one_image_and_its_mask(tmp_path):
    hole = np.eye(64, dtype=np.uint8) * 255
    Image.fromarray(noise(1, 64, "RGB")).save(tmp_path / "a.png")
    Image.fromarray(hole).save(tmp_path / "mask.png")
    assert run(tmp_path / "a.png", tmp_path / "out", masks=tmp_path / "mask.png")["rows"]["done"] == 1
    changed = (samples(tmp_path / "a.png") != samples(tmp_path / "out" / "a.png")).any(axis=2)
    assert changed.any()
    assert not changed[hole == 0].any()
    again = run(tmp_path / "a.png", tmp_path / "out", masks=tmp_path / "mask.png")
    assert (again["rows"]["done"], again["rows"]["skipped"]) == (0, 1)


def test_what_ends_a_run_before_it_begins(gallery, tmp_path):
    gallery.add("a.png")
    manifest = gallery.manifest()
    output = tmp_path / "out"
    with pytest.raises(ManifestError):
        run(tmp_path / "none.csv", output)
    with pytest.raises(UsageError):
        run(gallery.folder, output)
    with pytest.raises(EngineError, match="there is no model"):
        run(manifest, output, engine="onnxruntime", model=str(tmp_path / "none.onnx"))
    assert not output.exists()
    (tmp_path / "damaged.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError):
        run(manifest, output, engine="onnxruntime", model=str(tmp_path / "damaged.onnx"))
    assert json.loads((output / ".inpaint-batch" / "summary.json").read_text())["exit_code"] == 6
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        run(manifest, tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_may_not_be_written(gallery, tmp_path):
    gallery.add("a.png")
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(StorageError):
        run(gallery.manifest(), tmp_path / "out")


def test_a_request_to_stop_ends_with_75_and_the_next_run_goes_on(gallery, tmp_path):
    for number in range(6):
        gallery.add(f"{number}.png")
    stop = Stop()
    stop.request("SIGTERM")
    summary = run(gallery.manifest(), tmp_path / "out", stop=stop)
    assert (summary["exit_code"], summary["rows"]["done"]) == (75, 0)
    rest = run(gallery.manifest(), tmp_path / "out")
    assert (rest["rows"]["done"], rest["notes"]) == (6, [])


def test_rows_in_flight_at_a_death_are_done_last_and_alone(gallery, tmp_path):
    for number in range(5):
        gallery.add(f"{number}.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    run(manifest, output)
    part = output / ".inpaint-batch" / "ledger" / "000001.jsonl"
    lines = part.read_text().splitlines()
    begun = [line for line in lines if '"started"' in line][:3]
    part.write_text("\n".join(begun) + "\n")
    for number in range(5):
        (output / f"{number}.png").unlink()
    summary = run(manifest, output)
    assert summary["rows"]["done"] == 5
    assert "one at a time" in summary["notes"][0]
    later = [(line["id"], line["status"], line.get("alone", False)) for line in ledger_lines(output)[3:]]
    assert sorted(later[:4]) == sorted((f"{n}.png", status, False) for n in (3, 4) for status in ("started", "done"))
    assert later[4:] == [(f"{n}.png", s, s == "started") for n in range(3) for s in ("started", "done")]


def test_a_full_disk_ends_the_run_with_7(gallery, tmp_path, monkeypatch):
    import errno

    from inpaint_batch.execution import write

    for number in range(6):
        gallery.add(f"{number}.png")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write, "write_filled", full)
    with pytest.raises(StorageError, match="disk is full"):
        run(gallery.manifest(), tmp_path / "out")
    assert json.loads((tmp_path / "out" / ".inpaint-batch" / "summary.json").read_text())["exit_code"] == 7
    assert tree(tmp_path / "out") == {}
    monkeypatch.undo()
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["done"] == 6
