"""PNGs with palettes and of few bits keep depth, palette and every known sample; fills go to what the file can hold."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import pyvips
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.colour import rgb_to_samples, samples_to_rgb
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

GREY, PALETTE = 0, 3
HOLE = Box(20, 30, 25, 40)


def few_bit_png(samples: np.ndarray, depth: int, colour_type: int, *chunks: bytes) -> bytes:
    """By hand and in the slowest way: one string of bits per row."""
    rows = b""
    for row in samples.tolist():
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\x00" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    header = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour_type, 0, 0, 0)
    pixels = cases.png_chunk(b"IDAT", zlib.compress(rows)) + cases.png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + cases.png_chunk(b"IHDR", header) + b"".join(chunks) + pixels


def colours(path: Path) -> np.ndarray:
    """What an independent decoder shows."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def chunks(path: Path, kinds: tuple[bytes, ...] = (b"PLTE", b"tRNS")) -> list[bytes]:
    data, position, found = path.read_bytes(), 8, []
    while position < len(data):
        length = 12 + int.from_bytes(data[position : position + 4], "big")
        if data[position + 4 : position + 8] in kinds:
            found.append(data[position : position + length])
        position += length
    return found


def restore(path: Path, out: Path, colour: tuple[float, float, float]):
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    original = source.read(HOLE)
    hole = np.random.default_rng(0).random((HOLE.height, HOLE.width)) < 0.8
    rgb = np.broadcast_to(np.float32(colour), (HOLE.height, HOLE.width, 3))
    patch = Patch(HOLE, rgb_to_samples(rgb, original, source.header), hole)
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    known = ~cases.hole_map(source, [patch])
    np.testing.assert_array_equal(colours(path)[known], colours(out)[known])
    assert path.read_bytes()[24:26] == out.read_bytes()[24:26]  # depth and colour type
    assert chunks(path) == chunks(out)
    return source, known


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("width_px", [131, 136])
def test_grey_of_few_bits(tmp_path: Path, depth: int, width_px: int) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = cases.picture("grey", width_px=width_px) >> (8 - depth)
    path.write_bytes(few_bit_png(samples, depth, GREY))
    white = (1 << depth) - 1
    for level in (0.2, 0.7):
        source, known = restore(path, out, (level,) * 3)
        read = source.read(source.header.box)[..., 0]
        np.testing.assert_array_equal(read, samples)
        assert source.header.levels == (0, white)
        np.testing.assert_allclose(
            samples_to_rgb(source.read(HOLE), source.header)[..., 0], samples[HOLE.slices] / white, atol=1e-6
        )
        assert (colours(out)[~known][:, :3] == round(level * white) * 255 // white).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes(tmp_path: Path, depth: int) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    rng = np.random.default_rng(depth)
    samples = cases.picture("grey") >> (8 - depth)
    palette = rng.integers(0, 256, (1 << depth, 3), dtype=np.uint8)
    path.write_bytes(few_bit_png(samples, depth, PALETTE, cases.png_chunk(b"PLTE", palette.tobytes())))
    colour = (51 / 255, 178 / 255, 77 / 255)
    source, known = restore(path, out, colour)
    np.testing.assert_array_equal(source.read(source.header.box)[..., 0], samples)
    np.testing.assert_allclose(samples_to_rgb(source.read(HOLE), source.header), palette[samples[HOLE.slices]] / 255)
    nearest = ((palette - np.array(colour) * 255) ** 2).sum(axis=1).argmin()
    assert (colours(out)[~known][:, :3] == palette[nearest]).all()


def test_a_palette_of_pillow_is_not_much_larger_afterwards(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(cases.picture("rgb", 300, 400)).quantize(64).save(path)
    restore(path, out, (0.5, 0.5, 0.5))
    assert out.stat().st_size < 1.05 * path.stat().st_size
    with Image.open(path) as one, Image.open(out) as two:
        assert one.mode == two.mode == "P"
        assert one.getpalette() == two.getpalette()


def test_fills_are_opaque(tmp_path: Path) -> None:
    """The nearest colour of all is a transparent entry."""
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    palette = bytes((255, 0, 0, 255, 10, 0, 0, 255, 0, 0, 0, 255))
    samples = np.random.default_rng(0).integers(0, 4, (97, 131))
    extra = cases.png_chunk(b"PLTE", palette) + cases.png_chunk(b"tRNS", b"\x00")
    path.write_bytes(few_bit_png(samples, 2, PALETTE, extra))
    source, known = restore(path, out, (1.0, 0.0, 0.0))
    assert not source.header.has_alpha
    assert (colours(out)[~known] == (255, 10, 0, 255)).all()


def test_a_key_colour_of_few_bits_is_avoided(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = np.random.default_rng(0).integers(0, 16, (97, 131))
    path.write_bytes(few_bit_png(samples, 4, GREY, cases.png_chunk(b"tRNS", struct.pack(">H", 8))))
    _, known = restore(path, out, (8 / 15,) * 3)
    assert (colours(out)[~known] == (9 * 17, 9 * 17, 9 * 17, 255)).all()


@pytest.mark.parametrize("colour_type", [GREY, PALETTE])
def test_black_on_transparent_white_is_filled_with_both(tmp_path: Path, colour_type: int) -> None:
    """Fills that must be opaque would all be black."""
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    palette = [cases.png_chunk(b"PLTE", bytes((0, 0, 0, 255, 255, 255)))] if colour_type == PALETTE else []
    key = cases.png_chunk(b"tRNS", b"\xff\x00" if colour_type == PALETTE else b"\x00\x01")
    samples = np.random.default_rng(0).integers(0, 2, (97, 131))
    path.write_bytes(few_bit_png(samples, 1, colour_type, *palette, key))
    for level in (0, 255):
        _, known = restore(path, out, (level / 255,) * 3)
        assert (colours(out)[~known] == (level, level, level, 255 - level)).all()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_interlaced(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, depth: int) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    image = pyvips.Image.new_from_array(cases.picture("rgb" if kind == "palette" else "grey"))
    image = image.copy(interpretation="srgb" if kind == "palette" else "b-w")
    image.pngsave(str(path), interlace=True, bitdepth=depth, palette=kind == "palette")
    assert path.read_bytes()[28] == 1
    restore(path, out, (0.4, 0.5, 0.6))
    assert out.read_bytes()[28] == 0
    assert capfd.readouterr() == ("", "")


def test_a_side_that_libpng_does_not_take_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(few_bit_png(np.zeros((1, 1_000_001), np.uint8), 1, GREY))
    with pytest.raises(RowError, match="1,000,000 px on a side"):
        open_image(path, max_bytes=cases.NO_LIMIT)


def test_indices_beyond_the_palette_are_kept_and_seen_as_black(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = np.full((97, 131), 200, np.uint8)
    path.write_bytes(few_bit_png(samples, 8, PALETTE, cases.png_chunk(b"PLTE", bytes((9, 99, 199)))))
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert (samples_to_rgb(source.read(HOLE), source.header) == 0).all()
    patch = Patch(HOLE, np.zeros((HOLE.height, HOLE.width, 1), np.uint8), np.ones((HOLE.height, HOLE.width), np.bool_))
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    kept = open_image(out, max_bytes=cases.NO_LIMIT).read(source.header.box)[..., 0]
    assert (kept == 200).sum() == samples.size - HOLE.area_px


@pytest.mark.parametrize("palette", [b"", bytes(4), bytes(3 * 17)])
def test_a_senseless_palette_is_damage(tmp_path: Path, palette: bytes) -> None:
    path = tmp_path / "a.png"
    extra = cases.png_chunk(b"PLTE", palette) if palette else b""
    path.write_bytes(few_bit_png(np.zeros((9, 9), int), 4, PALETTE, extra))
    with pytest.raises(RowError, match="palette") as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert caught.value.code == FailureCode.READ
