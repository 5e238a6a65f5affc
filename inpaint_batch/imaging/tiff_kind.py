"""What the samples of a TIFF page mean, and which kinds of page can be kept exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import fax, tiff_jpeg
from inpaint_batch.imaging.colour import as_ink_profile
from inpaint_batch.imaging.file_errors import damaged, refuse
from inpaint_batch.imaging.tiff_codec import CODECS
from inpaint_batch.imaging.tiff_layers import has_layers
from inpaint_batch.types import ColourModel, SampleType

_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_NUM_COLOURS = {_MIN_IS_WHITE: 1, _MIN_IS_BLACK: 1, _RGB: 3, _PALETTE: 1, _SEPARATED: 4}
_NUM_JPEG_COLOURS = {_MIN_IS_BLACK: 1, _RGB: 3, _SEPARATED: 4, _YCBCR: 3}
_MODELS: dict[int, ColourModel] = {_PALETTE: "palette", _SEPARATED: "ink"}
_PHOTOMETRICS = {
    4: "a TIFF transparency mask",
    _YCBCR: "a YCbCr TIFF",
    8: "a CIELab TIFF",
    9: "an ICCLab TIFF",
    10: "an ITULab TIFF",
    32803: "a TIFF of raw camera samples",
    32844: "a LogL TIFF",
    32845: "a LogLuv TIFF",
    34892: "a TIFF of raw camera samples",
}
_LOSSY = {
    6: "old-style JPEG",
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
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
}
_FAX = {2: "CCITT RLE", 3: "CCITT fax 3", 32771: "CCITT RLE"}
_UNSIGNED, _SIGNED, _FLOAT, _UNDEFINED = 1, 2, 3, 4
_NUMBERS = {_SIGNED: "signed integer", _FLOAT: "floating-point", 5: "complex", 6: "complex"}
_DTYPES: dict[tuple[int, int], SampleType] = {
    (_UNSIGNED, 1): "uint8",
    (_UNSIGNED, 2): "uint8",
    (_UNSIGNED, 4): "uint8",
    (_UNSIGNED, 8): "uint8",
    (_UNSIGNED, 16): "uint16",
    (_UNSIGNED, 32): "uint32",
    (_SIGNED, 32): "int32",
    (_FLOAT, 32): "float32",
}
_CMYK_INKS = 1
_ASSOCIATED = 1
"""Value of ExtraSamples: alpha, and the colours are multiplied by it."""
_ALPHA = [_ASSOCIATED], [2]
_PREDICTORS = {"u": (1, 2), "i": (1, 2), "f": (1, 2, 3)}


@dataclass(frozen=True, slots=True)
class TiffKind:
    """The meaning of the samples of one page."""

    dtype: SampleType
    depth: int
    """Bits of one sample in the file; 1, 2 and 4 become uint8."""
    model: ColourModel
    has_alpha: bool
    is_premultiplied: bool
    """As in `Header`."""
    is_min_white: bool
    palette: bytes
    """As in `Header`."""
    ink_profile: bytes
    """As in `Header`."""
    is_reversed: bool = False
    """Whether the lowest bit of each byte comes first, as some fax machines want it."""
    has_unknown_band: bool = False
    """Whether it is not said that the band beside the colours is alpha; it is kept as if it were."""
    is_ycbcr: bool = False
    """Whether the segments, which are JPEG streams then, hold YCbCr. It is decoded to RGB, and patched as it is."""

    @property
    def has_free_range(self) -> bool:
        """Whether neither the depth nor the format says which values are black and white."""
        return self.depth == 32


def recognise(path: Path, page: tifffile.TiffPage) -> TiffKind:
    """What one page holds; raises `RowError` (read) for what cannot be kept exactly."""
    width_px, height_px = int(page.imagewidth), int(page.imagelength)
    num_bands, depth = int(page.samplesperpixel), _depth(page)
    if not width_px or not height_px or not num_bands:
        raise damaged(path, "its directory makes no sense")
    _refuse_coding(path, page)
    photometric, is_jpeg = int(page.photometric), int(page.compression) == tiff_jpeg.COMPRESSION
    if photometric not in (_NUM_JPEG_COLOURS if is_jpeg else _NUM_COLOURS):
        kind = _PHOTOMETRICS.get(photometric, f"a TIFF of photometric {photometric}")
        raise refuse(path, f"{kind} with JPEG compression" if is_jpeg else kind, "convert it to RGB first")
    dtype = _sample_type(path, page, depth)
    model = _MODELS.get(photometric, "light")
    _refuse_combination(path, page, model, depth)
    num_colours = (_NUM_JPEG_COLOURS if is_jpeg else _NUM_COLOURS)[photometric]
    if is_jpeg:
        _refuse_jpeg(path, page, num_colours)
    if num_bands not in (num_colours, num_colours + 1):
        extra = tuple(int(kind) for kind in page.extrasamples)
        raise refuse(path, f"a TIFF of {num_bands} samples per pixel ({extra} extra)", "keep the colours and one alpha")
    profile = page.tags.valueof(34675, default=b"") if model == "ink" else b""
    return TiffKind(
        dtype=dtype,
        depth=depth,
        model=model,
        has_alpha=num_bands > num_colours,
        is_premultiplied=(
            [int(extra) for extra in page.extrasamples] == [_ASSOCIATED]
            and photometric in (_MIN_IS_BLACK, _RGB)
            and depth in (8, 16)
        ),
        is_min_white=photometric == _MIN_IS_WHITE,
        palette=_palette(path, page, depth) if model == "palette" else b"",
        ink_profile=as_ink_profile(bytes(profile)),
        is_reversed=int(page.fillorder) != 1,
        has_unknown_band=num_bands > num_colours and [int(extra) for extra in page.extrasamples] not in _ALPHA,
        is_ycbcr=photometric == _YCBCR,
    )


def _refuse_coding(path: Path, page: tifffile.TiffPage) -> None:
    if has_layers(page):
        kind = "a TIFF with layers of Photoshop, which would open them and not the filled picture"
        raise refuse(path, kind, "save a copy without layers")
    compression = int(page.compression)
    bilevel = "save it with CCITT fax 4, LZW, Deflate or PackBits"
    if compression in _LOSSY:
        raise refuse(path, f"a TIFF with {_LOSSY[compression]} compression", tiff_jpeg.SAVE_LOSSLESS)
    if compression in _FAX:
        raise refuse(path, f"a bilevel TIFF with {_FAX[compression]} compression, which has no encoder here", bilevel)
    if int(page.fillorder) != 1 and _depth(page) != 1:
        raise refuse(path, "a TIFF with reversed bit order", "save it again with any current program")
    if compression == fax.GROUP_4:
        if (_depth(page), int(page.samplesperpixel)) != (1, 1):
            raise damaged(path, "it has fax compression and is not bilevel")
        return
    if compression == tiff_jpeg.COMPRESSION:
        return
    if compression not in CODECS:
        name = getattr(page.compression, "name", str(compression))
        raise refuse(path, f"a TIFF with {name} compression", tiff_jpeg.SAVE_LOSSLESS)
    codec = CODECS[compression]
    if not codec.is_available():
        message = f"the image {path} needs the {codec.name} codec; install it with `pip install 'imagecodecs[all]'`"
        raise RowError(FailureCode.READ, message)


def _refuse_jpeg(path: Path, page: tifffile.TiffPage, num_colours: int) -> None:
    """Raise `RowError` (read) for what JPEG segments hold that is not patched; the message tells what to do."""
    if _depth(page) != 8:
        raise refuse(path, f"a {_depth(page)}-bit TIFF with JPEG compression", tiff_jpeg.SAVE_LOSSLESS)
    if int(page.samplesperpixel) != num_colours:
        raise refuse(path, "a TIFF with alpha and JPEG compression, which blurs both", tiff_jpeg.SAVE_LOSSLESS)
    if int(page.photometric) == _YCBCR and int(page.planarconfig) != 1:
        raise refuse(path, "a YCbCr TIFF whose bands lie apart", tiff_jpeg.SAVE_LOSSLESS)


def _sample_type(path: Path, page: tifffile.TiffPage, depth: int) -> SampleType:
    if depth < 0:
        raise refuse(path, "a TIFF whose bands differ in depth", "save it with one depth for all")
    sample_format = int(page.sampleformat)
    if sample_format == _UNDEFINED:  # the TIFF specification: to be read as if nothing were said
        sample_format = _UNSIGNED
    if (sample_format, depth) not in _DTYPES:
        name = _NUMBERS.get(sample_format, "integer")
        raise refuse(path, f"a {depth}-bit {name} TIFF", "convert it to 8- or 16-bit unsigned integers")
    dtype = _DTYPES[sample_format, depth]
    predictor = int(page.predictor)
    if predictor not in _PREDICTORS[np.dtype(dtype).kind] or (depth < 8 and predictor != 1):
        kind = f"a {depth}-bit TIFF with predictor {predictor}"
        raise refuse(path, kind, "save it with LZW, Deflate or ZSTD and without a predictor")
    return dtype


def _refuse_combination(path: Path, page: tifffile.TiffPage, model: ColourModel, depth: int) -> None:
    if model == "palette" and depth > 8:
        raise refuse(path, f"a palette TIFF of {depth} bits", "convert it to RGB first")
    if model == "ink" and depth not in (8, 16):
        raise refuse(path, f"a CMYK TIFF of {depth} bits", "convert it to 8 or 16 bits first")
    if model == "ink" and int(page.tags.valueof(332, default=_CMYK_INKS)) != _CMYK_INKS:
        raise refuse(path, "a TIFF of inks other than CMYK", "convert it to CMYK or RGB first")


def _palette(path: Path, page: tifffile.TiffPage, depth: int) -> bytes:
    colours = page.colormap
    if colours is None or colours.shape != (3, 1 << depth):
        raise damaged(path, "its palette is missing or incomplete")
    entries = np.full((1 << depth, 4), 255, np.uint8)
    # The format wants 16 bits, but some writers put 8 there.
    entries[:, :3] = (colours >> 8 if colours.max() > 255 else colours).T
    return entries.tobytes()


def _depth(page: tifffile.TiffPage) -> int:
    """Bits per sample; -1 where bands differ."""
    bits = page.bitspersample
    return int(bits) if isinstance(bits, int) else -1
