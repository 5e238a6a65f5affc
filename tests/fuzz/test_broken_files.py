"""Files that benchmarks/fuzz.py breaks, a few of them, and by hand those that it found something with."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, run
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.local import LocalExecutor
from inpaint_batch.imaging.mask_pictures import open_picture
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import fuzz  # noqa: E402
import fuzz_files  # noqa: E402
import fuzz_mutations  # noqa: E402

BUDGET_BYTES = 1 << 26
FILES = fuzz_files.sound_files()


def restore(path: Path, out: Path) -> None:
    source = open_image(path, max_bytes=BUDGET_BYTES)
    box = Box(30, 30, 20, 30)
    fill = np.zeros((box.height, box.width, source.header.num_bands), source.header.dtype)
    patch = Patch(box, fill, np.ones((box.height, box.width), np.bool_))
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")


def test_every_sound_file_is_restored(tmp_path: Path) -> None:
    sound = [fuzz.Case(number, name, "nothing", data, False) for number, (name, data) in enumerate(FILES.items())]
    masks = [
        fuzz.Case(100 + case.number, case.kind, "nothing", case.data, True)
        for case in sound
        if not case.kind.startswith(fuzz.NO_MASKS) and case.suffix not in fuzz.NO_MASK_SUFFIXES
    ]
    verdict = fuzz.Verdict()
    fuzz.check(tmp_path, sound + masks, verdict)
    assert not verdict.findings
    assert {outcome for _, outcome in verdict.outcomes} == {"restored"}


def test_a_hundred_and_fifty_broken_files(tmp_path: Path) -> None:
    """The whole two thousand are in the benchmark."""
    verdict = fuzz.Verdict()
    chosen = list(fuzz.cases(150, seed=7))
    fuzz.check(tmp_path, chosen, verdict)
    assert not verdict.findings
    assert sum(verdict.outcomes.values()) == 150
    assert 1 << 25 < verdict.peak_bytes < 1 << 30
    assert len({case.mutation for case in chosen}) > 30


def test_mutations_break_something_and_repeat_themselves() -> None:
    for name, data in FILES.items():
        for mutation in fuzz_mutations.ANY + fuzz_mutations.OWN[Path(name).suffix]:
            broken = [mutation(data, Random(seed)) for seed in range(8)]
            assert broken == [mutation(data, Random(seed)) for seed in range(8)], mutation
            assert any(one != data for one in broken), mutation


def test_the_judge_notices_what_is_wrong(tmp_path: Path) -> None:
    """A known sample that moved, an output that is missing, a promise to read a broken file another time."""
    case = fuzz.Case(0, "rgb8.png", "nothing", FILES["rgb8.png"], False)
    image, mask = fuzz._write(tmp_path, case)
    out = tmp_path / "out"
    out.mkdir()
    done = {"status": "done"}
    assert fuzz._judge(case, image, mask, done, out) == ("lost", "it is done and has no output")
    samples = np.asarray(Image.open(image)).copy()
    samples[40, 48] = 0
    Image.fromarray(samples).save(out / f"{case.id}.png")
    assert fuzz._judge(case, image, mask, done, out) == ("restored", "")
    samples[0, 0] += 1
    Image.fromarray(samples).save(out / f"{case.id}.png")
    assert "known samples changed" in fuzz._judge(case, image, mask, done, out)[1]
    failed = {"status": "failed", "code": "read", "message": "it is broken", "retryable": True}
    assert "tried again" in fuzz._judge(case, image, mask, failed, out)[1]
    assert "has an output" in fuzz._judge(case, image, mask, {**failed, "retryable": False}, out)[1]
    assert "crash" in fuzz._judge(case, image, mask, {**failed, "code": "crash"}, out)[1]


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    return fuzz_mutations._png_chunks(data)


def joined(chunks: list[tuple[bytes, bytes]], data: bytes = FILES["rgb8.png"]) -> bytes:
    return fuzz_mutations._png_join(data, chunks)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_png_with_a_wrong_checksum_where_it_matters(tmp_path: Path, kind: bytes) -> None:
    data = bytearray(FILES["palette8.png"])
    place = data.index(kind)
    length = int.from_bytes(data[place - 4 : place], "big")
    data[place + 4 + length] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(RowError, match=f"checksum of its {kind.decode()} chunk"):
        open_image(tmp_path / "a.png", max_bytes=BUDGET_BYTES)


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        (lambda all_: [*all_[:2], (b"ABCD", b""), *all_[2:]], "b'ABCD' that nobody knows"),
        (lambda all_: [*all_[:3], (b"tEXt", b"a\0b"), *all_[3:]], "not in order"),  # between two chunks of pixels
        (lambda all_: [*all_[:-1], (b"PLTE", bytes(3)), all_[-1]], "not in order"),
        (lambda all_: [all_[0], all_[0], *all_[1:]], "not in order"),
        (lambda all_: [all_[0], (b"t\xffXt", b""), *all_[1:]], "chunk of type"),
        (lambda all_: [all_[0], all_[-1]], "no pixels"),
    ],
)  # fmt: skip
def test_png_with_chunks_that_no_decoder_takes(tmp_path: Path, chunks, reason: str) -> None:
    (tmp_path / "a.png").write_bytes(joined(chunks(png_chunks(FILES["rgb8.png"]))))
    with pytest.raises(RowError, match=reason):
        open_image(tmp_path / "a.png", max_bytes=BUDGET_BYTES)


@pytest.mark.parametrize("transparency", [b"\0", bytes(8), bytes(3)])
def test_png_whose_transparent_colour_makes_no_sense(tmp_path: Path, transparency: bytes) -> None:
    first, *rest = png_chunks(FILES["rgb8.png"])
    (tmp_path / "a.png").write_bytes(joined([first, (b"tRNS", transparency), *rest]))
    restore(tmp_path / "a.png", tmp_path / "b.png")
    assert (b"tRNS", transparency) in png_chunks((tmp_path / "b.png").read_bytes())


def test_webp_without_a_list_of_its_chunks_keeps_them(tmp_path: Path) -> None:
    chunks = [chunk for chunk in fuzz_mutations._webp_chunks(FILES["lossless-alpha.webp"]) if chunk[0] != b"VP8X"]
    (tmp_path / "a.webp").write_bytes(fuzz_mutations._webp_join(chunks))
    restore(tmp_path / "a.webp", tmp_path / "b.webp")
    kept = fuzz_mutations._webp_chunks((tmp_path / "b.webp").read_bytes())
    assert [kind for kind, _ in kept] == [b"VP8L", b"EXIF"]
    assert kept[1] == chunks[1]


def test_webp_with_a_list_of_its_chunks_in_the_wrong_place(tmp_path: Path) -> None:
    chunks = fuzz_mutations._webp_chunks(FILES["lossless-alpha.webp"])
    (tmp_path / "a.webp").write_bytes(fuzz_mutations._webp_join([*chunks[1:], chunks[0]]))
    with pytest.raises(RowError, match="not in order"):
        open_image(tmp_path / "a.webp", max_bytes=BUDGET_BYTES)


def test_tiff_whose_segment_lies_on_its_directory(tmp_path: Path) -> None:
    """Every reader shows its bytes as samples; patched in place, it would lose the directory."""
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    data = bytearray(FILES["strips.tif"])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        offsets = file.pages.first.tags[273]
        struct.pack_into("<I", data, offsets.valueoffset + 4 * 3, 7)
    path.write_bytes(data)
    restore(path, out)
    before, after = tifffile.imread(path), tifffile.imread(out)
    known = np.ones(before.shape[:2], np.bool_)
    known[30:50, 30:60] = False
    np.testing.assert_array_equal(before[known], after[known])
    assert not after[~known].any()


@pytest.mark.parametrize(
    ("tag", "change", "reason"),
    [(284, (8, "<H", 3), "how its bands lie"), (279, (2, "<H", 13), "of type 13"), (273, (2, "<H", 5), "of type 5")],
)
def test_tiff_whose_directory_lies(tmp_path: Path, tag: int, change: tuple[int, str, int], reason: str) -> None:
    data = bytearray(FILES["lzw-predictor.tif"])
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        place, kind, value = change
        struct.pack_into(kind, data, file.pages.first.tags[tag].offset + place, value)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(RowError, match=reason) as caught:
        open_image(tmp_path / "a.tif", max_bytes=BUDGET_BYTES)
    assert not caught.value.retryable


def test_mask_that_does_not_say_where_all_its_segments_are(tmp_path: Path) -> None:
    """tifffile gives black for those that it cannot find: holes would be passed over."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, fuzz_files.picture(1), compression="zlib", rowsperstrip=16, metadata=None)
    data = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        struct.pack_into("<I", data, file.pages.first.tags[279].offset + 4, 1 << 30)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(RowError, match="where all of its 5 segments are"):
        list(open_picture(tmp_path / "a.tif", max_bytes=BUDGET_BYTES).pieces())


def test_jpeg_with_a_longer_side_than_libjpeg_writes(tmp_path: Path) -> None:
    """Its library would take the process with it."""
    data = bytearray(FILES["full-chroma.jpg"])
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 7] = (65535).to_bytes(2, "big")
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(RowError, match="jpeg=lossless") as caught:
        restore(tmp_path / "a.jpg", tmp_path / "b.jpg")
    assert caught.value.code == FailureCode.WRITE


def test_webp_without_height_is_a_row_error_and_no_row_is_passed_over(gallery: Gallery, tmp_path: Path) -> None:
    """It asked for no memory, was told that it had got none, and was forgotten; the run ended with 0."""
    data = bytearray(FILES["lossy.webp"])
    data[28:30] = bytes(2)
    gallery.add("sound.png")
    gallery.add_row("flat.webp", gallery.rows[0]["mask"])
    (gallery.folder / "flat.webp").write_bytes(data)
    summary = run(gallery.manifest(), tmp_path / "out")
    assert (summary["exit_code"], summary["rows"]["done"], summary["rows"]["failed"]) == (8, 1, 1)
    assert "96 x 0 px" in next(line["message"] for line in ledger_lines(tmp_path / "out") if "message" in line)


def test_a_run_that_loses_a_row_does_not_end_well(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add("sound.png")
    monkeypatch.setattr(LocalExecutor, "run", lambda self, tasks, *_: (None for task in tasks if not task))
    with pytest.raises(RuntimeError, match="no outcome of 1 row,"):
        run(gallery.manifest(), tmp_path / "out")
