"""Previews within metadata: filled along with their picture, in their place, and nothing else of the file changed."""

from __future__ import annotations

import io
import json
import random
import struct
from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import pyvips
import tifffile
from gallery import ledger_lines, run
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import exif, photoshop, preview_fill, previews, tiff
from inpaint_batch.imaging.preview_fill import _KEPT_FREQUENCIES, fill_preview
from inpaint_batch.imaging.previews import fill_previews
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import written_format
from inpaint_batch.types import Box, Patch

SIDE, CELL = 160, 5
"""Of pictures in pixels, and how many of these a pixel of a preview stands for each way."""
HOLE = Box(40, 60, 25, 15)
FROM, TO = 200, 100


def jpeg(samples: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(samples).save(buffer, "JPEG", **{"quality": 95, "subsampling": 0, **options})
    return buffer.getvalue()


def preview_of(samples: np.ndarray, **options: object) -> bytes:
    """As a program makes one: each pixel the mean of those that it stands for."""
    height, width = samples.shape[0] // CELL, samples.shape[1] // CELL
    return jpeg(np.asarray(Image.fromarray(samples).resize((width, height), Image.Resampling.BOX)), **options)


def exif_with(preview: bytes, order: str = "<", behind: bytes = b"") -> bytes:
    """EXIF with an orientation of 1 in the first directory, and `preview` in the second."""
    first = struct.pack(order + "HHHIHHI", 1, 0x0112, 3, 1, 1, 0, 26)
    start = 26 + 2 + 3 * 12 + 4
    tags = ((0x0103, 3, 6 if order == "<" else 6 << 16), (0x0201, 4, start), (0x0202, 4, len(preview)))
    second = b"".join(struct.pack(order + "HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "I", 8)
    return head + first + struct.pack(order + "H", 3) + second + bytes(4) + preview + behind


def resources_with(preview: bytes) -> bytes:
    """Image resources of Photoshop: IPTC, the preview, and one with a name behind it."""
    head = struct.pack(">IIIIIIHH", 1, 32, 32, 96, 32 * 96, len(preview), 24, 1)
    odd = b"\x1c\x02\x78\x00\x03abc"[:7]
    parts = [(1028, b"\0\0", odd), (1036, b"\0\0", head + preview), (1000, b"\x03abc", b"12")]
    return b"".join(
        b"8BIM" + struct.pack(">H", number) + name + struct.pack(">I", len(body)) + body + b"\0" * (len(body) % 2)
        for number, name, body in parts
    )


def in_jpeg(path: Path, samples: np.ndarray, preview: bytes, order: str = "<") -> None:
    path.write_bytes(jpeg(samples, exif=b"Exif\0\0" + exif_with(preview, order)))


def in_photoshop_jpeg(path: Path, samples: np.ndarray, preview: bytes) -> None:
    body = b"Photoshop 3.0\0" + resources_with(preview)
    plain = jpeg(samples)
    path.write_bytes(plain[:2] + b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body + plain[2:])


def in_jfif(path: Path, samples: np.ndarray, preview: bytes) -> None:
    plain = jpeg(samples)
    path.write_bytes(plain[:20] + app0(b"JFXX\x00\x10" + preview) + plain[20:])


def app0(body: bytes) -> bytes:
    return b"\xff\xe0" + struct.pack(">H", 2 + len(body)) + body


def in_png(path: Path, samples: np.ndarray, preview: bytes) -> None:
    Image.fromarray(samples).save(path, exif=exif_with(preview, ">"))


def in_webp(path: Path, samples: np.ndarray, preview: bytes) -> None:
    Image.fromarray(samples).save(path, lossless=True, exif=exif_with(preview))


def in_tiff(path: Path, samples: np.ndarray, preview: bytes) -> None:
    resources = resources_with(preview)
    tifffile.imwrite(path, samples, compression="zlib", extratags=[(34377, 7, len(resources), resources, True)])


WRITERS = {
    "exif.jpg": in_jpeg,
    "photoshop.jpg": in_photoshop_jpeg,
    "jfif.jpg": in_jfif,
    "a.png": in_png,
    "a.webp": in_webp,
    "a.tif": in_tiff,
}


def flat(side: int = SIDE) -> np.ndarray:
    return np.full((side, side, 3), FROM, np.uint8)


def patch_of(value: int, box: Box = HOLE, num_bands: int = 3) -> Patch:
    return Patch(box, np.full((box.height, box.width, num_bands), value, np.uint8), np.ones(box[2:], np.bool_))


def decoded(preview: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(preview)).convert("RGB")).astype(int)


def filled_file(path: Path, out: Path, patches: list[Patch], jpeg: str = "patch") -> tuple[bytes, list[str]]:
    """A file restored; what it was before its previews were filled, and what is warned of."""
    source, _ = cases.restore(path, out, patches, jpeg=jpeg)
    before = out.read_bytes()
    report = fill_previews(source, patches, out, written_format(source.header.format, jpeg))
    assert bool(report.num_filled) == (out.read_bytes() != before)
    return before, report.warnings


@pytest.mark.parametrize("name", WRITERS)
def test_a_preview_shows_what_was_filled_and_nothing_else_changes(tmp_path: Path, name: str) -> None:
    path, out = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    preview = preview_of(flat()) + bytes(200)  # room for an edge
    WRITERS[name](path, flat(), preview)
    before, warnings = filled_file(path, out, [patch_of(TO)])
    after = out.read_bytes()
    start = before.index(preview)
    checksum = range(start + len(preview), start + len(preview) + 4) if name == "a.png" else range(0)
    changed = [index for index, (one, other) in enumerate(zip(before, after, strict=True)) if one != other]
    assert set(changed) <= {*range(start, start + len(preview)), *checksum}
    found = decoded(after[start : start + len(preview)])
    expected = decoded(preview)
    expected[8:13, 12:15] = TO
    np.testing.assert_allclose(found, expected, atol=4)  # JPEG's own rounding
    assert not warnings


def test_other_programs_find_the_new_preview(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    in_jpeg(path, flat(), preview_of(flat()), ">")
    filled_file(path, out, [patch_of(TO)])
    kept = pyvips.Image.new_from_file(str(out)).get("jpeg-thumbnail-data")
    assert abs(decoded(kept)[10, 13] - TO).max() <= 8
    with Image.open(out) as opened:
        block, tags = opened.info["exif"], opened.getexif().get_ifd(ExifTags.IFD.IFD1)
    assert block[6:][tags[0x0201] :][: tags[0x0202]] == kept


def test_the_png_of_a_jpeg_has_it_too(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.png"
    in_jpeg(path, flat(), preview_of(flat()))
    filled_file(path, out, [patch_of(TO)], jpeg="lossless")
    with Image.open(out) as opened:
        opened.load()
        block = opened.info["exif"]
    kept = block[exif.find_preview(block).start :]
    assert abs(decoded(kept)[10, 13] - TO).max() <= 8


@pytest.mark.parametrize("size_class", [1, 2, 3])
def test_of_pictures_behind_the_first_only_a_preview_is_filled(tmp_path: Path, size_class: int) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    samples = cases.picture("rgb", SIDE, SIDE)
    small = Image.fromarray(samples).resize((80, 80), Image.Resampling.BOX)
    Image.fromarray(samples).save(path, "MPO", save_all=True, append_images=[small, small], quality=90)
    data = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 0xB002, 7, 3 * 16)) + 8)
    attributes = data.index(b"MPF\0") + 4 + entries + 16
    data[attributes : attributes + 4] = struct.pack("<I", 0x010000 + size_class)
    path.write_bytes(data)
    _, warnings = filled_file(path, out, [patch_of(TO)])
    assert not warnings
    with Image.open(path) as one, Image.open(out) as two:
        before, after = [], []
        for index in (1, 2):
            one.seek(index)
            two.seek(index)
            before.append(np.asarray(one).astype(int))
            after.append(np.asarray(two).astype(int))
    np.testing.assert_allclose(after[0][22:30, 32:36].mean(axis=-1), TO, atol=4)
    np.testing.assert_array_equal(after[0][56:], before[0][56:])
    np.testing.assert_array_equal(after[1], before[1])


def test_a_cell_that_is_filled_in_part_is_a_mean(tmp_path: Path) -> None:
    """Two of five columns: 200 - 100 * 2 / 5."""
    path = tmp_path / "a.png"
    in_png(path, flat(), b"")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    preview = preview_of(flat(), quality=100)
    fresh = fill_preview(preview, source, [patch_of(TO, Box(40, 60, 40, 2))])
    assert fresh is not None
    np.testing.assert_allclose(decoded(fresh)[8:16, 12], 160, atol=3)
    np.testing.assert_allclose(decoded(fresh)[8:16, 13], FROM, atol=3)


def test_grey_previews_and_grey_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(flat()[..., 0]).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    for preview in (preview_of(flat()[..., 0], quality=100), preview_of(flat(), quality=100)):
        fresh = fill_preview(preview, source, [patch_of(TO, num_bands=1)])
        assert fresh is not None
        assert abs(decoded(fresh)[10, 13] - TO).max() <= 3


@pytest.mark.parametrize(("shape", "frame"), [((24, 32), Box(4, 0, 16, 32)), ((32, 16), Box(12, 0, 8, 16))])
def test_a_picture_between_bars(tmp_path: Path, shape: tuple[int, int], frame: Box) -> None:
    path = tmp_path / "a.png"
    samples = cases.picture("rgb", 160, 320)
    Image.fromarray(samples).save(path)
    shown = np.zeros((*shape, 3), np.uint8)
    shown[frame.slices] = np.asarray(Image.fromarray(samples).resize((frame.width, frame.height), Image.Resampling.BOX))
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    preview = jpeg(shown, quality=90)
    hole = Box(80, 160, 80, 160)  # the lower right quarter
    fresh = fill_preview(preview, source, [patch_of(TO, hole)])
    assert fresh is not None
    inside = decoded(fresh)[frame.slices][frame.height // 2 :, frame.width // 2 :]
    np.testing.assert_allclose(inside, TO, atol=12)
    np.testing.assert_allclose(decoded(fresh)[: frame.top - 1], 0, atol=12)


def test_a_preview_of_another_picture_stays_and_is_told_of(gallery, tmp_path: Path) -> None:
    path = gallery.add("a.jpg", side=SIDE)
    with Image.open(path) as opened:
        opened.load()
    other = preview_of(255 - np.asarray(opened))
    opened.save(path, exif=b"Exif\0\0" + exif_with(other))
    summary = run(gallery.manifest(), tmp_path / "out")
    assert (summary["exit_code"], summary["rows"]["warnings"]) == (0, 1)
    (warning,) = ledger_lines(tmp_path / "out")[-1]["warnings"]
    assert warning.startswith("the preview of EXIF goes on showing what was there")
    assert other in (tmp_path / "out" / "a.jpg").read_bytes()


def flat_jpeg_with(segments: bytes) -> bytes:
    plain = jpeg(flat())
    return plain[:2] + segments + plain[2:]


def app13(*parts: bytes) -> bytes:
    segments = (b"Photoshop 3.0\0" + part for part in parts)
    return b"".join(b"\xff\xed" + struct.pack(">H", 2 + len(body)) + body for body in segments)


@pytest.mark.parametrize("room", [0, 40])
def test_what_stands_behind_a_preview_whose_length_is_wrong_stays(tmp_path: Path, room: int) -> None:
    """Also where more is noted than the block holds."""
    path, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    notes = b"notes of the maker " * 20
    preview = preview_of(flat())
    block = exif_with(preview + notes).replace(notes, b"") + notes[: -room or None]
    path.write_bytes(jpeg(flat(), exif=b"Exif\0\0" + block))
    before, warnings = filled_file(path, out, [patch_of(TO)])
    after = out.read_bytes()
    assert not warnings
    assert before != after
    assert before.count(b"notes") == after.count(b"notes")
    start = before.index(preview)
    assert abs(decoded(after[start : start + len(preview)])[10, 13] - TO).max() <= 8


def plain_exif_preview() -> bytes:
    block = exif_with(b"\x80" * 300)
    for jpeg_tag, plain_tag in ((0x0201, 0x0111), (0x0202, 0x0117)):
        block = block.replace(struct.pack("<HH", jpeg_tag, 4), struct.pack("<HH", plain_tag, 4))
    return b"\xff\xe1" + struct.pack(">H", 8 + len(block)) + b"Exif\0\0" + block


def resource(number: int, kind: int, body: bytes) -> bytes:
    body = struct.pack(">IIIIIIHH", kind, 32, 32, 96, 32 * 96, len(body), 24, 1) + body
    return b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "segments",
    [
        plain_exif_preview(),
        app0(b"JFIF\x00\x01\x02\x00\x00\x01\x00\x01\x0a\x0a" + b"\x80" * 300),
        app0(b"JFXX\x00\x13\x0a\x0a" + b"\x80" * 300),
        app13(resource(1036, 0, b"\x80" * 300)),
        app13(resource(1033, 1, preview_of(flat()))),
        app13(resources_with(preview_of(flat()))[:200], resources_with(preview_of(flat()))[200:]),
    ],
    ids=["plain EXIF", "plain JFIF", "more of JFIF", "plain Photoshop", "Photoshop 4", "cut in two"],
)
def test_what_cannot_be_patched_is_told_of(tmp_path: Path, segments: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(flat_jpeg_with(segments))
    _, warnings = filled_file(path, tmp_path / "out.jpg", [patch_of(TO)])
    assert len(warnings) == 1


def test_a_preview_is_found_behind_a_resource_that_is_cut_in_two(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    iptc = b"8BIM" + struct.pack(">H", 1028) + b"\0\0" + struct.pack(">I", 400) + bytes(400)
    preview = preview_of(flat())
    path.write_bytes(flat_jpeg_with(app13(iptc[:100], iptc[100:] + resources_with(preview))))
    before, warnings = filled_file(path, out, [patch_of(TO)])
    start = before.index(preview)
    assert not warnings
    assert abs(decoded(out.read_bytes()[start : start + len(preview)])[10, 13] - TO).max() <= 8


def test_the_preview_of_photoshop_does_not_go_into_a_png(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.png"
    in_photoshop_jpeg(path, flat(), preview_of(flat()))
    _, warnings = filled_file(path, out, [patch_of(TO)], jpeg="lossless")
    with Image.open(out) as opened:
        opened.load()
        kept = bytes.fromhex("".join(opened.info["Raw profile type iptc"].split()[2:]))
    assert not warnings
    assert kept == resources_with(b"")[:20] + resources_with(b"")[-16:]
    assert not photoshop.without_previews(resource(1036, 1, preview_of(flat())))


def test_exif_that_no_reader_takes_stays_broken(tmp_path: Path) -> None:
    """Its checksum is wrong; with a right one, its orientation would count."""
    path, out = tmp_path / "a.png", tmp_path / "out.png"
    in_png(path, flat(), preview_of(flat()))
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") - 5] ^= 1
    path.write_bytes(data)
    before, warnings = filled_file(path, out, [patch_of(TO)])
    assert out.read_bytes() == before
    assert not warnings


def test_an_upright_preview_of_a_turned_picture_stays(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "out.jpg"
    samples = flat()[:80]  # as much as hole and preview look alike everywhere
    preview = jpeg(np.full((32, 16, 3), FROM, np.uint8))
    block = exif_with(preview)
    turned = block.replace(struct.pack("<HHII", 0x0112, 3, 1, 1), struct.pack("<HHII", 0x0112, 3, 1, 6))
    for one, is_told in ((block, False), (turned, True)):
        path.write_bytes(jpeg(samples, exif=b"Exif\0\0" + one))
        _, warnings = filled_file(path, out, [patch_of(TO)])
        assert bool(warnings) == is_told


def test_what_nobody_foresaw_is_not_blamed_on_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    in_jpeg(path, flat(), preview_of(flat()))

    def broken(*_: object) -> bytes:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(previews, "fill_preview", broken)
    with pytest.raises(RowError, match=r"RuntimeError: no such thing\); please report this") as caught:
        filled_file(path, tmp_path / "out.jpg", [patch_of(TO)])
    assert caught.value.code == FailureCode.WRITE


def test_a_run_fills_it(gallery, tmp_path: Path) -> None:
    path = gallery.add("a.jpg", side=SIDE)
    with Image.open(path) as opened:
        opened.load()
    preview = preview_of(np.asarray(opened))
    opened.save(path, quality=95, exif=b"Exif\0\0" + exif_with(preview))
    summary = run(gallery.manifest(), tmp_path / "out", sidecar=True)
    assert (summary["exit_code"], summary["rows"]["warnings"]) == (0, 0)
    assert preview not in (tmp_path / "out" / "a.jpg").read_bytes()
    told = json.loads((tmp_path / "out" / "a.jpg.inpaint-batch.json").read_text())
    assert told["verified"].endswith("and the metadata but for 1 preview, equal the source's")


def test_no_strip_of_a_wide_tiff_is_decoded_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a row of a preview stands for more than is kept decoded."""
    path, side, cell = tmp_path / "a.tif", 1280, 160
    tifffile.imwrite(path, flat(side), compression="zlib", rowsperstrip=8, photometric="rgb")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.cache_bytes = 1
    monkeypatch.setattr(tiff, "BAND_OF_ROWS_PIXELS", 64 * side)
    monkeypatch.setattr(preview_fill, "_CHUNK_PIXELS", cell**2)
    decoded_runs = []
    read_run = tiff.read_run

    def counted(file: object, layout: object, run: range, path: Path) -> np.ndarray:
        decoded_runs.append(run)
        return read_run(file, layout, run, path)

    monkeypatch.setattr(tiff, "read_run", counted)
    fresh = fill_preview(jpeg(flat(side // cell), quality=100), source, [patch_of(TO, Box(160, 0, 160, side))])
    assert fresh is not None
    np.testing.assert_allclose(decoded(fresh)[1], TO, atol=4)
    assert len(decoded_runs) == len(set(decoded_runs))


def test_no_hole_no_change(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    preview = preview_of(flat())
    in_jpeg(path, flat(), preview)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    nothing = Patch(HOLE, patch_of(TO).samples, np.zeros(HOLE[2:], np.bool_))
    assert fill_preview(preview, source, [nothing]) == preview


def noisy_fill(seed: int) -> Patch:
    samples = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    coarse = samples[::CELL, ::CELL].repeat(CELL, axis=0).repeat(CELL, axis=1)
    return Patch(Box(40, 120, 40, 40), coarse, np.ones((40, 40), np.bool_))


def test_what_takes_more_bytes_is_made_coarser(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    samples = flat()
    samples[:, :80] = np.random.default_rng(0).integers(0, 256, (32, 16, 3), np.uint8).repeat(5, 0).repeat(5, 1)
    Image.fromarray(samples).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    room = preview_of(samples, quality=90)
    tight = preview_of(samples, quality=90, optimize=True)
    fine, coarse = (fill_preview(preview, source, [noisy_fill(1)]) for preview in (room, tight + bytes(60)))
    assert fine is not None
    assert coarse is not None
    assert len(coarse) == len(tight) + 60

    def detail(preview: bytes) -> float:
        return float(decoded(preview)[9:15, 25:31].std(axis=(0, 1)).mean())

    assert detail(coarse) < 0.8 * detail(fine)
    assert _KEPT_FREQUENCIES[-1] == 1
    assert fill_preview(preview_of(flat(), optimize=True), source, [noisy_fill(1)]) is None  # nothing at all fits


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_damaged_previews_never_do_harm(tmp_path_factory: pytest.TempPathFactory, seed: int, num_flips: int) -> None:
    path = tmp_path_factory.getbasetemp() / "previews.png"
    if not path.exists():
        Image.fromarray(flat()).save(path)
    chance = random.Random(seed)
    preview = bytearray(preview_of(flat(), quality=chance.choice([60, 95]), progressive=chance.random() < 0.3))
    for _ in range(num_flips):
        preview[chance.randrange(len(preview))] = chance.choice([0, 255, chance.randrange(256)])
    del preview[chance.choice([len(preview), chance.randrange(len(preview))]) :]
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    fresh = fill_preview(bytes(preview), source, [patch_of(TO)])
    assert fresh is None or len(fresh) == len(preview)


@given(st.binary(max_size=80))
def test_blocks_of_anything_have_no_preview_outside_them(block: bytes) -> None:
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"8BIM\x04\x0c\0\0"):
        for find in (exif.find_preview, photoshop.find_preview):
            found = find(start + block)
            assert 0 <= found.start <= found.stop <= len(start + block)


def test_resources_are_found_where_segments_of_pixels_are_not(tmp_path: Path) -> None:
    """A tag that points into pixels is not written through."""
    path = tmp_path / "a.tif"
    preview = preview_of(flat())
    in_tiff(path, flat(), preview)
    assert len(open_image(path, max_bytes=cases.NO_LIMIT).layout.photoshop) == len(resources_with(preview))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        place, pixels = page.tags[34377].offset + 8, page.dataoffsets[0]
    data[place : place + 4] = struct.pack("<I", pixels + page.databytecounts[0] - 1)
    path.write_bytes(data)
    assert not open_image(path, max_bytes=cases.NO_LIMIT).layout.photoshop


def test_a_photograph_of_a_camera(real_data: Path, tmp_path: Path) -> None:
    source = open_image(real_data / "highres" / "hr2.jpg", max_bytes=cases.NO_LIMIT)
    box = Box(1000, 1500, 500, 700)
    patch = Patch(box, np.full((500, 700, 3), (250, 20, 20), np.uint8), np.ones((500, 700), np.bool_))
    _, warnings = filled_file(source.path, tmp_path / "out.jpg", [patch])
    assert not warnings
    before, after = (
        decoded(pyvips.Image.new_from_file(str(path)).get("jpeg-thumbnail-data"))
        for path in (source.path, tmp_path / "out.jpg")
    )
    step = 2976 / before.shape[0]
    rows, columns = (
        slice(round(start / step) + 1, round(end / step) - 1) for start, end in ((1000, 1500), (1500, 2200))
    )
    np.testing.assert_allclose(after[rows, columns].mean(axis=(0, 1)), (250, 20, 20), atol=6)
    apart = np.ones(before.shape[:2], np.bool_)
    apart[rows.start - 20 : rows.stop + 20, columns.start - 20 : columns.stop + 20] = False
    assert (before == after)[apart].all()
