"""CMYK and YCCK JPEGs are patched in their own inks; restart markers stay."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import imaging_cases as cases
import jpeglib
import numpy as np
import pytest
import pyvips
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_stream, jpeg_transcode
from inpaint_batch.imaging.colour import rgb_to_samples, samples_to_rgb
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

COLOUR = (0.9, 0.45, 0.2)


def inks(height_px: int = 97, width_px: int = 131) -> np.ndarray:
    samples = cases.picture("rgba", height_px, width_px)
    samples[..., 3] = cases.picture("grey", height_px, width_px, seed=5) // 3
    return samples


def save(path: Path, kind: str, **options: object) -> None:
    """Write inks (0 is bare paper) as Photoshop does, inverted, or as a plain CMYK file without an Adobe segment."""
    if kind.startswith("ycck"):
        # imagecodecs writes what it is handed and says YCCK; a file in the wild is inverted.
        subsampling = options.get("subsampling", "444")
        path.write_bytes(
            imagecodecs.jpeg8_encode(
                255 - inks(), level=95, colorspace="CMYK", outcolorspace="YCCK", subsampling=subsampling
            )
        )
        if kind == "ycck-1":  # which transform it is nobody has defined; libjpeg takes all but 0 for YCCK
            data = path.read_bytes()
            path.write_bytes(data.replace(b"Adobe\x00\x64\x00\x00\x00\x00\x02", b"Adobe\x00\x64\x00\x00\x00\x00\x01"))
            assert path.read_bytes() != data
        return
    Image.fromarray(inks(), "CMYK").save(path, "JPEG", quality=95, **options)  # inverted, with an Adobe segment
    if kind == "plain":
        data = path.read_bytes()
        start = data.index(b"\xff\xee")
        path.write_bytes(data[:start] + data[start + 16 :])


def coefficients(path: Path) -> list[np.ndarray]:
    image = jpeglib.read_dct(str(path))
    return [image.Y, image.Cb, image.Cr, image.K]


def assert_only_blocks_with_holes_changed(path: Path, out: Path, hole: np.ndarray) -> None:
    stream = jpeg_stream.parse(path.read_bytes())
    for index, (old, new) in enumerate(zip(coefficients(path), coefficients(out), strict=True)):
        down, across = stream.subsampling(index)
        changed = (old != new).any(axis=(2, 3))
        assert changed.any(), f"component {index} is as it was"
        for row, column in zip(*np.nonzero(changed), strict=True):
            cell = hole[row * 8 * down : (row + 1) * 8 * down, column * 8 * across : (column + 1) * 8 * across]
            assert cell.any(), f"block {row}, {column} of component {index} has no hole"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("cmyk", {}),
        ("cmyk", {"progressive": True}),
        ("cmyk", {"restart_marker_rows": 2}),
        ("plain", {}),
        ("ycck", {}),
        ("ycck", {"subsampling": "420"}),
        ("ycck-1", {}),
    ],
)
def test_inks_are_filled_and_known_blocks_stay(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    save(path, kind, **options)
    assert jpeg_stream.parse(path.read_bytes()).colours == ("ycck" if kind.startswith("ycck") else "cmyk")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert (source.header.model, source.header.num_colours, source.header.has_alpha) == ("ink", 4, False)
    box = Box(16, 32, 48, 64)
    original = source.read(box)
    if kind != "plain":  # Pillow takes every CMYK JPEG for an inverted one
        np.testing.assert_array_equal(original, np.asarray(Image.open(path))[box.slices])
    rgb = np.broadcast_to(np.float32(COLOUR), (48, 64, 3))
    patch = Patch(box, rgb_to_samples(rgb, original, source.header), np.ones((48, 64), np.bool_))
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    assert_only_blocks_with_holes_changed(path, out, cases.hole_map(source, [patch]))
    with Image.open(path) as one, Image.open(out) as two:
        before, after = np.asarray(one).astype(int), np.asarray(two).astype(int)
        assert one.info.get("progressive") == two.info.get("progressive")
        assert one.info.get("adobe_transform") == two.info.get("adobe_transform")
        assert one.layer == two.layer
    fill = 255 - patch.samples if kind == "plain" else patch.samples
    inside = Box(24, 40, 32, 48).slices
    assert np.abs(after[inside] - fill[8:-8, 8:-8]).max() <= 3
    seen = samples_to_rgb(open_image(out, max_bytes=cases.NO_LIMIT).read(Box(24, 40, 32, 48)), source.header)
    np.testing.assert_allclose(seen, np.broadcast_to(np.float32(COLOUR), seen.shape), atol=0.02)
    far = np.ones(before.shape[:2], np.bool_)
    far[Box(8, 24, 64, 80).slices] = False  # smooth upsampling reaches one sample of chroma further
    np.testing.assert_array_equal(before[far], after[far])


def test_ink_profile_of_a_jpeg_is_used_and_kept(tmp_path: Path) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    profile = bytes(pyvips.Operation.call("profile_load", "cmyk"))
    save(path, "cmyk", icc_profile=profile)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert source.header.ink_profile == profile
    patches = cases.patches_for(source)
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    with Image.open(out) as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("profile", [b"", b"\x00" * 16 + b"CMYK" + b"\x01" * 300, cases.icc_profile()])
def test_a_useless_profile_falls_back_to_the_simple_separation(tmp_path: Path, profile: bytes) -> None:
    path = tmp_path / "a.jpg"
    save(path, "cmyk", icc_profile=profile)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    samples = source.read(source.header.box)
    amounts = samples.astype(np.float64) / 255
    simple = (1 - amounts[..., :3]) * (1 - amounts[..., 3:])
    np.testing.assert_allclose(samples_to_rgb(samples, source.header), simple, atol=1e-6)


def test_cmyk_cannot_leave_as_png(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    save(path, "cmyk")
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="jpeg=patch") as caught:
        write_filled(source, [], tmp_path / "b.png", jpeg="lossless")
    assert caught.value.code == FailureCode.WRITE


def test_where_libjpeg_is_hidden_cmyk_is_an_error_and_not_half_a_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    save(path, "cmyk")
    monkeypatch.setattr(jpeg_transcode, "is_available", lambda _: False)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    with pytest.raises(RowError, match="cannot write CMYK") as caught:
        write_filled(source, cases.patches_for(source), tmp_path / "b.jpg", jpeg="patch")
    assert caught.value.code == FailureCode.WRITE


@pytest.mark.parametrize("kind", ["grey", "rgb"])
@pytest.mark.parametrize("options", [{"restart_marker_blocks": 5}, {"restart_marker_rows": 1, "progressive": True}])
def test_restart_markers_stay(tmp_path: Path, kind: str, options: dict[str, object]) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(cases.picture(kind)).save(path, quality=90, **options)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    patches = cases.patches_for(source)
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    before, after = (jpeg_stream.parse(file.read_bytes()) for file in (path, out))
    assert before.restart_interval == after.restart_interval > 0

    def num_restarts(file: Path) -> int:
        return sum(file.read_bytes().count(bytes((0xFF, code))) for code in range(0xD0, 0xD8))

    assert num_restarts(path) == num_restarts(out) > 0


def test_without_access_to_the_settings_restart_markers_go_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = tmp_path / "a.jpg", tmp_path / "b.jpg"
    Image.fromarray(cases.picture("rgb")).save(path, quality=90, restart_marker_blocks=5)
    monkeypatch.setattr(jpeg_transcode, "_KNOWN_VERSION", 0)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    patches = cases.patches_for(source)
    write_filled(source, patches, out, jpeg="patch")
    verify_written(source, patches, out, jpeg="patch")
    assert jpeg_stream.parse(out.read_bytes()).restart_interval == 0
