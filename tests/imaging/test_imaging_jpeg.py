"""Patched JPEGs: fill visible, every coefficient without a hole sample as it was, metadata byte for byte."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import imaging_cases as cases
import jpeglib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_segments, jpeg_stream, jpeg_transcode
from inpaint_batch.imaging.jpeg_coefficients import edit_coefficients
from inpaint_batch.imaging.jpeg_patch import check_planes, patch_plane, quant_table
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

SUBSAMPLINGS = {"444": [(1, 1)] * 3, "422": [(2, 1), (1, 1), (1, 1)], "420": [(2, 2), (1, 1), (1, 1)],
                "440": [(1, 2), (1, 1), (1, 1)], "411": [(4, 1), (1, 1), (1, 1)]}  # fmt: skip


def save_jpeg(path: Path, samples: np.ndarray, subsampling: str = "420", **options: object) -> None:
    """Pillow writes 4:4:4, 4:2:2 and 4:2:0; jpeglib writes the others."""
    if subsampling in ("444", "422", "420"):
        Image.fromarray(samples).save(path, "JPEG", subsampling={"444": 0, "422": 1, "420": 2}[subsampling], **options)
    else:
        image = jpeglib.from_spatial(samples)
        image.samp_factor = [(v, h) for h, v in SUBSAMPLINGS[subsampling]]
        image.write_spatial(str(path), qt=options.get("quality", 75))


def coefficients(path: Path) -> list[np.ndarray]:
    image = jpeglib.read_dct(str(path))
    return [plane for plane in (image.Y, image.Cb, image.Cr) if plane is not None]


def assert_only_blocks_with_holes_changed(path: Path, out: Path, hole: np.ndarray) -> int:
    """Compare through jpeglib's own reader; returns the number of changed luma blocks."""
    num_changed = 0
    before, after = coefficients(path), coefficients(out)
    height_px, width_px = hole.shape
    stream = jpeg_stream.parse(path.read_bytes())
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        assert old.shape == new.shape
        down, across = stream.subsampling(index)
        for row, column in zip(*np.nonzero((old != new).any(axis=(2, 3))), strict=True):
            cell = hole[row * 8 * down : (row + 1) * 8 * down, column * 8 * across : (column + 1) * 8 * across]
            assert cell.any(), f"block {row}, {column} of component {index} has no hole"
            num_changed += index == 0
    assert (height_px, width_px) == (stream.height_px, stream.width_px)
    return num_changed


@pytest.mark.parametrize("size", [(97, 131), (96, 128), (17, 15), (8, 200)])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_only_blocks_with_holes_change(
    tmp_path: Path, subsampling: str, progressive: bool, size: tuple[int, int]
) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb", *size), subsampling, quality=92, progressive=progressive)
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches)
    assert assert_only_blocks_with_holes_changed(path, out, hole) > 0
    with Image.open(path) as one, Image.open(out) as two:
        assert one.info.get("progressive") == two.info.get("progressive")
        assert one.quantization == two.quantization
        assert one.layer == two.layer  # sampling factors, table numbers, component ids


@pytest.mark.parametrize("kind", ["grey", "rgb", "kept rgb"])
def test_both_progressive_writers_keep_every_coefficient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The quick writer needs C functions that a build may hide; the slow one stands in."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    keep = {"keep_rgb": True} if kind == "kept rgb" else {}
    Image.fromarray(cases.picture(kind.split()[-1])).save(path, "JPEG", quality=90, progressive=True, **keep)
    data = path.read_bytes()
    stream = jpeg_stream.parse(data)
    planes = [plane[:, ::-1].copy() for plane in coefficients(path)]  # turned around: not what the file holds
    num_scans = []

    def turn(held: list[np.ndarray]) -> None:
        for plane, wanted in zip(held, planes, strict=True):
            assert not np.array_equal(plane, wanted)
            plane[...] = wanted

    for is_available in (jpeg_transcode.is_available, lambda _: False):
        monkeypatch.setattr(jpeg_transcode, "is_available", is_available)
        out.write_bytes(edit_coefficients(data, stream, turn))
        assert all(np.array_equal(old, new) for old, new in zip(planes, coefficients(out), strict=True))
        assert jpeg_stream.parse(out.read_bytes()).is_progressive
        num_scans.append(out.read_bytes().count(b"\xff\xda"))
    if sys.platform == "linux":
        assert num_scans[0] == data.count(b"\xff\xda")  # the standard script, which Pillow writes too
        assert num_scans[0] != num_scans[1]


@pytest.mark.parametrize("subsampling", ["444", "420"])
@pytest.mark.parametrize("why", ["hidden", "in pieces"])
def test_where_coefficients_cannot_be_seen_in_place_copies_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subsampling: str, why: str
) -> None:
    """Builds may hide the C functions, and libjpeg holds in pieces what exceeds a gigabyte."""
    path, out, other = (tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg"))
    save_jpeg(path, cases.picture("rgb"), subsampling, quality=90)
    cases.restore(path, out)
    if why == "hidden":
        monkeypatch.setattr(jpeg_transcode, "is_available", lambda _: False)
    else:

        def refuse(*_: object) -> None:
            raise ValueError("in pieces")

        monkeypatch.setattr(jpeg_transcode, "_in_place", refuse)
    source, patches = cases.restore(path, other)
    assert out.read_bytes() == other.read_bytes()
    without_hole = [replace(patch, hole=np.zeros_like(patch.hole)) for patch in patches]
    with pytest.raises(RowError, match="coefficients of known samples changed"):
        verify_written(source, without_hole, other, jpeg="patch")


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_unusual_sampling(tmp_path: Path, subsampling: str) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), subsampling, quality=90)
    stream = jpeg_stream.parse(path.read_bytes())
    assert [(c.horizontal, c.vertical) for c in stream.components] == SUBSAMPLINGS[subsampling]
    source, patches = cases.restore(path, out)
    assert assert_only_blocks_with_holes_changed(path, out, cases.hole_map(source, patches)) > 0


@pytest.mark.parametrize(
    ("subsampling", "quality", "worst"), [("444", 95, 1.5), ("422", 95, 2.0), ("420", 95, 2.0), ("420", 60, 6.0)]
)
def test_fill_is_visible_where_the_hole_was(tmp_path: Path, subsampling: str, quality: int, worst: float) -> None:
    """A smooth fill comes back to within quantisation, in colour; at Q95 within two of 255 on average."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    samples = cases.picture("rgb", 203, 301)
    hole = np.zeros(samples.shape[:2], np.bool_)
    hole[40:120, 100:220] = True
    hole[-20:, -20:] = True
    truth = samples.astype(float).mean(axis=(0, 1)) + np.linspace(-30, 30, 301)[None, :, None] * [1, 0.5, -1]
    truth = np.broadcast_to(truth, samples.shape)
    damaged = samples.copy()
    damaged[hole] = 255
    save_jpeg(path, damaged, subsampling, quality=quality)
    patch = Patch(Box(0, 0, 203, 301), np.rint(truth).astype(np.uint8), hole)
    cases.restore(path, out, [patch])
    now = cases.decode_elsewhere(out).astype(float)
    # Chroma of the outermost hole pixels is shared with known ones; look one cell further in.
    inner = np.zeros_like(hole)
    inner[44:116, 104:216] = True
    inner[-16:, -16:] = True
    assert np.abs(now - truth)[inner].mean() < worst
    assert np.abs(now - cases.decode_elsewhere(path))[inner].mean() > 40


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_coefficients_are_the_old_ones_plus_the_transformed_change(tmp_path: Path, quality: int) -> None:
    """No detour over decoded 8-bit pixels: in double precision, nothing but the change is transformed and quantised."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(cases.picture("grey", 96, 128)).save(path, quality=quality)
    fill = cases.picture("grey", 96, 128, seed=1)[::-1]
    hole = np.random.default_rng(quality).random((96, 128)) < 0.03
    cases.restore(path, out, [Patch(Box(0, 0, 96, 128), fill[..., None].copy(), hole)])
    (before,), (after,) = coefficients(path), coefficients(out)
    table = jpeglib.read_dct(str(path)).qt[0].astype(np.float64)
    frequency, position = np.mgrid[0:8, 0:8]
    basis = np.cos((2 * position + 1) * frequency * np.pi / 16) * np.where(frequency == 0, np.sqrt(1 / 8), 0.5)
    held = basis.T @ (before * table) @ basis + 128
    change = np.where(hole, fill - held.transpose(0, 2, 1, 3).reshape(96, 128), 0)
    change = change.reshape(12, 8, 16, 8).transpose(0, 2, 1, 3)
    exact = before + basis @ change @ basis.T / table
    is_tie = np.abs(exact - np.floor(exact) - 0.5) < 1e-3
    assert is_tie.mean() < 0.01
    np.testing.assert_array_equal(after[~is_tie], np.rint(exact)[~is_tie])


def test_a_block_of_one_colour_has_the_means_of_the_formula_and_nothing_else(tmp_path: Path) -> None:
    """Red is Y 76.245, Cb 84.972, Cr 255.5 (JFIF); a mean is stored as eight times what it exceeds 128 by."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb", 16, 16), "444", quality=100)
    red = np.broadcast_to(np.array([255, 0, 0], np.uint8), (8, 8, 3))
    cases.restore(path, out, [Patch(Box(0, 8, 8, 8), red, np.ones((8, 8), np.bool_))])
    for plane, mean in zip(coefficients(out), (-414, -344, 1020), strict=True):
        expected = np.zeros((8, 8))
        expected[0, 0] = mean
        np.testing.assert_array_equal(plane[0, 1], expected)


@pytest.mark.parametrize(
    ("held", "fill", "expected"),
    [
        ({(0, 4): 1023, (4, 0): 1023}, 255, {(0, 4): 1023, (4, 0): 1007}),
        ({(0, 4): -1023, (4, 0): -1023}, 0, {(0, 4): -1023, (4, 0): -1007}),
        ({(0, 0): 1023, (4, 0): 1023}, 255, {(0, 0): 1023, (4, 0): 1007}),
        ({(0, 0): -1024, (4, 0): -1023}, 0, {(0, 0): -1024, (4, 0): -1007}),
    ],
)
def test_coefficients_stay_within_what_huffman_coding_expresses(
    tmp_path: Path, held: dict[tuple[int, int], int], fill: int, expected: dict[tuple[int, int], int]
) -> None:
    """The two waves cancel out in the hole; a step of 127 or 128 there adds 16 to one and takes them from the other."""
    path = tmp_path / "a.jpg"
    Image.fromarray(cases.picture("grey", 8, 8)).save(path, quality=100)  # steps of 1
    plane = np.zeros((1, 1, 8, 8), np.int16)
    for place, value in held.items():
        plane[0, 0][place] = value
    hole = np.zeros((8, 8), np.bool_)
    hole[1, 0] = True
    patch_plane(plane, jpeg_stream.parse(path.read_bytes()), 0, Patch(Box(0, 0, 8, 8), np.full((8, 8, 1), fill), hole))
    assert {place: plane[0, 0][place] for place in expected} == expected


@pytest.mark.parametrize("subsampling", ["444", "420"])
def test_a_patch_is_its_hole_wherever_its_box_ends(tmp_path: Path, subsampling: str) -> None:
    path = tmp_path / "a.jpg"
    save_jpeg(path, cases.picture("rgb", 41, 37), subsampling, quality=95)
    stream, fill = jpeg_stream.parse(path.read_bytes()), cases.picture("rgb", 41, 37, seed=1)
    for box in (Box(5, 6, 9, 14), Box(16, 3, 25, 34), Box(0, 0, 17, 1)):
        hole = np.zeros((41, 37), np.bool_)
        hole[box.slices] = True
        for index, plane in enumerate(coefficients(path)):
            tight, whole = plane.copy(), plane.copy()
            patch_plane(tight, stream, index, Patch(box, fill[box.slices], hole[box.slices]))
            patch_plane(whole, stream, index, Patch(Box(0, 0, 41, 37), fill, hole))
            np.testing.assert_array_equal(tight, whole)


def test_what_pads_the_blocks_at_the_edge_is_filled_too(tmp_path: Path) -> None:
    """Else what the damage left there would shine through: here a flat fill makes flat blocks."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("grey", 13, 11), quality=95)
    flat = Patch(Box(8, 8, 5, 3), np.full((5, 3, 1), 200, np.uint8), np.ones((5, 3), np.bool_))
    cases.restore(path, out, [flat])
    assert np.flatnonzero(coefficients(out)[0][1, 1]).tolist() == [0]


@pytest.mark.parametrize("row", [0, 1, 2])
def test_one_block_with_another_fill_is_noticed(tmp_path: Path, row: int) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(cases.picture("grey", 24, 24)).save(path, quality=95)
    stream = jpeg_stream.parse(path.read_bytes())
    patch = Patch(Box(0, 0, 24, 24), np.full((24, 24, 1), 99, np.uint8), np.ones((24, 24), np.bool_))
    written = coefficients(path)
    patch_plane(written[0], stream, 0, patch)
    check_planes(coefficients(path), written, stream, [patch], path)
    written[0][row, 1, 0, 0] += 2
    with pytest.raises(RowError, match="the fill is not the one that was meant"):
        check_planes(coefficients(path), written, stream, [patch], path)


def test_known_samples_beside_the_hole_move_by_quantisation_only(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), "444", quality=95)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    before = cases.decode_elsewhere(path).astype(int)
    hole = np.zeros((97, 131), np.bool_)
    hole[30, 20:100] = True  # one pixel high: most of each touched block is known
    fill = np.clip(before + 3, 0, 255).astype(np.uint8)
    cases.restore(path, out, [Patch(source.header.box, fill, hole)])
    change = np.abs(cases.decode_elsewhere(out).astype(int) - before)[~hole]
    assert change.max() <= 8
    assert change.mean() < 0.2


def test_a_fill_equal_to_the_source_changes_no_coefficient_by_more_than_rounding(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("grey"), quality=75)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    same = Patch(source.header.box, source.read(source.header.box), np.ones((97, 131), np.bool_))
    cases.restore(path, out, [same])
    for old, new in zip(coefficients(path), coefficients(out), strict=True):
        assert np.abs(old[:-1, :-1].astype(int) - new[:-1, :-1]).max() <= 1  # blocks at the edge get new padding
        assert (old[:-1, :-1] == new[:-1, :-1]).mean() > 0.99


def test_nothing_to_fill_changes_no_coefficient(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), restart_marker_blocks=3)
    cases.restore(path, out, [])
    assert all(np.array_equal(old, new) for old, new in zip(coefficients(path), coefficients(out), strict=True))
    np.testing.assert_array_equal(cases.decode_elsewhere(path), cases.decode_elsewhere(out))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_grey(tmp_path: Path, options: dict[str, object]) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(cases.picture("grey")).save(path, quality=95, **options)
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches)
    assert assert_only_blocks_with_holes_changed(path, out, hole) > 0
    expected = cases.filled(cases.decode_elsewhere(path), source, patches)
    assert np.abs(cases.decode_elsewhere(out).astype(int) - expected)[hole].mean() < 2


@pytest.mark.parametrize("more", [b"", b"\xff\xe0\x00\x09JFIF\x00\x01\x01"])
def test_rgb_without_colour_transform(tmp_path: Path, more: bytes) -> None:
    """Also with a segment that would say otherwise, were it not cut short: libjpeg passes over it."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(cases.picture("rgb")).save(path, quality=95, keep_rgb=True)
    data = path.read_bytes()
    tables = data.index(b"\xff\xdb")
    path.write_bytes(data[:tables] + more + data[tables:])
    assert jpeg_stream.parse(path.read_bytes()).colours == "rgb"
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches)
    assert_only_blocks_with_holes_changed(path, out, hole)
    expected = cases.filled(cases.decode_elsewhere(path), source, patches)
    assert np.abs(cases.decode_elsewhere(out).astype(int) - expected)[hole].mean() < 2


def test_all_metadata_stays_byte_for_byte(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    profile = cases.icc_profile() * 150  # more than one APP2 segment; Pillow does not look inside
    Image.fromarray(cases.picture("rgb")).save(
        path, exif=cases.exif_block(6), icc_profile=profile, xmp=cases.XMP, dpi=(300, 300), comment=b"first"
    )  # fmt: skip
    data = path.read_bytes()
    iptc = b"\xff\xed" + (2 + 14 + 9).to_bytes(2, "big") + b"Photoshop 3.0\x00" + b"iptc-ish\x00"
    scan = data.index(b"\xff\xdb")
    many = b"".join(b"\xff\xfe" + (2 + 7).to_bytes(2, "big") + b"note %02d" % i for i in range(60))
    path.write_bytes(data[:scan] + iptc + many + data[scan:] + b"trailing bytes of a camera")
    cases.restore(path, out)
    before, after = (jpeg_stream.parse(file.read_bytes()) for file in (path, out))
    assert before.metadata == after.metadata
    assert len(before.metadata) > 65
    assert out.read_bytes().endswith(b"\xff\xd9trailing bytes of a camera")
    with Image.open(path) as one, Image.open(out) as two:
        assert one.applist == two.applist
        assert one.info["icc_profile"] == two.info["icc_profile"] == profile
        assert one.info["dpi"] == two.info["dpi"]
        assert two.getexif()[0x0112] == 6
        assert two.info["xmp"] == cases.XMP


@pytest.mark.parametrize("padding", [0, 40])
def test_further_pictures_behind_the_first_are_still_found(tmp_path: Path, padding: int) -> None:
    """Also where what pads the first one counts as a part of it."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    pictures = [Image.fromarray(cases.picture("rgb", seed=seed)) for seed in range(3)]
    pictures[0].save(path, "MPO", save_all=True, append_images=pictures[1:], quality=90)
    if padding:
        _pad_first_picture(path, padding)
    cases.restore(path, out)
    assert path.stat().st_size != out.stat().st_size
    with Image.open(path) as one, Image.open(out) as two:
        assert one.n_frames == two.n_frames == 3
        for index in (1, 2):
            one.seek(index)
            two.seek(index)
            np.testing.assert_array_equal(np.asarray(one), np.asarray(two))
        entries = two.mpinfo[0xB002]
        assert entries[0]["Size"] == jpeg_stream.parse(out.read_bytes()).end + padding


def _pad_first_picture(path: Path, num_bytes: int) -> None:
    """Put zeros behind the first picture of an MPO, and let its notes follow."""
    data = path.read_bytes()
    end, place = jpeg_stream.parse(data).end, data.index(struct.pack("<HHI", 0xB002, 7, 3 * 16))
    base = data.index(b"MPF\x00") + 4
    (entries,) = struct.unpack_from("<I", data, place + 8)
    padded = bytearray(data[:end] + bytes(num_bytes) + data[end:])
    for entry in range(base + entries, base + entries + 3 * 16, 16):
        length, offset = struct.unpack_from("<II", data, entry + 4)
        moved = (length, offset + num_bytes) if offset else (length + num_bytes, 0)
        struct.pack_into("<II", padded, entry + 4, *moved)
    path.write_bytes(padded)


def test_nothing_of_the_damage_stays_in_chroma_that_known_pixels_share(tmp_path: Path) -> None:
    """A red column on grey: each chroma sample of it stands for as much grey, and had half of the red."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    samples = np.full((64, 64, 3), 128, np.uint8)
    samples[:, 30] = (230, 20, 20)
    save_jpeg(path, samples, quality=100)
    with Image.open(path) as damaged:
        assert np.ptp(np.asarray(damaged)[32, 30]) > 60
    column = Box(0, 30, 64, 1)
    patch = Patch(column, np.full((64, 1, 3), 128, np.uint8), np.ones((64, 1), np.bool_))
    cases.restore(path, out, [patch])
    with Image.open(out) as restored:
        assert np.ptp(np.asarray(restored)[:, 30].astype(int), axis=-1).max() <= 6  # what is left is of neighbours


def test_quantisation_tables_are_read_in_natural_order(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    save_jpeg(path, cases.picture("rgb"), quality=83)
    stream = jpeg_stream.parse(path.read_bytes())
    image = jpeglib.read_dct(str(path))
    for index in range(3):
        np.testing.assert_array_equal(quant_table(stream, index), image.get_component_qt(index))


def test_a_changed_known_block_is_caught(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), quality=90)
    source, patches = cases.restore(path, out)
    image = jpeglib.read_dct(str(out))
    image.Y[0, 0, 2, 2] += 1
    image.write_dct(str(tmp_path / "c.jpg"))
    fresh = jpeg_segments.split_pixels((tmp_path / "c.jpg").read_bytes())
    out.write_bytes(b"\xff\xd8" + b"".join(jpeg_stream.parse(path.read_bytes()).metadata) + fresh)
    with pytest.raises(RowError, match="changed on the way") as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE
    out.write_bytes((tmp_path / "a.jpg").read_bytes()[:-9])
    with pytest.raises(RowError):
        verify_written(source, patches, out, jpeg="patch")


def test_tables_that_change_between_scans_are_refused_for_patching(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), progressive=True)
    data = path.read_bytes()
    second_scan = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    tables = data.index(b"\xff\xdb")
    other = bytearray(data[tables : tables + 69])
    other[-1] ^= 1
    path.write_bytes(data[:second_scan] + bytes(other) + data[second_scan:])
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="lossless") as caught:
        write_filled(source, cases.patches_for(source), out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE


def test_a_progressive_file_that_lacks_scans_is_refused_for_patching(tmp_path: Path) -> None:
    """Decoders smooth what such a file shows; written in all of its scans, it would look otherwise all over."""
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save_jpeg(path, cases.picture("rgb"), progressive=True)
    data = path.read_bytes()
    last_scan = data.rindex(b"\xff\xda")  # of the standard script: the last bit of all but the mean of luma
    path.write_bytes(data[: data.rindex(b"\xff\xc4", 0, last_scan)] + b"\xff\xd9")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match=r"lacks scans.*lossless") as caught:
        write_filled(source, cases.patches_for(source), out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE
    cases.restore(path, tmp_path / "b.png", jpeg="lossless")


def test_libjpeg_says_nothing_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jpg"
    save_jpeg(path, cases.picture("rgb"))
    path.write_bytes(path.read_bytes()[:-2] + b"stray" * 9 + b"\xff\xd9")
    cases.restore(path, tmp_path / "b.jpg")
    if sys.platform == "linux":
        assert capfd.readouterr().err == ""


FUZZ = """
import sys
from pathlib import Path
import numpy as np
from inpaint_batch.errors import RowError
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch
rng = np.random.default_rng(5)
folder = Path(sys.argv[1])
originals = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
num_done = 0
for attempt in range(200):
    data = bytearray(originals[attempt % len(originals)])
    for _ in range(int(rng.integers(1, 12))):
        data[int(rng.integers(2, len(data) if attempt % 2 else 650))] = int(rng.integers(256))
    path = folder / "broken.bin"
    path.write_bytes(data)
    try:
        source = open_image(path, max_bytes=1 << 26)
        box = source.header.box.intersect(Box(0, 0, 20, 20))
        patch = Patch(box, source.read(box) // 2, np.ones((box.height, box.width), bool))
        write_filled(source, [patch], folder / "out.bin", jpeg="patch")
        verify_written(source, [patch], folder / "out.bin", jpeg="patch")
        num_done += 1
    except RowError:
        pass
print("survived", num_done)
"""


def test_no_damaged_file_takes_the_process_down(tmp_path: Path) -> None:
    """The coefficient library ends the process on a stream that it cannot take; nothing like that may reach it."""
    for name, options in {"a": {}, "b": {"progressive": True}, "c": {"restart_marker_rows": 1}}.items():
        save_jpeg(tmp_path / f"{name}.jpg", cases.picture("rgb", 40, 56), "420", **options)
    for name, options in {"d": {}, "e": {"progressive": True}}.items():
        Image.fromarray(cases.picture("rgba", 40, 56), "CMYK").save(tmp_path / f"{name}.jpg", "JPEG", **options)
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) > 10


@settings(max_examples=40)
@given(st.data())
def test_any_hole_in_any_sampling(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("jpeg")
    path, out = folder / "a.jpg", folder / "b.jpg"
    size = data.draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    save_jpeg(
        path,
        rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        data.draw(st.sampled_from(["444", "422", "420"])),
        quality=data.draw(st.integers(1, 100)),
        progressive=data.draw(st.booleans()),
    )
    patches = []
    for _ in range(data.draw(st.integers(1, 4))):
        top, left = int(rng.integers(size[0])), int(rng.integers(size[1]))
        box = Box(top, left, int(rng.integers(1, size[0] - top + 1)), int(rng.integers(1, size[1] - left + 1)))
        hole = rng.random((box.height, box.width)) < rng.random() / 4
        patches.append(Patch(box, rng.integers(0, 256, (box.height, box.width, 3), dtype=np.uint8), hole))
    source, _ = cases.restore(path, out, patches)
    assert_only_blocks_with_holes_changed(path, out, cases.hole_map(source, patches))


FIFTEEN_MEGAPIXELS = """
import sys
from pathlib import Path
import numpy as np
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch
source = open_image(Path(sys.argv[1]), max_bytes=1 << 31)
y, x = np.mgrid[0:300, 0:300]
boxes = [Box(100 + 250 * index, 200 + 300 * index, 300, 300) for index in range(10)]
patches = [Patch(box, 255 - source.read(box), np.abs(y - x) < 4) for box in boxes]
write_filled(source, patches, Path(sys.argv[2]), jpeg="patch")
verify_written(source, patches, Path(sys.argv[2]), jpeg="patch")
print(next(int(x.split()[1]) // 1024 for x in open("/proc/self/status") if x.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hr1.jpg", "hr2.jpg", "hr3.jpg"])
def test_fifteen_megapixels_in_little_memory(real_data: Path, tmp_path: Path, name: str) -> None:
    """Ten scratches; measured 209, 155 and 246 MiB for the whole process, with other versions of Python and the
    libraries up to 278. The last one has full-size chroma."""
    path, out = real_data / "highres" / name, tmp_path / name
    done = subprocess.run(
        [sys.executable, "-c", FIFTEEN_MEGAPIXELS, str(path), str(out)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 304
    with Image.open(path) as image:
        hole = np.zeros((image.height, image.width), np.bool_)
    y, x = np.mgrid[0:300, 0:300]
    for index in range(10):
        hole[Box(100 + 250 * index, 200 + 300 * index, 300, 300).slices] = np.abs(y - x) < 4
    assert assert_only_blocks_with_holes_changed(path, out, hole) > 100
