"""Change coefficients where libjpeg holds them, and write any common kind of JPEG: libjpeg-turbo's C interface.

jpeglib's own writer has no switch for progressive coding, drops restart markers, and forgets the fourth component of
CMYK. Of its builds only MozJPEG writes progressive files, and tries dozens of ways to cut the scans before it does:
3.4 s for 15 megapixels where libjpeg's standard ten scans take 1.1 s. So the library behind jpeglib is called directly.
Little here depends on how its structures are laid out: on the leading fields that every libjpeg has had in common since
1991, and on a few neighbours of a field whose place is found by looking. It is asked for the size of the rest.

As with jpeglib's own functions, a fatal libjpeg error ends the process: hand in only what `jpeg_coefficients` says.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
from numpy.typing import NDArray

_STRUCT_BYTES = 4096  # generous: the structures of all builds are below 1 KiB
_TRUE = 1
_Handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_Listener = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
_AccessRows = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint, ctypes.c_int
)
_ACCESS_VIRT_BARRAY = 8
"""Its place among the function pointers of the memory manager."""
_BLOCK_BYTES = 64 * 2
_KNOWN_VERSION = 70
"""Of the interface, not of the library; earlier ones have a field less among the settings."""
_MOST_SCANS = 64
_ZERO_BY_DEFAULT = (
    "raw_data_in",
    "arith_code",
    "optimize_coding",
    "ccir601_sampling",
    "smoothing_factor",
    "restart_interval",
    "restart_in_rows",
)
_NEEDED = (
    "jpeg_std_error",
    "jpeg_CreateDecompress",
    "jpeg_CreateCompress",
    "jpeg_mem_src_tj",
    "jpeg_mem_dest_tj",
    "jpeg_simple_progression",
)


class _Errors(ctypes.Structure):
    """The leading fields of `jpeg_error_mgr`, and room for the rest."""

    _fields_ = (
        ("error_exit", ctypes.c_void_p),
        ("emit_message", ctypes.c_void_p),
        ("other_handlers", ctypes.c_void_p * 3),
        ("message", ctypes.c_int),
        ("parameters", ctypes.c_int * 8),
        ("rest", ctypes.c_byte * 1024),
    )


_pass_over = _Listener(lambda _codec, _level: None)
"""In the place of libjpeg's own, which prints warnings to stderr, among lines of JSON, and names no file."""


class _Codec(ctypes.Structure):
    """The leading fields of `jpeg_compress_struct` and `jpeg_decompress_struct`, and room for the rest."""

    _fields_ = (
        ("errors", ctypes.POINTER(_Errors)),
        ("memory", ctypes.POINTER(ctypes.c_void_p)),
        ("rest", ctypes.c_byte * _STRUCT_BYTES),
    )


class _Settings(ctypes.Structure):
    """The fields of `jpeg_compress_struct` from the list of scans on."""

    _fields_ = (
        ("num_scans", ctypes.c_int),
        ("scans", ctypes.c_void_p),
        ("raw_data_in", ctypes.c_int),
        ("arith_code", ctypes.c_int),
        ("optimize_coding", ctypes.c_int),
        ("ccir601_sampling", ctypes.c_int),
        ("do_fancy_downsampling", ctypes.c_int),
        ("smoothing_factor", ctypes.c_int),
        ("dct_method", ctypes.c_int),
        ("restart_interval", ctypes.c_uint),
        ("restart_in_rows", ctypes.c_int),
    )


def is_available(library: ctypes.CDLL) -> bool:
    """Whether this build lets its libjpeg be called; some platforms hide it."""
    return all(hasattr(library, name) for name in _NEEDED)


@contextmanager
def opened(
    library: ctypes.CDLL, data: bytes, num_blocks: Sequence[tuple[int, int]]
) -> Iterator[list[NDArray[np.int16]]]:
    """The coefficients of `data`, a sound JPEG, where libjpeg holds them until the context ends: one (block rows, block
    columns, 8, 8) int16 array per component, of as many as `num_blocks` says.

    Raises `ValueError` where one is so large (a gigabyte) that libjpeg holds it in pieces.
    """
    with _reader(library, data) as (reader, arrays):
        yield _in_place(reader, arrays, num_blocks)


def write(
    library: ctypes.CDLL,
    data: bytes,
    num_blocks: Sequence[tuple[int, int]],
    edit: Callable[[list[NDArray[np.int16]]], None],
    *,
    is_progressive: bool,
    restart_interval: int,
    restart_rows: int = 0,
    has_own_tables: bool = True,
) -> bytes:
    """`data` with its coefficients as `edit` leaves them: in libjpeg's standard progressive scans, or in one scan with
    optimal Huffman tables, or without `has_own_tables` with those of the standard's annex K; a restart marker every
    `restart_interval` MCUs, or every `restart_rows` rows of them, unless that is 0.

    `edit` is given what `opened` gives. Frame, tables and components are those of `data`, a sound JPEG. Raises what
    `edit` raises, and before it is called `ValueError` where `opened` does or the library only writes progressive
    files.
    """
    writer = _Codec()
    target, target_bytes = ctypes.c_void_p(), ctypes.c_ulong()
    sink = ctypes.byref(writer)
    with _reader(library, data) as (reader, arrays):
        writer.errors = reader.errors
        library.jpeg_CreateCompress(sink, *_version_and_size(library, "jpeg_CreateCompress"))
        try:
            library.jpeg_copy_critical_parameters(ctypes.byref(reader), sink)
            if settings := _progression(library, writer):
                settings.optimize_coding = int(has_own_tables)
                settings.restart_interval = restart_interval
                settings.restart_in_rows = restart_rows
                if not is_progressive:
                    settings.num_scans, settings.scans = 0, None
            elif not is_progressive:
                raise ValueError("the libjpeg of this system cannot write it in one scan")
            edit(_in_place(reader, arrays, num_blocks))
            library.jpeg_mem_dest_tj(sink, ctypes.byref(target), ctypes.byref(target_bytes), _TRUE)
            library.jpeg_write_coefficients(sink, arrays)
            library.jpeg_finish_compress(sink)
            return ctypes.string_at(target.value or 0, target_bytes.value)
        finally:
            library.jpeg_destroy_compress(sink)
            library.free(target)  # of the C library that the build is linked to


@contextmanager
def _reader(library: ctypes.CDLL, data: bytes) -> Iterator[tuple[_Codec, ctypes._Pointer[ctypes.c_void_p]]]:
    """A codec that has decoded `data`, and its virtual array of each component."""
    errors = _Errors()
    library.jpeg_std_error(ctypes.byref(errors))
    errors.emit_message = ctypes.cast(_pass_over, ctypes.c_void_p)
    reader = _Codec(errors=ctypes.pointer(errors))
    source = ctypes.byref(reader)
    read_coefficients = library.jpeg_read_coefficients
    read_coefficients.restype = ctypes.POINTER(ctypes.c_void_p)
    library.jpeg_CreateDecompress(source, *_version_and_size(library, "jpeg_CreateDecompress"))
    try:
        library.jpeg_mem_src_tj(source, data, ctypes.c_ulong(len(data)))
        library.jpeg_read_header(source, _TRUE)
        yield reader, read_coefficients(source)
    finally:
        library.jpeg_destroy_decompress(source)


def _in_place(
    reader: _Codec, arrays: ctypes._Pointer[ctypes.c_void_p], num_blocks: Sequence[tuple[int, int]]
) -> list[NDArray[np.int16]]:
    """One view per component. libjpeg may pad rows, all of them alike. Raises `ValueError` as `opened` does."""
    access = _AccessRows(reader.memory[_ACCESS_VIRT_BARRAY])
    planes = []
    for array, shape in zip(arrays[: len(num_blocks)], num_blocks, strict=True):
        found = [access(ctypes.addressof(reader), array, row, 1, _TRUE) or 0 for row in range(shape[0])]
        rows = [ctypes.c_size_t.from_address(pointer).value for pointer in found]
        row_bytes = rows[1] - rows[0] if len(rows) > 1 else shape[1] * _BLOCK_BYTES
        if any(row != rows[0] + index * row_bytes for index, row in enumerate(rows)) or row_bytes <= 0:
            raise ValueError("libjpeg holds its coefficients in pieces")
        memory = (ctypes.c_byte * (row_bytes * len(rows))).from_address(rows[0])
        strides = (row_bytes, _BLOCK_BYTES, *np.empty((8, 8), np.int16).strides)
        planes.append(np.ndarray((*shape, 8, 8), np.int16, memoryview(memory), strides=strides))
    return planes


def _progression(library: ctypes.CDLL, writer: _Codec) -> _Settings | None:
    """Give a fresh writer the standard progressive scans, and tell where its settings are.

    The list of scans is what changes from nothing to a number and a pointer. None where what follows it does not look
    like the defaults.
    """
    before = bytes(writer)
    library.jpeg_simple_progression(ctypes.byref(writer))
    version, num_bytes = _version_and_size(library, "jpeg_CreateCompress")
    if version.value != _KNOWN_VERSION:
        return None
    for place in range(0, num_bytes.value - ctypes.sizeof(_Settings), ctypes.alignment(_Settings)):
        old = _Settings.from_buffer_copy(before, place)
        new = _Settings.from_buffer(writer, place)
        if not old.num_scans and not old.scans and 0 < new.num_scans <= _MOST_SCANS and new.scans:
            are_defaults = new.do_fancy_downsampling == 1 and not any(getattr(new, name) for name in _ZERO_BY_DEFAULT)
            return new if are_defaults else None
    return None


@cache
def _version_and_size(library: ctypes.CDLL, create: str) -> tuple[ctypes.c_int, ctypes.c_size_t]:
    """The version and size of structure that the function `create` wants to be told: it complains of wrong ones."""
    expected: list[int] = []
    errors = _Errors()
    library.jpeg_std_error(ctypes.byref(errors))

    def note(_codec: int) -> None:
        expected.append(errors.parameters[0])

    handler = _Handler(note)
    errors.error_exit = ctypes.cast(handler, ctypes.c_void_p)
    codec = _Codec(errors=ctypes.pointer(errors))
    function: Callable[..., None] = getattr(library, create)
    function(ctypes.byref(codec), ctypes.c_int(0), ctypes.c_size_t(0))  # goes on after complaining, and is sound then
    library.jpeg_destroy(ctypes.byref(codec))
    version, num_bytes = expected
    return ctypes.c_int(version), ctypes.c_size_t(num_bytes)
