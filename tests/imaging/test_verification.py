"""Each way in which a written file can differ from what was meant is caught.

The wrong files are sound ones, written by the package from another source or with other patches: nothing but the
comparison can find out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from inpaint_batch.config import JpegMode
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jpeg_patch
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Patch

SIZE = (97, 131)


def save(path: Path, samples: np.ndarray, note: str = "one", **options: Any) -> Path:
    """A file with a note in its metadata."""
    match path.suffix:
        case ".tif":
            chosen = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb", "metadata": None}
            tifffile.imwrite(path, samples, description=note, **chosen, **options)
        case ".png":
            text = PngImagePlugin.PngInfo()
            text.add_text("Comment", note)
            Image.fromarray(samples).save(path, pnginfo=text)
        case ".webp":
            Image.fromarray(samples).save(path, lossless=True, exact=True, xmp=note.encode())
        case _:
            Image.fromarray(samples).save(path, comment=note, **options)
    return path


def shifted(patches: list[Patch]) -> list[Patch]:
    return [Patch(patch.box, patch.samples + np.uint8(40), patch.hole) for patch in patches]


def told(path: Path, other: Path, *, jpeg: JpegMode = "patch", fill: bool = True, tail: bytes = b"") -> str:
    """What is said of a file that was written from `other`, or with another fill, in the place of `path`."""
    source, wrong = (open_image(each, max_bytes=cases.NO_LIMIT) for each in (path, other))
    patches = cases.patches_for(source)
    out = path.with_name(f"out{path.suffix}" if jpeg == "patch" else "out.png")
    write_filled(wrong, patches if fill else shifted(patches), out, jpeg=jpeg)
    with out.open("ab") as file:
        file.write(tail)
    with pytest.raises(RowError) as caught:
        verify_written(source, patches, out, jpeg=jpeg)
    assert caught.value.code is FailureCode.WRITE
    return caught.value.message


@pytest.mark.parametrize(
    ("suffix", "difference", "expected"),
    [
        (".png", "sample", r": 1 pixels in rows 0 to 97 are wrong"),
        (".png", "fill", r"\d+ pixels in rows 0 to 97 are wrong"),
        (".png", "note", "its metadata changed"),
        (".png", "size", r"it has 131 x 102 px, 3 bands of uint8, orientation 1, not 131 x 97 px"),
        (".webp", "sample", r": 1 pixels in rows 0 to 97 are wrong"),
        (".webp", "fill", r"\d+ pixels in rows 0 to 97 are wrong"),
        (".webp", "note", "its metadata changed"),
        (".jp2", "sample", r": 1 pixels in rows 0 to 97 are wrong"),
        (".jp2", "fill", r"\d+ pixels in rows 0 to 97 are wrong"),
        (".jp2", "note", "its metadata changed"),
        (".tif", "sample", "bytes outside the filled segments changed"),
        (".tif", "fill", r"segment \d+ read back different"),
        (".tif", "note", "bytes outside the filled segments changed"),
        (".tif", "size", "its header changed"),
        (".jpg", "sample", "coefficients of known samples changed"),
        (".jpg", "fill", "the fill is not the one that was meant"),
        (".jpg", "note", "its metadata changed"),
        (".jpg", "size", "its size changed"),
    ],
)
def test_a_sample_the_fill_a_note_and_the_size_are_compared(
    tmp_path: Path, suffix: str, difference: str, expected: str
) -> None:
    samples = cases.picture("rgb", *SIZE)
    path = save(tmp_path / f"a{suffix}", samples)
    if difference == "sample":
        samples[3, 3, 0] ^= 128 if suffix == ".jpg" else 1
    if difference == "size":
        samples = cases.picture("rgb", SIZE[0] + 5, SIZE[1])
    other = save(tmp_path / f"b{suffix}", samples, "two" if difference == "note" else "one")
    assert re.search(expected, told(path, other, fill=difference != "fill"))


def test_a_segment_of_a_tiff_without_a_hole_must_not_move(tmp_path: Path) -> None:
    path, out = save(tmp_path / "a.tif", cases.picture("rgb", *SIZE)), tmp_path / "out.tif"
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    middle, corner = cases.patches_for(source)
    write_filled(source, [middle, corner], out, jpeg="patch")
    verify_written(source, [middle, corner], out, jpeg="patch")
    with pytest.raises(RowError, match=r"segment \d+ moved although it holds no hole"):
        verify_written(source, [middle], out, jpeg="patch")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"progressive": True}, "its kind of coding changed"),
        ({"subsampling": 0}, "its sampling changed"),
        ({"quality": 91}, "its quantisation changed"),
    ],
)
def test_the_way_of_coding_of_a_jpeg_is_compared(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    samples = cases.picture("rgb", *SIZE)
    path = save(tmp_path / "a.jpg", samples, quality=90)
    assert expected in told(path, save(tmp_path / "b.jpg", samples, **{"quality": 90, **options}))


def test_what_follows_the_picture_of_a_jpeg_is_compared(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", cases.picture("rgb", *SIZE))
    path.write_bytes(path.read_bytes() + b"more")
    assert "what follows the picture changed" in told(path, path, tail=b"!")


def test_a_jpeg_that_leaves_as_a_png_is_compared(tmp_path: Path) -> None:
    samples = cases.picture("rgb", *SIZE)
    path = save(tmp_path / "a.jpg", samples)
    other = save(tmp_path / "b.jpg", samples, "two")
    assert "its metadata is not that of the source" in told(path, other, jpeg="lossless")
    assert "are wrong" in told(path, path, jpeg="lossless", fill=False)
    samples[3, 3] ^= 128
    assert "are wrong" in told(path, save(other, samples), jpeg="lossless")


def test_coefficients_that_cannot_be_written_are_known_before_libjpeg_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Differences to the mean of a block lie within ±1023; the mean alone may also be -1024."""
    for row, column, value, expected in (
        (0, 0, 1023, True),
        (0, 0, 1024, False),
        (0, 0, -1024, True),
        (0, 0, -1025, False),
        (0, 1, -1023, True),
        (0, 1, -1024, False),
        (7, 7, -1023, True),
        (7, 7, -1024, False),
        (7, 7, 1024, False),
    ):
        plane = np.zeros((2, 3, 8, 8), np.int16)
        plane[1, 2, row, column] = value
        assert jpeg_patch._is_encodable(plane) is expected
    source = open_image(save(tmp_path / "a.jpg", cases.picture("rgb", *SIZE)), max_bytes=cases.NO_LIMIT)
    answers = iter([True, False, True])
    monkeypatch.setattr(jpeg_patch, "_is_encodable", lambda plane: next(answers))
    with pytest.raises(RowError, match=r"coefficients out of range .*jpeg=lossless"):
        write_filled(source, cases.patches_for(source), tmp_path / "b.jpg", jpeg="patch")


@pytest.mark.parametrize("gone", [Path("/proc/self/mem"), Path("gone.tif")])
@pytest.mark.parametrize("fill", [True, False])
def test_a_source_that_cannot_be_read_any_more_is_not_blamed_on_the_result(
    tmp_path: Path, gone: Path, fill: bool
) -> None:
    if gone.is_absolute() and not gone.exists():
        pytest.skip("there is no file here that cannot be read")
    path, out = save(tmp_path / "a.tif", cases.picture("rgb", *SIZE)), tmp_path / "b.tif"
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    patches = cases.patches_for(source) if fill else []
    write_filled(source, patches, out, jpeg="patch")
    source.path = gone
    with pytest.raises(RowError, match=str(gone)) as caught:
        verify_written(source, patches, out, jpeg="patch")
    assert caught.value.code is FailureCode.READ
