"""`check` finds what `run` would stumble over, and writes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery import run
from PIL import Image

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.errors import ManifestError, RowsFailedError, StorageError, UsageError
from inpaint_batch.execution import row_memory
from inpaint_batch.pipeline.check import check_manifest
from inpaint_batch.report import pulse
from inpaint_batch.report.findings import FindingsPrinter
from inpaint_batch.storage import early_copy


def check(
    manifest: Path, output: Path | None = None, *, log_format: Any = "json", depth: Any = "pixels", **settings: Any
) -> tuple[int, str]:
    """Exit code and what was printed."""
    stream = io.StringIO()
    config = RunConfig(output=output or Path("unused"), workers=2, **settings)
    try:
        printer = FindingsPrinter(log_format, stream)
        check_manifest(config, manifest, masks=None, with_output=output is not None, report=printer, depth=depth)
    except RowsFailedError as error:
        return error.exit_code, stream.getvalue()
    return 0, stream.getvalue()


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_good_manifest(every_format, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    code, text = check(every_format.manifest(), tmp_path / "out")
    assert code == 0
    assert sorted(path for path in tmp_path.rglob("*") if path.name != "manifest.csv") == before
    (totals,) = events(text)
    assert (totals["rows"], totals["bad"], totals["tiles"]) == (11, 0, {"64": 11})
    assert totals["estimated_bytes"] > 1 << 20


def test_a_large_tiff_is_not_copied(gallery, monkeypatch, tmp_path):
    monkeypatch.setattr(early_copy, "WORTHWHILE_BYTES", 1)
    begun = []
    monkeypatch.setattr(early_copy.EarlyCopy, "begin", lambda *paths: begun.append(paths))
    gallery.add("a.tif")
    code, _ = check(gallery.manifest())
    assert (code, begun) == (0, [])
    run(gallery.manifest(), tmp_path / "out")
    assert len(begun) == 1


def test_a_long_check_of_good_rows_is_not_silent(gallery, monkeypatch, capsys):
    gallery.add("a.png")
    gallery.add("b.png")
    manifest = gallery.manifest()
    check(manifest)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(pulse, "LINE_EVERY_S", 0.0)
    _, text = check(manifest)
    assert len(events(text)) == 1  # objects alone on stdout
    assert "inpaint-batch: 2 rows looked at, 0 would fail\n" in capsys.readouterr().err


def test_images_of_a_folder_have_no_lines(gallery, tmp_path):
    gallery.add("b.png")
    (tmp_path / "photos" / "box").mkdir(parents=True)
    (gallery.folder / "b.png").rename(tmp_path / "photos" / "box" / "b.png")
    (tmp_path / "masks").mkdir()
    stream = io.StringIO()
    printer = FindingsPrinter("text", stream, has_lines=False)
    with pytest.raises(RowsFailedError):
        check_manifest(
            RunConfig(output=tmp_path), tmp_path / "photos", masks=tmp_path / "masks", with_output=False, report=printer
        )
    assert stream.getvalue().startswith("box/b.png: error: mask: no mask b.png.png or b.png")


def test_the_estimate_is_what_a_run_then_does(gallery, tmp_path):
    gallery.add("a.png", side=500, hole=(100, 100, 300, 250))
    manifest = gallery.manifest()
    _, text = check(manifest)
    assert events(text)[-1]["tiles"] == run(manifest, tmp_path / "out")["tiles_by_side_px"]


def test_findings_have_lines_and_codes_in_the_order_of_the_manifest(gallery):
    gallery.add("good.png")
    gallery.add_row("missing.png", "good.png.mask.png")
    gallery.add("inverted.png", hole=(0, 0, 72, 60))
    gallery.add("empty.png", hole=(0, 0, 0, 0))
    gallery.add("small.png", side=80)
    gallery.rows[-1]["mask"] = "good.png.mask.png"
    gallery.add("option.png", mask_threshold="1000")
    truncated = gallery.add("truncated.png", side=200)
    truncated.write_bytes(truncated.read_bytes()[:-4000])
    manifest = gallery.manifest()
    with manifest.open("a") as file:
        file.write("ragged\n")
    code, text = check(manifest)
    assert code == 8
    found = [(event["line"], event["level"], event["code"]) for event in events(text)[:-1]]
    assert found == [
        (3, "error", "read"),
        (4, "warning", ""),
        (5, "error", "mask"),
        (6, "error", "size"),
        (7, "error", "read"),
        (8, "error", "read"),
        (9, "error", "read"),
    ]
    assert events(text)[-1] | {"bad": 6, "warnings": 1, "rows": 8} == events(text)[-1]
    assert events(text)[1]["message"].endswith("if that is inverted, say --mask-polarity black")


def test_as_deep_as_asked(gallery, tmp_path):
    gallery.add("good.png", side=100)
    damaged = gallery.add("damaged.png")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 255  # the header is whole, pixels are not
    damaged.write_bytes(content)
    gallery.add("unmasked.png")
    (gallery.folder / "unmasked.png.mask.png").unlink()
    gallery.add("inside.png")
    (gallery.folder / "inside.png.mask.png").unlink()
    (gallery.folder / "inside.png.mask.png").mkdir()
    gallery.add_row("absent.png", "good.png.mask.png")
    gallery.add_row("good.png", "good.png.mask.png", id="again", output="good.png")
    gallery.add_row("good.png", "good.png.mask.png", id="odd", output="odd.jpg")
    Image.new("CMYK", (100, 100)).save(gallery.folder / "ink.jpg")
    gallery.add_row("ink.jpg", "good.png.mask.png", output="ink.png", jpeg="lossless")
    manifest = gallery.manifest()

    def bad(depth: Any) -> dict[str, str]:
        code, text = check(manifest, tmp_path / "out", depth=depth)
        *findings, totals = events(text)
        assert (code, totals["bad"], totals["depth"]) == (8, len(findings), depth)
        assert (totals["estimated_s"] is None) == (depth != "pixels")
        assert (totals["megapixels"] > 0) == (depth != "rows")
        return {finding["id"]: finding["code"] for finding in findings}

    of_rows = {"again": "write"}
    of_headers = {"unmasked.png": "read", "inside.png": "read", "absent.png": "read", "odd": "write"} | of_rows
    of_headers["ink.jpg"] = "write"
    assert bad("rows") == of_rows
    assert bad("headers") == of_headers
    assert bad("pixels") == {"damaged.png": "read"} | of_headers
    _, text = check(manifest, log_format="text", depth="headers")
    assert "no pixel and no mask was read" in text
    assert "no file was opened" in check(manifest, log_format="text", depth="rows")[1]


@pytest.mark.parametrize(
    ("settings", "most"),
    [({}, 255), ({"premis": True}, 244), ({"sidecar": True}, 236), ({"sidecar": True, "premis": True}, 236)],
)
def test_a_name_that_leaves_no_room_for_what_comes_beside_it(gallery, tmp_path, settings, most):
    gallery.add("a.png")
    image, mask = gallery.rows.pop()["image"], "a.png.mask.png"
    for num_bytes in {most, min(most + 1, 255)}:
        name = f"{'x' * (num_bytes % 2)}{'é' * ((num_bytes - 4) // 2)}.png"
        assert len(name.encode()) == num_bytes
        gallery.add_row(image, mask, id=f"{num_bytes} bytes", output=f"deep/{name}")
    manifest = gallery.manifest()
    code, text = check(manifest, tmp_path / "out", **settings)
    found = {event["id"]: event for event in events(text)[:-1]}
    assert (code, set(found)) == ((8, {f"{most + 1} bytes"}) if settings else (0, set()))
    for event in found.values():
        assert event["code"] == "write"
        assert f"the most is {most}; give it a shorter one in the output column" in event["message"]
    summary = run(manifest, tmp_path / "out", **settings)
    assert (summary["rows"]["done"], summary["rows"]["failed"]) == (1, len(found))
    assert run(manifest, tmp_path / "out", **settings)["rows"]["skipped"] == 1


def test_a_number_that_makes_a_name_too_long(gallery, tmp_path):
    name = f"{'x' * 250}.png"
    gallery.add("a.png", output=name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_bytes(b"of somebody else")
    code, text = check(gallery.manifest(), tmp_path / "out", on_conflict="suffix")
    assert (code, events(text)[0]["code"]) == (8, "write")
    assert "has a name of more than 255 bytes; give it a shorter one in the output column" in events(text)[0]["message"]


def test_workers_in_processes_share_the_memory(gallery, monkeypatch):
    monkeypatch.setattr(row_memory, "memory_bytes", lambda: 3 << 30)  # of which each of eight gets 384 MiB
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    gallery.add("large.png", side=3200)  # three copies of its samples take 88 MiB, beside 300 of a process
    manifest = gallery.manifest()
    for depth in ("headers", "pixels"):
        assert check(manifest, depth=depth)[0] == 0
        code, text = check(manifest, depth=depth, actors=8)
        assert (code, [event["code"] for event in events(text)[:-1]]) == (8, ["memory"])
        assert check(manifest, depth=depth, actors=8, max_memory="1G")[0] == 0
    with pytest.raises(UsageError, match="--actors needs workers in processes"):
        check(manifest, executor="local", actors=8)


def test_text_findings_name_file_and_line(gallery):
    gallery.add_row("missing.png", "none.png")
    manifest = gallery.manifest()
    code, text = check(manifest, log_format="text")
    assert code == 8
    lines = text.splitlines()
    assert lines[0].startswith(f"{manifest}:2: error: missing.png: read: ")
    assert lines[1] == "1 row: 0 ready, 1 would fail, 0 warnings"
    assert lines[2].startswith("estimate: 0 tiles (none)")


def test_output_collisions_are_found_and_our_own_results_are_none(gallery, tmp_path):
    gallery.add("a.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    run(manifest, output)
    assert check(manifest, output)[0] == 0
    gallery.add("b.png")
    (output / "b.png").write_bytes(b"precious")
    code, text = check(gallery.manifest(), output)
    assert code == 8
    assert [(event.get("id"), event.get("code")) for event in events(text)[:-1]] == [("b.png", "write")]
    assert check(gallery.manifest(), output, on_conflict="suffix")[0] == 0
    assert check(gallery.manifest())[0] == 0


def test_names_that_become_one_are_told_how_to_be_numbered(gallery, tmp_path):
    for name in ("a.jpg", "a.png"):
        gallery.add(name)
        gallery.rows[-1]["output"] = ""
    manifest, output = gallery.manifest(), tmp_path / "out"
    code, text = check(manifest, output, row=RowConfig(jpeg="lossless"))
    assert code == 8
    assert "or say --on-conflict suffix" in text
    assert check(manifest, output, row=RowConfig(jpeg="lossless"), on_conflict="suffix")[0] == 0


def test_a_source_in_the_place_of_its_output_is_found(gallery):
    gallery.add("a.png")
    code, text = check(gallery.manifest(), gallery.folder, on_conflict="overwrite")
    assert code == 8
    assert "is the image of this row" in text


def test_run_level_errors(gallery, tmp_path):
    with pytest.raises(ManifestError):
        check(tmp_path / "none.csv")
    for folder in ("in", "masks"):
        (tmp_path / folder).mkdir(exist_ok=True)
        Image.fromarray(np.eye(64, dtype=np.uint8) * 255).save(tmp_path / folder / "a.png")
    config = RunConfig(output=tmp_path / "in" / "out")
    with pytest.raises(StorageError, match="inside the input"):
        check_manifest(
            config, tmp_path / "in", masks=tmp_path / "masks", with_output=True, report=FindingsPrinter("text")
        )
    assert not (tmp_path / "in" / "out").exists()
