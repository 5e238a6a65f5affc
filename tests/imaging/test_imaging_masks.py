"""Masks of every kind come in as the same grey picture."""

from __future__ import annotations

from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import mask_pictures
from inpaint_batch.imaging.mask_pictures import drawn_mask, open_picture
from inpaint_batch.imaging.read import open_image

WHITE = np.zeros((53, 71), np.bool_)
WHITE[10:20, 5:60] = True
GREY = np.where(WHITE, 255, 0).astype(np.uint8)


def _png(mode: str, **options: object):
    return lambda path: Image.fromarray(GREY).convert(mode).save(path, "PNG", **options)


def _rgba(path: Path) -> None:
    rgba = np.dstack([GREY, GREY, GREY, np.zeros_like(GREY)])  # fully transparent: alpha says nothing
    Image.fromarray(rgba).save(path, "PNG")


def _few_bits(depth: int):
    """A grey PNG of 2 or 4 bits by hand: Pillow writes these only with a palette."""

    def save(path: Path) -> None:
        import struct
        import zlib

        values = np.where(WHITE, (1 << depth) - 1, 0).astype(np.uint8)
        per_byte = 8 // depth
        padded = np.pad(values, ((0, 0), (0, -values.shape[1] % per_byte)))
        packed = np.zeros((53, padded.shape[1] // per_byte), np.uint8)
        for slot in range(per_byte):
            packed |= padded[:, slot::per_byte] << (8 - depth * (slot + 1))
        rows = b"".join(b"\x00" + row.tobytes() for row in packed)
        header = struct.pack(">IIBBBBB", 71, 53, depth, 0, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(cases.png_chunk(*chunk) for chunk in chunks))

    return save


def _interlaced(samples: np.ndarray):
    depth = 8 * samples.dtype.itemsize
    return lambda path: pyvips.Image.new_from_array(samples).pngsave(str(path), interlace=True, bitdepth=depth)


def _tiff(samples: np.ndarray, **options: object):
    return lambda path: tifffile.imwrite(path, samples, **options)


COLOURMAP = np.zeros((3, 256), np.uint16)
COLOURMAP[:, 1] = 65535

MASKS = {
    "png 1 bit": _png("1"),
    "png 2 bit": _few_bits(2),
    "png 4 bit": _few_bits(4),
    "png grey": _png("L"),
    "png 16 bit": lambda path: path.write_bytes(cases.png16(GREY.astype(np.uint16) * 257)),
    "png palette": _png("P"),
    "png palette with transparency": _png("P", transparency=0),
    "png rgb": _png("RGB"),
    "png rgba": _rgba,
    "png grey alpha": _png("LA"),
    "tiff grey": _tiff(GREY),
    "tiff 16 bit big-endian": _tiff(GREY.astype(np.uint16) * 257, byteorder=">", compression="zlib", predictor=True),
    "tiff bilevel": _tiff(WHITE, photometric="minisblack"),
    "tiff bilevel packbits": _tiff(WHITE, photometric="minisblack", compression="packbits"),
    "tiff bilevel min-is-white": _tiff(~WHITE, photometric="miniswhite"),
    "tiff min-is-white": _tiff(255 - GREY, photometric="miniswhite"),
    "tiff rgb planar": _tiff(np.stack([GREY] * 3), photometric="rgb", planarconfig="separate"),
    "tiff palette": _tiff(WHITE.astype(np.uint8), photometric="palette", colormap=COLOURMAP),
    "tiff zstd": _tiff(GREY, compression="zstd"),
    "tiff zstd 16 bit predicted": _tiff(GREY.astype(np.uint16) * 257, compression="zstd", predictor=True),
    "tiff zstd bilevel min-is-white": _tiff(~WHITE, photometric="miniswhite", compression="zstd"),
    "tiff zstd palette": _tiff(WHITE.astype(np.uint8), photometric="palette", colormap=COLOURMAP, compression="zstd"),
    "tiff lzma planar": _tiff(np.stack([GREY] * 3), photometric="rgb", planarconfig="separate", compression="lzma"),
    "tiff rgba": _tiff(np.dstack([GREY, GREY, GREY, GREY // 2]), photometric="rgb", extrasamples=["unassalpha"]),
    "tiff tiled": _tiff(GREY, tile=(16, 16)),
    "tiff tiled deflate": _tiff(np.dstack([GREY] * 3), photometric="rgb", tile=(16, 32), compression="zlib"),
    "tiff tiled bilevel": _tiff(~WHITE, photometric="miniswhite", tile=(16, 16), compression="packbits"),
    "tiff tiled 4 bit": _tiff(GREY // 17, photometric="minisblack", bitspersample=4, tile=(16, 16)),
    "tiff jpeg": lambda path: Image.fromarray(GREY).convert("RGB").save(path, "TIFF", compression="jpeg", quality=100),
    "tiff fax 4": lambda path: Image.fromarray(GREY).convert("1").save(path, "TIFF", compression="group4"),
    "png interlaced": _interlaced(GREY),
    "png 16 bit interlaced": _interlaced(GREY.astype(np.uint16) * 257),
    "jpeg grey": lambda path: Image.fromarray(GREY).save(path, "JPEG", quality=100),
    "jpeg rgb": lambda path: Image.fromarray(GREY).convert("RGB").save(path, "JPEG", quality=100),
    "webp": lambda path: Image.fromarray(GREY).convert("RGB").save(path, "WEBP", lossless=True),
    "webp alpha": lambda path: Image.fromarray(GREY).convert("RGBA").save(path, "WEBP", lossless=True),
}
KINDS = [pytest.param(kind, marks=cases.newer_codecs) if kind == "tiff tiled 4 bit" else kind for kind in MASKS]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_reads_as_the_same_grey(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask"
    MASKS[kind](path)
    samples, orientation = cases.read_mask_samples(path, max_bytes=1 << 24)
    assert samples.dtype == np.uint8
    assert orientation == 1
    tolerance = 4 if "jpeg" in kind else 0
    np.testing.assert_allclose(samples.astype(int), GREY.astype(int), atol=tolerance)


@pytest.mark.parametrize("is_tiled", [True, False])
def test_the_levels_of_a_pyramid_are_no_pages(tmp_path: Path, is_tiled: bool) -> None:
    path = tmp_path / "mask.tif"
    grey = cases.picture("grey", 160, 200)
    layout = {"tile": (64, 64)} if is_tiled else {"rowsperstrip": 16}
    with tifffile.TiffWriter(path) as file:
        for step in (1, 2, 4):
            options = {"photometric": "minisblack", "compression": "lzw", "metadata": None, **layout}
            file.write(grey[::step, ::step], subfiletype=int(step > 1), **options)
    samples, _ = cases.read_mask_samples(path, max_bytes=cases.NO_LIMIT)
    np.testing.assert_array_equal(samples, grey)


def test_alpha_is_at_hand(tmp_path: Path) -> None:
    path = tmp_path / "mask"
    alpha = np.where(WHITE, 200, 3).astype(np.uint8)
    rgba = np.dstack([np.full((*GREY.shape, 3), 255, np.uint8), alpha])
    wide = rgba.astype(np.uint16) * 257
    unassociated = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
    kinds = {
        "png": lambda: Image.fromarray(rgba).save(path, "PNG"),
        "png 16 bit": lambda: path.write_bytes(cases.png16(wide)),
        "png grey": lambda: Image.fromarray(rgba[..., 2:]).save(path, "PNG"),
        "webp": lambda: Image.fromarray(rgba).save(path, "WEBP", lossless=True, exact=True),
        "tiff": lambda: tifffile.imwrite(path, rgba, **unassociated),
        "tiff 16 bit": lambda: tifffile.imwrite(path, wide, **unassociated),
        "tiff zstd": lambda: tifffile.imwrite(path, rgba, compression="zstd", **unassociated),
        "tiff planar": lambda: tifffile.imwrite(
            path, np.moveaxis(rgba, -1, 0), planarconfig="separate", tile=(32, 32), **unassociated
        ),
    }
    for kind, save in kinds.items():
        save()
        mask = open_picture(path, max_bytes=1 << 24)
        assert mask.num_bits == (16 if "16" in kind else 8), kind
        assert mask.alpha is not None, kind
        found = np.zeros_like(alpha)
        for box, piece in mask.alpha():
            found[box.slices] = piece
        np.testing.assert_array_equal(found, alpha, err_msg=kind)
    for without in ("png grey", "png palette", "tiff grey", "tiff tiled deflate", "jpeg rgb", "webp"):
        MASKS[without](path)
        assert open_picture(path, max_bytes=1 << 24).alpha is None, without


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_told(tmp_path: Path, format: str) -> None:
    path = tmp_path / "mask"
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(GREY).convert("RGB").save(path, format, exif=exif)
    samples, orientation = cases.read_mask_samples(path, max_bytes=1 << 24)
    assert orientation == 8
    assert samples.shape == GREY.shape


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize("tag", [0, 9])
def test_a_tag_that_is_none_says_nothing(tmp_path: Path, format: str, tag: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(GREY).convert("RGB").save(tmp_path / "mask", format, exif=exif)
    assert open_picture(tmp_path / "mask", max_bytes=1 << 24).orientation == 1


def test_orientation_may_stand_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    plain = cases.encoded(Image.fromarray(cases.picture("grey")), "PNG")
    end = cases.png_chunk(b"IEND", b"")
    assert plain.endswith(end)
    path.write_bytes(plain.removesuffix(end) + cases.png_chunk(b"eXIf", cases.exif_block(3)) + end)
    assert open_picture(path, max_bytes=1 << 24).orientation == open_image(path, max_bytes=1 << 24).header.orientation
    assert open_picture(path, max_bytes=1 << 24).orientation == 3


@pytest.mark.parametrize("compression", ["lzw", "zstd"])
def test_orientation_and_upper_byte_of_any_tiff(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "mask.tif"
    samples = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 255
    tag = (274, 3, 1, 6, True)
    tifffile.imwrite(path, samples, photometric="minisblack", compression=compression, extratags=[tag])
    grey, orientation = cases.read_mask_samples(path, max_bytes=1 << 24)
    assert orientation == 6
    np.testing.assert_array_equal(grey, np.arange(256).reshape(16, 16))
    assert grey.flags.writeable
    assert grey.flags.c_contiguous


def test_profile_and_gamma_are_not_applied(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    samples = cases.picture("grey")
    data = cases.encoded(Image.fromarray(samples), "PNG", icc_profile=cases.icc_profile())
    path.write_bytes(data[:33] + cases.png_chunk(b"gAMA", (100_000).to_bytes(4, "big")) + data[33:])
    np.testing.assert_array_equal(cases.read_mask_samples(path, max_bytes=1 << 24)[0], samples)
    Image.fromarray(samples).save(path, "TIFF", icc_profile=cases.icc_profile())
    np.testing.assert_array_equal(cases.read_mask_samples(path, max_bytes=1 << 24)[0], samples)


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_alpha_that_was_multiplied_in_is_taken_out(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "mask.tif"
    alpha = np.full_like(GREY, 51)
    stored = np.dstack([GREY // 5] * 3 + [alpha])
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["assocalpha"], compression=compression)
    np.testing.assert_array_equal(cases.read_mask_samples(path, max_bytes=1 << 24)[0], GREY)


def test_an_overwritten_mask_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "mask.tif"
    for value in (3, 200):
        tifffile.imwrite(path, np.full((40, 50), value, np.uint8), photometric="minisblack")
        assert (cases.read_mask_samples(path, max_bytes=1 << 24)[0] == value).all()


@pytest.mark.parametrize("compression", [None, "deflate", "zstd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_become_luminance(tmp_path: Path, compression: str | None, dtype: type[np.integer]) -> None:
    path = tmp_path / "mask"
    samples = cases.picture("rgb")
    wide = samples.astype(dtype) * (257 if dtype is np.uint16 else 1)
    tifffile.imwrite(path, wide, photometric="rgb", compression=compression)
    of_tiff, _ = cases.read_mask_samples(path, max_bytes=1 << 24)
    Image.fromarray(samples).save(path, "PNG")
    of_png, _ = cases.read_mask_samples(path, max_bytes=1 << 24)
    luminance = np.asarray(Image.fromarray(samples).convert("L")).astype(int)
    for grey in (of_tiff, of_png):
        assert np.abs(grey - luminance).max() <= 1


@pytest.mark.parametrize(
    ("kind", "num_bytes"),
    [
        ("png interlaced", 1),
        ("png 16 bit interlaced", 2),
        ("webp", 3),
        ("tiff lzma planar", 6),  # by tifffile, and again for libvips
        ("tiff rgba", 0),
        ("tiff zstd 16 bit predicted", 0),
    ],
)
def test_what_is_decoded_at_once_is_counted(tmp_path: Path, kind: str, num_bytes: int) -> None:
    path = tmp_path / "mask"
    MASKS[kind](path)
    mask = open_picture(path, max_bytes=GREY.size * 3)
    assert mask.whole_bytes == GREY.size * num_bytes
    assert (mask.num_bits > 8) == ("16 bit" in kind)
    if num_bytes:
        with pytest.raises(RowError) as caught:
            open_picture(path, max_bytes=GREY.size * min(num_bytes, 3) - 1)
        assert caught.value.code == FailureCode.MEMORY


def test_bad_masks_are_named_as_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    bad = {
        "does not exist": None,
        "empty": b"",
        "not an image": b"text " * 20,
        "is text in UTF-16; only": '{"type": "Polygon"}'.encode("utf-16"),
        "truncated": cases.encoded(Image.fromarray(GREY), "PNG")[:-30],
    }
    for words, content in bad.items():
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RowError) as caught:
            cases.read_mask_samples(path, max_bytes=1 << 24)
        assert caught.value.code == FailureCode.READ
        assert words in caught.value.message
        assert "the mask" in caught.value.message


def _pages(path: Path, format: str) -> None:
    picture = Image.fromarray(cases.picture("rgb"))
    picture.save(path, format, save_all=True, append_images=[Image.fromarray(cases.picture("rgb", seed=1))])


UNUSABLE = {
    "frames": lambda path: _pages(path, "WEBP"),
    "pages": lambda path: _pages(path, "TIFF"),
    "animated": lambda path: _pages(path, "PNG"),
    "a picture of floating point numbers": _tiff(GREY.astype(np.float32), photometric="minisblack"),
    "a picture of 32-bit numbers": _tiff(GREY.astype(np.uint32), photometric="minisblack"),
    "a picture of signed numbers": _tiff(GREY.astype(np.int16), photometric="minisblack"),
    "a picture in CMYK": lambda path: Image.fromarray(GREY).convert("CMYK").save(path, "JPEG"),
    "a picture of 5 bands": _tiff(np.dstack([GREY] * 5), photometric="rgb", extrasamples=[0, 0]),
}


@pytest.mark.parametrize("words", UNUSABLE)
def test_what_cannot_be_a_mask_is_refused(tmp_path: Path, words: str) -> None:
    path = tmp_path / "mask"
    UNUSABLE[words](path)
    with pytest.raises(RowError, match=words) as caught:
        cases.read_mask_samples(path, max_bytes=1 << 24)
    assert caught.value.code == FailureCode.READ
    assert "cannot serve as a mask" in caught.value.message


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "jpeg", "zstd"])
@pytest.mark.parametrize("tile", [None, (32, 32)])
def test_a_truncated_tiff_is_not_read_as_black(tmp_path: Path, compression: str, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "mask.tif"
    samples = cases.picture("grey")
    tifffile.imwrite(path, samples, photometric="minisblack", compression=compression, tile=tile, metadata=None)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(RowError, match=r"truncated|torn|damaged") as caught:
        cases.read_mask_samples(path, max_bytes=1 << 24)
    assert caught.value.code == FailureCode.READ


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "jpeg", "zstd palette"])
@pytest.mark.parametrize("num_told", [3, 1])
def test_strips_of_which_nothing_is_told_are_not_made_up(tmp_path: Path, compression: str, num_told: int) -> None:
    """The tag of their places has fewer entries than there are strips."""
    path = tmp_path / "mask.tif"
    colours = {"photometric": "minisblack", "compression": compression}
    if compression == "zstd palette":
        colours = {"photometric": "palette", "colormap": COLOURMAP, "compression": "zstd"}
    tifffile.imwrite(path, WHITE.astype(np.uint8), rowsperstrip=16, **colours)
    with tifffile.TiffFile(path) as file:
        tag = file.pages.first.tags[273]
    data = bytearray(path.read_bytes())
    data[tag.offset + 4 : tag.offset + 8] = num_told.to_bytes(4, "little")
    if num_told == 1:  # which stands in the entry itself
        data[tag.offset + 8 : tag.offset + 12] = tag.value[0].to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(RowError, match="damaged: it does not say where all of its 4 segments are"):
        cases.read_mask_samples(path, max_bytes=1 << 24)


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits"])
def test_torn_pixels_within_a_tiff_are_noticed(tmp_path: Path, compression: str, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "mask.tif"
    rows = {"tile": tile} if tile else {"rowsperstrip": 16}
    tifffile.imwrite(path, cases.picture("grey"), photometric="minisblack", compression=compression, **rows)
    with tifffile.TiffFile(path) as file:
        middle = len(file.pages.first.dataoffsets) // 2
        start, length = file.pages.first.dataoffsets[middle], file.pages.first.databytecounts[middle]
    data = bytearray(path.read_bytes())
    torn = slice(start + length // 3, start + 2 * length // 3)
    data[torn] = bytes(value ^ 0x5A for value in data[torn])
    path.write_bytes(data)
    with pytest.raises(RowError, match=r"truncated|torn|damaged") as caught:
        cases.read_mask_samples(path, max_bytes=1 << 24)
    assert caught.value.code == FailureCode.READ


@pytest.mark.parametrize("format", ["WEBP", "JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_half_a_file_is_not_half_a_mask(tmp_path: Path, format: str, kept: float) -> None:
    path = tmp_path / "mask"
    data = cases.encoded(Image.fromarray(cases.picture("rgb")), format)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(RowError) as caught:
        cases.read_mask_samples(path, max_bytes=1 << 24)
    assert caught.value.code == FailureCode.READ
    assert not caught.value.retryable


def test_a_truncated_jpeg_mask_is_not_padded_with_grey(tmp_path: Path) -> None:
    path = tmp_path / "mask.jpg"
    path.write_bytes(cases.encoded(Image.fromarray(GREY), "JPEG")[:-40])
    with pytest.raises(RowError, match="truncated"):
        cases.read_mask_samples(path, max_bytes=1 << 24)


def test_a_bomb_does_not_get_further_than_its_header(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(cases.png_bomb())
    mask = open_picture(path, max_bytes=1 << 30)
    assert mask.shape == (20_000, 100_000)  # nothing is decoded before that was compared with the image
    assert mask.whole_bytes == 0
    _interlaced(GREY)(path)
    assert open_picture(path, max_bytes=GREY.size).whole_bytes == GREY.size
    with pytest.raises(RowError) as caught:
        open_picture(path, max_bytes=GREY.size - 1)
    assert caught.value.code == FailureCode.MEMORY


@pytest.mark.parametrize("kind", ["png grey", "tiff tiled", "tiff tiled deflate", "tiff grey", "webp"])
def test_masks_come_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(mask_pictures, "_PIECE_PX", 200)
    path = tmp_path / "mask"
    MASKS[kind](path)
    mask = open_picture(path, max_bytes=1 << 24)
    sizes = [box.area_px for box, _ in mask.pieces()]
    assert len(sizes) > 3
    assert max(sizes) <= (512 if "tiled" in kind else 200)
    assert sum(sizes) == GREY.size
    assert (mask.whole_bytes > 0) == (kind == "webp")
    grey, _ = cases.read_mask_samples(path)
    np.testing.assert_array_equal(grey, GREY)


def drawn(path: Path, mask_from: str) -> np.ndarray:
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    return np.concatenate([piece for _, piece in drawn_mask(source, mask_from).pieces()])


@pytest.mark.parametrize("step", [1, 257])
def test_colour_and_transparency_of_every_value_by_hand(tmp_path: Path, step: int) -> None:
    """In 8 bits and in 16: one channel after the other goes through all values, and so does alpha."""
    key, ramp = np.array([0x1E, 0x90, 0xC3]), np.arange(256)
    samples = np.empty((3, 256, 4), np.uint16 if step == 257 else np.uint8)
    samples[...] = np.append(key, 0) * step
    for channel in range(3):
        samples[channel, :, channel] = ramp * step
        samples[channel, :, 3] = ramp * step
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(drawn(path, "alpha"), np.tile(255 - ramp, (3, 1)))
    by_colour = np.maximum(255 - 8 * np.abs(ramp - key[:, None]), 0)
    np.testing.assert_array_equal(drawn(path, "#1e90c3"), by_colour)


def test_alpha_of_more_than_sixteen_bits_is_no_mask(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((9, 9, 4), np.float32), photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(RowError, match="no alpha channel of up to 16 bits") as caught:
        drawn(path, "alpha")
    assert caught.value.code == FailureCode.MASK
