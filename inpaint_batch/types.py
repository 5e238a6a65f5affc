"""The house contracts: what the words mean, once.

**Arrays.** Images inside the package are RGB, float32 in [0, 1]; shape (height, width, 3), "HWC", in NumPy
and (batch, 3, height, width), "BCHW", in torch and in every engine. Samples as they stand in a file keep
the file's own dtype and number of bands and are called *samples*, never *image*.

**Hole.** `hole` is true (1.0 in engines) where pixels are missing and shall be filled. The word *mask* is used for
the file a user hands us, and for nothing else. A model adapter alone may flip polarity or range.

**Known samples are never changed.** Every sample outside the hole leaves exactly as it came, at the depth of its file.

**Units** stand in names: `_px`, `_bytes`, `_s`; counts are `num_*`. Boxes are (top, left, height, width) in pixels,
in the orientation in which the file stores its pixels (an orientation tag is kept, never applied).

**Same in, same out.** One row with the same options and engine gives the same bytes, whatever the executor, the
number of workers, the batch a tile shared, or how often the run was killed and resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
"""float32, RGB in [0, 1] unless said otherwise."""
BoolArray = NDArray[np.bool_]
SampleArray = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32] | NDArray[np.int32] | NDArray[np.float32]
"""(height, width, bands) in the dtype of the file; fewer than 8 bits and palette indices as uint8, never scaled."""


class BoolMap(Protocol):
    """What is true of the pixels of an image: an array, or what can be read like one, part by part.

    Maps of large images are not kept as arrays (see `holes/sparse.py`).
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width)."""
        ...

    def __getitem__(self, key: tuple[slice, slice], /) -> BoolArray:
        """The part in those rows and columns, (h, w); a view or a copy, not to be written to."""
        ...


class Box(NamedTuple):
    """A rectangle of pixels: rows [top, bottom) and columns [left, right)."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """The first row below."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """The first column to the right."""
        return self.left + self.width

    @property
    def area_px(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this box in an array whose first two axes are rows and columns."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def expand(self, margin_px: int) -> Box:
        """This box grown by `margin_px` on every side (it may then leave the image)."""
        return Box(self.top - margin_px, self.left - margin_px, self.height + 2 * margin_px, self.width + 2 * margin_px)

    def shift(self, rows: int, columns: int) -> Box:
        """This box moved down and to the right."""
        return Box(self.top + rows, self.left + columns, self.height, self.width)

    def intersect(self, other: Box) -> Box:
        """The common part; height and width are 0 where there is none."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Box(top, left, max(0, bottom - top), max(0, right - left))

    def union(self, other: Box) -> Box:
        """The smallest box that holds both."""
        top, left = min(self.top, other.top), min(self.left, other.left)
        return Box(top, left, max(self.bottom, other.bottom) - top, max(self.right, other.right) - left)

    def contains(self, other: Box) -> bool:
        """Whether all of `other` lies inside."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and self.bottom >= other.bottom
            and self.right >= other.right
        )


class Row(msgspec.Struct, frozen=True):
    """One line of a manifest: one image to restore."""

    id: str
    """Unique in the manifest; the `id` column, or the output path where there is none."""
    line: int
    """Line in the manifest (the header is line 1), or the ordinal of the file in a folder; for messages only."""
    image: str
    """Path or URI of the source, already resolved against the folder of the manifest."""
    mask: str
    """Path or URI of the mask, resolved like `image`; the image itself where the hole is drawn in it."""
    output: str
    """Where the result goes, relative to the output folder, with forward slashes; never absolute, never with `..`."""
    truth: str | None = None
    """The undamaged image, where it is known; used by evaluation only."""
    options: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Per-row overrides, by the name of the option (`mask_polarity`, `dilate`, ...), as text from the manifest."""

    def inputs(self) -> Iterator[tuple[str, str]]:
        """What is read of the row, as far as it is named: its role (image, mask, truth), and where it lies."""
        named = (("image", self.image), ("mask", self.mask), ("truth", self.truth))
        return ((role, location) for role, location in named if location)


STAGES = ("header", "read", "plan", "infer", "blend", "write", "verify")
"""Where the time of a row goes: opening the image (`header`), fetching and decoding image and mask (`read`), finding
holes and windows (`plan`), its share of the engine's time (`infer`), cutting tiles out and blending them in (`blend`),
encoding, syncing, sending (`write`), comparing the result with its source (`verify`)."""

ImageFormat = Literal["jpeg", "png", "tiff", "webp", "jp2"]
FORMAT_SUFFIXES: Mapping[str, ImageFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
    ".jp2": "jp2",
}
"""What a file name promises about its format, in lower case; the usual suffix of each format comes first. What a file
is, its first bytes tell."""
IMAGE_SUFFIXES = frozenset(FORMAT_SUFFIXES)
"""What counts as an image where a folder is searched."""
UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".avif", ".jxl", ".gif", ".bmp", ".psd", ".dpx", ".exr", ".j2k", ".j2c", ".jpx", ".jpf")
)
"""Images that are not read. In a folder they fail by name, where passing over them in silence would lose them."""
NAMED_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES
"""What is an image by its name, whether it is read or not."""
SampleType = Literal["uint8", "uint16", "uint32", "int32", "float32"]
ColourModel = Literal["light", "ink", "palette"]
"""What the colour bands hold: light (grey or RGB), ink (CMYK, 0 is bare paper), or one index into a palette."""


@dataclass(frozen=True, slots=True)
class Header:
    """What the first bytes of an image file say about it; no pixel has been read yet."""

    format: ImageFormat
    width_px: int
    height_px: int
    num_bands: int
    """Samples per pixel in the file, alpha included."""
    dtype: SampleType
    has_alpha: bool
    """Whether the last band is alpha. It leaves as it came, except where it was itself the mask: fills are opaque."""
    orientation: int = 1
    """EXIF orientation 1..8. Pixels are never rotated; a mask drawn on the upright view is turned back instead."""
    model: ColourModel = "light"
    levels: tuple[float, float] | None = None
    """Sample values that stand for RGB 0 and 1; None means 0 and the largest value of `dtype`. Known samples may lie
    beyond them, fills may not.
    """
    palette: bytes = b""
    """Red, green, blue and alpha of every entry, 8 bits each; empty unless `model` is "palette"."""
    ink_profile: bytes = field(default=b"", repr=False)
    """ICC profile that says what the inks look like; empty where there is none, and unless `model` is "ink"."""
    is_premultiplied: bool = False
    """Whether light of 8 or 16 bits is stored multiplied by alpha, and so is never more than that."""
    no_data: float | None = None
    """A value of samples, not NaN, that stands for none at all, as elevation models have one."""
    has_coefficients: bool = False
    """Whether the file holds coefficients of JPEG, which are patched in the place of samples."""

    @property
    def num_colours(self) -> int:
        """1 for grey and palette indices, 3 for RGB, 4 for CMYK."""
        return self.num_bands - int(self.has_alpha)

    @property
    def white(self) -> int:
        """The largest value of 8 or 16 bits."""
        return 255 if self.dtype == "uint8" else 65535

    @property
    def opaque(self) -> int:
        """Alpha where nothing shines through; of at most 16 bits."""
        if self.model == "palette":
            return len(self.palette) // 4 - 1  # as many bits as an index
        if self.dtype == "uint8" and self.levels is not None:
            return int(self.levels[1])
        return self.white

    @property
    def box(self) -> Box:
        """The whole image."""
        return Box(0, 0, self.height_px, self.width_px)

    @property
    def num_pixels(self) -> int:
        """Width times height."""
        return self.width_px * self.height_px

    @property
    def decoded_bytes(self) -> int:
        """Size of all samples in memory."""
        return self.num_pixels * self.num_bands * np.dtype(self.dtype).itemsize


class HasHole(Protocol):
    """A box of an image, and where in it the hole is."""

    @property
    def box(self) -> Box:
        """In pixels of the image."""
        ...

    @property
    def hole(self) -> BoolArray:
        """(box.height, box.width)."""
        ...


class HolePart(NamedTuple):
    """What of a hole lies in a box."""

    box: Box
    hole: BoolArray
    """(box.height, box.width)."""


@dataclass(frozen=True, slots=True)
class Patch:
    """New samples for one box of an image; only those under `hole` may be written."""

    box: Box
    samples: SampleArray
    """(box.height, box.width, bands) in the dtype of the source, alpha included."""
    hole: BoolArray
    """(box.height, box.width); where it is false the file keeps its own samples."""
    with_alpha: bool = False
    """Whether alpha is written as well; otherwise the file keeps its own everywhere."""
