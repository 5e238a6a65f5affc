"""The previews within the metadata of a finished file, by which file managers show an image without opening it.

They are filled as their picture was, lest they go on showing the damage: those of EXIF (JPEG, PNG, WebP), of
Photoshop (JPEG, TIFF), of JFIF and the larger ones that cameras append (JPEG). Each keeps its place and its length, so
nothing else in the file changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, assert_never

from inpaint_batch.imaging import exif, jpeg_pictures, jpeg_stream, photoshop, webp
from inpaint_batch.imaging.file_errors import spoiled, writing
from inpaint_batch.imaging.jpeg import read_stream
from inpaint_batch.imaging.jpeg_segments import APP0, APP1, APP13, SEGMENT_HEAD_BYTES, is_segment, placed
from inpaint_batch.imaging.jpeg_stream import PHOTOSHOP_NAME
from inpaint_batch.imaging.png_chunks import (
    CHECKSUM_BYTES,
    CHUNK_HEAD_BYTES,
    LENGTH_BYTES,
    SIGNATURE,
    checksum,
    split_chunks,
)
from inpaint_batch.imaging.preview_fill import fill_preview
from inpaint_batch.imaging.source import ImageSource
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.types import ImageFormat, Patch

_JFIF, _JFIF_HEAD_BYTES = b"JFIF\x00", 14
"""With which APP0 begins, and what stands in it in front of a preview; the last two bytes of that are its size."""
_MORE_OF_JFIF, _MORE_HEAD_BYTES = b"JFXX\x00", 6
"""With which another APP0 may begin that holds a preview, and what stands in front of it."""
_FIRST_WEBP_CHUNK, _WEBP_CHUNK_HEAD_BYTES = 12, 8


class _Place(NamedTuple):
    """Where in a file a preview stands."""

    start: int
    length: int
    of: str
    """Whose it is, in words."""
    checked: range = range(0)
    """The bytes around it that a checksum behind them is of, in PNG."""


class Filled(NamedTuple):
    """What became of the previews of a file."""

    num_filled: int
    warnings: list[str]
    """Of those that go on showing what was there."""


def fill_previews(source: ImageSource, patches: Sequence[Patch], destination: Path, kind: ImageFormat) -> Filled:
    """Fill the previews in `destination`, a file of that kind that is `source` with `patches`, in place.

    Raises `RowError`: read as reading the source does; write where the file does not take it.
    """
    num_filled, warnings = 0, []
    with writing(destination), destination.open("r+b") as file:
        for place in list(_places(file, source, destination, kind)) if patches else []:
            before = _bytes_at(file, place.start, place.length)
            after = fill_preview(before, source, patches)
            if after is None:
                reason = "it is of a kind that is not patched, has no room, or does not look like the picture"
                warnings.append(f"the preview of {place.of} goes on showing what was there: {reason}")
            elif after != before:
                _put(file, place, after, destination)
                num_filled += 1
    return Filled(num_filled, warnings)


def _put(file: BinaryIO, place: _Place, preview: bytes, path: Path) -> None:
    file.seek(place.start)
    file.write(preview)
    if place.checked:
        content = _bytes_at(file, place.checked.start, len(place.checked))
        file.seek(place.checked.stop)
        file.write(checksum(content))
    file.flush()
    if _bytes_at(file, place.start, place.length) != preview:
        raise spoiled(path, "its preview changed on the way")


def _places(file: BinaryIO, source: ImageSource, path: Path, kind: ImageFormat) -> Iterator[_Place]:
    match kind:
        case "jpeg":
            return _places_in_jpeg(path)
        case "png":
            return _places_in_png(path)
        case "webp":
            return _places_in_webp(path)
        case "tiff":
            assert isinstance(source, TiffSource)
            resources = source.layout.photoshop  # they have not moved
            return _photoshop_place([(resources.start, _bytes_at(file, resources.start, len(resources)))])
        case "jp2":  # no program is known to put any there
            return iter(())
        case _:
            assert_never(kind)


def _places_in_jpeg(path: Path) -> Iterator[_Place]:
    metadata = read_stream(path).metadata
    resources: list[tuple[int, bytes]] = []
    for start, segment in placed(metadata):  # as the writer puts them
        if is_segment(segment, APP0):
            yield from _jfif_place(segment[SEGMENT_HEAD_BYTES:], start + SEGMENT_HEAD_BYTES)
        elif is_segment(segment, APP1):
            yield from _exif_place(segment[SEGMENT_HEAD_BYTES:], start + SEGMENT_HEAD_BYTES)
        elif is_segment(segment, APP13, PHOTOSHOP_NAME):
            head_bytes = SEGMENT_HEAD_BYTES + len(PHOTOSHOP_NAME)
            resources.append((start + head_bytes, segment[head_bytes:]))
    yield from _photoshop_place(resources)
    larger = jpeg_pictures.find_previews(metadata)
    end = jpeg_stream.parse(path.read_bytes()).end if larger else 0
    yield from (_Place(each.start, len(each), "the camera") for each in larger if each.start >= end)


def _places_in_png(path: Path) -> Iterator[_Place]:
    start = len(SIGNATURE)
    for chunk in split_chunks(path.read_bytes()):
        if chunk.kind == b"eXIf" and chunk.is_sound:  # readers pass over others
            checked = range(start + LENGTH_BYTES, start + len(chunk.whole) - CHECKSUM_BYTES)
            yield from _exif_place(chunk.body, start + CHUNK_HEAD_BYTES, checked)
        start += len(chunk.whole)


def _places_in_webp(path: Path) -> Iterator[_Place]:
    start = _FIRST_WEBP_CHUNK
    for kind, body in webp.read_chunks(path, bodies=True):
        if kind == b"EXIF":
            yield from _exif_place(body, start + _WEBP_CHUNK_HEAD_BYTES)
        start += _WEBP_CHUNK_HEAD_BYTES + len(body) + len(body) % 2


def _exif_place(block: bytes, start: int, checked: range = range(0)) -> Iterator[_Place]:
    preview = exif.find_preview(block)
    if preview:
        yield _Place(start + preview.start, len(preview), "EXIF", checked)


def _jfif_place(body: bytes, start: int) -> Iterator[_Place]:
    """A JPEG, or plain samples, which nobody takes for one."""
    head_bytes = len(body)
    if body.startswith(_MORE_OF_JFIF):
        head_bytes = _MORE_HEAD_BYTES
    elif body.startswith(_JFIF) and all(body[_JFIF_HEAD_BYTES - 2 : _JFIF_HEAD_BYTES]):
        head_bytes = _JFIF_HEAD_BYTES
    if head_bytes < len(body):
        yield _Place(start + head_bytes, len(body) - head_bytes, "JFIF")


def _photoshop_place(pieces: Sequence[tuple[int, bytes]]) -> Iterator[_Place]:
    """Of resources that follow each other in pieces, each with its place in the file; of a preview that is cut in two
    the first part, which nobody takes for a whole one.
    """
    preview = photoshop.find_preview(b"".join(piece for _, piece in pieces))
    position = 0
    for start, piece in pieces:
        if position <= preview.start < position + len(piece) and preview:
            inside = preview.start - position
            yield _Place(start + inside, min(len(preview), len(piece) - inside), "Photoshop")
        position += len(piece)


def _bytes_at(file: BinaryIO, start: int, length: int) -> bytes:
    file.seek(start)
    return file.read(length)
