"""TIFFs whose segments are JPEG streams: patched through their coefficients, and read alike by tifffile and libtiff."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import imaging_cases as cases
import jpeglib
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image
from typer.testing import CliRunner

from inpaint_batch.cli.main import app
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_segments, jpeg_stream, tiff_jpeg
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written
from inpaint_batch.types import Box

SIZE = (250, 330)
FARTHEST_PX = 17
"""One MCU of halved chroma, and the chroma sample beside it that a decoder mixes in."""


def rgb() -> np.ndarray:
    return cases.picture("rgb", *SIZE)


def by_vips(path: Path, kind: str = "rgb", **options: object) -> None:
    image = pyvips.Image.new_from_array(cases.picture(kind, *SIZE))
    image.tiffsave(str(path), compression="jpeg", **options)


def by_tifffile(path: Path, samples: np.ndarray, **options: object) -> None:
    tifffile.imwrite(path, samples, compression="jpeg", compressionargs={"level": 85}, **options)


def by_pillow(path: Path, mode: str) -> None:
    Image.fromarray(rgb()).convert(mode).save(path, compression="jpeg", quality=85)


TILES = {"tile": True, "tile_width": 64, "tile_height": 80}
WRITERS: dict[str, Callable[[Path], None]] = {
    "tiles, common tables, halved chroma": lambda path: by_vips(path, Q=80, **TILES),
    "tiles, common tables, RGB": lambda path: by_vips(path, Q=95, **TILES),
    "tiles, BigTIFF": lambda path: by_vips(path, Q=80, bigtiff=True, **TILES),
    "tiles, grey": lambda path: by_vips(path, "grey", Q=80, **TILES),
    "strips, common tables": lambda path: by_vips(path, Q=90),
    "strips of 16 rows, RGB": lambda path: by_pillow(path, "RGB"),
    "strips, grey": lambda path: by_pillow(path, "L"),
    "strips, CMYK": lambda path: by_pillow(path, "CMYK"),
    "tiles with tables of their own": lambda path: by_tifffile(path, rgb(), photometric="rgb", tile=(64, 80)),
    "the same, chroma in one direction": lambda path: by_tifffile(
        path, rgb(), photometric="ycbcr", tile=(64, 80), subsampling=(2, 1)
    ),
    "one strip": lambda path: by_tifffile(path, rgb(), photometric="rgb", rowsperstrip=SIZE[0]),
    "planes": lambda path: by_tifffile(
        path, np.moveaxis(rgb(), -1, 0), photometric="rgb", planarconfig="separate", tile=(64, 80)
    ),
}


def segments(path: Path) -> list[bytes]:
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        spans = zip(page.dataoffsets, page.databytecounts, strict=True)
        return [data[offset : offset + length] for offset, length in spans]


def tags(path: Path) -> dict[int, object]:
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages.first.tags if tag.code not in (273, 279, 324, 325)}


def by_libtiff(path: Path) -> np.ndarray:
    image = pyvips.Image.new_from_file(str(path))
    return image.numpy().reshape(image.height, image.width, -1)


@pytest.mark.parametrize("writer", WRITERS)
def test_known_pixels_stay_and_holes_are_filled(tmp_path: Path, writer: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    WRITERS[writer](path)
    source, patches = cases.restore(path, out)
    assert tags(out) == tags(path)
    hole = cases.hole_map(source, patches)
    far = cv2.dilate(hole.view(np.uint8), np.ones((2 * FARTHEST_PX + 1,) * 2, np.uint8)) == 0
    assert far.mean() > 0.3
    middle = cv2.erode(hole.view(np.uint8), np.ones((7, 7), np.uint8)) > 0
    decoders = [cases.decode_elsewhere] if writer == "planes" else [cases.decode_elsewhere, by_libtiff]
    for decode in decoders:
        before, after = decode(path), decode(out)
        np.testing.assert_array_equal(source.read(source.header.box), before)
        np.testing.assert_array_equal(before[far], after[far])
        meant = cases.filled(before, source, patches)
        assert np.abs(before[middle].astype(int) - meant[middle]).mean() > 20
        assert np.abs(after[middle].astype(int) - meant[middle]).mean() < 5
    touched = {index for patch in patches for index in source.layout.touching(patch.box)}
    for index, (old, new) in enumerate(zip(segments(path), segments(out), strict=True)):
        assert index in touched or old == new


def test_blocks_without_a_hole_keep_every_coefficient(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    by_tifffile(path, rgb(), photometric="rgb", tile=(64, 80))
    source, patches = cases.restore(path, out)
    hole = np.zeros((4 * 64, 5 * 80), np.bool_)
    hole[: SIZE[0], : SIZE[1]] = cases.hole_map(source, patches)
    num_changed = 0
    for index, pair in enumerate(zip(segments(path), segments(out), strict=True)):
        box = source.layout.box(index)
        own = hole[box.top : box.top + 64, box.left : box.left + 80]
        planes = []
        for number, data in enumerate(pair):
            stream = tmp_path / f"{number}.jpg"
            stream.write_bytes(data)
            read = jpeglib.read_dct(str(stream))
            planes.append([read.Y, read.Cb, read.Cr])
        for old, new in zip(*planes, strict=True):
            side = 64 // old.shape[0]
            cells = own.reshape(old.shape[0], side, old.shape[1], side).any(axis=(1, 3))
            changed = (old != new).any(axis=(2, 3))
            assert not (changed & ~cells).any()
            num_changed += int(changed.sum())
    assert num_changed > 50


def test_a_segment_written_anew_uses_the_common_tables(tmp_path: Path) -> None:
    # libtiff reads the next segment with whatever tables it saw last.
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    by_vips(path, Q=90)
    cases.restore(path, out)
    changed = [new for old, new in zip(segments(path), segments(out), strict=True) if old != new]
    assert changed
    for data in changed:
        assert not jpeg_segments.huffman_tables(data)
        assert not jpeg_stream.parse(data).quant_tables


def test_common_huffman_tables_of_another_kind_are_no_loss_of_the_next_segment(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    by_vips(path, Q=90)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[347]
        offset, tables = tag.valueoffset, tag.value
    marker = tables.index(b"\xff\xc4")
    symbols = marker + 5 + 16
    swapped = bytearray(tables)
    swapped[symbols], swapped[symbols + 1] = tables[symbols + 1], tables[symbols]
    data = bytearray(path.read_bytes())
    data[offset : offset + len(tables)] = swapped
    path.write_bytes(data)
    with pytest.raises(RowError, match="Huffman tables of its own") as caught:
        cases.restore(path, out)
    assert caught.value.code == FailureCode.WRITE


@pytest.mark.parametrize("writer", ["tiles, common tables, halved chroma", "strips, CMYK"])
def test_verification_sees_what_is_not_as_meant(tmp_path: Path, writer: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    WRITERS[writer](path)
    source, patches = cases.restore(path, out)
    other = [replace(patch, samples=np.full_like(patch.samples, 255)) for patch in patches]
    with pytest.raises(RowError, match="not the one that was meant"):
        verify_written(source, other, out, jpeg="patch")
    with pytest.raises(RowError, match=r"moved although it holds no hole|known samples changed"):
        verify_written(source, patches[:1], out, jpeg="patch")


def test_what_components_mean_the_tiff_says_and_not_their_names(tmp_path: Path) -> None:
    """Some writers number those of RGB, and a decoder of JPEG alone takes numbers for YCbCr."""
    path = tmp_path / "a.tif"
    by_pillow(path, "RGB")
    tables, packed = bytes(tags(path)[347]), segments(path)[0]
    numbered = re.sub(rb"(?s)\x03R(.{1,2})G(.{1,2})B(.{1,2})", b"\x03\x01\\1\x02\\2\x03\\3", packed)
    assert len(numbered) == len(packed)
    assert sum(one != other for one, other in zip(numbered, packed, strict=True)) == 6  # in the frame and in the scan
    height_px = jpeg_stream.parse(packed).height_px
    shape = (height_px, SIZE[1], 3)
    samples = tiff_jpeg.unpack(numbered, tables, is_ycbcr=False, shape=shape, full_height_px=height_px)
    assert np.abs(samples.astype(int) - rgb()[:height_px]).mean() < 6
    np.testing.assert_array_equal(
        samples, tiff_jpeg.unpack(packed, tables, is_ycbcr=False, shape=shape, full_height_px=height_px)
    )
    np.testing.assert_array_equal(
        tiff_jpeg.unpack(numbered, tables, is_ycbcr=True, shape=shape, full_height_px=height_px),
        tiff_jpeg.unpack(packed, tables, is_ycbcr=True, shape=shape, full_height_px=height_px),
    )


def test_a_damaged_segment_is_a_row_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    by_tifffile(path, rgb(), photometric="rgb", tile=(64, 80))
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[6]
    path.write_bytes(data[:offset] + bytes(200) + data[offset + 200 :])
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.read(Box(0, 0, 10, 10))
    with pytest.raises(RowError, match="segment 6 does not decode") as caught:
        source.read(source.header.box)
    assert caught.value.code == FailureCode.READ


def test_a_stream_of_another_size_is_a_row_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    by_tifffile(path, rgb(), photometric="rgb", tile=(64, 80))
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.dataoffsets[0]
    frame = data.index(b"\xff\xc0", offset)
    data[frame + 7 : frame + 9] = (96).to_bytes(2, "big")
    path.write_bytes(data)
    with pytest.raises(RowError, match="96 x 64 px of 3 components, not 80 x 64 of 3"):
        open_image(path, max_bytes=cases.NO_LIMIT).read(Box(0, 0, 10, 10))


def test_what_jpeg_segments_cannot_keep_is_refused(tmp_path: Path) -> None:
    min_is_white, alpha = tmp_path / "white.tif", tmp_path / "alpha.tif"
    by_tifffile(min_is_white, cases.picture("grey", *SIZE), photometric="miniswhite", tile=(64, 80))
    by_pillow(alpha, "CMYK")
    data = bytearray(alpha.read_bytes())
    with tifffile.TiffFile(alpha) as file:
        offset = file.pages.first.tags[262].valueoffset
    data[offset : offset + 2] = (2).to_bytes(2, "little")  # RGB, and so one band more than it has colours
    alpha.write_bytes(data)
    for path, message in ((min_is_white, "photometric 0 with JPEG compression"), (alpha, "alpha and JPEG compression")):
        with pytest.raises(RowError, match=message) as caught:
            open_image(path, max_bytes=cases.NO_LIMIT)
        assert caught.value.code == FailureCode.READ


@pytest.mark.parametrize("lossless", [False, True])
def test_what_is_told_of_a_row(tmp_path: Path, lossless: bool) -> None:
    by_vips(tmp_path / "a.tif", Q=80, **TILES)
    mask = np.zeros(SIZE, np.uint8)
    mask[100:110, 20:200] = 255
    Image.fromarray(mask).save(tmp_path / "m.png")
    manifest = tmp_path / "m.csv"
    manifest.write_text("image,mask,output\na.tif,m.png,a.tif\n")
    output = tmp_path / "out"
    arguments = ["run", str(manifest), "--output", str(output), "--engine", "identity", "--sidecar"]
    done = CliRunner().invoke(app, [*arguments, *(["--jpeg", "lossless"] if lossless else [])])
    assert done.exit_code == 0, done.output
    assert ("this TIFF stays compressed with JPEG" in done.output) == lossless
    told = json.loads((output / "a.tif.inpaint-batch.json").read_text())
    assert told["verified"].startswith("every JPEG coefficient")


DRI = b"\xff\xdd\x00\x04\x00\x02"
JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def with_tables(path: Path, tables: bytes) -> None:
    """Give the first page, of a classic little-endian file, other common tables."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        entry = file.pages.first.tags[347].offset
    data[entry + 4 : entry + 12] = struct.pack("<II", len(tables), len(data))
    path.write_bytes(data + tables)


@pytest.mark.parametrize(
    ("writer", "extra"),
    [
        ("tiles, common tables, halved chroma", DRI),
        ("tiles, common tables, RGB", JFIF),
        ("tiles, CMYK", ADOBE),
        ("tiles, grey", DRI + JFIF),
    ],
)
def test_only_tables_count_of_what_segments_have_in_common(tmp_path: Path, writer: str, extra: bytes) -> None:
    # A restart interval ends where the next picture begins; the meaning of the components stands in the TIFF.
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    if writer == "tiles, CMYK":
        image = pyvips.Image.new_from_array(np.concatenate([rgb(), rgb()[..., :1] // 2], axis=-1))
        image.copy(interpretation="cmyk").tiffsave(str(path), compression="jpeg", Q=90, **TILES)
    else:
        WRITERS[writer](path)
    with tifffile.TiffFile(path) as file:
        tables = file.pages.first.tags[347].value
    with_tables(path, tables[:2] + extra + tables[2:])
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches).view(np.uint8)
    far = cv2.dilate(hole, np.ones((2 * FARTHEST_PX + 1,) * 2, np.uint8)) == 0
    middle = cv2.erode(hole, np.ones((7, 7), np.uint8)) > 0
    for decode in (cases.decode_elsewhere, by_libtiff):
        before, after = decode(path), decode(out)
        np.testing.assert_array_equal(source.read(source.header.box), before)
        np.testing.assert_array_equal(before[far], after[far])
        meant = cases.filled(before, source, patches)
        assert np.abs(after[middle].astype(int) - meant[middle]).mean() < 5


def test_a_segment_that_repeats_common_tables_leaves_them_to_the_next(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    by_vips(path, Q=80, **TILES)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        tables, entries = page.tags[347].value, [page.tags[code] for code in (324, 325)]
    codes = b"".join(
        b"\xff\xc4" + (3 + len(table)).to_bytes(2, "big") + bytes([name]) + table
        for name, table in jpeg_segments.huffman_tables(tables).items()
    )
    data = bytearray(path.read_bytes())
    places = []
    for number, segment in enumerate(segments(path)):
        places.append((len(data), len(segment) + (0 if number % 2 else len(codes))))
        data += segment[:2] + (b"" if number % 2 else codes) + segment[2:]
    for tag, values in zip(entries, zip(*places, strict=True), strict=True):
        data[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = struct.pack(f"<{len(values)}I", *values)
        assert int(tag.dtype) == 4
    path.write_bytes(data)
    source, patches = cases.restore(path, out)
    hole = cases.hole_map(source, patches).view(np.uint8)
    far = cv2.dilate(hole, np.ones((2 * FARTHEST_PX + 1,) * 2, np.uint8)) == 0
    with Image.open(path) as one, Image.open(out) as two:  # tile by tile, in the order of the file
        np.testing.assert_array_equal(np.asarray(one)[far], np.asarray(two)[far])


def test_a_damaged_thumbnail_does_not_end_the_process(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(rgb(), photometric="rgb", metadata=None)
        file.write(rgb()[::2, ::2], photometric="rgb", compression="jpeg", subfiletype=1, metadata=None)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[1].dataoffsets[0]
    data = bytearray(path.read_bytes())
    counts = data.index(b"\xff\xc4", offset) + 5
    data[counts : counts + 16] = b"\x10" * 16
    path.write_bytes(data)
    with pytest.raises(RowError, match="segment 0 does not decode") as caught:
        cases.restore(path, out)
    assert caught.value.code == FailureCode.READ
