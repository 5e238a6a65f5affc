"""Every format, depth and layout with every option through whole runs, looked at by other readers than ours."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, get_args

import cv2
import matrix_files as files
import numpy as np
import pytest
import tifffile
from gallery import Gallery, ledger_lines, run
from numpy.typing import NDArray
from PIL import Image

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import RowsFailedError
from inpaint_batch.pipeline.verify import verify_manifest
from inpaint_batch.report.findings import FindingsPrinter
from inpaint_batch.types import FORMAT_SUFFIXES, ImageFormat

OPTIONS: dict[str, dict[str, str]] = {
    "plain": {},
    "dilated": {"dilate": "3"},
    "feathered": {"feather": "4"},
    "both": {"dilate": "2", "feather": "3", "mask_polarity": "black"},
}
REACH_PX = {"plain": 0, "dilated": 3, "feathered": 4, "both": 5}
"""How far beyond the mask samples may change."""
SMOOTHING_REACH_PX = 2
"""Decoders of JPEG with halved colours let a block reach this far into its neighbours."""
MCU_PX = 16
ADDRESS_TAGS = {273, 279, 324, 325}
VOLATILE_INFO = {"interlace", "progressive", "progression"}
SPARE_BYTES = 512
"""File size may grow by 5 % and so much: headers weigh more in small files."""
KINDS = dict(files.every_kind())


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the default model over all kinds with all options."""
    folder = tmp_path_factory.mktemp("matrix")
    gallery = Gallery(folder / "in")
    for name, mask in {"white": mask_of("plain"), "black": mask_of("both")}.items():
        gallery.folder.mkdir(exist_ok=True)
        Image.fromarray(mask).save(gallery.folder / f"{name}.png")
    for kind, data in KINDS.items():
        (gallery.folder / kind).write_bytes(data)
        for option, cells in OPTIONS.items():
            mask = "black.png" if option == "both" else "white.png"
            gallery.add_row(kind, mask, **cells)
            gallery.rows[-1] |= {"id": f"{option}/{kind}", "output": f"{option}/{kind}"}
    summary = run(gallery.manifest(), folder / "out", engine="auto", passes=1)
    failed = [line for line in ledger_lines(folder / "out") if line["status"] == "failed"]
    assert not failed
    assert summary["rows"]["done"] == len(KINDS) * len(OPTIONS)
    assert summary["precision"] in ("int8", "fp32")  # by processor
    return folder


def mask_of(option: str) -> NDArray[np.uint8]:
    mask = np.zeros((files.HEIGHT_PX, files.WIDTH_PX), np.uint8)
    top, left, height, width = files.HOLE
    mask[top : top + height, left : left + width] = 255
    return 255 - mask if option == "both" else mask


def hole_of(kind: str, option: str) -> NDArray[np.bool_]:
    """As the file stores its pixels: the mask has no orientation tag and fits the stored image, hence (where it fits
    the upright view as well) it was drawn on that.
    """
    mask = mask_of("plain")
    if kind.startswith(("orientation-2", "orientation-3", "orientation-4")):
        mask = {"2": mask[:, ::-1], "3": mask[::-1, ::-1], "4": mask[::-1]}[kind[12]]
    size = 2 * REACH_PX[option] + 1
    disc = cv2.getStructuringElement(cv2.MORPH_RECT, (size, size))
    return cv2.dilate(np.ascontiguousarray(mask), disc) > 0


def samples_of(path: Path) -> NDArray[Any]:
    if path.suffix == ".tif" and "fax" not in path.stem:  # for which tifffile needs a newer imagecodecs than we do
        with tifffile.TiffFile(path) as file:
            samples = file.pages.first.asarray()
            return np.moveaxis(samples, 0, -1) if int(file.pages.first.planarconfig) == 2 else samples
    if path.suffix == ".png" and path.stem.split("-")[-1] != "interlaced":
        deep = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)  # Pillow makes 16 bits 8
        if deep is not None and deep.dtype == np.uint16:
            return deep
    with Image.open(path) as image:
        return np.asarray(image)


def about(path: Path) -> dict[str, Any]:
    """All metadata that Pillow or tifffile find."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            tags = {tag.code: tag.value for tag in file.pages.first.tags if tag.code not in ADDRESS_TAGS}
            tags = {code: value.tobytes() if isinstance(value, np.ndarray) else value for code, value in tags.items()}
            return {"tags": tags, "big": file.is_bigtiff, "order": file.byteorder, "pages": len(file.pages)}
    with Image.open(path) as image:
        image.load()
        found = {name: value for name, value in image.info.items() if name not in VOLATILE_INFO}
        tags = image.getexif()
        return {
            "info": found,
            "exif": dict(tags),
            "camera": dict(tags.get_ifd(0x8769)),
            "mode": image.mode,
            "size": image.size,
            "format": image.format,
            "tables": getattr(image, "quantization", None),
            "sampling": getattr(image, "layer", None),
            "progressive": bool(image.info.get("progressive")),
        }


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_known_samples_metadata_and_size_stay(restored: Path, kind: str, option: str) -> None:
    source, result = restored / "in" / kind, restored / "out" / option / kind
    before, after = samples_of(source), samples_of(result)
    assert (before.shape, before.dtype) == (after.shape, after.dtype)
    hole = hole_of(kind, option)
    touched = hole
    if kind.endswith(".jpg") or kind.startswith("jpeg"):
        rows, columns = np.nonzero(hole)
        touched = np.zeros_like(hole)
        first, last = (int(edge(rows)) // MCU_PX * MCU_PX for edge in (np.min, np.max))
        left, right = (int(edge(columns)) // MCU_PX * MCU_PX for edge in (np.min, np.max))
        reach = SMOOTHING_REACH_PX
        touched[max(0, first - reach) : last + MCU_PX + reach, max(0, left - reach) : right + MCU_PX + reach] = True
    assert not touched.all()
    assert before[~touched].tobytes() == after[~touched].tobytes()
    if "bilevel" not in kind:  # of two levels, the fill may have hit the right ones
        assert (before[hole] != after[hole]).any()
    assert about(source) == about(result)
    allowed_bytes = 1.05 * (source.stat().st_size + touched_bytes(source, hole)) + SPARE_BYTES
    assert result.stat().st_size <= allowed_bytes


def test_verify_finds_all_of_them_sound(restored: Path) -> None:
    verify_manifest(
        RunConfig(output=restored / "out"), restored / "in" / "manifest.csv", masks=None, report=FindingsPrinter("text")
    )


def test_verify_finds_each_that_was_filled_beyond_its_hole(restored: Path, tmp_path: Path) -> None:
    gallery = Gallery(restored / "in")
    for kind in KINDS:
        gallery.add_row(kind, "white.png")
        gallery.rows[-1]["output"] = f"dilated/{kind}"
    told = io.StringIO()
    with pytest.raises(RowsFailedError):
        verify_manifest(
            RunConfig(output=restored / "out"),
            gallery.manifest("smaller.csv"),
            masks=None,
            report=FindingsPrinter("json", told),
        )
    *findings, totals = map(json.loads, told.getvalue().splitlines())
    unlike = {finding["id"] for finding in findings if "outside the hole" in finding["message"]}
    assert (set(KINDS) - unlike, totals["bad"]) == (set(), len(KINDS))


def touched_bytes(path: Path, hole: NDArray[np.bool_]) -> int:
    """Of a TIFF: what segments with a hole sample take, and its pyramid; what they leave behind stays in the file."""
    if path.suffix != ".tif":
        return 0
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        height, width = (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, page.imagewidth)
        columns = -(-page.imagewidth // width)
        rows = -(-page.imagelength // height)
        places = np.argwhere(hole) // (height, width)
        num_planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        in_plane = {int(row * columns + column) for row, column in places}
        touched = {index + plane * rows * columns for index in in_plane for plane in range(num_planes)}
        return sum(page.databytecounts[index] for index in touched) + sum(
            sum(p.databytecounts) for p in page.pages or ()
        )


def test_every_format_can_tell_of_its_results(tmp_path: Path) -> None:
    suffixes = {kind: suffix for suffix, kind in reversed(FORMAT_SUFFIXES.items())}
    assert set(suffixes) == set(get_args(ImageFormat)) == {FORMAT_SUFFIXES[Path(name).suffix] for name in KINDS}
    gallery = Gallery(tmp_path / "in")
    for kind, suffix in suffixes.items():
        gallery.add(f"{kind}{suffix}")
    summary = run(gallery.manifest(), tmp_path / "out", sidecar=True, premis=True, row={"xmp": True})
    assert summary["rows"]["done"] == len(suffixes)


def test_passes_and_lossless_jpegs(tmp_path: Path) -> None:
    """The options that belong to a run, not to a row."""
    gallery = Gallery(tmp_path / "in")
    gallery.folder.mkdir()
    Image.fromarray(mask_of("plain")).save(gallery.folder / "mask.png")
    chosen = [name for name in KINDS if name.endswith(".jpg") and name != "cmyk.jpg"]
    for name in chosen:
        gallery.add_row(name, "mask.png")
        (gallery.folder / name).write_bytes(KINDS[name])
    summary = run(gallery.manifest(), tmp_path / "out", engine="auto", passes=4, row={"jpeg": "lossless"})
    assert summary["rows"]["done"] == len(chosen)
    for name in chosen:
        source, result = tmp_path / "in" / name, tmp_path / "out" / f"{Path(name).stem}.png"
        before, after, hole = samples_of(source), samples_of(result), hole_of(name, "plain")
        np.testing.assert_array_equal(before[~hole], after[~hole])
        assert (before[hole] != after[hole]).any()
        was, now = about(source), about(result)
        assert was["exif"] == now["exif"]
        assert was["camera"] == now["camera"]
        for field in ("icc_profile", "xmp"):
            assert was["info"].get(field) == now["info"].get(field)
        assert now["info"]["dpi"] == pytest.approx(was["info"]["dpi"], rel=2e-4)  # PNG counts whole points per metre
