"""Ways to break a file. Each takes its bytes and a seeded generator, and returns other bytes.

Those in `ANY` know nothing of formats. The others walk the structure of theirs and lie in it, checksums put right, so
that the lie gets past the door.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

Mutation = Callable[[bytes, Random], bytes]
_EDGES = (0, 1, 2, 3, 7, 8, 9, 16, 17, 32, 95, 97, 255, 256, 4096, 32767, 32768, 65535, 65536)
_LARGE_EDGES = ((1 << 24) - 1, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1)
"""Numbers that programs stumble over."""


def _number(rng: Random, num_bytes: int) -> int:
    if num_bytes == 1:
        return rng.choice([0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 127, 128, 255])
    if num_bytes == 2:
        return rng.choice(_EDGES[:-1])
    return rng.choice(_EDGES + _LARGE_EDGES + ((1 << 63, (1 << 64) - 1) if num_bytes == 8 else ()))


def _write(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


def _disordered(chunks: list[tuple[bytes, bytes]], rng: Random) -> list[tuple[bytes, bytes]]:
    """Two of them are swapped, one is missing, or one stands twice."""
    one, other = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    way = rng.randrange(3)
    if way == 0:
        chunks[one], chunks[other] = chunks[other], chunks[one]
    elif way == 1:
        del chunks[one]
    else:
        chunks.insert(other, chunks[one])
    return chunks


# Any file


def flip_bits(data: bytes, rng: Random) -> bytes:
    """One, a few or many bits, anywhere."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 1, 4, 64])):
        result[rng.randrange(len(result))] ^= 1 << rng.randrange(8)
    return bytes(result)


def flip_bits_in_front(data: bytes, rng: Random) -> bytes:
    """A few bits of the first 200 bytes, less the very first."""
    result = bytearray(data)
    for _ in range(rng.choice([1, 2, 4])):
        result[rng.randrange(4, min(200, len(result)))] ^= 1 << rng.randrange(8)
    return bytes(result)


def cut(data: bytes, rng: Random) -> bytes:
    """The beginning only: as when a copy was interrupted."""
    return data[: rng.randrange(len(data))]


def cut_the_end(data: bytes, rng: Random) -> bytes:
    """The last bytes are missing; of a JPEG, its end marker."""
    return data[: -rng.randrange(1, 24)]


def zero(data: bytes, rng: Random) -> bytes:
    """A run of zeros, as a bad disk or a sparse copy leaves them."""
    start = rng.randrange(len(data))
    return _write(data, start, bytes(min(rng.choice([1, 16, 512, 4096]), len(data) - start)))


def ones(data: bytes, rng: Random) -> bytes:
    """A run of 0xFF, which is a marker to JPEG and a large number to the others."""
    start = rng.randrange(len(data))
    return _write(data, start, b"\xff" * min(rng.choice([1, 2, 4, 64]), len(data) - start))


def drop_a_slice(data: bytes, rng: Random) -> bytes:
    """Some bytes are missing, what follows moves up."""
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.choice([1, 2, 16, 512]) :]


def repeat_a_slice(data: bytes, rng: Random) -> bytes:
    """Some bytes stand there twice."""
    start = rng.randrange(len(data))
    end = start + rng.choice([1, 2, 16, 512])
    return data[:end] + data[start:]


def insert_noise(data: bytes, rng: Random) -> bytes:
    """Foreign bytes in between."""
    start = rng.randrange(len(data))
    return data[:start] + rng.randbytes(rng.choice([1, 2, 16, 512])) + data[start:]


def append_noise(data: bytes, rng: Random) -> bytes:
    """Foreign bytes behind the end, which is no fault of the picture."""
    return data + rng.randbytes(rng.choice([1, 64, 4096]))


ANY: tuple[Mutation, ...] = (
    flip_bits,
    flip_bits_in_front,
    cut,
    cut_the_end,
    zero,
    ones,
    drop_a_slice,
    repeat_a_slice,
    insert_noise,
    append_noise,
)


# TIFF


class _Entry(NamedTuple):
    place: int
    tag: int


class _Directory:
    """Where the entries of the first directory stand."""

    def __init__(self, data: bytes) -> None:
        self.order = "<" if data[:2] == b"II" else ">"
        self.is_big = struct.unpack_from(self.order + "H", data, 2)[0] == 43
        self.word, self.word_bytes = ("Q", 8) if self.is_big else ("I", 4)
        (self.start,) = struct.unpack_from(self.order + self.word, data, 8 if self.is_big else 4)
        count_kind, count_bytes, size = ("Q", 8, 20) if self.is_big else ("H", 2, 12)
        (count,) = struct.unpack_from(self.order + count_kind, data, self.start)
        places = range(self.start + count_bytes, self.start + count_bytes + count * size, size)
        self.entries = [_Entry(place, struct.unpack_from(self.order + "H", data, place)[0]) for place in places]
        self.next = self.start + count_bytes + count * size

    def put(self, data: bytes, place: int, value: int, num_bytes: int) -> bytes:
        """Write a number of 1, 2, 4 or 8 bytes."""
        kind = {1: "B", 2: "H", 4: "I", 8: "Q"}[num_bytes]
        return _write(data, place, struct.pack(self.order + kind, value & ((1 << 8 * num_bytes) - 1)))

    def value_place(self, entry: _Entry) -> int:
        """Where the value, or its address, stands."""
        return entry.place + (12 if self.is_big else 8)


def tiff_value(data: bytes, rng: Random) -> bytes:
    """The value of an entry, or its address, is another."""
    directory = _Directory(data)
    entry = rng.choice(directory.entries)
    num_bytes = rng.choice([2, directory.word_bytes])
    return directory.put(data, directory.value_place(entry), _number(rng, num_bytes), num_bytes)


def tiff_layout(data: bytes, rng: Random) -> bytes:
    """As `tiff_value`, of a tag that says how the samples lie."""
    directory = _Directory(data)
    shaping = (256, 257, 258, 259, 262, 266, 277, 278, 284, 317, 322, 323, 338, 339)
    entries = [entry for entry in directory.entries if entry.tag in shaping]
    return directory.put(data, directory.value_place(rng.choice(entries)), _number(rng, 2), 2)


def tiff_count(data: bytes, rng: Random) -> bytes:
    """The count of an entry is another, up to four thousand million."""
    directory = _Directory(data)
    num_bytes = directory.word_bytes
    return directory.put(data, rng.choice(directory.entries).place + 4, _number(rng, num_bytes), num_bytes)


def tiff_type(data: bytes, rng: Random) -> bytes:
    """The type of an entry is another, or none at all."""
    directory = _Directory(data)
    return directory.put(data, rng.choice(directory.entries).place + 2, rng.randrange(20), 2)


def tiff_tag(data: bytes, rng: Random) -> bytes:
    """An entry is missing, and another stands twice or is of a tag that nobody expects."""
    directory = _Directory(data)
    tags = [*(entry.tag for entry in directory.entries), 254, 320, 330, 332, 338, 700, 34665, 34675, 65000]
    return directory.put(data, rng.choice(directory.entries).place, rng.choice(tags), 2)


def tiff_loop(data: bytes, rng: Random) -> bytes:
    """The next directory is this one, the header, or nowhere."""
    directory = _Directory(data)
    target = rng.choice([directory.start, directory.start, 0, 1, 8, len(data) - 1, len(data), 1 << 31])
    return directory.put(data, directory.next, target, directory.word_bytes)


def tiff_order(data: bytes, rng: Random) -> bytes:
    """The mark of the byte order, the version or the address of the directory are others."""
    directory = _Directory(data)
    if rng.random() < 0.3:
        return (b"MM" if data[:2] == b"II" else b"II") + data[2:]
    if rng.random() < 0.3:
        return directory.put(data, 2, 42 if directory.is_big else 43, 2)
    return directory.put(data, 8 if directory.is_big else 4, _number(rng, 4), directory.word_bytes)


def tiff_address(data: bytes, rng: Random) -> bytes:
    """One strip or tile begins elsewhere, or has another length."""
    directory = _Directory(data)
    entry = rng.choice([entry for entry in directory.entries if entry.tag in (273, 279, 324, 325)])
    (count,) = struct.unpack_from(directory.order + directory.word, data, entry.place + 4)
    (kind,) = struct.unpack_from(directory.order + "H", data, entry.place + 2)
    num_bytes = {3: 2, 4: 4, 16: 8}[kind]
    place = directory.value_place(entry)
    if count * num_bytes > directory.word_bytes:
        (place,) = struct.unpack_from(directory.order + directory.word, data, place)
    value = rng.choice([_number(rng, num_bytes), rng.randrange(len(data)), len(data), len(data) - 1])
    return directory.put(data, place + rng.randrange(count) * num_bytes, value, num_bytes)


# PNG


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place < len(data):
        (length,) = struct.unpack_from(">I", data, place)
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png_join(data: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    return data[:8] + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def png_header(data: bytes, rng: Random) -> bytes:
    """Size, depth, colour type or method are others; the checksum agrees."""
    chunks = _png_chunks(data)
    place, num_bytes = rng.choice([(0, 4), (4, 4), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)])
    chunks[0] = (b"IHDR", _write(chunks[0][1], place, _number(rng, num_bytes).to_bytes(num_bytes, "big")))
    return _png_join(data, chunks)


def png_order(data: bytes, rng: Random) -> bytes:
    """Two chunks are swapped, one is missing, or one stands twice."""
    return _png_join(data, _disordered(_png_chunks(data), rng))


def png_body(data: bytes, rng: Random) -> bytes:
    """The body of a chunk is broken; its checksum agrees."""
    chunks = _png_chunks(data)
    index = rng.randrange(1, len(chunks) - 1)
    kind, body = chunks[index]
    chunks[index] = (kind, rng.choice([flip_bits, cut, zero, insert_noise, drop_a_slice])(body, rng))
    return _png_join(data, chunks)


def png_length(data: bytes, rng: Random) -> bytes:
    """The length of a chunk is another."""
    places, place = [], 8
    for _, body in _png_chunks(data):
        places.append(place)
        place += 12 + len(body)
    return _write(data, rng.choice(places), _number(rng, 4).to_bytes(4, "big"))


def png_checksum(data: bytes, rng: Random) -> bytes:
    """One checksum is wrong."""
    place, places = 8, []
    for _, body in _png_chunks(data):
        place += 12 + len(body)
        places.append(place - 4)
    return _write(data, rng.choice(places), rng.randbytes(4))


def png_foreign(data: bytes, rng: Random) -> bytes:
    """A chunk more: transparency, palette, animation, EXIF or a critical one that nobody knows."""
    chunks = _png_chunks(data)
    kind = rng.choice([b"tRNS", b"PLTE", b"acTL", b"eXIf", b"iCCP", b"ABCD", b"IDAT", b"gAMA", b"sBIT"])
    body = rng.randbytes(rng.choice([0, 1, 2, 3, 6, 8, 256, 768, 1000]))
    chunks.insert(rng.randrange(1, len(chunks) + 1), (kind, body))
    return _png_join(data, chunks)


# JPEG


def _jpeg_segments(data: bytes) -> list[tuple[int, int]]:
    """(start, end) of every segment in front of the first scan's data, SOS included."""
    place, found = 2, []
    while True:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        found.append((place, end))
        if data[place + 1] == 0xDA:
            return found
        place = end


def jpeg_length(data: bytes, rng: Random) -> bytes:
    """The length of a segment is another."""
    start, end = rng.choice(_jpeg_segments(data))
    length = rng.choice([0, 1, 2, 3, end - start - 1, end - start + 1, 65535])
    return _write(data, start + 2, length.to_bytes(2, "big"))


def jpeg_order(data: bytes, rng: Random) -> bytes:
    """Two segments are swapped, one is missing, or one stands twice."""
    segments = _jpeg_segments(data)
    parts = [data[start:end] for start, end in segments]
    one, other = rng.randrange(len(parts)), rng.randrange(len(parts))
    way = rng.randrange(3)
    if way == 0:
        parts[one], parts[other] = parts[other], parts[one]
    elif way == 1:
        del parts[one]
    else:
        parts.insert(other, parts[one])
    return data[:2] + b"".join(parts) + data[segments[-1][1] :]


def jpeg_frame(data: bytes, rng: Random) -> bytes:
    """Size, depth, number, sampling or tables in the frame header are others."""
    segments = _jpeg_segments(data)
    start = next(start for start, _ in segments if data[start + 1] in (0xC0, 0xC1, 0xC2))
    if rng.random() < 0.2:  # another kind of frame: lossless, arithmetic, differential
        return _write(data, start + 1, bytes([rng.choice([0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF])]))
    place, num_bytes = rng.choice([(4, 1), (5, 2), (7, 2), (9, 1), (10, 1), (11, 1), (11, 1), (12, 1)])
    value = _number(rng, num_bytes)
    if place == 11 and num_bytes == 1:
        value = rng.choice([0x00, 0x10, 0x01, 0x11, 0x12, 0x21, 0x22, 0x31, 0x14, 0x44, 0x55, 0xFF])
    return _write(data, start + place, value.to_bytes(num_bytes, "big"))


def jpeg_tables(data: bytes, rng: Random) -> bytes:
    """A quantisation or Huffman table, the restart interval or the scan's own header are broken."""
    segments = [span for span in _jpeg_segments(data) if data[span[0] + 1] in (0xDB, 0xC4, 0xDD, 0xDA)]
    start, end = rng.choice(segments)
    result = bytearray(data)
    for _ in range(rng.choice([1, 2, 8])):
        result[rng.randrange(start + 4, end)] = _number(rng, 1)
    return bytes(result)


def jpeg_scan(data: bytes, rng: Random) -> bytes:
    """The coded picture itself is broken: bits, markers, a stretch that is gone."""
    start = _jpeg_segments(data)[-1][1]
    head, body = data[:start], data[start:-2]
    way = rng.randrange(4)
    if way == 0:
        body = flip_bits(body, rng)
    elif way == 1:
        body = drop_a_slice(body, rng)
    elif way == 2:
        marker = bytes([0xFF, rng.choice([0xD0, 0xD3, 0xD7, 0xD8, 0xD9, 0xC4, 0xDA, 0xDC, 0x00, 0x01, 0xE0])])
        body = _write(body, rng.randrange(len(body) - 2), marker)
    else:
        body = zero(body, rng)
    return head + body + data[-2:]


# WebP


def _webp_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 12
    while place + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        chunks.append((kind, data[place + 8 : place + 8 + length]))
        place += 8 + length + (length & 1)
    return chunks


def _webp_join(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(struct.pack("<4sI", kind, len(body)) + body + bytes(len(body) & 1) for kind, body in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def webp_length(data: bytes, rng: Random) -> bytes:
    """The length of the file or of a chunk is another."""
    places, place = [4], 12
    for _, body in _webp_chunks(data):
        places.append(place + 4)
        place += 8 + len(body) + (len(body) & 1)
    return _write(data, rng.choice(places), _number(rng, 4).to_bytes(4, "little"))


def webp_order(data: bytes, rng: Random) -> bytes:
    """Two chunks are swapped, one is missing, stands twice, or is of a kind that does not belong here."""
    chunks = _webp_chunks(data)
    if rng.randrange(4):
        return _webp_join(_disordered(chunks, rng))
    kind = rng.choice([b"ANMF", b"ALPH", b"VP8X", b"VP8 ", b"VP8L", b"ICCP", b"EXIF", b"ABCD"])
    chunks.insert(rng.randrange(len(chunks)), (kind, rng.randbytes(rng.choice([0, 1, 10, 100]))))
    return _webp_join(chunks)


def webp_header(data: bytes, rng: Random) -> bytes:
    """The first bytes of a chunk are others: sizes, flags, signatures."""
    chunks = _webp_chunks(data)
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    place = rng.randrange(min(12, len(body)) or 1)
    chunks[index] = (kind, _write(body, place, bytes([_number(rng, 1)])))
    return _webp_join(chunks)


def webp_body(data: bytes, rng: Random) -> bytes:
    """The body of a chunk is broken."""
    chunks = _webp_chunks(data)
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    if body:
        body = rng.choice([flip_bits, cut, zero, insert_noise, drop_a_slice])(body, rng)
    chunks[index] = (kind, body)
    return _webp_join(chunks)


def jp2_boxes(data: bytes, rng: Random) -> bytes:
    """Another length or type in the head of a box, superboxes included."""
    heads = [at - 4 for kind in (b"jp2h", b"ihdr", b"colr", b"cdef", b"jp2c") if (at := data.find(kind)) >= 0]
    at = rng.choice(heads)
    if rng.random() < 0.7:
        return data[:at] + struct.pack(">I", rng.choice(_lengths(rng))) + data[at + 4 :]
    return data[: at + 4] + rng.choice([b"free", b"jp2c", b"jp2h", b"pclr"]) + data[at + 8 :]


def _lengths(rng: Random) -> list[int]:
    return [0, 1, 7, 8, rng.randrange(1 << 8), rng.randrange(1 << 16), (1 << 32) - 1]


def jp2_head(data: bytes, rng: Random) -> bytes:
    """Other numbers in what both heads say of size, bands, depth and coding."""
    start = data.index(rng.choice([b"ihdr", b"colr", b"\xff\x51", b"\xff\x52", b"\xff\x5c", b"\xff\x90"]))
    broken = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        broken[start + rng.randrange(2, 44)] = rng.choice([0, 1, 2, 127, 128, 255, rng.randrange(256)])
    return bytes(broken)


def jp2_body(data: bytes, rng: Random) -> bytes:
    """Noise within a tile."""
    start = data.index(b"\xff\x93") + 2
    at = rng.randrange(start, len(data))
    noise = bytes(rng.randrange(256) for _ in range(rng.randint(1, 60)))
    return (data[:at] + noise + data[at + len(noise) :])[: len(data)]


OWN: dict[str, tuple[Mutation, ...]] = {
    ".tif": (tiff_value, tiff_layout, tiff_count, tiff_type, tiff_tag, tiff_loop, tiff_order, tiff_address),
    ".png": (png_header, png_order, png_body, png_length, png_checksum, png_foreign),
    ".jpg": (jpeg_length, jpeg_order, jpeg_frame, jpeg_tables, jpeg_scan),
    ".jp2": (jp2_boxes, jp2_head, jp2_body),
    ".webp": (webp_length, webp_order, webp_header, webp_body),
}
"""By the suffix of the file."""
