"""Masks of every kind come in as the same grey picture."""

from __future__ import annotations

from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.masks import read_mask_samples

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
    "tiff fax 4": lambda path: Image.fromarray(GREY).convert("1").save(path, "TIFF", compression="group4"),
    "jpeg grey": lambda path: Image.fromarray(GREY).save(path, "JPEG", quality=100),
    "jpeg rgb": lambda path: Image.fromarray(GREY).convert("RGB").save(path, "JPEG", quality=100),
    "webp": lambda path: Image.fromarray(GREY).convert("RGB").save(path, "WEBP", lossless=True),
    "webp alpha": lambda path: Image.fromarray(GREY).convert("RGBA").save(path, "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", MASKS)
def test_every_kind_reads_as_the_same_grey(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask"
    MASKS[kind](path)
    samples, orientation = read_mask_samples(path, max_bytes=1 << 24)
    assert samples.dtype == np.uint8
    assert orientation == 1
    tolerance = 4 if "jpeg" in kind else 0
    np.testing.assert_allclose(samples.astype(int), GREY.astype(int), atol=tolerance)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_is_told(tmp_path: Path, format: str) -> None:
    path = tmp_path / "mask"
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(GREY).convert("RGB").save(path, format, exif=exif)
    samples, orientation = read_mask_samples(path, max_bytes=1 << 24)
    assert orientation == 8
    assert samples.shape == GREY.shape


def test_colours_become_luminance(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    samples = cases.picture("rgb")
    Image.fromarray(samples).save(path)
    grey, _ = read_mask_samples(path, max_bytes=1 << 24)
    assert np.abs(grey.astype(int) - np.asarray(Image.fromarray(samples).convert("L"))).max() <= 1


def test_bad_masks_are_named_as_masks(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    bad = {
        "does not exist": None,
        "empty": b"",
        "not an image": b"text " * 20,
        "truncated": cases.encoded(Image.fromarray(GREY), "PNG")[:-30],
    }
    for words, content in bad.items():
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(RowError) as caught:
            read_mask_samples(path, max_bytes=1 << 24)
        assert caught.value.code == FailureCode.READ
        assert words in caught.value.message
        assert "The mask" in caught.value.message


def test_a_truncated_jpeg_mask_is_not_padded_with_grey(tmp_path: Path) -> None:
    path = tmp_path / "mask.jpg"
    path.write_bytes(cases.encoded(Image.fromarray(GREY), "JPEG")[:-40])
    with pytest.raises(RowError, match="truncated"):
        read_mask_samples(path, max_bytes=1 << 24)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(cases.png_bomb())
    with pytest.raises(RowError) as caught:
        read_mask_samples(path, max_bytes=1 << 30)
    assert caught.value.code == FailureCode.MEMORY
