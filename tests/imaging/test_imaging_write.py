"""PNG, WebP and JPEG-as-PNG: fills land, known samples and metadata stay, and a wrong output is caught."""

from __future__ import annotations

import errno
import io
import os
import struct
from pathlib import Path
from unittest.mock import Mock

import imaging_cases as cases
import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import tiff_patch, webp
from inpaint_batch.imaging.png_chunks import split_chunks
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.storage import byte_ranges
from inpaint_batch.types import Box, Patch


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("kind", cases.BANDS)
def test_png_keeps_every_known_sample(tmp_path: Path, kind: str, orientation: int) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(cases.picture(kind)).save(path, exif=cases.exif_block(orientation))
    source, patches = cases.restore(path, out)
    np.testing.assert_array_equal(
        cases.decode_elsewhere(out), cases.filled(cases.decode_elsewhere(path), source, patches)
    )
    assert open_image(out, max_bytes=cases.NO_LIMIT).header == source.header


@pytest.mark.parametrize("kind", cases.BANDS)
def test_png_of_16_bits(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = cases.picture(kind, 33, 47, "uint16")
    path.write_bytes(cases.png16(samples))
    source, patches = cases.restore(path, out)
    assert source.header.dtype == "uint16"
    before = samples.reshape(*samples.shape[:2], -1)
    np.testing.assert_array_equal(cases.png16_samples(out.read_bytes()), cases.filled(before, source, patches))


def test_png_keeps_every_chunk_in_its_place(tmp_path: Path) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "nobody")
    text.add_itxt("XML:com.adobe.xmp", cases.XMP.decode())
    Image.fromarray(cases.picture("rgb")).save(
        path, icc_profile=cases.icc_profile(), exif=cases.exif_block(), dpi=(300, 301), pnginfo=text
    )
    data = path.read_bytes()
    end = data.rindex(b"IEND") - 4
    extra = cases.png_chunk(b"prVt", b"\x00private\xff") + cases.png_chunk(
        b"tIME", struct.pack(">HBBBBB", 1999, 1, 2, 3, 4, 5)
    )
    path.write_bytes(data[:end] + extra + data[end:] + b"after the end")
    cases.restore(path, out)

    def layout(content: bytes) -> list[bytes]:
        """Every chunk in order; the pixels only as one marker for their place."""
        position, chunks = 8, []
        while position < len(content) - len(b"after the end"):
            length = 12 + int.from_bytes(content[position : position + 4], "big")
            is_pixels = content[position + 4 : position + 8] == b"IDAT"
            chunks.append(b"pixels" if is_pixels else content[position : position + length])
            position += length
        return [chunk for i, chunk in enumerate(chunks) if chunk != b"pixels" or chunks[i - 1] != b"pixels"]

    assert layout(path.read_bytes()) == layout(out.read_bytes())
    assert len(layout(out.read_bytes())) == 10
    assert out.read_bytes().endswith(b"after the end")
    with Image.open(path) as one, Image.open(out) as two:
        assert one.info["icc_profile"] == two.info["icc_profile"]
        assert one.info["dpi"] == two.info["dpi"]
        assert one.getexif() == two.getexif()


@pytest.mark.parametrize("size", [(97, 131), (1, 1), (3, 5), (9, 2)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("kind", cases.BANDS)
def test_interlaced_png_becomes_plain(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, dtype: str, size: tuple[int, int]
) -> None:
    """Small sizes leave some of the seven passes empty."""
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = cases.picture(kind, *size, dtype=dtype)
    colours = ("grey16" if "grey" in kind else "rgb16") if dtype == "uint16" else ("b-w" if "grey" in kind else "srgb")
    pyvips.Image.new_from_array(samples, interpretation=colours).pngsave(str(path), interlace=True)
    assert path.read_bytes()[28] == 1
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    samples = samples.reshape(*size, -1)
    np.testing.assert_array_equal(source.read(source.header.box), samples)
    box = Box(size[0] // 2, size[1] // 2, size[0] - size[0] // 2, size[1] - size[1] // 2)
    fill = np.full((box.height, box.width, samples.shape[2]), 9, dtype)
    patch = Patch(box, fill, np.ones((box.height, box.width), np.bool_))
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    data = out.read_bytes()
    assert data[28] == 0
    now = cases.png16_samples(data) if dtype == "uint16" else cases.decode_elsewhere(out)
    np.testing.assert_array_equal(now, cases.filled(samples, source, [patch]))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_fill_never_turns_transparent_by_hitting_the_key_colour(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    samples = cases.picture(kind)
    key = (7, 8, 9) if kind == "rgb" else 7
    samples[:5, :5] = key
    Image.fromarray(samples).save(path, transparency=key)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert not source.header.has_alpha
    fill = np.empty((20, 20, source.header.num_bands), np.uint8)
    fill[...] = key
    patch = Patch(Box(40, 40, 20, 20), fill, np.ones((20, 20), np.bool_))
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    with Image.open(out) as image:
        assert image.info["transparency"] == key
        alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (alpha[:5, :5] == 0).all()
    assert (alpha[40:60, 40:60] == 255).all()
    now = cases.decode_elsewhere(out)[40:60, 40:60].astype(int)
    assert np.abs(now - fill).max() == 1
    near = fill[:1, :1] + np.arange(source.header.num_bands, dtype=np.uint8)[::-1]  # the key's last band alone
    np.testing.assert_array_equal(source.admissible(near), near if kind == "rgb" else near ^ 1)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("kind", ["rgb", "rgba"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_webp_keeps_samples_and_metadata(tmp_path: Path, kind: str, lossless: bool, orientation: int) -> None:
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    samples = cases.picture(kind)
    if kind == "rgba":
        samples[:20, :, 3] = 0  # colours under full transparency are samples too
    Image.fromarray(samples).save(
        path, lossless=lossless, exact=True, quality=85,
        icc_profile=cases.icc_profile(), exif=cases.exif_block(orientation), xmp=cases.XMP,
    )  # fmt: skip
    source, patches = cases.restore(path, out)
    np.testing.assert_array_equal(
        cases.decode_elsewhere(out), cases.filled(cases.decode_elsewhere(path), source, patches)
    )
    with Image.open(path) as one, Image.open(out) as two:
        assert one.mode == two.mode
        for key in ("icc_profile", "exif", "xmp"):
            assert one.info[key] == two.info[key]
        assert two.getexif()[0x0112] == orientation


@pytest.mark.parametrize("lossless", [False, True])
def test_plain_webp_stays_plain(tmp_path: Path, lossless: bool) -> None:
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    Image.fromarray(cases.picture("rgb", 64, 65)).save(path, lossless=lossless)
    cases.restore(path, out)
    assert out.read_bytes()[12:16] == b"VP8L"


def test_webp_with_opaque_alpha_still_has_alpha(tmp_path: Path) -> None:
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    body = webp._encode(np.full((9, 9, 4), 255, np.uint8))
    container = b"WEBPVP8L" + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) & 1)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(container)) + container)
    opaque = open_image(path, max_bytes=cases.NO_LIMIT)
    assert opaque.header.has_alpha
    assert (opaque.read(opaque.header.box) == 255).all()
    cases.restore(path, out)
    with Image.open(out) as image:
        assert image.mode == "RGBA"


@pytest.mark.parametrize("lossless", [False, True])
def test_webp_keeps_an_alpha_that_only_its_pixels_tell_of(tmp_path: Path, lossless: bool) -> None:
    """Decoders heed it, whatever the flag in front says."""
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    Image.fromarray(cases.picture("rgba")).save(path, lossless=lossless, exact=True, exif=cases.exif_block(1))
    data = bytearray(path.read_bytes())
    assert data[12:16] == b"VP8X"
    data[20] &= ~0x10
    path.write_bytes(data)
    source, patches = cases.restore(path, out)
    assert source.header.has_alpha
    before = cases.decode_elsewhere(path)
    assert before.shape[2] == 4
    np.testing.assert_array_equal(cases.decode_elsewhere(out), cases.filled(before, source, patches))


@pytest.mark.parametrize("kind", ["rgb", "rgba"])
@pytest.mark.parametrize("shape", [(9, 16383), (16383, 9)])
def test_webp_of_the_largest_side_that_there_is(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    samples = cases.picture(kind, *shape)
    if kind == "rgba":
        samples[:4, :, 3] = 0
    Image.fromarray(samples).save(path, lossless=True, exact=True)
    source, patches = cases.restore(path, out)
    np.testing.assert_array_equal(cases.decode_elsewhere(out), cases.filled(samples, source, patches))


def test_webp_keeps_what_stands_behind_its_end(tmp_path: Path) -> None:
    path, out = tmp_path / "a.webp", tmp_path / "b.webp"
    Image.fromarray(cases.picture("rgb")).save(path)
    with path.open("ab") as file:
        file.write(b"a motion picture")
    source, patches = cases.restore(path, out)
    assert out.read_bytes().endswith(b"a motion picture")
    out.write_bytes(out.read_bytes()[:-1])
    with pytest.raises(RowError, match="changed on the way"):
        verify_written(source, patches, out, jpeg="patch")


def test_png_does_not_say_where_pixels_stood(tmp_path: Path) -> None:
    """Programs of Apple write that, and then refuse a file whose pixels stand elsewhere."""
    path, out = tmp_path / "a.png", tmp_path / "b.png"
    data = cases.encoded(Image.fromarray(cases.picture("rgb")), "PNG", dpi=(300, 300))
    place = data.index(b"IDAT") - 4
    places = cases.png_chunk(b"iDOT", struct.pack(">7I", 2, 0, 49, 40, 49, 48, 9000))
    path.write_bytes(data[:place] + places + data[place:])
    cases.restore(path, out)
    kinds = [kind for kind, _ in split_chunks(out.read_bytes())]
    assert [kind for kind in kinds if kind != b"IDAT"] == [b"IHDR", b"pHYs", b"IEND"]


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_jpeg_can_leave_as_png(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.png"
    Image.fromarray(cases.picture(kind)).save(
        path, icc_profile=cases.icc_profile(), exif=cases.exif_block(8), dpi=(300, 300),
        xmp=cases.XMP, comment=b"a note",
    )  # fmt: skip
    resources = b"8BIM\x04\x04\x00\x00\x00\x00\x00\x0e\x1c\x02\x78\x00\x09A caption" + bytes(70)
    segment = b"\xff\xed" + struct.pack(">H", 16 + len(resources)) + b"Photoshop 3.0\x00" + resources
    data = path.read_bytes()
    tables = data.index(b"\xff\xdb")
    path.write_bytes(data[:tables] + segment + data[tables:])
    source, patches = cases.restore(path, out, jpeg="lossless")
    np.testing.assert_array_equal(
        cases.decode_elsewhere(out), cases.filled(cases.decode_elsewhere(path), source, patches)
    )
    with Image.open(path) as one, Image.open(out) as two:
        assert two.format == "PNG"
        assert one.info["icc_profile"] == two.info["icc_profile"]
        assert one.getexif() == two.getexif()
        assert two.getexif()[0x0112] == 8
        assert two.info["dpi"] == pytest.approx((300, 300), abs=0.02)
        assert two.info["XML:com.adobe.xmp"] == cases.XMP.decode()
        assert two.info["Comment"] == "a note"
        name, length, *digits = two.info["Raw profile type iptc"].split()
        assert (name, int(length), bytes.fromhex("".join(digits))) == ("iptc", len(resources), resources)


@pytest.mark.parametrize("comment", [b"a note", "Größe, Ökonomie, 図".encode(), "Größe".encode("latin-1")])
def test_comments_of_a_jpeg_can_be_read_in_its_png(tmp_path: Path, comment: bytes) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.png"
    Image.fromarray(cases.picture("rgb")).save(path, comment=comment)
    cases.restore(path, out, jpeg="lossless")
    with Image.open(out) as image:
        assert image.info["Comment"] in (comment.decode(errors="replace"), comment.decode("latin-1"))
        assert ("ö" in image.info["Comment"]) == (comment != b"a note")


@pytest.mark.parametrize(("across", "down"), [(16, 11), (1, 1)])
def test_the_shape_of_pixels_stays_in_a_png(tmp_path: Path, across: int, down: int) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.png"
    Image.fromarray(cases.picture("rgb")).save(path)
    data = bytearray(path.read_bytes())
    assert data[6:11] == b"JFIF\x00"
    data[13:18] = struct.pack(">BHH", 0, across, down)
    path.write_bytes(data)
    cases.restore(path, out, jpeg="lossless")
    with Image.open(out) as image:
        assert image.info.get("aspect") == ((across, down) if across != down else None)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_wrong_output_is_caught(tmp_path: Path, suffix: str) -> None:
    path, out = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(cases.picture("rgb")).save(path, **options)
    source, patches = cases.restore(path, out)
    wrong = cases.decode_elsewhere(out).copy()
    wrong[3, 3, 0] ^= 1
    Image.fromarray(wrong).save(out, **options)
    with pytest.raises(RowError) as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE
    out.write_bytes(out.read_bytes()[:-200])
    with pytest.raises(RowError) as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE
    out.unlink()
    with pytest.raises(RowError) as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code == FailureCode.WRITE


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_nowhere_to_write_is_a_write_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(cases.picture("rgb")).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError) as caught:
        write_filled(source, cases.patches_for(source), tmp_path / "no folder" / "b", jpeg="patch")
    assert caught.value.code == FailureCode.WRITE
    assert caught.value.retryable


class TornFile(io.FileIO):
    """A file on a disk with a damaged place."""

    def readinto(self, _buffer: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def readall(self) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def no_copy(*_: object) -> int:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("is_filled", [True, False])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jp2"])
def test_a_source_that_cannot_be_read_any_more_is_no_fault_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, is_filled: bool
) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(cases.picture("rgb")).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.read(source.header.box)
    plain = Path.open

    def torn(self: Path, mode: str = "r", buffering: int = -1, **options: object) -> object:
        if self != path:
            return plain(self, mode, buffering, **options)
        return io.BufferedReader(TornFile(self)) if buffering else TornFile(self)

    monkeypatch.setattr(Path, "open", torn)
    monkeypatch.setattr(os, "copy_file_range", no_copy, raising=False)
    with pytest.raises(RowError, match=rf"the image .*a\{suffix} could not be read: Input/output error") as caught:
        write_filled(source, cases.patches_for(source) if is_filled else [], tmp_path / "b", jpeg="patch")
    assert (caught.value.code, caught.value.retryable) == (FailureCode.READ, True)


def test_a_tiff_whose_untouched_end_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(cases.picture("rgb")).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.read(source.header.box)
    error = byte_ranges.UnreadableError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))
    monkeypatch.setattr(tiff_patch, "copy_range", Mock(side_effect=error))
    with pytest.raises(RowError, match=r"the image .*a\.tif could not be read") as caught:
        write_filled(source, cases.patches_for(source), tmp_path / "b.tif", jpeg="patch")
    assert caught.value.code == FailureCode.READ


def test_a_patch_that_does_not_fit_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(cases.picture("rgb")).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    fits = np.zeros((20, 20, 3), np.uint8)
    for box, samples, hole_px in (
        (Box(90, 0, 20, 20), fits, 20),
        (Box(0, 0, 19, 20), fits, 20),
        (Box(0, 0, 20, 20), fits.astype(np.uint16), 20),
        (Box(0, 0, 20, 20), fits[..., :2], 20),
        (Box(0, 0, 20, 20), fits[:, :19], 20),
        (Box(0, 0, 20, 20), fits, 19),
        (Box(0, 0, 20, 0), fits[:, :0], 0),
    ):
        patch = Patch(box, samples, np.ones((20, hole_px), np.bool_))
        with pytest.raises(ValueError, match="does not fit"):
            write_filled(source, [patch], tmp_path / "b.png", jpeg="patch")


@given(st.data())
def test_any_picture_and_any_hole_round_trip(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("round")
    suffix = data.draw(st.sampled_from([".png", ".webp"]))
    num_bands = data.draw(st.sampled_from([3, 4] if suffix == ".webp" else [1, 2, 3, 4]))
    height_px, width_px = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    samples = rng.integers(0, 256, (height_px, width_px, num_bands), dtype=np.uint8)
    path, out = folder / f"a{suffix}", folder / f"b{suffix}"
    Image.fromarray(samples[..., 0] if num_bands == 1 else samples).save(path, lossless=True, exact=True)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    patches = []
    for _ in range(data.draw(st.integers(0, 3))):
        top, left = int(rng.integers(height_px)), int(rng.integers(width_px))
        box = Box(top, left, int(rng.integers(1, height_px - top + 1)), int(rng.integers(1, width_px - left + 1)))
        fill = rng.integers(0, 256, (box.height, box.width, source.header.num_bands), dtype=np.uint8)
        patches.append(Patch(box, fill, rng.random((box.height, box.width)) < 0.5))
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    expected = cases.filled(cases.decode_elsewhere(path), source, patches)
    np.testing.assert_array_equal(cases.decode_elsewhere(out), expected)
