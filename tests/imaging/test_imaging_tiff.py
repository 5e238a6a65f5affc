"""TIFFs are patched in place: samples, tags and untouched bytes, over every packing that is accepted."""

from __future__ import annotations

import itertools
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff, tiff_directory, tiff_layout, tiff_patch, tiff_touched
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.tiff_codec import CODECS, pack_segments, unpack_segments
from inpaint_batch.imaging.tiff_layout import TiffLayout
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

ADDRESS_TAGS = {273, 279, 324, 325}


def save_tiff(path: Path, samples: np.ndarray, kind: str, **options: object) -> None:
    photometric = options.pop("photometric", "minisblack" if "grey" in kind else "rgb")
    extra = ["unassalpha"] if kind in ("grey_alpha", "rgba") else None
    if options.get("planarconfig") == "separate":
        samples = np.moveaxis(samples, -1, 0)
    tifffile.imwrite(path, samples, photometric=photometric, extrasamples=extra, **options)


def tags(path: Path) -> dict[int, object]:
    with tifffile.TiffFile(path) as file:
        return {tag.code: tag.value for tag in file.pages.first.tags if tag.code not in ADDRESS_TAGS}


def restore(path: Path, out: Path, patches: list[Patch] | None = None):
    source, patches = cases.restore(path, out, patches)
    on_copy = shutil.copyfile(path, out.with_name(f"on-copy-{out.name}"))
    write_filled(source, patches, on_copy, jpeg="patch", is_copy=True)
    assert on_copy.read_bytes() == out.read_bytes()
    assert tags(path) == tags(out)
    np.testing.assert_array_equal(
        cases.decode_elsewhere(out), cases.filled(cases.decode_elsewhere(path), source, patches)
    )
    return source, patches


PACKINGS = [
    (compression, predictor)
    for compression, predictor in itertools.product([None, "lzw", "zlib", "zstd", "packbits"], [False, True])
    if not (predictor and compression in (None, "packbits"))
]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("tile", [None, (32, 48)])
@pytest.mark.parametrize(("compression", "predictor"), PACKINGS)
def test_packings(
    tmp_path: Path, compression: str | None, predictor: bool, tile: tuple[int, int] | None, dtype: str
) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("rgb", dtype=dtype)
    rows = {} if tile else {"rowsperstrip": 20}
    save_tiff(path, samples, "rgb", compression=compression, predictor=predictor, tile=tile, **rows)
    source, _ = restore(path, out)
    assert source.header.dtype == dtype


@pytest.mark.parametrize("kind", cases.BANDS)
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("byteorder", "bigtiff"), list(itertools.product("<>", [False, True])))
def test_bands_and_byte_orders(tmp_path: Path, kind: str, planar: bool, byteorder: str, bigtiff: bool) -> None:
    if planar and kind == "grey":
        pytest.skip("one band is never planar")
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    config = {"planarconfig": "separate" if planar else "contig"} if kind != "grey" else {}
    options = {"compression": "zlib", "predictor": True, "byteorder": byteorder, "bigtiff": bigtiff, "rowsperstrip": 16}
    save_tiff(path, cases.picture(kind, dtype="uint16"), kind, **options, **config)
    source, _ = restore(path, out)
    assert source.header.has_alpha == (kind in ("grey_alpha", "rgba"))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_one_segment_whose_address_stands_inside_the_tag(tmp_path: Path, bigtiff: bool, single: bool) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    flat = np.full((97, 131, 3), 9, np.uint8)  # packs to nearly nothing, so that any fill grows it
    rows = {"rowsperstrip": 97} if single else {"rowsperstrip": 49}
    save_tiff(path, flat, "rgb", compression="lzw", bigtiff=bigtiff, **rows)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    restore(path, out, [Patch(source.header.box, noise, np.ones((97, 131), np.bool_))])
    assert out.stat().st_size > path.stat().st_size + 97 * 131 * 3 // 2


@pytest.mark.parametrize("rows", [100, 300])
@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("byteorder", "<>")
def test_short_lengths_that_no_longer_fit_get_a_wider_type(
    tmp_path: Path, byteorder: str, bigtiff: bool, rows: int
) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    flat = np.full((300, 300, 3), 9, np.uint8)
    save_tiff(path, flat, "rgb", compression="zlib", byteorder=byteorder, rowsperstrip=rows, bigtiff=bigtiff)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[279]
        lengths = tag.value
    data = bytearray(path.read_bytes())  # rewrite the lengths as SHORTs
    order, value, size = "little" if byteorder == "<" else "big", tag.offset + 8, 4
    if bigtiff:
        value, size = tag.offset + 12, 8
    data[tag.offset + 2 : tag.offset + 4] = (3).to_bytes(2, order)
    shorts = b"".join(int(length).to_bytes(2, order) for length in lengths)
    if len(shorts) > size:
        place = len(data)
        data += shorts
        shorts = place.to_bytes(size, order)
    data[value : value + size] = shorts.ljust(size, b"\x00")
    path.write_bytes(data)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    hole = np.zeros((300, 300), np.bool_)
    hole[:100] = True
    restore(path, out, [Patch(source.header.box, noise, hole)])
    with tifffile.TiffFile(out) as file:
        found = file.pages.first.tags[279]
        assert int(found.dtype) == (16 if bigtiff else 4)
        assert max(file.pages.first.databytecounts) > 65535
        assert (found.valueoffset == value) == (rows == 300)  # one number stands in the tag itself


def test_min_is_white_is_turned_in_and_out(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("grey")
    save_tiff(path, samples, "grey", photometric="miniswhite", compression="lzw", rowsperstrip=10)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    np.testing.assert_array_equal(source.read(source.header.box)[..., 0], 255 - samples)
    box = Box(30, 30, 20, 20)
    black = Patch(box, np.zeros((20, 20, 1), np.uint8), np.ones((20, 20), np.bool_))
    write_filled(source, [black], out, jpeg="patch")
    verify_written(source, [black], out, jpeg="patch")
    with tifffile.TiffFile(out) as file:
        stored = file.pages.first.asarray()
    expected = samples.copy()
    expected[box.slices] = 255
    np.testing.assert_array_equal(stored, expected)
    assert tags(path) == tags(out)


def test_metadata_and_untouched_bytes_stay(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    profile = cases.icc_profile()
    extra = [
        (274, "H", 1, 6, True),
        (271, "s", 0, "A maker", True),
        (700, "B", len(cases.XMP), cases.XMP, True),
        (34664, "I", 1, 0, True),  # becomes the EXIF tag below: tifffile does not write that one
    ]
    samples = cases.picture("rgb", 400, 300)
    options = {"iccprofile": profile, "resolution": (300, 301), "description": "a description", "extratags": extra}
    save_tiff(path, samples, "rgb", compression="lzw", rowsperstrip=64, **options)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[34664]
    data = bytearray(path.read_bytes())
    data += bytes(len(data) % 2)
    data[tag.offset : tag.offset + 2] = struct.pack("<H", 34665)
    data[tag.valueoffset : tag.valueoffset + 4] = struct.pack("<I", len(data))
    data += struct.pack("<HHHIII", 1, 0x9003, 2, 20, len(data) + 18, 0) + b"2001:02:03 04:05:06\x00"
    path.write_bytes(data)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert source.header.orientation == 6
    patch = Patch(Box(5, 5, 4, 4), np.full((4, 4, 3), 1, np.uint8), np.ones((4, 4), np.bool_))
    restore(path, out, [patch])
    with Image.open(path) as one, Image.open(out) as two:
        assert dict(one.tag_v2) | {273: 0, 279: 0} == dict(two.tag_v2) | {273: 0, 279: 0}
        assert one.info["icc_profile"] == two.info["icc_profile"] == profile
        assert one.info["dpi"] == two.info["dpi"]
        assert two.getexif().get_ifd(0x8769)[0x9003] == "2001:02:03 04:05:06"
    before, after = path.read_bytes(), out.read_bytes()
    touched_bytes = open_image(path, max_bytes=cases.NO_LIMIT).layout.lengths[0]
    num_changed = sum(a != b for a, b in zip(before, after, strict=False))
    assert num_changed <= touched_bytes + 16


def test_segments_that_share_bytes_are_not_overwritten(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    save_tiff(path, np.full((64, 64), 5, np.uint8), "grey", tile=(32, 32))
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[324]
        offsets = tag.value
    data = bytearray(path.read_bytes())
    for slot in range(4):
        data[tag.valueoffset + 4 * slot : tag.valueoffset + 4 * slot + 4] = offsets[0].to_bytes(4, "little")
    path.write_bytes(data)
    patch = Patch(Box(0, 0, 9, 9), np.full((9, 9, 1), 77, np.uint8), np.ones((9, 9), np.bool_))
    restore(path, out, [patch])


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_segments_may_stand_in_any_order(tmp_path: Path, compression: str | None) -> None:
    """The strips of the file, and what grows of them, from the last to the first."""
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("rgb", 96, 80)
    save_tiff(path, samples, "rgb", rowsperstrip=16, compression=compression)
    layout = open_image(path, max_bytes=cases.NO_LIMIT).layout
    data = bytearray(path.read_bytes())
    start, offsets = min(layout.offsets), [0] * 6
    strips = [bytes(data[at : at + length]) for at, length in zip(layout.offsets, layout.lengths, strict=True)]
    for number in reversed(range(6)):
        offsets[number] = start
        data[start : start + len(strips[number])] = strips[number]
        start += len(strips[number])
    assert layout.offsets_tag.kind == 4
    data[layout.offsets_tag.values : layout.offsets_tag.values + 24] = struct.pack("<6I", *offsets)
    path.write_bytes(data)
    noise = np.random.default_rng(0).integers(0, 256, (60, 30, 3), dtype=np.uint8)
    patch = Patch(Box(20, 10, 60, 30), noise, np.ones((60, 30), np.bool_))
    source, patches = restore(path, out, [patch])
    np.testing.assert_array_equal(cases.decode_elsewhere(out), cases.filled(samples, source, patches))


def test_what_a_segment_leaves_behind_are_zeros(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("grey", 64, 80)
    save_tiff(path, samples, "grey", rowsperstrip=32, compression="lzw")
    path.write_bytes(path.read_bytes().ljust(path.stat().st_size | 1, b"\x00"))  # odd, where addresses are even
    rows = np.ones((32, 80), np.bool_)
    noise = np.random.default_rng(0).integers(0, 256, (32, 80, 1), dtype=np.uint8)
    flat = np.full((32, 80, 1), 9, np.uint8)
    restore(path, out, [Patch(Box(0, 0, 32, 80), noise, rows), Patch(Box(32, 0, 32, 80), flat, rows)])
    before, after = (open_image(each, max_bytes=cases.NO_LIMIT).layout for each in (path, out))
    data = out.read_bytes()
    grown, shrunk = zip(before.offsets, before.lengths, strict=True)
    assert (after.offsets_tag, after.lengths_tag) == (before.offsets_tag, before.lengths_tag)
    assert after.offsets == (path.stat().st_size + 1, shrunk[0])
    assert after.lengths[1] < shrunk[1]
    assert not any(data[grown[0] : sum(grown)])
    assert not any(data[shrunk[0] + after.lengths[1] : sum(shrunk)])


def test_what_grows_goes_where_others_have_been(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    random = np.random.default_rng(0)
    samples = random.integers(0, 16, (320, 80, 1), dtype=np.uint8)
    save_tiff(path, samples[..., 0], "grey", rowsperstrip=8, compression="lzw")
    noise = random.integers(0, 256, (320, 4, 1), dtype=np.uint8)
    restore(path, out, [Patch(Box(0, 30, 320, 4), noise, np.ones((320, 4), np.bool_))])
    before, after = (open_image(each, max_bytes=cases.NO_LIMIT).layout for each in (path, out))
    assert sum(new > old for new, old in zip(after.lengths, before.lengths, strict=True)) == 40
    assert out.stat().st_size - path.stat().st_size < 8 * max(after.lengths)  # each strip was appended
    places = sorted(zip(after.offsets, after.lengths, strict=True))
    assert all(end + length <= start for (end, length), (start, _) in itertools.pairwise(places))
    assert out.stat().st_size == sum(places[-1])
    data = bytearray(out.read_bytes())
    for start, length in places:
        data[start : start + length] = bytes(length)
    assert not any(data[min(before.offsets) : max(map(sum, zip(before.offsets, before.lengths, strict=True)))])


def test_a_classic_file_does_not_grow_past_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    save_tiff(path, np.full((97, 131, 3), 9, np.uint8), "rgb", compression="lzw")
    monkeypatch.setattr(tiff_patch, "CLASSIC_LIMIT_BYTES", path.stat().st_size + 100)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    noise = np.random.default_rng(0).integers(0, 256, (97, 131, 3), dtype=np.uint8)
    with pytest.raises(RowError, match="BigTIFF") as caught:
        write_filled(source, [Patch(source.header.box, noise, np.ones((97, 131), np.bool_))], out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE


def decoded_from_now_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The segments that are decoded, in their order; it grows with each."""
    decoded: list[int] = []
    unpack = tiff.unpack

    def counted(packed: list[bytes], layout: TiffLayout, run: range, *rest: Any) -> Any:
        decoded.extend(run)
        return unpack(packed, layout, run, *rest)

    monkeypatch.setattr(tiff, "unpack", counted)
    return decoded


def test_only_touched_segments_are_decoded_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    samples = cases.picture("rgb", 256, 256)
    save_tiff(path, samples, "rgb", tile=(64, 64), compression="zlib")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    box = Box(70, 10, 100, 40)
    np.testing.assert_array_equal(source.read(box), samples[box.slices])
    decoded = decoded_from_now_on(monkeypatch)
    source.close()
    source.read(box)
    source.read(box)
    assert decoded == [4, 8]  # kept
    source.cache_bytes = 64 * 64 * 3
    source.close()
    source.read(box)
    source.read(box)
    assert decoded[2:] == [4, 8, 4, 8]  # only the last one is kept
    source.close()
    source.anticipate([Box(0, 0, 200, 200), Box(200, 200, 9, 9)])
    assert decoded[6:] == [0]


@pytest.mark.parametrize("cache_bytes", [1, 1 << 30])
def test_threads_read_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache_bytes: int) -> None:
    path = tmp_path / "a.tif"
    samples = cases.picture("rgb", 256, 256)
    save_tiff(path, samples, "rgb", tile=(32, 32), compression="zlib")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.cache_bytes = cache_bytes
    decoded = decoded_from_now_on(monkeypatch)
    corners = np.random.default_rng(0).integers(0, 200, (300, 2)).tolist()
    boxes = [Box(top, left, 56, 56) for top, left in corners]
    with ThreadPoolExecutor(8) as pool:
        for box, read in zip(boxes, pool.map(source.read, boxes), strict=True):
            np.testing.assert_array_equal(read, samples[box.slices])
    if cache_bytes > 1:
        assert sorted(decoded) == sorted(set(decoded))  # none twice


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 97])
@pytest.mark.parametrize("run_bytes", [1, 4000, 1 << 18])
def test_strips_in_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_bytes: int, rows: int, planar: bool
) -> None:
    monkeypatch.setattr(tiff_layout, "RUN_BYTES", run_bytes)
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("rgb", dtype="uint16")
    options = {"compression": "zlib", "predictor": True, "planarconfig": "separate" if planar else "contig"}
    save_tiff(path, samples, "rgb", rowsperstrip=rows, **options)
    source, _ = restore(path, out)
    layout, strip_bytes = source.layout, 131 * 2 * rows * (1 if planar else 3)
    assert layout.run_length == max(1, run_bytes // strip_bytes)
    everything = layout.runs(source.header.box)
    assert list(itertools.chain.from_iterable(everything)) == list(range(len(layout.offsets)))
    for box in (Box(0, 0, 1, 1), Box(20, 5, 41, 9), Box(96, 130, 1, 1), Box(13, 0, 1, 131)):
        np.testing.assert_array_equal(source.read(box), samples[box.slices])
        runs = layout.runs(box)
        assert set(layout.touching(box)) <= set(itertools.chain.from_iterable(runs))
        assert set(runs) <= set(everything)
        assert all(layout.box_of(run).intersect(box).area_px for run in runs)


def test_segments_are_put_in_runs_only_where_they_follow_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    save_tiff(path, cases.picture("rgb"), "rgb", rowsperstrip=10, planarconfig="separate")  # three planes of ten
    layout = open_image(path, max_bytes=cases.NO_LIMIT).layout
    runs = list(layout.in_runs([3, 4, 5, 7, 6, 8, 9, 10, 11, 20]))
    assert runs == [range(3, 6), range(7, 8), range(6, 7), range(8, 10), range(10, 12), range(20, 21)]
    assert list(layout.in_runs([])) == []


def test_a_damaged_strip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    save_tiff(path, cases.picture("rgb"), "rgb", compression="zlib", rowsperstrip=4)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    data = bytearray(path.read_bytes())
    start = source.layout.offsets[7]
    data[start : start + source.layout.lengths[7]] = bytes(source.layout.lengths[7])
    path.write_bytes(data)
    with pytest.raises(RowError, match="segment 7 does not decode"):
        source.read(source.header.box)


@pytest.mark.parametrize("where", ["pixels", "tags"])
def test_a_changed_byte_is_caught(tmp_path: Path, where: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    save_tiff(path, cases.picture("rgb"), "rgb", description="a description", rowsperstrip=10)
    source, patches = restore(path, out)
    data = bytearray(out.read_bytes())
    data[source.layout.offsets[0] + 5 if where == "pixels" else data.index(b"description")] ^= 1
    out.write_bytes(data)
    with pytest.raises(RowError) as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE


@pytest.mark.parametrize("number", [0, 2, 5])
def test_the_segment_that_is_wrong_is_named(tmp_path: Path, number: int) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    save_tiff(path, cases.picture("grey", 55, 40), "grey", rowsperstrip=10)
    patch = Patch(Box(5, 5, 50, 9), np.full((50, 9, 1), 7, np.uint8), np.ones((50, 9), np.bool_))
    source, patches = restore(path, out, [patch])
    data = bytearray(out.read_bytes())
    data[source.layout.offsets[number]] ^= 1
    out.write_bytes(data)
    with pytest.raises(RowError, match=f"segment {number} read back different"):
        verify_written(source, patches, out, jpeg="patch")


@given(
    st.sampled_from(sorted(CODECS)),
    st.sampled_from([1, 2]),
    st.sampled_from(["<u1", "<u2", ">u2"]),
    st.data(),
)
def test_packing_undoes_unpacking(compression: int, predictor: int, dtype: str, data: st.DataObject) -> None:
    kind = np.dtype(dtype)
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4)))
    rows = data.draw(st.integers(1, 7))
    samples = data.draw(arrays.arrays(kind.newbyteorder("="), shape))
    packed = pack_segments(samples, compression, predictor, kind, rows)
    assert len(packed) == -(-shape[0] // rows)
    np.testing.assert_array_equal(unpack_segments(packed, compression, predictor, kind, rows, shape), samples)


@given(st.sampled_from(sorted(CODECS)), st.sampled_from([1, 2, 3]), st.sampled_from("<>"), st.data())
def test_packing_of_floats_keeps_every_bit(compression: int, predictor: int, order: str, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4)))
    samples = data.draw(arrays.arrays(np.uint32, shape)).view(np.float32)  # any bits: NaN of all kinds among them
    kind = np.dtype(np.float32).newbyteorder(order)
    rows = data.draw(st.integers(1, 7))
    packed = pack_segments(samples, compression, predictor, kind, rows)
    back = unpack_segments(packed, compression, predictor, kind, rows, shape)
    np.testing.assert_array_equal(back.view(np.uint32), samples.view(np.uint32))


@given(st.sampled_from(sorted(CODECS)), st.sampled_from([1, 2, 4]), st.data())
def test_packing_of_few_bits(compression: int, depth: int, data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 19), st.integers(1, 2)))
    samples = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, (1 << depth) - 1)))
    kind = np.dtype(np.uint8)
    rows = data.draw(st.integers(1, 7))
    packed = pack_segments(samples, compression, 1, kind, rows, depth)
    np.testing.assert_array_equal(unpack_segments(packed, compression, 1, kind, rows, shape, depth), samples)


def test_all_segments_within_a_long_one_are_shared_with_it(tmp_path: Path) -> None:
    """Four strips of 16 bytes, of which the first claims the bytes of all; and a fifth that stands alone."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((10, 8), np.uint8), rowsperstrip=2, metadata=None)
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        assert tiff_directory._shared_segments(path, file, [page]) == [frozenset()]
        first = page.dataoffsets[0]
        assert page.dataoffsets == tuple(first + 16 * index for index in range(5))
        page.databytecounts = (64, 16, 16, 16, 16)
        assert tiff_directory._shared_segments(path, file, [page]) == [{0, 1, 2, 3}]


@given(data=st.data())
def test_touched_segments_are_those_with_hole_pixels(data: st.DataObject) -> None:
    hole = data.draw(arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40)), fill=st.just(False)))
    top, left = data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))
    height_px, width_px = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    found, first_row, first_column = tiff_touched._segments_of(hole, Box(top, left, *hole.shape), (height_px, width_px))
    touched = {((y + top) // height_px, (x + left) // width_px) for y, x in np.argwhere(hole).tolist()}
    assert {(first_row + row, first_column + column) for row, column in np.argwhere(found).tolist()} == touched


def patched_word(path: Path, offset: int, value: int, num_bytes: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset : offset + num_bytes] = value.to_bytes(num_bytes, "little")
    path.write_bytes(data)


def test_strips_without_rows_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    save_tiff(path, cases.picture("rgb"), "rgb", compression="lzw", rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        offset = file.pages.first.tags[278].valueoffset
    patched_word(path, offset, 0, 2)
    with pytest.raises(RowError, match="its strips have no rows") as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert caught.value.code == FailureCode.READ


def test_what_the_chain_of_pages_leads_to_stays(tmp_path: Path) -> None:
    # Into a segment, which no reader takes for a page; cleared because the new one is longer, it would be one.
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    save_tiff(path, np.full((97, 131, 3), 7, np.uint8), "rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        place, segment = page.offset + 2 + 12 * len(page.tags), page.dataoffsets[0]
    patched_word(path, place, segment, 4)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    patches = [Patch(Box(30, 30, 20, 20), noise, np.ones((20, 20), np.bool_))]
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    with tifffile.TiffFile(out) as file:
        assert len(file.pages) == 1


def test_pages_beyond_the_end_are_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for _ in range(2):
        tifffile.imwrite(path, cases.picture("rgb"), photometric="rgb", append=path.exists(), metadata=None)
    with tifffile.TiffFile(path) as file:
        path.write_bytes(path.read_bytes()[: file.pages[1].offset])
    with pytest.raises(RowError, match="its next page lies beyond its end"):
        open_image(path, max_bytes=cases.NO_LIMIT)


@pytest.mark.parametrize("is_big", [False, True])
def test_a_file_laid_out_for_a_network_is_one_like_any_other_afterwards(tmp_path: Path, is_big: bool) -> None:
    """GDAL counts on lengths in front of segments else."""
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    note = b"LAYOUT=IFDS_BEFORE_DATA\nBLOCK_LEADER=SIZE_AS_UINT4\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
    note = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(note) + note
    header = b"II+\0\x08\0\0\0" if is_big else b"II*\0"
    width, order = (8, "Q") if is_big else (4, "I")
    first = len(header) + width + len(note)
    tags = [
        (256, 3, 40),
        (257, 3, 30),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 0),
        (278, 3, 30),
        (279, 4, 1200),
    ]
    size = (8 + 20 * len(tags) if is_big else 2 + 12 * len(tags)) + width
    tags[5] = (273, 4, first + size)
    entries = b"".join(struct.pack(f"<HH{order}{order}", code, kind, 1, value) for code, kind, value in tags)
    directory = struct.pack("<Q" if is_big else "<H", len(tags)) + entries + bytes(width)
    samples = cases.picture("grey", 30, 40)
    path.write_bytes(header + struct.pack(f"<{order}", first) + note + directory + samples.tobytes())
    restore(path, out)
    blank = b" " * len(note)
    assert out.read_bytes()[:first] == path.read_bytes()[:first].replace(note, blank)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    out.write_bytes(out.read_bytes().replace(blank, note))
    with pytest.raises(RowError, match="still says how it was laid out"):
        verify_written(source, cases.patches_for(source), out, jpeg="patch")
    path.write_bytes(
        path.read_bytes().replace(b"=%06d bytes" % (len(note) - 43), b"=000999 bytes")
    )  # into the directory
    restore(path, out)
    assert out.read_bytes()[:first] == path.read_bytes()[:first]
