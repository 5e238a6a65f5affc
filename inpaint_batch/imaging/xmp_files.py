"""The XMP packet of an image file: read it, or put another one into its place. Nothing else in the file changes.

JPEG keeps it in an APP1 segment, PNG in an iTXt chunk, WebP in a RIFF chunk, JPEG 2000 in a box, TIFF in a tag
(`xmp_tiff`).
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import assert_never

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging import jp2, jpeg_segments, jpeg_stream, webp, xmp_tiff
from inpaint_batch.imaging.exif import EXIF_PREFIX
from inpaint_batch.imaging.file_errors import reading, refuse, spoiled, verifying, writing
from inpaint_batch.imaging.jpeg_pictures import relocate
from inpaint_batch.imaging.jpeg_segments import APP0, APP1, is_segment
from inpaint_batch.imaging.jpeg_stream import XMP_PREFIX
from inpaint_batch.imaging.png_chunks import Chunk, make_chunk, read_chunks, split_chunks, write_chunks
from inpaint_batch.imaging.xmp import MAX_PACKET_BYTES, Mark, XmpError, marked
from inpaint_batch.types import ImageFormat

_JPEG_EXTENSION = b"http://ns.adobe.com/xmp/extension/\x00"
MAX_JPEG_PACKET_BYTES = 0xFFFF - 2 - len(XMP_PREFIX)
_PNG_KEYWORD = b"XML:com.adobe.xmp\x00"
_RAW_PROFILE = b"Raw profile type xmp\x00"
"""Of a text chunk, as ImageMagick wrote XMP before there was a place for it."""
_WEBP_XMP_FLAG, _WEBP_ALPHA_FLAG = 0x04, 0x10
_ADVICE = "run this row without --xmp, and let the sidecar say it"


def read_xmp(path: Path, kind: ImageFormat, page: int = 0) -> bytes:
    """The XMP packet of a file, empty where it has none; of a TIFF that of `page` (from 1; 0: the first).

    Raises RowError(READ) where there are several, or parts of it stand elsewhere.
    """
    with reading(path):
        match kind:
            case "jpeg":
                found = _jpeg_packets(path, path.read_bytes())
            case "png":
                found = _png_packets(path, split_chunks(path.read_bytes()))
            case "webp":
                found = [body for name, body in webp.read_chunks(path) if name == b"XMP "]
            case "jp2":
                found = [body[len(jp2.XMP_UUID) :] for name, body in jp2.read_boxes(path) if _is_jp2_xmp(name, body)]
            case "tiff":
                found = xmp_tiff.packets(path, page)
            case _:
                assert_never(kind)
        if len(found) > 1:
            raise refuse(path, "a file of several XMP packets", _ADVICE)
        return found[0] if found else b""


def check_xmp(path: Path, kind: ImageFormat, page: int = 0) -> None:
    """Raise RowError(READ) where the file's XMP cannot be added to."""
    packet = _marked(path, read_xmp(path, kind, page), Mark("-", "-"))
    if kind == "jpeg":
        _check_length(path, packet)


def mark_file(path: Path, kind: ImageFormat, mark: Mark, page: int = 0) -> None:
    """Set IPTC's digital source type and add a line of history in the XMP of a finished file, in place.

    The file is read back: all of it but the packet must be as it was. Raises RowError (read) as `check_xmp` does, and
    (write).
    """
    packet = _marked(path, read_xmp(path, kind, page), mark)
    with writing(path):
        match kind:
            case "jpeg":
                _check_length(path, packet)
                _put_into_jpeg(path, packet)
            case "png":
                _put_into_png(path, packet)
            case "webp":
                _put_into_webp(path, packet)
            case "jp2":
                _put_into_jp2(path, packet)
            case "tiff":
                xmp_tiff.put(path, packet, page)
            case _:
                assert_never(kind)
    with verifying(path):
        if read_xmp(path, kind, page) != packet:
            raise spoiled(path, "its XMP is not what was written")


def _marked(path: Path, packet: bytes, mark: Mark) -> bytes:
    try:
        return marked(packet, mark)
    except XmpError as error:
        raise refuse(path, f"a file that has {error}", _ADVICE) from error


def _check_length(path: Path, packet: bytes) -> None:
    if len(packet) > MAX_JPEG_PACKET_BYTES:
        raise refuse(path, f"a JPEG whose XMP would need {len(packet)} bytes of {MAX_JPEG_PACKET_BYTES}", _ADVICE)


def _jpeg_packets(path: Path, data: bytes) -> list[bytes]:
    stream = jpeg_stream.parse(data, header_only=True)
    if stream.payloads(APP1, _JPEG_EXTENSION):
        raise refuse(path, "a JPEG with extended XMP, which is tied to its main packet by a checksum", _ADVICE)
    return stream.payloads(APP1, XMP_PREFIX)


def _put_into_jpeg(path: Path, packet: bytes) -> None:
    data = path.read_bytes()
    stream = jpeg_stream.parse(data)
    before = list(stream.metadata)
    if data[2 : 2 + sum(map(len, before))] != b"".join(before):
        raise RowError(FailureCode.WRITE, f"{path} keeps metadata behind its tables; {_ADVICE}")
    body = XMP_PREFIX + packet
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body
    if any(map(_is_jpeg_xmp, before)):
        after = [segment if _is_jpeg_xmp(one) else one for one in before]
    else:  # behind the two that readers look for first
        leads = [is_segment(one, APP0) or is_segment(one, APP1, EXIF_PREFIX) for one in before]
        place = [*leads, False].index(False)
        after = [*before[:place], segment, *before[place:]]
    grown = sum(map(len, after)) - sum(map(len, before))
    after = list(relocate(after, data, stream.end, stream.end + grown))
    pixels = data[2 + sum(map(len, before)) :]
    path.write_bytes(jpeg_segments.SOI + b"".join(after) + pixels)
    with verifying(path):
        written = path.read_bytes()
        if list(jpeg_stream.parse(written).metadata) != after or not written.endswith(pixels):
            raise spoiled(path, "more than its XMP changed")


def _is_jpeg_xmp(segment: bytes) -> bool:
    return is_segment(segment, APP1, XMP_PREFIX)


def _is_png_xmp(chunk: Chunk) -> bool:
    return chunk.kind == b"iTXt" and chunk.body.startswith(_PNG_KEYWORD)


def _png_packets(path: Path, chunks: list[Chunk]) -> list[bytes]:
    if any(each.kind in (b"tEXt", b"zTXt", b"iTXt") and each.body.startswith(_RAW_PROFILE) for each in chunks):
        raise refuse(path, "a PNG whose XMP stands in a raw profile, as ImageMagick wrote it", _ADVICE)
    return [_png_packet(path, each) for each in chunks if _is_png_xmp(each)]


def _png_packet(path: Path, chunk: Chunk) -> bytes:
    body = chunk.body.removeprefix(_PNG_KEYWORD)
    is_packed, parts = body[:1] != b"\x00", body[2:].split(b"\x00", 2)  # language, translated keyword, text
    if len(parts) < 3:
        raise refuse(path, "a PNG whose XMP is damaged", _ADVICE)
    if not is_packed:
        return parts[2]
    unpacker = zlib.decompressobj()
    try:
        packet = unpacker.decompress(parts[2], MAX_PACKET_BYTES)
    except zlib.error:
        raise refuse(path, "a PNG whose XMP is damaged", _ADVICE) from None
    if not unpacker.eof:
        is_large = len(packet) == MAX_PACKET_BYTES
        kind = f"over {MAX_PACKET_BYTES >> 20} MiB" if is_large else "damaged"
        raise refuse(path, f"a PNG whose XMP is {kind}", _ADVICE)
    return packet


def _put_into_png(path: Path, packet: bytes) -> None:
    chunks, trailer = read_chunks(path)
    fresh = make_chunk(b"iTXt", _PNG_KEYWORD + b"\x00\x00\x00\x00" + packet)
    others = [each for each in chunks if not _is_png_xmp(each)]
    if len(others) < len(chunks):
        after = [fresh if _is_png_xmp(each) else each for each in chunks]
    else:
        place = next(index for index, each in enumerate(chunks) if each.kind == b"IDAT")
        after = [*chunks[:place], fresh, *chunks[place:]]
    write_chunks(path, after, trailer)
    with verifying(path):
        found, behind = read_chunks(path)
        if [each for each in found if not _is_png_xmp(each)] != others or behind != trailer:
            raise spoiled(path, "more than its XMP changed")


def _put_into_webp(path: Path, packet: bytes) -> None:
    header = webp.parse_header(path)
    chunks, trailer = webp.read_chunks(path, bodies=True), webp.read_trailer(path)
    fresh = (b"XMP ", packet)
    others = [one for one in chunks if one[0] != b"XMP "]
    after = [fresh if name == b"XMP " else (name, body) for name, body in chunks]
    if len(others) == len(chunks):
        after.append(fresh)
    if after[0][0] == b"VP8X":
        flags = bytes([after[0][1][0] | _WEBP_XMP_FLAG])
        after[0] = (b"VP8X", flags + after[0][1][1:])
    else:  # a file of pixels alone has no place for anything else
        flags = bytes([_WEBP_XMP_FLAG | (_WEBP_ALPHA_FLAG if header.has_alpha else 0), 0, 0, 0])
        sides = ((side - 1).to_bytes(3, "little") for side in (header.width_px, header.height_px))
        after.insert(0, (b"VP8X", flags + b"".join(sides)))
    path.write_bytes(webp.join_chunks(after) + trailer)
    with verifying(path):
        found = [one for one in webp.read_chunks(path, bodies=True) if one[0] not in (b"XMP ", b"VP8X")]
        is_rest_kept = webp.read_trailer(path) == trailer and webp.parse_header(path) == header
        if found != [one for one in others if one[0] != b"VP8X"] or not is_rest_kept:
            raise spoiled(path, "more than its XMP changed")


def _is_jp2_xmp(kind: bytes, body: bytes) -> bool:
    return kind == b"uuid" and body.startswith(jp2.XMP_UUID)


def _put_into_jp2(path: Path, packet: bytes) -> None:
    boxes = jp2.read_boxes(path)
    others = [box for box in boxes if not _is_jp2_xmp(*box)]
    fresh = (b"uuid", jp2.XMP_UUID + packet)
    after = [fresh if _is_jp2_xmp(*box) else box for box in boxes]
    jp2.write_boxes(after if len(others) < len(boxes) else [*after, fresh], path)
    with verifying(path):
        if [box for box in jp2.read_boxes(path) if not _is_jp2_xmp(*box)] != others:
            raise spoiled(path, "more than its XMP changed")
