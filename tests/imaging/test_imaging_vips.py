"""The one place that sets libvips up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvips

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import vips


def test_only_the_four_formats_are_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"></svg>')
    with pytest.raises(RowError) as caught:
        vips.open_file(path, "mask")
    assert caught.value.code == FailureCode.READ
    assert "pyvips[binary]" in caught.value.message
    with pytest.raises(RowError):
        vips.open_bytes(b"GIF89a" + bytes(40), path)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 1), (5, 7, 3), (1, 9, 4)])
def test_samples_keep_their_bands(tmp_path: Path, shape: tuple[int, int, int], dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    path = tmp_path / "a.png"
    interpretation = f"{'grey' if shape[2] < 3 else 'rgb'}16" if dtype == np.uint16 else None
    pyvips.Image.new_from_array(pixels, interpretation=interpretation).pngsave(str(path))
    for image in (vips.open_file(path), vips.open_bytes(path.read_bytes(), path)):
        np.testing.assert_array_equal(vips.samples(image, path), pixels)


@pytest.mark.parametrize("name", ["mask[1]", "mask[page=3].png", "m\udcffask.png", "ma sk.png[n=-1]"])
def test_any_file_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    path.write_bytes(pyvips.Image.new_from_array(pixels).pngsave_buffer())
    np.testing.assert_array_equal(vips.samples(vips.open_file(path), path), pixels)


@pytest.mark.parametrize(
    ("text", "code", "retryable", "words"),
    [
        ("unable\n  tiff2vips: ZSTD compression support is not configured\n" * 90, "read", False, "libvips42"),
        ("unable\n  VipsJpeg: premature end of JPEG image\n", "read", False, "truncated"),
        ("unable\n  unix error: Input/output error\n", "read", True, "disk or share"),
        ("unable\n  vips_malloc: out of memory --- size == 400MB\n", "memory", True, "fewer workers"),
        ('VipsForeignLoad: "a.webp" is not a known file format', "read", False, "pyvips[binary]"),
        ("unable\n  tiff2vips: Decoding error at scanline 0\n", "read", False, "damaged"),
        ("", "read", False, "damaged"),
    ],
)
def test_complaints_say_what_to_do(text: str, code: str, retryable: bool, words: str) -> None:
    with pytest.raises(RowError) as caught, vips.explaining(Path("m.tif"), "mask"):
        raise pyvips.Error(text)
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert words in caught.value.message
    assert "mask m.tif" in caught.value.message


@pytest.mark.parametrize("chosen", [None, "3"])
def test_one_thread_unless_told_otherwise(chosen: str | None) -> None:
    program = (
        f"import os; chosen = {chosen!r}; os.environ.pop('VIPS_CONCURRENCY', None)\n"
        "if chosen: os.environ['VIPS_CONCURRENCY'] = chosen\n"
        "import inpaint_batch.imaging.vips, pyvips\n"
        "print(os.environ['VIPS_CONCURRENCY'], pyvips.cache_get_max())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [chosen or "1", "0"]


@pytest.mark.parametrize("module", ["cli.main", "training.data", "holes.synthesise", "imaging.read"])
def test_who_needs_no_libvips_does_not_load_it(module: str) -> None:
    program = f"import sys, inpaint_batch.{module}; print('pyvips' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
