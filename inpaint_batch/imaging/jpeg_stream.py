"""What the segments of a JPEG say: frame header, tables, metadata, where the picture ends. No entropy decoding."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from inpaint_batch.imaging import exif
from inpaint_batch.imaging.jpeg_segments import (
    APP0,
    APP1,
    APP2,
    APP13,
    APP14,
    COM,
    DAC,
    DHT,
    DNL,
    DQT,
    DRI,
    EOI,
    SEGMENT_HEAD_BYTES,
    SOS,
    is_metadata,
    is_segment,
    segments,
)

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"
"""With which the APP1 segment of the main XMP packet begins."""
PHOTOSHOP_NAME = b"Photoshop 3.0\x00"
"""With which APP13 segments of image resources begin."""
_JFIF = b"JFIF\x00"
_JFIF_BYTES, _ADOBE_BYTES = 9, 7
"""Behind the name; libjpeg passes over shorter ones."""
_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE = 0xC0, 0xC1, 0xC2
_MAX_MCU_BLOCKS = 10
_NUM_SMOOTHED = 10
"""Of the coefficients of a block, in the order of the file: where decoders have no full knowledge of these, they guess
them from the blocks around."""
_MAX_SIDE_PX = 65500
"""Of libjpeg; the format itself goes 35 farther."""
_LATE_HEIGHT = "its height is only told behind the pixels, where decoders do not look"
_SOF_JPEG_LS = 0xF7
_FRAMES = frozenset((*range(0xC0, 0xD0), _SOF_JPEG_LS)) - {DHT, 0xC8, DAC}

Colours = Literal["grey", "ycbcr", "rgb", "cmyk", "ycck"]


@dataclass(frozen=True, slots=True)
class Component:
    """One colour plane as the frame header describes it."""

    id: int
    horizontal: int
    """Sampling factor, relative to the largest one of the frame."""
    vertical: int
    quant_table: int


@dataclass(frozen=True, slots=True)
class JpegStream:
    """What the markers of one JPEG file say."""

    frame: int
    """Second byte of the SOF marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive, others exotic."""
    depth: int
    width_px: int
    height_px: int
    components: tuple[Component, ...]
    metadata: tuple[bytes, ...]
    """Every APPn and COM segment, marker included, in file order."""
    quant_tables: dict[int, bytes]
    """Table number to its 64 steps as big-endian 16-bit numbers, in file (zigzag) order."""
    has_changing_tables: bool
    """Whether a quantisation table is defined anew, with other steps, between two scans."""
    end: int
    """Offset just behind the end-of-image marker; 0 if only the header was parsed."""
    restart_interval: int = 0
    """MCUs between two restart markers in the first scan; 0 where there are none."""
    has_restarts_by_row: bool = False
    """Whether later scans have other intervals, as they do where restarts are counted in rows of MCUs."""
    is_unfinished: bool = False
    """Whether it is progressive and lacks scans, so that decoders smooth what they show."""

    @property
    def is_progressive(self) -> bool:
        """Whether the picture comes in passes of growing detail."""
        return self.frame == _SOF_PROGRESSIVE

    @property
    def is_huffman_dct(self) -> bool:
        """Whether it is one of the three common kinds: baseline, extended, progressive."""
        return self.frame in (_SOF_BASELINE, _SOF_EXTENDED, _SOF_PROGRESSIVE)

    @property
    def is_patchable(self) -> bool:
        """Whether libjpeg can write such a stream, and it then looks as before where its coefficients are: all of its
        scans, one set of (sensible) tables, at most ten blocks in an MCU, no side over its limit.
        """
        mcu_blocks = sum(component.horizontal * component.vertical for component in self.components)
        return (
            not self.has_changing_tables
            and not self.is_unfinished
            and all(component.quant_table in self.quant_tables for component in self.components)
            and not any(step == b"\x00\x00" for table in self.quant_tables.values() for step in _pairs(table))
            and all(all(self.subsampling(index)) for index in range(len(self.components)))
            and (len(self.components) == 1 or mcu_blocks <= _MAX_MCU_BLOCKS)
            and max(self.width_px, self.height_px) <= _MAX_SIDE_PX
        )

    @property
    def _largest_sampling(self) -> tuple[int, int]:
        """The largest sampling factors of any component, (down, across)."""
        return max(each.vertical for each in self.components), max(each.horizontal for each in self.components)

    def subsampling(self, index: int) -> tuple[int, int]:
        """Pixels (down, across) that one sample of component `index` stands for; (0, 0) if that is not a whole
        number.
        """
        tallest, widest = self._largest_sampling
        component = self.components[index]
        if tallest % component.vertical or widest % component.horizontal:
            return 0, 0
        return tallest // component.vertical, widest // component.horizontal

    def blocks(self, index: int) -> tuple[int, int]:
        """(rows, columns) of 8 x 8 blocks of component `index`, without those that only pad the last MCU."""
        tallest, widest = self._largest_sampling
        component = self.components[index]
        rows = -(-self.height_px * component.vertical // (8 * tallest))
        return rows, -(-self.width_px * component.horizontal // (8 * widest))

    def coefficient_bytes(self, index: int) -> int:
        """What the coefficients of component `index` take, two bytes each."""
        rows, columns = self.blocks(index)
        return rows * columns * 64 * 2

    @property
    def colours(self) -> Colours:
        """What the components mean, by the rules that libjpeg follows."""
        if len(self.components) == 1:
            return "grey"
        if len(self.components) == 4:
            return "ycck" if self._adobe_transform else "cmyk"
        if any(len(body) >= _JFIF_BYTES for body in self.payloads(APP0, _JFIF)):
            return "ycbcr"
        if self._adobe_transform is not None:
            return "rgb" if self._adobe_transform == 0 else "ycbcr"
        return "rgb" if [component.id for component in self.components] == list(b"RGB") else "ycbcr"

    @property
    def restart_rows(self) -> int:
        """Rows of MCUs between two restart markers, where they are counted so; else 0."""
        widest = self._largest_sampling[1] if len(self.components) > 1 else 1
        rows, rest = divmod(self.restart_interval, -(-self.width_px // (8 * widest)))
        return rows if self.has_restarts_by_row and not rest else 0

    @property
    def is_inverted(self) -> bool:
        """Whether 255 means no ink: so in CMYK as Adobe writes it, which is nearly all there is."""
        return len(self.components) == 4 and self._adobe_transform is not None

    @property
    def _adobe_transform(self) -> int | None:
        adobe = [body for body in self.payloads(APP14, b"Adobe") if len(body) >= _ADOBE_BYTES]
        return adobe[-1][_ADOBE_BYTES - 1] if adobe else None

    def payloads(self, marker: int, prefix: bytes) -> list[bytes]:
        """Bodies of the metadata segments of one kind that begin with `prefix`, without it."""
        head_bytes = SEGMENT_HEAD_BYTES + len(prefix)
        return [segment[head_bytes:] for segment in self.metadata if is_segment(segment, marker, prefix)]

    @property
    def exif(self) -> bytes:
        """EXIF without its prefix, or empty."""
        return next(iter(self.payloads(APP1, exif.EXIF_PREFIX)), b"")

    @property
    def xmp(self) -> bytes:
        """The main XMP packet, or empty."""
        return next(iter(self.payloads(APP1, XMP_PREFIX)), b"")

    @property
    def icc_profile(self) -> bytes:
        """The ICC profile put together from its pieces, or empty."""
        pieces = sorted(self.payloads(APP2, b"ICC_PROFILE\x00"), key=lambda piece: piece[:1])
        return b"".join(piece[2:] for piece in pieces)

    @property
    def photoshop(self) -> bytes:
        """The image resources of Photoshop put together from their pieces, IPTC among them, or empty."""
        return b"".join(self.payloads(APP13, PHOTOSHOP_NAME))

    @property
    def comments(self) -> list[bytes]:
        """Bodies of the COM segments."""
        return self.payloads(COM, b"")

    @property
    def density(self) -> tuple[int, int, int] | None:
        """(unit, across, down) of the JFIF header: unit 1 is per inch, 2 per centimetre, 0 a mere aspect ratio."""
        for body in self.payloads(APP0, _JFIF):
            if len(body) >= 7:
                unit, across, down = struct.unpack_from(">BHH", body, 2)
                return unit, across, down
        return None


def parse(data: bytes, *, header_only: bool = False) -> JpegStream:
    """Structure of a JPEG file. `header_only` stops at the first scan, so `data` may end anywhere behind it.

    Raises `ValueError` with half a sentence about what is wrong, and `TruncatedError` where the bytes end too early
    (without `header_only` that is: without an end-of-image marker).
    """
    frame: tuple[int, int, int, int, tuple[Component, ...]] | None = None
    metadata: list[bytes] = []
    tables: dict[int, bytes] = {}
    end, seen_scan, is_changing, restart_interval, by_row = 0, False, False, 0, False
    sent: set[tuple[int, int]] = set()
    for marker, span, body in segments(data):
        if marker in _FRAMES:
            if frame is not None:
                raise ValueError("it holds more than one frame")
            frame = (marker, *_parse_frame(body))
        elif marker == DNL:
            raise ValueError(_LATE_HEIGHT)
        elif is_metadata(marker):
            metadata.append(data[span])
        elif marker == DQT:
            fresh = _parse_tables(body)
            is_changing |= seen_scan and any(tables.get(number, table) != table for number, table in fresh.items())
            tables.update(fresh)
        elif marker == DRI:
            interval = int.from_bytes(body[:2], "big")
            by_row |= seen_scan and interval != restart_interval
            restart_interval = restart_interval if seen_scan else interval
        elif marker == SOS:
            seen_scan = True
            if header_only:
                break
            sent.update(_sent_by(body))
        elif marker == EOI:
            end = span.stop
    if frame is None or not seen_scan:
        raise ValueError("it holds no picture")
    wanted = {(component.id, place) for component in frame[-1] for place in range(_NUM_SMOOTHED)}
    is_unfinished = frame[0] == _SOF_PROGRESSIVE and not header_only and not wanted <= sent
    return JpegStream(*frame, tuple(metadata), tables, is_changing, end, restart_interval, by_row, is_unfinished)


def _sent_by(scan: bytes) -> Iterator[tuple[int, int]]:
    """The ids of components and the places of coefficients, of those that are smoothed, that are known in full with a
    scan of a progressive file. `scan` is the body of its header.
    """
    num_components = scan[0] if scan else 0
    if len(scan) < 4 + 2 * num_components:
        raise ValueError("the header of a scan is too short")
    first, last, bits = scan[1 + 2 * num_components :][:3]
    if not bits & 15:
        for index in range(num_components):
            yield from ((scan[1 + 2 * index], place) for place in range(first, min(last + 1, _NUM_SMOOTHED)))


def _parse_frame(body: bytes) -> tuple[int, int, int, tuple[Component, ...]]:
    if len(body) < 6 or len(body) < 6 + 3 * body[5]:
        raise ValueError("its frame header is too short")
    depth, height_px, width_px, num_components = struct.unpack_from(">BHHB", body)
    components = []
    for index in range(num_components):
        identifier, sampling, table = body[6 + 3 * index : 9 + 3 * index]
        components.append(Component(identifier, sampling >> 4, sampling & 15, table))
    if not all(1 <= c.horizontal <= 4 and 1 <= c.vertical <= 4 for c in components):
        raise ValueError("its sampling factors make no sense")
    if not width_px or not components:
        raise ValueError("its frame header makes no sense")
    if not height_px:
        raise ValueError(_LATE_HEIGHT)
    return depth, width_px, height_px, tuple(components)


def _pairs(table: bytes) -> Iterator[bytes]:
    return (table[start : start + 2] for start in range(0, len(table), 2))


def _parse_tables(body: bytes) -> dict[int, bytes]:
    tables = {}
    position = 0
    while position < len(body):
        precision, number = body[position] >> 4, body[position] & 15
        size = 128 if precision else 64
        table = body[position + 1 : position + 1 + size]
        # One precision for all, so that tables compare by value however they were stored.
        tables[number] = table if precision else b"".join(bytes((0, value)) for value in table)
        position += 1 + size
    return tables
