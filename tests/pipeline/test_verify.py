"""`verify`: a sound result is sound whatever its kind, and nothing that was changed outside a hole stays unseen."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from gallery import Gallery, run, tree
from PIL import Image

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.errors import RowsFailedError, StorageError
from inpaint_batch.pipeline.verify import verify_manifest
from inpaint_batch.report.findings import FindingsPrinter

HOLE = (20, 24, 12, 16)


def verify(
    manifest: Path, output: Path, *, row: dict[str, Any] | None = None, **settings: Any
) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
    """Exit code, findings, totals."""
    stream = io.StringIO()
    code = 0
    config = RunConfig(output=output, row=RowConfig(**(row or {})), workers=2, **settings)
    try:
        verify_manifest(config, manifest, masks=None, report=FindingsPrinter("json", stream))
    except RowsFailedError as error:
        code = error.exit_code
    *findings, totals = map(json.loads, stream.getvalue().splitlines())
    assert totals.pop("event") == "totals"
    return code, findings, totals


@pytest.fixture
def one(gallery: Gallery, tmp_path: Path):
    """A gallery of one picture of a kind, restored; returns its manifest, the output folder and the result."""

    def restored(name: str, mode: str = "RGB", **settings: Any) -> tuple[Path, Path, Path]:
        gallery.add(name, mode=mode, hole=HOLE)
        run(gallery.manifest(), tmp_path / "out", **settings)
        return gallery.folder / "manifest.csv", tmp_path / "out", tmp_path / "out" / name

    return restored


def test_what_a_run_wrote_is_sound(every_format, tmp_path):
    manifest = every_format.manifest()
    row = {"dilate_px": 2, "feather_px": 3}
    run(manifest, tmp_path / "out", row={**row, "xmp": True}, premis=True)
    before = tree(tmp_path)
    code, findings, totals = verify(manifest, tmp_path / "out", row=row)
    assert (code, findings) == (0, [])
    assert totals == {
        "rows": 11,
        "sound": 11,
        "bad": 0,
        "warnings": 0,
        "by_checksum": 0,
        "shard": "",
        "megapixels": sum((72 + number) ** 2 for number in range(11)) / 1e6,
    }
    assert tree(tmp_path) == before


def test_neither_ledger_nor_model_is_needed(every_format, tmp_path):
    run(every_format.manifest(), tmp_path / "out", row={"jpeg": "lossless"})
    shutil.rmtree(tmp_path / "out" / ".inpaint-batch")
    code, findings, totals = verify(every_format.manifest(), tmp_path / "out", row={"jpeg": "lossless"})
    assert (code, findings, totals["sound"]) == (0, [], 11)


def test_a_larger_hole_than_that_of_the_row_is_found_in_every_format(every_format, tmp_path):
    manifest = every_format.manifest()
    run(manifest, tmp_path / "out", row={"dilate_px": 9})
    code, findings, totals = verify(manifest, tmp_path / "out")
    assert (code, totals["bad"]) == (8, 11)
    for finding in findings:
        assert finding["code"] == "write"
        assert " outside the hole are not as in the source, the first in row " in finding["message"]
        assert "give this command those of the run" in finding["message"]


@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGBA"), ("a.tif", "RGB"), ("a.webp", "RGB"), ("a.png", "L")])
def test_one_known_sample_is_found(one, name, mode):
    manifest, output, result = one(name, mode)
    with Image.open(result) as image:
        samples = np.array(image)
    samples[HOLE[0] - 1, HOLE[1]] ^= 1
    samples[70, 71] ^= 1
    Image.fromarray(samples).save(result, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    code, (finding,), totals = verify(manifest, output)
    assert (code, totals["sound"], totals["bad"]) == (8, 0, 1)
    wanted = "2 pixels outside the hole are not as in the source, the first in row 19, column 24;"
    assert wanted in finding["message"]

    samples[HOLE[0] - 1, HOLE[1]] ^= 1
    samples[70, 71] ^= 1
    samples[HOLE[0], HOLE[1]] ^= 1
    Image.fromarray(samples).save(result, **({"lossless": True, "exact": True} if name == "a.webp" else {}))
    assert verify(manifest, output)[0] == 0


def test_one_block_of_a_jpeg_is_found(one):
    manifest, output, result = one("a.jpg")
    with Image.open(manifest.parent / "a.jpg") as image:
        tables, samples = image.quantization, np.array(image)
    samples[40:48, 56:64] //= 2
    changed = io.BytesIO()
    Image.fromarray(samples).save(changed, "jpeg", qtables=tables, subsampling=2)
    result.write_bytes(changed.getvalue())
    _, (finding,), _ = verify(manifest, output)
    assert "blocks outside the hole are not as in the source, the first in row " in finding["message"]

    Image.fromarray(samples).save(result, quality=50)
    _, (finding,), _ = verify(manifest, output)
    assert "its quantisation is not that of the source" in finding["message"]


def tiff_of_jpegs(path: Path, samples: np.ndarray) -> None:
    tifffile.imwrite(
        path, samples, tile=(32, 32), compression="jpeg", compressionargs={"level": 90}, photometric="minisblack"
    )


def test_a_tile_of_jpeg_in_a_tiff_is_found(gallery, tmp_path):
    samples = np.tile(np.arange(96, dtype=np.uint8) * 2, (96, 1))
    tiff_of_jpegs(gallery.folder / "a.tif", samples)
    drawn = np.zeros((96, 96), np.uint8)
    drawn[10:14, 10:14] = 255
    gallery.add_row("a.tif", gallery.mask("m.png", drawn))
    manifest = gallery.manifest()
    run(manifest, tmp_path / "out")
    assert verify(manifest, tmp_path / "out")[:2] == (0, [])

    samples[72:80, 40:48] = 9
    tiff_of_jpegs(tmp_path / "out" / "a.tif", samples)
    _, (finding,), _ = verify(manifest, tmp_path / "out")
    assert "1 block outside the hole is not as in the source, the first in row 72, column 40;" in finding["message"]


def test_a_float_is_compared_by_its_bits(gallery, tmp_path):
    samples = np.full((64, 64), 0.5, np.float32)
    samples[5, 5], samples[6, 6] = np.nan, 0.0
    tifffile.imwrite(gallery.folder / "a.tif", samples)
    drawn = np.zeros((64, 64), np.uint8)
    drawn[30:40, 30:40] = 255
    gallery.add_row("a.tif", gallery.mask("m.png", drawn))
    run(gallery.manifest(), tmp_path / "out")
    assert verify(gallery.manifest(), tmp_path / "out")[:2] == (0, [])
    samples[6, 6] = -0.0
    tifffile.imwrite(tmp_path / "out" / "a.tif", samples)
    _, (finding,), _ = verify(gallery.manifest(), tmp_path / "out")
    assert "1 pixel outside the hole is not as in the source, the first in row 6, column 6;" in finding["message"]


def test_another_shape_or_format(one, tmp_path):
    manifest, output, result = one("a.png")
    Image.new("RGB", (72, 71)).save(result)
    _, (finding,), _ = verify(manifest, output)
    assert "it has 72 x 71 px, 3 bands of uint8, orientation 1, not 72 x 72 px" in finding["message"]
    Image.new("RGB", (72, 72)).save(result, "jpeg")
    _, (finding,), _ = verify(manifest, output)
    assert f"the result {result} is a JPEG, not a PNG; " in finding["message"]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_source_in_the_place_of_its_result_is_warned_of(one, name):
    manifest, output, result = one(name)
    shutil.copyfile(manifest.parent / name, result)
    code, (finding,), totals = verify(manifest, output)
    assert (code, totals["sound"], totals["warnings"]) == (0, 1, 1)
    assert (finding["level"], finding["message"]) == (
        "warning",
        "nothing has changed in its holes: they look as in the source",
    )


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp"])
def test_a_torn_result_is_not_sound(one, name):
    manifest, output, result = one(name)
    os.truncate(result, result.stat().st_size // 2)
    code, (finding,), _ = verify(manifest, output)
    assert code == 8
    assert finding["code"] == "write"
    assert finding["message"].startswith(f"the result {result} cannot be read: ")


def test_why_there_is_no_result(gallery, tmp_path):
    for name in ("done.png", "gone.png", "late.png"):
        gallery.add(name)
    gallery.add("bad.png", hole=(0, 0, 0, 0))
    late = gallery.rows.pop(2)
    run(gallery.manifest(), tmp_path / "out")
    gallery.rows.append(late)
    (tmp_path / "out" / "gone.png").unlink()
    gallery.add_row("done.png", "done.png.mask.png", dilate="x")
    gallery.rows[-1] |= {"id": "wrong", "output": "wrong.png"}
    code, findings, totals = verify(gallery.manifest(), tmp_path / "out")
    assert (code, totals["rows"], totals["sound"], totals["bad"]) == (8, 5, 1, 4)
    messages = {finding["id"]: finding["message"] for finding in findings}
    out = tmp_path / "out"
    assert messages["gone.png"] == f"there is no {out}/gone.png any more; run the manifest again, which makes it anew"
    assert messages["late.png"] == f"there is no {out}/late.png: no run has done this row; run the manifest"
    assert messages["bad.png"].startswith("no run could do this row: the mask")
    assert "dilate" in messages["wrong"]


def test_a_source_that_cannot_be_read_is_told_as_such(one):
    manifest, output, _ = one("a.png")
    (manifest.parent / "a.png").write_bytes(b"nothing")
    _, (finding,), _ = verify(manifest, output)
    assert finding["code"] == "read"
    assert finding["message"].startswith(f"the image {manifest.parent / 'a.png'} is not an image")


def test_the_name_that_a_conflict_gave_is_known(gallery, tmp_path):
    gallery.add("a.png")
    (tmp_path / "out").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "out" / "a.png")
    run(gallery.manifest(), tmp_path / "out", on_conflict="suffix")
    assert (tmp_path / "out" / "a-1.png").exists()
    assert verify(gallery.manifest(), tmp_path / "out")[:2] == (0, [])


def test_checksums_beside_a_result_are_compared(one):
    manifest, output, result = one("a.png", sidecar=True)
    code, findings, totals = verify(manifest, output)
    assert (code, findings, totals["by_checksum"]) == (0, [], 1)
    data = result.read_bytes()

    Image.open(result).save(result, compress_level=1)  # the same samples
    _, (finding,), _ = verify(manifest, output)
    sidecar = f"{result}.inpaint-batch.json"
    assert finding["message"] == f"the result {result} is not the file that {sidecar} names: damaged or edited since"
    result.write_bytes(data)

    mask = manifest.parent / "a.png.mask.png"
    Image.open(mask).save(mask, compress_level=1)
    _, (finding,), _ = verify(manifest, output)
    assert finding["message"] == f"the result {result} was made with another mask: {mask} has changed since"
    source = manifest.parent / "a.png"
    Image.open(source).save(source, compress_level=1)
    _, (finding,), _ = verify(manifest, output)
    assert finding["message"] == f"the result {result} was made of another source: {source} has changed since"

    Path(sidecar).write_text("{}")
    _, (finding,), _ = verify(manifest, output)
    assert f"the result {result} cannot be told from another: {sidecar} cannot be read (" in finding["message"]
    Path(sidecar).unlink()
    assert verify(manifest, output)[0] == 0
    _, (finding,), _ = verify(manifest, output, sidecar=True)
    assert finding["message"] == f"there is no {sidecar}; run the manifest again with --sidecar"


def test_shards_share_the_work(gallery, tmp_path):
    for number in range(12):
        gallery.add(f"{number}.png")
    run(gallery.manifest(), tmp_path / "out")
    for number in range(12):
        (tmp_path / "out" / f"{number}.png").unlink()
    told = [verify(gallery.manifest(), tmp_path / "out", shard=f"{part}/3") for part in (1, 2, 3)]
    found = [finding["id"] for _, findings, _ in told for finding in findings]
    assert sorted(found) == sorted(f"{number}.png" for number in range(12))
    assert all(0 < totals["rows"] < 12 for _, _, totals in told)
    assert [totals["shard"] for _, _, totals in told] == ["1/3", "2/3", "3/3"]


def test_nothing_was_restored_there(gallery, tmp_path):
    gallery.add("a.png")
    with pytest.raises(StorageError, match="is no folder: nothing was restored there"):
        verify(gallery.manifest(), tmp_path / "absent")


def test_the_command(one):
    manifest, output, result = one("a.png")
    words = [sys.executable, "-m", "inpaint_batch", "verify", str(manifest), "--output", str(output)]
    sound = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert sound.stdout == "1 row: 1 sound, 0 not, 0 warnings\n0.005184 megapixels compared with their sources\n"
    result.unlink()
    missing = subprocess.run([*words, "--log-format", "json"], capture_output=True, text=True, check=False)
    assert missing.returncode == 8
    events = [json.loads(line)["event"] for line in missing.stdout.splitlines()]
    assert events == ["finding", "totals", "error"]
    array = {**os.environ, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "2"}
    part = subprocess.run(words, capture_output=True, text=True, check=False, env=array)
    assert re.match(r"[01] rows? of shard 2/2: ", part.stdout.splitlines()[-2])
