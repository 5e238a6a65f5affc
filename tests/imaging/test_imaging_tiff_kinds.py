"""TIFFs beyond 8- and 16-bit grey and RGB: ink, palettes, few bits, 32 bits, pages. Known samples stay bit by bit."""

from __future__ import annotations

import itertools
import struct
import warnings
from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image
from typer.testing import CliRunner

from inpaint_batch.cli.main import app
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.colour import rgb_to_samples, samples_to_rgb
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.write import verify_written, write_filled
from inpaint_batch.types import Box, Patch

ADDRESS_TAGS = {273, 279, 324, 325}
HOLE = Box(20, 30, 25, 40)


def stored(path: Path, page: int = 0) -> np.ndarray:
    """(h, w, bands) samples by tifffile, which has decoders of its own for predictors and for few bits."""
    with tifffile.TiffFile(path) as file:
        samples = file.pages[page].asarray()
        if samples.ndim == 3 and int(file.pages[page].planarconfig) == 2:
            samples = np.moveaxis(samples, 0, -1)
    return samples.reshape(*samples.shape[:2], -1)


def tags(path: Path, page: int = 0) -> dict[int, object]:
    with tifffile.TiffFile(path) as file:
        found = {tag.code: tag.value for tag in file.pages[page].tags if tag.code not in ADDRESS_TAGS}
    return {code: value.tobytes() if isinstance(value, np.ndarray) else value for code, value in found.items()}


def fill(source: ImageSource, colour: tuple[float, float, float], box: Box = HOLE) -> Patch:
    """What a run would do with an engine that answers one colour: through RGB and back."""
    original = source.read(box)
    seen = samples_to_rgb(original, source.header)
    assert seen.dtype == np.float32
    assert seen.shape == (box.height, box.width, 3)
    assert np.isfinite(seen).all()
    assert seen.min() >= 0
    assert seen.max() <= 1
    rgb = np.broadcast_to(np.float32(colour), seen.shape)
    hole = np.random.default_rng(0).random((box.height, box.width)) < 0.8
    return Patch(box, rgb_to_samples(rgb, original, source.header), hole)


def restore(path: Path, out: Path, colour: tuple[float, float, float] = (0.5, 0.5, 0.5), page: int | None = None):
    """Fill, write, verify; known samples and tags are compared here. Returns the source and the fill as stored."""
    source = open_image(path, max_bytes=cases.NO_LIMIT, page=page)
    patch = fill(source, colour)
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    index = (page or 1) - 1
    before, after = stored(path, index), stored(out, index)
    known = ~cases.hole_map(source, [patch])
    assert before.dtype == after.dtype
    assert before[known].tobytes() == after[known].tobytes()  # bytes, so that NaN counts as well
    assert tags(path, index) == tags(out, index)
    return source, after[~known]


PACKINGS = [(None, False), ("lzw", True), ("zlib", True), ("zstd", False), ("packbits", False)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(("compression", "predictor"), PACKINGS)
@pytest.mark.parametrize("planar", [False, True])
def test_cmyk(tmp_path: Path, compression: str | None, predictor: bool, planar: bool, dtype: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    inks = cases.picture("rgba", dtype=dtype)
    tifffile.imwrite(
        path, np.moveaxis(inks, -1, 0) if planar else inks, photometric="separated", compression=compression,
        predictor=predictor, planarconfig="separate" if planar else "contig", rowsperstrip=20,
    )  # fmt: skip
    source, filled = restore(path, out, (1.0, 0.0, 0.25))
    assert (source.header.model, source.header.num_colours, source.header.has_alpha) == ("ink", 4, False)
    white = np.iinfo(dtype).max
    np.testing.assert_array_equal(np.unique(filled, axis=0), [[0, white, np.rint(np.float32(0.75 * white)), 0]])


def test_cmyk_with_alpha_keeps_it(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = np.random.default_rng(0).integers(0, 256, (97, 131, 5), dtype=np.uint8)
    options = {"photometric": "separated", "extrasamples": ["unassalpha"], "planarconfig": "contig"}
    tifffile.imwrite(path, samples, **options)
    source, _ = restore(path, out)
    assert source.header.has_alpha
    np.testing.assert_array_equal(stored(path)[..., 4], stored(out)[..., 4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_cmyk_through_its_profile(tmp_path: Path, dtype: str) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    profile = bytes(pyvips.Operation.call("profile_load", "cmyk"))
    tifffile.imwrite(path, cases.picture("rgba", dtype=dtype), photometric="separated", iccprofile=profile)
    source, filled = restore(path, out, (0.6, 0.5, 0.4))
    assert source.header.ink_profile == profile
    # What the profile makes of the written inks is the colour that was asked for; the naive formula would miss it.
    seen = samples_to_rgb(filled[None], source.header)
    np.testing.assert_allclose(seen, np.broadcast_to(np.float32([0.6, 0.5, 0.4]), seen.shape), atol=0.02)
    naive = (1 - filled[..., :3] / np.iinfo(dtype).max) * (1 - filled[..., 3:] / np.iinfo(dtype).max)
    assert np.abs(naive - [0.6, 0.5, 0.4]).max() > 0.03


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("tile", [None, (32, 48)])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_bilevel(tmp_path: Path, photometric: str, tile: tuple[int, int] | None, compression: str | None) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    bits = cases.picture("grey") > 110
    layout = {"tile": tile} if tile else {"rowsperstrip": 13}
    tifffile.imwrite(path, bits, photometric=photometric, compression=compression, **layout)
    for level, bit in ((0.6, True), (0.4, False)):
        source, filled = restore(path, out, (level,) * 3)
        assert source.header.levels == (0, 1)
        assert (filled == (bit ^ (photometric == "miniswhite"))).all()
    with Image.open(path) as one, Image.open(out) as two:
        assert one.mode == two.mode == "1"
        outside = np.asarray(one) != np.asarray(two)
    outside[HOLE.slices] = False
    assert not outside.any()


@cases.newer_codecs
@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("width_px", [131, 132])
def test_grey_of_few_bits(tmp_path: Path, depth: int, width_px: int) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("grey", width_px=width_px) >> (8 - depth)
    tifffile.imwrite(path, samples, bitspersample=depth, photometric="minisblack", rowsperstrip=20)
    _, filled = restore(path, out, (0.35,) * 3)
    assert (filled == round(0.35 * ((1 << depth) - 1))).all()
    with tifffile.TiffFile(out) as file:
        assert file.pages.first.bitspersample == depth


@pytest.mark.parametrize("depth", [pytest.param(4, marks=cases.newer_codecs), 8])
def test_palette(tmp_path: Path, depth: int) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    indices = cases.picture("grey") >> (8 - depth)
    colours = np.random.default_rng(3).integers(0, 65536, (3, 1 << depth), dtype=np.uint16)
    colours[:, 5] = (65535, 0, 0)
    if depth == 8:
        tifffile.imwrite(path, indices, photometric="palette", colormap=colours, compression="zlib", rowsperstrip=16)
    else:  # tifffile wants 256 entries: write grey with the right palette, then name it what it is
        extra = [(320, 3, 48, colours.ravel().tolist(), True)]
        tifffile.imwrite(path, indices, photometric="minisblack", bitspersample=4, extratags=extra, rowsperstrip=16)
        with tifffile.TiffFile(path) as file:
            place = file.pages.first.tags[262].valueoffset
        data = bytearray(path.read_bytes())
        data[place] = 3
        path.write_bytes(data)
    source, filled = restore(path, out, (0.99, 0.01, 0.0))
    assert (filled == 5).all()
    seen = samples_to_rgb(source.read(source.header.box), source.header)
    np.testing.assert_allclose(seen, np.moveaxis(colours[:, indices], 0, -1) / 65535, atol=1 / 255)


def test_palette_with_alpha(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("grey_alpha")
    colours = np.random.default_rng(3).integers(0, 65536, (3, 256), dtype=np.uint16)
    options = {"planarconfig": "contig", "extrasamples": ["unassalpha"], "compression": "lzw"}
    extra = [(320, 3, 768, colours.ravel().tolist(), True)]
    tifffile.imwrite(path, samples, photometric="minisblack", extratags=extra, **options)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags[262].valueoffset
    data = bytearray(path.read_bytes())
    data[place] = 3
    path.write_bytes(data)
    source, _ = restore(path, out, (0.2, 0.4, 0.8))
    assert (source.header.model, source.header.num_colours, source.header.has_alpha) == ("palette", 1, True)
    np.testing.assert_array_equal(stored(path)[..., 1], stored(out)[..., 1])


WIDE = [
    (dtype, kind, compression, predictor, byteorder, planar)
    for dtype, kind, (compression, predictor), byteorder, planar in itertools.product(
        ["float32", "uint32", "int32"],
        cases.BANDS,
        [(None, None), ("zlib", None), ("lzw", 2), ("zstd", 3)],
        "<>",
        [False, True],
    )
    if not (planar and kind == "grey")  # one band is never planar
    # Floats have a predictor of their own; tifffile reads the other one as differences of numbers, not of bits.
    and predictor != (2 if dtype == "float32" else 3)
]


@pytest.mark.parametrize(("dtype", "kind", "compression", "predictor", "byteorder", "planar"), WIDE)
def test_32_bits(
    tmp_path: Path, dtype: str, kind: str, compression: str | None, predictor: int | None, byteorder: str, planar: bool
) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture(kind, dtype="uint16").astype(dtype) * (1 if dtype == "float32" else 30000)
    if dtype == "float32":
        samples = samples / 17 - 300
        samples[0, :3], samples[1, 1], samples[2, 2], samples[3, 3] = np.nan, np.inf, -np.inf, -0.0
    if dtype == "int32":
        samples -= 1 << 29
    options = {} if kind == "grey" else {"planarconfig": "separate" if planar else "contig"}
    tifffile.imwrite(
        path, np.moveaxis(samples, -1, 0) if planar else samples, compression=compression, predictor=predictor,
        byteorder=byteorder, photometric="minisblack" if "grey" in kind else "rgb", rowsperstrip=17,
        extrasamples=["unassalpha"] if kind in ("grey_alpha", "rgba") else None, **options,
    )  # fmt: skip
    source, filled = restore(path, out, (0.25, 0.25, 0.25))
    assert source.header.dtype == dtype
    low, high = source.header.levels
    num_colours = source.header.num_colours
    colours = stored(path)[..., :num_colours].astype(float)
    finite = colours[np.isfinite(colours)]
    assert finite.min() <= low < np.quantile(finite, 0.01)
    assert np.quantile(finite, 0.99) < high <= finite.max()
    np.testing.assert_allclose(filled[..., :num_colours], low + 0.25 * (high - low), rtol=1e-6, atol=1)


def test_32_bits_min_is_white(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = np.linspace(-5, 7, 97 * 131, dtype=np.float32).reshape(97, 131)
    tifffile.imwrite(path, samples, photometric="miniswhite")
    source, filled = restore(path, out, (1.0, 1.0, 1.0))
    assert samples_to_rgb(source.read(source.header.box), source.header)[0, 0, 0] == 1
    np.testing.assert_allclose(filled, -5, atol=0.05)


@pytest.mark.parametrize("value", [0.0, np.nan, 3e38])
def test_32_bits_of_one_value(tmp_path: Path, value: float) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    tifffile.imwrite(path, np.full((97, 131), value, np.float32), photometric="minisblack")
    restore(path, out)


def test_few_segments_are_looked_at_for_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    samples = np.tile(np.arange(512, dtype=np.float32), (512, 1))
    tifffile.imwrite(path, samples, tile=(16, 16), photometric="minisblack")
    header = open_image(path, max_bytes=cases.NO_LIMIT).header
    assert 0 <= header.levels[0] < 20
    assert 490 < header.levels[1] <= 511


def _pages(path: Path, **options: object) -> None:
    with tifffile.TiffWriter(path) as file:
        for seed, (kind, dtype) in enumerate([("rgb", "uint8"), ("grey", "uint16"), ("rgb", "uint8")]):
            photometric = "rgb" if kind == "rgb" else "minisblack"
            samples = cases.picture(kind, dtype=dtype, seed=seed)
            file.write(samples, photometric=photometric, compression="lzw", rowsperstrip=20, **options)


@pytest.mark.parametrize("page", [1, 2, 3])
def test_one_page_of_several(tmp_path: Path, page: int) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    _pages(path)
    source, _ = restore(path, out, page=page)
    assert source.header.dtype == ("uint16" if page == 2 else "uint8")
    for other in {1, 2, 3} - {page}:
        assert tags(path, other - 1) == tags(out, other - 1)
        np.testing.assert_array_equal(stored(path, other - 1), stored(out, other - 1))
        with tifffile.TiffFile(path) as one, tifffile.TiffFile(out) as two:
            assert one.pages[other - 1].dataoffsets == two.pages[other - 1].dataoffsets


def test_a_page_must_be_chosen_and_exist(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    _pages(path)
    for page, words in ((None, "3 pages.*`page` .1 to 3"), (0, "no page 0"), (4, "no page 4.*1 to 3")):
        with pytest.raises(RowError, match=words) as caught:
            open_image(path, max_bytes=cases.NO_LIMIT, page=page)
        assert caught.value.code == FailureCode.READ
    picture = tmp_path / "a.png"
    Image.fromarray(cases.picture("rgb")).save(picture)
    open_image(picture, max_bytes=cases.NO_LIMIT, page=1)
    with pytest.raises(RowError, match="no page 2"):
        open_image(picture, max_bytes=cases.NO_LIMIT, page=2)


def test_pages_that_share_pixels_part_before_one_is_filled(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    with tifffile.TiffWriter(path) as file:
        for seed in (0, 1):
            file.write(cases.picture("rgb", seed=seed), photometric="rgb")
    with tifffile.TiffFile(path) as file:
        offset, place = file.pages[0].dataoffsets[0], file.pages[1].tags[273].valueoffset
    data = bytearray(path.read_bytes())
    data[place : place + 4] = offset.to_bytes(4, "little")
    path.write_bytes(data)
    restore(path, out, page=2)
    np.testing.assert_array_equal(stored(path, 0), stored(out, 0))


@pytest.mark.parametrize(
    ("dtype", "no_data", "value"),
    [
        ("float32", "-9999", -9999),
        ("float32", "-3.4e+38", -3.4e38),
        ("float32", "-3.4028234663852886e+38", np.finfo(np.float32).min),
        ("float32", "1e300", 7),
        ("float32", "nan", np.nan),
        ("int32", "-2147483648", -(1 << 31)),
        ("uint32", "-9999", 7),
        ("float32", "none", 7),
    ],
)
def test_levels_leave_out_what_stands_for_no_data(tmp_path: Path, dtype: str, no_data: str, value: float) -> None:
    path = tmp_path / "a.tif"
    samples = np.random.default_rng(0).integers(5, 101, (90, 80)).astype(dtype)
    samples[:, :10] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(path, samples, extratags=[(42113, 2, len(no_data) + 1, no_data, True)])
    source, _ = restore(path, tmp_path / "b.tif")
    assert source.header.levels == (5, 100)


def _block(key: bytes, body: bytes, order: str, *, is_wide: bool = False) -> bytes:
    """One of those that Photoshop's data in a TIFF consist of."""
    head = b"8BIM" + key if order == ">" else b"MIB8" + key[::-1]
    return head + struct.pack(order + ("Q" if is_wide else "I"), len(body)) + body + bytes(-len(body) % 4)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("key", [b"Layr", b"Lr16"])
@pytest.mark.parametrize("is_wide", [False, True])
def test_layers_of_photoshop_are_refused(tmp_path: Path, order: str, key: bytes, is_wide: bool) -> None:
    """It opens them, and not the picture beside them that all others see."""
    path = tmp_path / "a.tif"
    name = b"Adobe Photoshop Document Data " + (b"V0002" if is_wide else b"Block") + b"\x00"
    others = _block(b"Mt16", b"", order, is_wide=is_wide) + _block(b"Patt", b"some bytes", order)
    for num_layers in (0, 1, -2):
        layers = _block(key, struct.pack(order + "h", num_layers) + bytes(9), order, is_wide=is_wide)
        data = name + others + layers + _block(b"FMsk", bytes(12), order, is_wide=is_wide)
        extra = [(37724, 7, len(data), data, True)]
        tifffile.imwrite(path, cases.picture("rgb"), photometric="rgb", byteorder=order, extratags=extra)
        if num_layers:
            with pytest.raises(RowError, match="layers of Photoshop"):
                open_image(path, max_bytes=cases.NO_LIMIT)
        else:
            restore(path, tmp_path / "b.tif")


@pytest.mark.parametrize("tail", [b"", b"8BIM", b"8BIMLayr\xff\xff\xff\xff", bytes(99)])
def test_what_photoshop_left_without_layers_is_kept(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.tif"
    data = b"Adobe Photoshop Document Data Block\x00" + tail
    extra = [(37724, 7, len(data), data, True)]
    tifffile.imwrite(path, cases.picture("rgb"), photometric="rgb", extratags=extra)
    restore(path, tmp_path / "b.tif")


def test_samples_of_an_undefined_kind_are_whole_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, cases.picture("grey").view(np.int8), photometric="minisblack")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[339].overwrite(4)
    source, _ = restore(path, tmp_path / "b.tif")
    assert source.header.dtype == "uint8"


def test_a_lost_nan_is_caught(tmp_path: Path) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = np.full((97, 131), np.nan, np.float32)
    tifffile.imwrite(path, samples, photometric="minisblack", rowsperstrip=97)
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    patch = fill(source, (0.5, 0.5, 0.5))
    write_filled(source, [patch], out, jpeg="patch")
    data = bytearray(out.read_bytes())
    data[source.layout.offsets[0]] ^= 1  # still NaN, but another one
    out.write_bytes(data)
    with pytest.raises(RowError, match="segment 0"):
        verify_written(source, [patch], out, jpeg="patch")


@pytest.mark.parametrize("planar", [False, True])
def test_levels_can_be_learnt_from_known_samples_alone(tmp_path: Path, planar: bool) -> None:
    path, out = tmp_path / "a.tif", tmp_path / "b.tif"
    samples = cases.picture("rgb").astype(np.float32)
    hole = np.zeros((97, 131), np.bool_)
    hole[HOLE.slices] = True
    samples[hole] = -9999
    tifffile.imwrite(
        path, np.moveaxis(samples, -1, 0) if planar else samples, photometric="rgb", rowsperstrip=10,
        planarconfig="separate" if planar else "contig",
    )  # fmt: skip
    source = open_image(path, max_bytes=cases.NO_LIMIT)
    assert source.header.levels[0] == -9999
    source.learn_levels(hole)
    assert samples[~hole].min() <= source.header.levels[0] < source.header.levels[1] <= samples[~hole].max()
    rgb = np.full((HOLE.height, HOLE.width, 3), 0.5, np.float32)
    patch = Patch(HOLE, rgb_to_samples(rgb, source.read(HOLE), source.header), hole[HOLE.slices])
    write_filled(source, [patch], out, jpeg="patch")
    verify_written(source, [patch], out, jpeg="patch")
    assert (stored(out)[hole] == np.float32(sum(source.header.levels) / 2)).all()
    everywhere = open_image(path, max_bytes=cases.NO_LIMIT)
    everywhere.learn_levels(np.ones((97, 131), np.bool_))
    assert everywhere.header.levels == (0, 1)


@pytest.mark.parametrize(("extra", "is_told"), [("unspecified", True), ("unassalpha", False), ("assocalpha", False)])
def test_a_band_that_nobody_explains_is_warned_of(tmp_path: Path, extra: str, is_told: bool) -> None:
    samples = np.full((60, 70, 4), 100, np.uint8)
    mask = np.zeros((60, 70), np.uint8)
    mask[20:30, 20:30] = 255
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", extrasamples=[extra])
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="minisblack")
    arguments = ["run", str(tmp_path / "a.tif"), "--masks", str(tmp_path / "m.tif")]
    done = CliRunner().invoke(app, [*arguments, "--output", str(tmp_path / "out"), "--engine", "identity"])
    assert done.exit_code == 0, done.output
    assert ("does not say what its band 4 is" in done.output) == is_told
