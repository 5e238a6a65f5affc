"""Quantised DCT coefficients in and out of a JPEG stream, through the libjpeg builds that jpeglib carries.

The C functions are called directly. jpeglib's Python layer keeps markers in global variables (not thread-safe, at
most 50 of them), renumbers components and writes past one of its own buffers; its two C functions for coefficients do
none of that. What they do is end the process on a fatal libjpeg error, so that callers must hand in only streams that
were decoded before, and coefficients within `LARGEST_AC` and `DC_RANGE`. Streams travel through memory files where
the system has them: a full disk would be such a fatal error.
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

import jpeglib
import numpy as np
from numpy.typing import NDArray

from inpaint_batch.imaging import jpeg_transcode
from inpaint_batch.imaging.jpeg_stream import JpegStream

Coefficients = NDArray[np.int16]
"""(block rows, block columns, 8, 8) int16, quantised, natural order: [..., vertical frequency, horizontal frequency].
"""

LARGEST_AC = 1023
DC_RANGE = (-1024, 1023)
_BUILD, _SLOW_PROGRESSIVE_BUILD = "turbo210", "mozjpeg403"
"""jpeglib's writer has no switch for progressive; MozJPEG writes nothing else, but takes three times as long."""
_OPTIMISE_CODING = 1 << 6
_ALL_FLAGS_ON = 0xFFFFFFFF
_COLOUR_SPACES = {"grey": 1, "rgb": 2, "ycbcr": 3, "cmyk": 4, "ycck": 5}
_MAX_COMPONENTS = 4
_QUANT_TABLE_BYTES = 4 * 64 * 2


@contextmanager
def opened_coefficients(data: bytes, stream: JpegStream) -> Iterator[list[Coefficients]]:
    """The coefficients of a sound JPEG, one array per component, until the context ends.

    They lie where libjpeg decoded them to, if the system lets it be called directly, else they are a copy. Raises
    `ValueError` if libjpeg gives up.
    """
    build = _build(_BUILD)
    with ExitStack() as held:
        planes = None
        if jpeg_transcode.is_available(build):
            with suppress(ValueError):
                planes = held.enter_context(jpeg_transcode.opened(build, data, _num_blocks(stream)))
        yield planes or _copied_coefficients(data, stream)


def edit_coefficients(
    data: bytes, stream: JpegStream, edit: Callable[[list[Coefficients]], None], *, has_own_tables: bool = True
) -> bytes:
    """`data` with its coefficients as `edit` leaves them: same frame, tables and components; optimal Huffman tables,
    or without `has_own_tables` (which is for baseline streams) those that annex K of the standard proposes. Restart
    markers are kept where the system lets libjpeg be called directly.

    `edit` is given one array per component, and must leave what `LARGEST_AC` and `DC_RANGE` allow. What the result says
    in APPn and COM segments is libjpeg's, not the source's. Raises what `edit` raises, and `ValueError` if libjpeg
    gives up, or where CMYK cannot be written on this system.
    """
    build = _build(_BUILD)
    num_components = len(stream.components)
    # jpeglib's own writer decodes the source a second time, and cannot write what makes a JPEG special.
    if jpeg_transcode.is_available(build):
        try:
            return jpeg_transcode.write(
                build,
                data,
                _num_blocks(stream),
                edit,
                is_progressive=stream.is_progressive,
                restart_interval=stream.restart_interval,
                restart_rows=stream.restart_rows,
                has_own_tables=has_own_tables,
            )
        except ValueError:  # there is a simpler way, unless it is CMYK
            if num_components == _MAX_COMPONENTS:
                raise
    if num_components == _MAX_COMPONENTS:
        raise ValueError("the jpeglib of this system cannot write CMYK")  # jpeglib forgets the fourth component
    if stream.is_progressive:
        build = _build(_SLOW_PROGRESSIVE_BUILD)
    planes = _copied_coefficients(data, stream)
    edit(planes)
    size = (ctypes.c_int * 2)(stream.height_px, stream.width_px)
    keep = ctypes.c_short(-1)
    with _as_path(data) as source, _as_path(b"") as destination:
        done = build.write_jpeg_dct(
            source,
            destination,
            *_pointers(planes),
            size,
            None,  # block counts: those of the source
            None,  # sampling factors: those of the source
            ctypes.c_int(_COLOUR_SPACES[stream.colours]),
            ctypes.c_int(-1),  # number of components: that of the source
            None,  # quantisation tables and component ids: those of the source
            keep,  # no quality
            None,
            ctypes.c_int(0),
            None,
            None,
            None,
            ctypes.c_uint(_OPTIMISE_CODING if has_own_tables else 0),
            ctypes.c_uint(_ALL_FLAGS_ON),
        )
        if not done:
            raise ValueError("its coefficients cannot be written")
        return Path(os.fsdecode(destination)).read_bytes()


def _copied_coefficients(data: bytes, stream: JpegStream) -> list[Coefficients]:
    planes = [np.empty((*shape, 8, 8), np.int16) for shape in _num_blocks(stream)]
    tables = ctypes.create_string_buffer(_QUANT_TABLE_BYTES)
    table_numbers = (ctypes.c_short * _MAX_COMPONENTS)()
    with _as_path(data) as path:
        done = _build(_BUILD).read_jpeg_dct(path, *_pointers(planes), tables, table_numbers)
    if not done:
        raise ValueError("its coefficients cannot be read")
    return planes


def _num_blocks(stream: JpegStream) -> list[tuple[int, int]]:
    return [stream.blocks(index) for index in range(len(stream.components))]


def _pointers(planes: Sequence[Coefficients]) -> list[ctypes.c_void_p | None]:
    absent = [None] * (_MAX_COMPONENTS - len(planes))
    return [*(plane.ctypes.data_as(ctypes.c_void_p) for plane in planes), *absent]


@cache
def _build(version: str) -> ctypes.CDLL:
    folder = Path(jpeglib.__file__).parent / "cjpeglib"
    found = [path for path in folder.glob(f"cjpeglib_{version}.*") if path.suffix in (".so", ".pyd", ".dll")]
    if not found:
        raise ValueError(f"jpeglib came without its {version} build; reinstall jpeglib")
    return ctypes.CDLL(str(found[0]))


@contextmanager
def _as_path(data: bytes) -> Iterator[bytes]:
    """A path under which C code can open (and rewrite) `data`."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
        descriptor = os.memfd_create("jpeg")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(data)
            yield f"/proc/self/fd/{descriptor}".encode()
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryDirectory(prefix="inpaint-batch-") as folder:
            path = Path(folder) / "stream.jpg"
            path.write_bytes(data)
            yield os.fsencode(path)
