"""JPEG 2000 files, made by Pillow's OpenJPEG and read back by it."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import imaging_cases as cases
import numpy as np
import pytest
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jp2
from inpaint_batch.imaging.read import open_image

MODES = {"grey": "L", "grey_alpha": "LA", "rgb": "RGB", "rgba": "RGBA"}


def jp2_file(kind: str, **options: Any) -> bytes:
    return cases.encoded(Image.fromarray(cases.picture(kind), MODES[kind]), "JPEG2000", **options)


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


@pytest.mark.parametrize("options", [{}, {"tile_size": (64, 64)}, {"num_resolutions": 2, "mct": 0}])
@pytest.mark.parametrize("kind", MODES)
def test_known_samples_and_all_boxes_stay(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    path, out = tmp_path / "a.jp2", tmp_path / "b.jp2"
    exif = b"JpgTiffExif->JP2" + exif_of(6)
    more = box(b"uuid", exif) + box(b"uuid", jp2.XMP_UUID + cases.XMP) + box(b"xml ", b"<a/>")
    data = jp2_file(kind, **options, **({"comment": "made by hand"} if kind == "grey" else {}))
    path.write_bytes(data + more)
    source, patches = cases.restore(path, out)
    header = source.header
    assert (header.format, header.num_bands) == ("jp2", cases.BANDS[kind])
    assert header.has_alpha == (kind in ("grey_alpha", "rgba"))
    assert header.orientation == 6
    with Image.open(path) as one, Image.open(out) as other:
        before, after = (np.asarray(image).reshape(97, 131, -1) for image in (one, other))
        assert one.mode == other.mode
    np.testing.assert_array_equal(after, cases.filled(before, source, patches))
    assert out.read_bytes().endswith(more)
    assert box(*jp2.read_boxes(path)[2]) in out.read_bytes()  # jp2h
    codes = [dict(jp2.read_boxes(file))[b"jp2c"] for file in (path, out)]
    mixes, num_levels = zip(*(code[code.index(b"\xff\x52") :][8:10] for code in codes), strict=True)
    assert mixes[0] == mixes[1]
    assert (b"made by hand" in codes[1]) == (kind == "grey")
    heads = [code[: code.index(b"\xff\x90")] for code in codes]
    assert heads[0].count(b"\xff\x64") == heads[1].count(b"\xff\x64") > 0  # comments
    assert num_levels == (1, 1) if "num_resolutions" in options else num_levels[1] <= num_levels[0]


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes().removeprefix(b"Exif\x00\x00")


@pytest.mark.parametrize("kind", ["grey", "rgb"])
def test_sixteen_bits_stay(tmp_path: Path, kind: str) -> None:
    path, out = tmp_path / "a.jp2", tmp_path / "b.jp2"
    samples = cases.picture(kind, dtype="uint16")
    path.write_bytes(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="jp2", reversible=True))
    source, patches = cases.restore(path, out)
    assert source.header.dtype == "uint16"
    after = imagecodecs.jpeg2k_decode(out.read_bytes()).reshape(97, 131, -1)
    np.testing.assert_array_equal(after, cases.filled(samples.reshape(97, 131, -1), source, patches))
    assert out.stat().st_size < 1.05 * path.stat().st_size + 512


def test_sixteen_bits_with_alpha_stay(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jp2", tmp_path / "b.jp2"
    samples = cases.picture("rgba", dtype="uint16")
    boxes = dict(jp2.read_boxes(path, jp2_file("rgba")))
    boxes[b"jp2h"] = boxes[b"jp2h"].replace(b"\x00\x04\x07\x07", b"\x00\x04\x0f\x07")  # bands and depth
    boxes[b"jp2c"] = bytes(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="j2k", reversible=True))
    path.write_bytes(b"".join(box(*each) for each in boxes.items()))
    source, patches = cases.restore(path, out)
    assert (source.header.dtype, source.header.has_alpha) == ("uint16", True)
    after = imagecodecs.jpeg2k_decode(dict(jp2.read_boxes(out))[b"jp2c"])
    np.testing.assert_array_equal(after, cases.filled(samples, source, patches))


def test_long_and_open_box_lengths_are_read(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jp2", tmp_path / "b.jp2"
    boxes = jp2.read_boxes(path, jp2_file("rgb"))
    (kind, code) = boxes[-1]
    front = b"".join(box(*each) for each in boxes[:-1])
    for last in (struct.pack(">I4sQ", 1, kind, 16 + len(code)) + code, struct.pack(">I4s", 0, kind) + code):
        path.write_bytes(front + last)
        cases.restore(path, out)
        assert out.read_bytes().startswith(front)


def lossy() -> bytes:
    return jp2_file("rgb", irreversible=True, quality_mode="rates", quality_layers=[9])


def twelve_bits() -> bytes:
    samples = cases.picture("grey", dtype="uint16") >> 4
    return bytes(imagecodecs.jpeg2k_encode(samples, level=0, codecformat="jp2", reversible=True, bitspersample=12))


def patched(data: bytes, at: bytes, offset: int, fresh: bytes) -> bytes:
    start = data.index(at) + offset
    return data[:start] + fresh + data[start + len(fresh) :]


REFUSED = {
    "compressed with loss": lossy,
    "12 bits per sample": twelve_bits,
    "an extended JPEG 2000": lambda: patched(patched(jp2_file("rgb"), b"ftyp", 4, b"jpx "), b"ftyp", 12, b"jpx "),
    "other bands than grey or RGB": lambda: patched(jp2_file("rgb"), b"colr", 7, struct.pack(">I", 18)),
    "signed samples": lambda: patched(jp2_file("grey"), b"\xff\x51", 40, b"\x87"),
    "differ in size or depth": lambda: patched(jp2_file("rgb"), b"\xff\x51", 41, b"\x02\x02"),
    "bare JPEG 2000 code stream.*libopenjp2-tools": lambda: dict(jp2.read_boxes(Path(), jp2_file("rgb")))[b"jp2c"],
    "differ in size$|differ in size;": lambda: patched(jp2_file("rgb"), b"ihdr", 4, struct.pack(">I", 96)),
    "leaves the file": lambda: jp2_file("rgb")[:-9],
    "does not hold together": lambda: patched(jp2_file("rgb"), b"\xff\x52", 2, b"\x00\x01"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_kept_is_refused_by_name(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(REFUSED[reason]())
    with pytest.raises(RowError, match=reason) as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert (caught.value.code, caught.value.retryable) == (FailureCode.READ, False)


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(jp2_file("rgb"))
    with pytest.raises(RowError) as caught:
        open_image(path, max_bytes=97 * 131 * 3)
    assert caught.value.code == FailureCode.MEMORY


def test_a_truncated_code_stream_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    boxes = jp2.read_boxes(path, jp2_file("rgb"))
    path.write_bytes(b"".join(box(kind, body[: len(body) // 2] if kind == b"jp2c" else body) for kind, body in boxes))
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="damaged or truncated"):
        source.read(source.header.box)


def test_without_the_codec_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jp2"
    path.write_bytes(jp2_file("rgb"))
    monkeypatch.setattr(jp2.imagecodecs.JPEG2K, "available", False)
    with pytest.raises(RowError, match=r"imagecodecs\[all\]"):
        open_image(path, max_bytes=cases.NO_LIMIT)


OTHERS = {
    "a PDF.*poppler-utils": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    "a JPEG XL.*libjxl-tools": b"\xff\x0a" + bytes(30),
    "a JPEG XL.*djxl": b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(30),
    "an AVIF.*libavif-bin": b"\x00\x00\x00\x20ftypavif" + bytes(30),
    "a DPX.*TIFF of 16 bits": b"SDPX" + bytes(30),
    "an OpenEXR.*TIFF of 16 bits": b"\x76\x2f\x31\x01" + bytes(30),
    "a HEIC.*libheif-examples": b"\x00\x00\x00\x20ftypheic" + bytes(30),
    "a film.*ffmpeg": b"\x00\x00\x00\x20ftypisom" + bytes(30),
    "a raw file of a camera.*TIFF": b"\x00\x00\x00\x18ftypcrx " + bytes(30),
}


@pytest.mark.parametrize("told", OTHERS)
def test_what_is_not_read_is_named_with_a_way_out(tmp_path: Path, told: str) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(OTHERS[told])
    with pytest.raises(RowError, match=f"is {told}") as caught:
        open_image(path, max_bytes=cases.NO_LIMIT)
    assert caught.value.code == FailureCode.READ


def test_real_avif_and_jxl_files_are_recognised(tmp_path: Path) -> None:
    pixels = cases.picture("rgb")
    files = {"an AVIF": io.BytesIO(), "a JPEG XL": io.BytesIO(imagecodecs.jpegxl_encode(pixels))}
    Image.fromarray(pixels).save(files["an AVIF"], "AVIF")
    for kind, data in files.items():
        (tmp_path / "a.png").write_bytes(data.getvalue())
        with pytest.raises(RowError, match=f"is {kind}; only JPEG, PNG, TIFF, WebP and JPEG 2000"):
            open_image(tmp_path / "a.png", max_bytes=cases.NO_LIMIT)
