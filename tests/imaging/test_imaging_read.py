"""Opening: what is refused, with which code and words, and that refusing costs no pixel."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import imagecodecs
import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.imaging.file_errors import reading, verifying, writing
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.tiff_codec import CODECS, Codec
from inpaint_batch.types import Box


def refusal(path: Path, max_bytes: int = cases.NO_LIMIT, *, pixels: bool = False) -> RowError:
    def look() -> None:
        source = open_image(path, max_bytes=max_bytes)
        if pixels:
            source.read(source.header.box)

    with pytest.raises(RowError) as caught:
        look()
    assert str(path) in caught.value.message or len(caught.value.message) == 300
    return caught.value


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
@pytest.mark.parametrize("kind", cases.BANDS)
def test_header_and_samples_match_an_independent_decoder(tmp_path: Path, suffix: str, kind: str) -> None:
    if (suffix == ".jpg" and kind not in ("grey", "rgb")) or (suffix == ".webp" and "grey" in kind):
        pytest.skip("the format has no such bands")
    path = tmp_path / f"a{suffix}"
    samples = cases.picture(kind)
    if suffix == ".tif":
        photometric = "minisblack" if "grey" in kind else "rgb"
        extra = ["unassalpha"] if "a" in kind[-1:] and kind != "grey" else None
        tifffile.imwrite(path, samples, photometric=photometric, extrasamples=extra)
    else:
        Image.fromarray(samples).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    header = source.header
    assert (header.height_px, header.width_px, header.num_bands) == (97, 131, cases.BANDS[kind])
    assert (header.dtype, header.has_alpha, header.orientation) == ("uint8", "alpha" in kind or kind == "rgba", 1)
    box = Box(10, 20, 30, 40)
    np.testing.assert_array_equal(source.read(box), cases.decode_elsewhere(path)[box.slices])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_orientation_is_told_and_not_applied(tmp_path: Path, format: str, orientation: int) -> None:
    path = tmp_path / "turned"
    image = Image.fromarray(cases.picture("rgb"))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, format, exif=exif)
    header = open_image(path, max_bytes=cases.NO_LIMIT).header
    assert header.orientation == orientation
    assert (header.width_px, header.height_px) == image.size


def test_missing_empty_and_text_files_say_so(tmp_path: Path) -> None:
    missing = refusal(tmp_path / "no.jpg")
    assert missing.code == FailureCode.READ
    assert "does not exist" in missing.message
    assert "folder" in refusal(tmp_path).message
    for content, word in (
        (b"", "empty"),
        (b"hello, I am a letter\n" * 9, "not an image"),
        (b"GIF89a" + bytes(99), "a GIF"),
    ):
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        error = refusal(path)
        assert error.code == FailureCode.READ
        assert word in error.message
        assert not error.retryable


def test_name_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "really_a_png.jpg"
    Image.fromarray(cases.picture("rgb")).save(path, "PNG")
    assert open_image(path, max_bytes=cases.NO_LIMIT).header.format == "png"


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(cases.png_bomb())
    error = refusal(path, 1 << 30)  # one byte per pixel decoded, not one bit
    assert error.code == FailureCode.MEMORY
    assert "1907 MiB" in error.message


def test_budget_counts_bands_and_depth(tmp_path: Path) -> None:
    samples = cases.picture("rgba", dtype="uint16")
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, samples, photometric="rgb", extrasamples=["unassalpha"])
    open_image(path, max_bytes=samples.nbytes)
    assert refusal(path, samples.nbytes - 1).code == FailureCode.MEMORY
    # A tile far larger than the image is a bomb as well.
    data = bytearray(path.read_bytes())
    tiled = tmp_path / "b.tif"
    tifffile.imwrite(tiled, samples, tile=(64, 64), photometric="rgb", extrasamples=["unassalpha"], compression="zlib")
    with tifffile.TiffFile(tiled) as file:
        places = [file.pages.first.tags[code].valueoffset for code in (322, 323)]
    data = bytearray(tiled.read_bytes())
    for place in places:
        data[place : place + 2] = struct.pack("<H", 0xFFF0)
    tiled.write_bytes(data)
    assert refusal(tiled, 1 << 24).code == FailureCode.MEMORY


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
def test_truncated_files_are_read_errors(tmp_path: Path, format: str, part: float) -> None:
    path = tmp_path / "a.bin"
    options = {"compression": "tiff_lzw"} if format == "TIFF" else {"quality": 90} if format == "JPEG" else {}
    data = cases.encoded(Image.fromarray(cases.picture("rgb")), format, **options)
    path.write_bytes(data[: int(len(data) * part)])
    assert refusal(path, pixels=True).code == FailureCode.READ


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_without_its_end_is_truncated(tmp_path: Path, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    data = cases.encoded(Image.fromarray(cases.picture("rgb")), "JPEG", progressive=progressive)
    path.write_bytes(data[:-2])
    assert "truncated" in refusal(path, pixels=True).message


def test_truncated_zstd_segments_are_read_errors_not_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, cases.picture("rgb", 900), compression="zstd", photometric="rgb", rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        counts = file.pages.first.tags[279]
    data = bytearray(path.read_bytes())
    width = 2 if int(counts.dtype) == 3 else 4
    short = int.from_bytes(data[counts.valueoffset + 2 * width : counts.valueoffset + 3 * width], "little") // 2
    data[counts.valueoffset + 2 * width : counts.valueoffset + 3 * width] = short.to_bytes(width, "little")
    path.write_bytes(data)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    source.read(Box(850, 0, 16, 16))  # what is not decoded along with it is sound
    with pytest.raises(RowError, match="segment 2"):
        source.read(Box(33, 0, 1, 1))


@pytest.mark.parametrize("compression", ["lzw", "packbits", "zlib"])
def test_short_segments_are_read_errors_not_zeros(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, cases.picture("rgb"), compression=compression, photometric="rgb")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        offset, length = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset + length // 2 : offset + length] = bytes(length - length // 2)
    path.write_bytes(data)
    assert refusal(path, pixels=True).code == FailureCode.READ


def test_missing_codec_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, cases.picture("rgb"), compression="zstd", photometric="rgb")
    codec = CODECS[50000]
    absent = Codec(codec.name, codec.unpack, codec.pack, "NO_SUCH_CODEC")
    monkeypatch.setitem(CODECS, 50000, absent)
    error = refusal(path)
    assert error.code == FailureCode.READ
    assert "ZSTD" in error.message
    assert "imagecodecs" in error.message


def _animation(format: str):
    def save(path: Path) -> None:
        frames = [Image.fromarray(cases.picture("rgb", seed=seed)) for seed in (0, 1)]
        frames[0].save(path, format, save_all=True, append_images=frames[1:])

    return save


def _tiff(samples: np.ndarray, **options: object):
    return lambda path: tifffile.imwrite(path, samples, **options)


def _pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path) as file:
        file.write(cases.picture("rgb"), photometric="rgb", subifds=1)
        file.write(cases.picture("rgb"), photometric="rgb")  # not marked as a smaller version


def _arithmetic_jpeg(path: Path) -> None:
    data = bytearray(cases.encoded(Image.fromarray(cases.picture("rgb")), "JPEG"))
    data[data.find(b"\xff\xc0") + 1] = 0xC9
    path.write_bytes(data)


def _jpeg_sampled(factors: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        data = bytearray(cases.encoded(Image.fromarray(cases.picture("rgb")), "JPEG"))
        frame = data.find(b"\xff\xc0")
        data[frame + 11 : frame + 20 : 3] = factors
        path.write_bytes(data)

    return write


def _jpeg_of_late_height(path: Path) -> None:
    data = bytearray(cases.encoded(Image.fromarray(cases.picture("rgb")), "JPEG"))
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 7] = bytes(2)
    path.write_bytes(data)


REFUSED = {
    "lossless or arithmetic": lambda path: path.write_bytes(imagecodecs.jpegls_encode(cases.picture("rgb"))),
    "sampled 2 for 3": _jpeg_sampled(b"\x31\x21\x11"),
    "height is only told behind the pixels": _jpeg_of_late_height,
    "animated PNG": _animation("PNG"),
    "animated WebP": _animation("WEBP"),
    "2 pages": _animation("TIFF"),
    "arithmetic": _arithmetic_jpeg,
    "64-bit floating-point": _tiff(np.zeros((9, 9), np.float64)),
    "16-bit floating-point": _tiff(np.zeros((9, 9), np.float16)),
    "signed integer": _tiff(np.zeros((9, 9), np.int16)),
    "64-bit complex": _tiff(np.zeros((9, 9), np.complex64)),
    "64-bit integer": _tiff(np.zeros((9, 9), np.uint64)),
    "CCITT fax 3": lambda path: Image.fromarray(cases.picture("grey") > 99).save(path, "TIFF", compression="group3"),
    "palette TIFF of 16": _tiff(
        np.zeros((9, 9), np.uint16), photometric="palette", colormap=np.zeros((3, 65536), np.uint16)
    ),
    "CMYK TIFF of 32": _tiff(np.zeros((9, 9, 4), np.float32), photometric="separated"),
    "inks other than CMYK": _tiff(
        np.zeros((9, 9, 4), np.uint8), photometric="separated", extratags=[(332, 3, 1, 2, True)]
    ),
    "CIELab": _tiff(np.zeros((9, 9, 3), np.uint8), photometric="cielab"),
    "LogLuv": _tiff(np.zeros((9, 9, 3), np.uint16), photometric=32845),
    "WebP compression": _tiff(cases.picture("rgb"), photometric="rgb", compression="webp"),
    "a YCbCr TIFF": _tiff(cases.picture("rgb"), photometric="ycbcr", compression="zlib"),
    "sub-images": _pyramid,
    "5 samples": _tiff(np.zeros((9, 9, 5), np.uint8), photometric="rgb", planarconfig="contig"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_kinds_that_cannot_be_kept_are_named(tmp_path: Path, words: str) -> None:
    path = tmp_path / "a"
    REFUSED[words](path)
    error = refusal(path)
    assert error.code == FailureCode.READ
    assert words in error.message
    assert ";" in error.message  # and what to do about it


def test_threads_decode_once_and_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    samples = cases.picture("rgb")
    Image.fromarray(samples).save(path)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    views: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: views.append(source.read(source.header.box))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(views) == 8
    assert all(np.shares_memory(view, views[0]) for view in views)
    np.testing.assert_array_equal(views[0], samples)
    with pytest.raises(ValueError, match="read-only"):
        views[0][0, 0, 0] = 1
    source.close()
    np.testing.assert_array_equal(source.read(Box(0, 0, 2, 2)), samples[:2, :2])


def test_box_outside_the_image_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(cases.picture("rgb")).save(path)
    with pytest.raises(ValueError, match="leaves the image"):
        open_image(path, max_bytes=cases.NO_LIMIT).read(Box(0, 0, 98, 131))


def test_paths_that_lead_nowhere_say_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "dangling").symlink_to("gone.png")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "\u00e9.png").touch()
    (tmp_path / "b.PNG").touch()
    for name, said in (
        ("gone", "does not exist; correct"),
        ("dangling", "is a link to gone.png, which does not exist"),
        ("loop", "leads back to itself"),
        ("file/x.png", "below a file"),
        ("x" * 300, "name that is too long"),
        (r"C:\scans\x.png", "forward slashes"),
        ("pipe", "is a pipe"),
        ("e\u0301.png", "accents put together otherwise"),
        (" file", "without the spaces around its name does"),
        ("file ", "without the spaces around its name does"),
        ("b.png", "but b.PNG does; write its name as it is"),
    ):
        error = refusal(tmp_path / name)
        assert (error.code, error.retryable) == (FailureCode.READ, False)
        assert said in error.message


def test_a_long_path_does_not_push_out_what_to_do(tmp_path: Path) -> None:
    message = refusal(tmp_path / "/".join(["x" * 200] * 3)).message
    assert len(message) == 300
    assert message.endswith("does not exist; correct the path in the manifest")


@pytest.mark.parametrize("guard", [reading, writing, verifying])
def test_what_ends_the_run_is_not_blamed_on_a_file(
    tmp_path: Path, guard: Callable[[Path], AbstractContextManager[None]]
) -> None:
    with pytest.raises(StorageError, match="credentials expired"), guard(tmp_path / "a.png"):
        raise StorageError("cannot read: credentials expired")
