"""Where the segments (strips or tiles) of a TIFF lie, how they are packed, and which TIFFs can be patched in place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tifffile

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.source import check_budget, damaged, refuse
from inpaint_batch.imaging.tiff_codec import CODECS
from inpaint_batch.types import Box

MIN_IS_WHITE, MIN_IS_BLACK, RGB = 0, 1, 2
_PHOTOMETRICS = {
    3: "a palette TIFF",
    4: "a TIFF transparency mask",
    5: "a CMYK TIFF",
    6: "a YCbCr TIFF",
    8: "a CIELab TIFF",
}
_LOSSY = {
    6: "old-style JPEG",
    7: "JPEG",
    34892: "lossy JPEG",
    50001: "WebP",
    34712: "JPEG 2000",
    33003: "JPEG 2000",
    33005: "JPEG 2000",
    34887: "LERC",
    34934: "JPEG XR",
    22610: "JPEG XR",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_BILEVEL = {2: "CCITT RLE", 3: "CCITT fax 3", 4: "CCITT fax 4"}
_UNSIGNED = 1


@dataclass(frozen=True, slots=True)
class ArrayTag:
    """Where the file keeps one array of the directory (offsets or lengths of segments)."""

    entry: int
    """File offset of its directory entry."""
    values: int
    """File offset of the values; inside the entry where they fit there."""
    kind: int
    """TIFF type: 3 SHORT, 4 LONG, 16 LONG8."""
    count: int


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """One image file directory, as far as reading and patching its segments needs it."""

    byte_order: Literal["<", ">"]
    is_big: bool
    width_px: int
    height_px: int
    num_bands: int
    dtype: Literal["uint8", "uint16"]
    has_alpha: bool
    orientation: int
    compression: int
    predictor: int
    is_planar: bool
    is_min_white: bool
    segment_px: tuple[int, int]
    """(height, width) of a full segment."""
    is_tiled: bool
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    offsets_tag: ArrayTag
    lengths_tag: ArrayTag | None
    """None where the file leaves the lengths out, which only uncompressed ones may."""

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of segments in one plane."""
        return -(-self.height_px // self.segment_px[0]), -(-self.width_px // self.segment_px[1])

    @property
    def segment_bands(self) -> int:
        """Bands in one segment."""
        return 1 if self.is_planar else self.num_bands

    def box(self, index: int) -> Box:
        """Pixels of the image that segment `index` holds."""
        rows, columns = self.grid
        row, column = divmod(index % (rows * columns), columns)
        height_px, width_px = self.segment_px
        whole = Box(row * height_px, column * width_px, height_px, width_px)
        return whole.intersect(Box(0, 0, self.height_px, self.width_px))

    def bands(self, index: int) -> slice:
        """Bands of the image that segment `index` holds."""
        if not self.is_planar:
            return slice(0, self.num_bands)
        rows, columns = self.grid
        plane = index // (rows * columns)
        return slice(plane, plane + 1)

    def stored_shape(self, index: int) -> tuple[int, int, int]:
        """(height, width, bands) as packed: tiles are always full, the last strip may be short."""
        height_px = self.segment_px[0] if self.is_tiled else self.box(index).height
        return height_px, self.segment_px[1], self.segment_bands

    def touching(self, box: Box) -> list[int]:
        """Indices of all segments that hold a pixel of `box`, in file order."""
        if not box.area_px:
            return []
        rows, columns = self.grid
        height_px, width_px = self.segment_px
        in_plane = [
            row * columns + column
            for row in range(box.top // height_px, -(-box.bottom // height_px))
            for column in range(box.left // width_px, -(-box.right // width_px))
        ]
        num_planes = self.num_bands if self.is_planar else 1
        return [plane * rows * columns + index for plane in range(num_planes) for index in in_plane]


def read_layout(path: Path, max_bytes: int) -> TiffLayout:
    """Layout of the only page of a TIFF; raises `RowError` (read, memory) naming what cannot be kept exactly."""
    with tifffile.TiffFile(path) as file:
        if not len(file.pages):
            raise damaged(path, "it holds no page")
        page = file.pages.first
        width_px, height_px = int(page.imagewidth), int(page.imagelength)
        num_bands, depth = int(page.samplesperpixel), _depth(page)
        if not width_px or not height_px or not num_bands:
            raise damaged(path, "its directory makes no sense")
        check_budget(path, width_px, height_px, num_bands * max(1, depth // 8), max_bytes)
        _refuse_unkeepable(path, page, len(file.pages), depth)
        extra = tuple(int(kind) for kind in page.extrasamples)
        num_colours = 3 if int(page.photometric) == RGB else 1
        if num_bands not in (num_colours, num_colours + 1):
            raise refuse(
                path, f"a TIFF of {num_bands} samples per pixel ({extra} extra)", "keep the colours and one alpha"
            )
        is_tiled = bool(page.is_tiled)
        if is_tiled:
            segment_px = int(page.tilelength), int(page.tilewidth)
        else:
            segment_px = min(int(page.rowsperstrip) or height_px, height_px), width_px
        check_budget(path, segment_px[1], segment_px[0], num_bands * depth // 8, max_bytes)
        offsets_tag, lengths_tag = (_tag(page, codes) for codes in ((324, 273), (325, 279)))
        orientation = int(page.tags.valueof(274, default=1))
        layout = TiffLayout(
            byte_order=file.byteorder,
            is_big=file.is_bigtiff,
            width_px=width_px,
            height_px=height_px,
            num_bands=num_bands,
            dtype="uint8" if depth == 8 else "uint16",
            has_alpha=num_bands > num_colours,
            orientation=orientation if 1 <= orientation <= 8 else 1,
            compression=int(page.compression),
            # Without one of the codecs that know predictors, readers ignore the tag.
            predictor=int(page.predictor) if CODECS[int(page.compression)].has_predictor else 1,
            is_planar=num_bands > 1 and int(page.planarconfig) == 2,
            is_min_white=int(page.photometric) == MIN_IS_WHITE,
            segment_px=segment_px,
            is_tiled=is_tiled,
            offsets=tuple(int(offset) for offset in page.dataoffsets),
            lengths=tuple(int(length) for length in page.databytecounts),
            offsets_tag=_require(path, offsets_tag),
            lengths_tag=lengths_tag,
        )
    _check_segments(path, layout, path.stat().st_size)
    return layout


def _refuse_unkeepable(path: Path, page: tifffile.TiffPage, num_pages: int, depth: int) -> None:
    if num_pages > 1:
        raise refuse(path, f"a TIFF of {num_pages} pages", "split it into single-page files")
    if 330 in page.tags:
        raise refuse(path, "a TIFF with sub-images (a pyramid or previews that would go stale)", "save it without them")
    compression, photometric = int(page.compression), int(page.photometric)
    if compression in _LOSSY:
        kind = f"a TIFF with {_LOSSY[compression]} compression"
        raise refuse(path, kind, "save it with lossless compression (LZW, Deflate or ZSTD)")
    if depth == 1 or compression in _BILEVEL:
        raise refuse(path, "a bilevel (1-bit) TIFF", "convert it to 8-bit grey first")
    if photometric not in (MIN_IS_WHITE, MIN_IS_BLACK, RGB):
        raise refuse(
            path, _PHOTOMETRICS.get(photometric, f"a TIFF of photometric {photometric}"), "convert it to RGB first"
        )
    if int(page.sampleformat) != _UNSIGNED or depth not in (8, 16):
        if depth < 0:
            raise refuse(path, "a TIFF whose bands differ in depth", "save it with one depth for all")
        kind = {2: "signed integer", 3: "floating-point"}.get(int(page.sampleformat), "integer")
        raise refuse(path, f"a {depth}-bit {kind} TIFF", "convert it to 8- or 16-bit unsigned integers")
    if int(page.fillorder) != 1:
        raise refuse(path, "a TIFF with reversed bit order", "save it again with any current program")
    if compression not in CODECS:
        name = getattr(page.compression, "name", f"unknown ({compression})")
        raise refuse(path, f"a TIFF with {name} compression", "save it with LZW, Deflate or ZSTD")
    codec = CODECS[compression]
    if not codec.is_available():
        message = f"The image {path} needs the {codec.name} codec; install it with `pip install 'imagecodecs[all]'`."
        raise RowError(FailureCode.READ, message)
    if int(page.predictor) not in (1, 2):
        raise refuse(path, f"a TIFF with predictor {int(page.predictor)}", "save it with LZW, Deflate or ZSTD")


def _depth(page: tifffile.TiffPage) -> int:
    """Bits per sample; -1 where bands differ."""
    bits = page.bitspersample
    return int(bits) if isinstance(bits, int) else -1


def _tag(page: tifffile.TiffPage, codes: tuple[int, ...]) -> ArrayTag | None:
    for code in codes:
        tag = page.tags.get(code)
        if tag is not None:
            return ArrayTag(int(tag.offset), int(tag.valueoffset), int(tag.dtype), int(tag.count))
    return None


def _require(path: Path, tag: ArrayTag | None) -> ArrayTag:
    if tag is None:
        raise damaged(path, "it does not say where its pixels are")
    return tag


def _check_segments(path: Path, layout: TiffLayout, file_bytes: int) -> None:
    rows, columns = layout.grid
    expected = rows * columns * (layout.num_bands if layout.is_planar else 1)
    if len(layout.offsets) != expected or len(layout.lengths) != expected or layout.offsets_tag.count != expected:
        raise damaged(path, f"it lists {len(layout.offsets)} segments where its size asks for {expected}")
    if layout.lengths_tag is None and layout.compression != 1:
        raise damaged(path, "it does not say how long its compressed segments are")
    if not all(layout.offsets):
        raise refuse(path, "a sparse TIFF (segments that were never written)", "save it again in full")
    ends = (offset + length for offset, length in zip(layout.offsets, layout.lengths, strict=True))
    if max(ends) > file_bytes:
        raise damaged(path, "it is truncated: pixels lie beyond its end")
