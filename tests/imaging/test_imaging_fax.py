"""Bilevel TIFFs packed by CCITT group 4. The files come from Pillow's libtiff, and are read back by it and tifffile."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import fax
from inpaint_batch.imaging.mask_pictures import open_picture
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

HOLE = Box(40, 30, 25, 40)


def fax_file(*, min_is_white: bool, rows_per_strip: int = 97, reversed_bits: bool = False) -> bytes:
    tags = {262: 0 if min_is_white else 1, 278: rows_per_strip, 270: "kept"}
    if reversed_bits:
        tags[266] = 2
    image = Image.fromarray(cases.picture("grey") > 110)
    return cases.encoded(image, "TIFF", compression="group4", tiffinfo=tags, strip_size=rows_per_strip * 17)


@cases.newer_codecs
@pytest.mark.parametrize("reversed_bits", [False, True])
@pytest.mark.parametrize("rows_per_strip", [16, 97])
@pytest.mark.parametrize("min_is_white", [False, True])
def test_only_touched_strips_are_packed_anew(
    tmp_path: Path, min_is_white: bool, rows_per_strip: int, reversed_bits: bool
) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    path.write_bytes(fax_file(min_is_white=min_is_white, rows_per_strip=rows_per_strip, reversed_bits=reversed_bits))
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert (source.header.levels, source.layout.kind.is_reversed) == ((0.0, 1.0), reversed_bits)
    bits = np.asarray(Image.open(path))
    np.testing.assert_array_equal(source.read(source.header.box)[..., 0], bits)  # 1 is white in both
    fill = np.random.default_rng(0).integers(0, 2, (HOLE.height, HOLE.width, 1)).astype(np.uint8)
    hole = np.random.default_rng(1).random((HOLE.height, HOLE.width)) < 0.8
    patches = [Patch(HOLE, fill, hole)]
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    expected = bits.copy()
    expected[HOLE.slices][hole] = fill[..., 0][hole]
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)
    with tifffile.TiffFile(path) as before, tifffile.TiffFile(out) as after:
        old, new = before.pages.first, after.pages.first
        np.testing.assert_array_equal(new.asarray() ^ min_is_white, expected)
        assert [tag.value for tag in old.tags if tag.code not in (273, 279)] == [
            tag.value for tag in new.tags if tag.code not in (273, 279)
        ]
        for index, (offset, length) in enumerate(zip(old.dataoffsets, old.databytecounts, strict=True)):
            if not HOLE.top // rows_per_strip <= index <= HOLE.bottom // rows_per_strip:
                assert (offset, length) == (new.dataoffsets[index], new.databytecounts[index])


@given(
    bits=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(0, 99)).map(
        lambda drawn: np.random.default_rng(drawn[2]).random(drawn[:2]) < drawn[2] / 99
    )
)
def test_packing_is_undone(bits: np.ndarray) -> None:
    bits = bits.astype(np.uint8)
    np.testing.assert_array_equal(fax.unpack(fax.pack(bits), *bits.shape), bits)


@pytest.mark.parametrize("spoil", [lambda code: code[: len(code) // 2], lambda code: code[:40] + b"\0\0\0" + code[43:]])
def test_damage_is_noticed_in_images_and_masks(tmp_path: Path, spoil) -> None:
    path = tmp_path / "a.tif"
    data = bytearray(fax_file(min_is_white=True))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages.first
        (start,), (length,) = page.dataoffsets, page.databytecounts
        broken = spoil(bytes(data[start : start + length]))
        struct.pack_into("<I", data, page.tags[279].valueoffset, len(broken))
    data[start : start + len(broken)] = broken
    path.write_bytes(data)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="fax code is damaged") as caught:
        source.read(source.header.box)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.READ, False)
    with pytest.raises(RowError, match=r"the mask .* fax code is damaged"):
        list(open_picture(path, max_bytes=cases.NO_LIMIT).pieces())


def test_fax_code_of_anything_but_bits_makes_no_sense(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, cases.picture("grey"), metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags[259].overwrite(4)
    with pytest.raises(RowError, match="not bilevel"):
        open_image(path, max_bytes=cases.NO_LIMIT)
