"""XMP in finished files: what is said, what stays, and what independent readers make of it."""

from __future__ import annotations

import io
import re
import struct
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

import imaging_cases as cases
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.imaging.png_chunks import make_chunk
from inpaint_batch.imaging.xmp import MADE_WITH_A_MODEL, Mark, XmpError, marked
from inpaint_batch.imaging.xmp_files import MAX_JPEG_PACKET_BYTES, check_xmp, mark_file, read_xmp

MARK = Mark("inpaint-batch 9.9", "filled 3 holes & <more>")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
MM = "{http://ns.adobe.com/xap/1.0/mm/}"
EVENT = "{http://ns.adobe.com/xap/1.0/sType/ResourceEvent#}"
XMLNS = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
FULL = (
    '\ufeff<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Somebody 1.0">\n'
    f"<r:RDF {XMLNS.replace('xmlns:rdf', 'xmlns:r')}>\n"
    ' <!-- a > comment --><r:Description r:about="uuid:7&amp;8" xmlns:dc="http://purl.org/dc/elements/1.1/"\n'
    '   xmlns:q="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" q:DigitalSourceType = "http://x/negativeFilm"'
    ' dc:note="a>b&#10;c">\n'
    "  <dc:title><r:Alt><r:li xml:lang='x-default'>Ein Bild: Ä &lt; &#x263a;</r:li></r:Alt></dc:title>\n"
    '  <m:History xmlns:m="http://ns.adobe.com/xap/1.0/mm/"><r:Seq><r:li r:parseType="Resource">'
    '<e:action xmlns:e="http://ns.adobe.com/xap/1.0/sType/ResourceEvent#">created</e:action></r:li></r:Seq></m:History>\n'
    " </r:Description>\n</r:RDF></x:xmpmeta>\n" + " " * 300 + '\n<?xpacket end="w"?>'
).encode()


def tell(packet: bytes) -> tuple[list[str], list[dict[str, str]]]:
    """All digital source types, and the lines of the history."""
    tree = ET.fromstring(packet.decode().lstrip("\ufeff"))
    types = [one.text or "" for one in tree.iter(f"{EXT}DigitalSourceType")]
    types += [value for one in tree.iter() for name, value in one.attrib.items() if name == f"{EXT}DigitalSourceType"]
    assert len(list(tree.iter(f"{MM}History"))) == 1
    lines = next(tree.iter(f"{MM}History")).findall(f"{RDF}Seq/{RDF}li")
    return types, [{one.tag.removeprefix(EVENT): one.text or "" for one in line} for line in lines]


def test_a_packet_of_nothing() -> None:
    for empty in (b"", b" \x00\x00"):
        types, (line,) = tell(marked(empty, MARK))
        assert types == [MADE_WITH_A_MODEL]
        assert line == {
            "action": "edited",
            "softwareAgent": "inpaint-batch 9.9",
            "changed": "/content",
            "parameters": "filled 3 holes & <more>",
        }


def test_what_stands_in_a_packet_stays_byte_for_byte() -> None:
    result = marked(FULL, MARK)
    types, (first, last) = tell(result)
    assert types == [MADE_WITH_A_MODEL]
    assert first == {"action": "created"}
    assert last["parameters"].endswith("; digital source type before: http://x/negativeFilm")
    left = re.sub(rb"<rdf:Description.*?</rdf:Description>|<rdf:li.*?</rdf:li>", b"", result, flags=re.DOTALL)
    assert left == FULL.replace(b' q:DigitalSourceType = "http://x/negativeFilm"', b"")
    assert b'rdf:about="uuid:7&amp;8"' in result  # all descriptions of a packet are about one thing


def test_a_packet_marked_twice() -> None:
    twice = marked(marked(FULL, MARK), Mark("other 1", "again"))
    types, lines = tell(twice)
    assert types == [MADE_WITH_A_MODEL]
    assert [line.get("softwareAgent") for line in lines] == [None, "inpaint-batch 9.9", "other 1"]
    assert lines[2]["parameters"] == "again"


@pytest.mark.parametrize(
    "inner",
    [
        None,
        "<rdf:Description rdf:about=''/>",
        f"<rdf:Description xmlns:a='{MM[1:-1]}'><a:History><rdf:Seq/></a:History></rdf:Description>",
        f"<rdf:Description xmlns:a='{MM[1:-1]}'><a:History><rdf:Seq  ></rdf:Seq ></a:History></rdf:Description>",
        f"<rdf:Description xmlns:b='{EXT[1:-1]}'><b:DigitalSourceType rdf:resource='x'/></rdf:Description>",
        f"<rdf:Description xmlns:b='{EXT[1:-1]}' b:DigitalSourceType='x'/>",
        f"<rdf:Description xmlns:b='{EXT[1:-1]}' b:DigitalSourceType='{MADE_WITH_A_MODEL}'/>",
        f"<Description xmlns='{RDF[1:-1]}'/>",
    ],
)
def test_packets_of_many_shapes(inner: str | None) -> None:
    body = f"<rdf:RDF {XMLNS}/>" if inner is None else f"<rdf:RDF {XMLNS}>{inner}</rdf:RDF>"
    for packet in (body, f"<x:xmpmeta xmlns:x='adobe:ns:meta/'>{body}</x:xmpmeta>"):
        types, lines = tell(marked(packet.encode(), MARK))
        assert types == [MADE_WITH_A_MODEL]
        assert len(lines) == 1
        assert ("before: x" in lines[0]["parameters"]) == ("'x'" in body)


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (b"<not>xml", "damaged"),
        (b"text", "damaged"),
        (b"<a/>", "0 RDF"),
        (f"<x><rdf:RDF {XMLNS}/><rdf:RDF {XMLNS}/></x>".encode(), "2 RDF"),
        (FULL.decode().encode("utf-16"), "not UTF-8"),
        (FULL.replace("Ä".encode(), b"\xc4"), "not UTF-8"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>', "document type"),
        (FULL.replace(b"r:Seq>", b"r:Bag>"), "no list"),
        (
            (
                f'<rdf:RDF {XMLNS} xmlns:m="http://ns.adobe.com/xap/1.0/mm/"><rdf:Description><m:History><rdf:Seq/>'
                "</m:History><m:History><rdf:Seq><rdf:li/></rdf:Seq></m:History></rdf:Description></rdf:RDF>"
            ).encode(),
            "several histories",
        ),
        (b" " * (1 << 24) + FULL, "16 MiB"),
    ],
)
def test_packets_that_cannot_be_edited(packet: bytes, words: str) -> None:
    with pytest.raises(XmpError, match=words):
        marked(packet, MARK)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_value_survives(text: str, attribute: str) -> None:
    before = ET.Element(f"{RDF}RDF")
    description = ET.SubElement(before, f"{RDF}Description", {"{u:1}a": attribute})
    ET.SubElement(description, "{u:1}b").text = text
    packet = ET.tostring(before, encoding="utf-8")
    try:
        ET.fromstring(packet)
    except ET.ParseError:  # a character that XML does not know
        return
    after = ET.fromstring(marked(packet, MARK))
    assert ET.canonicalize(ET.tostring(after[0])) == ET.canonicalize(ET.tostring(ET.fromstring(packet)[0]))


def _picture(format: str, mode: str = "RGB", **options: object) -> bytes:
    samples = cases.picture("rgba" if mode == "RGBA" else "rgb")
    return cases.encoded(Image.fromarray(samples).convert(mode), format, **options)


def _tiff(**options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, cases.picture("rgb"), photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


XMP_TAG = (700, 1, len(FULL), FULL, True)
FILES = {
    "jpeg": (lambda: _picture("JPEG", exif=_exif(), icc_profile=cases.icc_profile(), comment=b"c"), b""),
    "jpeg with xmp": (lambda: _picture("JPEG", exif=_exif(), xmp=FULL), FULL),
    "jpeg bare": (lambda: _picture("JPEG", "L"), b""),
    "png": (lambda: _picture("PNG", exif=_exif(), icc_profile=cases.icc_profile()), b""),
    "png with xmp": (lambda: _png_with(FULL, packed=False), FULL),
    "png with packed xmp": (lambda: _png_with(FULL, packed=True), FULL),
    "webp": (lambda: _picture("WEBP", lossless=True), b""),
    "webp with alpha": (lambda: _picture("WEBP", "RGBA", lossless=True), b""),
    "webp with exif": (lambda: _picture("WEBP", lossless=True, exif=_exif()), b""),
    "webp with xmp": (lambda: _picture("WEBP", lossless=True, xmp=FULL, icc_profile=cases.icc_profile()), FULL),
    "jp2": (lambda: _picture("JPEG2000"), b""),
    "jp2 with xmp": (lambda: _jp2_with(FULL), FULL),
    "tiff": (lambda: _tiff(resolution=(300, 300)), b""),
    "tiff with xmp": (lambda: _tiff(extratags=[XMP_TAG], compression="deflate"), FULL),
    "tiff big endian": (lambda: _tiff(byteorder=">"), b""),
    "bigtiff": (lambda: _tiff(bigtiff=True, tile=(32, 32)), b""),
    "bigtiff with xmp": (lambda: _tiff(bigtiff=True, byteorder=">", extratags=[XMP_TAG]), FULL),
}


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "a description"
    exif[0x0112] = 6
    return exif.tobytes()


def _png_with(packet: bytes, *, packed: bool) -> bytes:
    text = zlib.compress(packet) if packed else packet
    return _png_with_chunk(b"iTXt", b"XML:com.adobe.xmp\x00" + bytes([packed]) + b"\x00en\x00\x00" + text)


def _png_with_chunk(kind: bytes, body: bytes) -> bytes:
    data = _picture("PNG")
    return data[:33] + make_chunk(kind, body).whole + data[33:]


XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def _jp2_with(packet: bytes) -> bytes:
    body = XMP_UUID + packet
    return _picture("JPEG2000") + struct.pack(">I4s", 8 + len(body), b"uuid") + body


def _boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    boxes = []
    while data:
        length, kind = struct.unpack_from(">I4s", data)
        boxes.append((kind, data[8 : length or len(data)]))
        data = data[length or len(data) :]
    return boxes


def kind_of(name: str) -> str:
    return "tiff" if "tiff" in name else name.split()[0]


def elsewhere(path: Path, kind: str) -> tuple[bytes, np.ndarray, dict[str, object]]:
    """XMP, samples and other metadata, by readers that know nothing of ours."""
    if kind == "tiff":
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            rest = {str(tag.code): tag.value for tag in page.tags if tag.code != 700}
            return page.tags.valueof(700), page.asarray(), rest
    with Image.open(path) as image:
        image.load()
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", "").encode()
        if kind == "jp2":  # Pillow does not look for it
            (xmp,) = (body[16:] for _, body in _boxes(path.read_bytes()) if body.startswith(XMP_UUID))
        rest = {name: image.info.get(name) for name in ("exif", "icc_profile", "comment", "dpi", "jfif")}
        return xmp, np.asarray(image), rest


@pytest.mark.parametrize("name", FILES)
def test_every_container(tmp_path: Path, name: str) -> None:
    make, packet = FILES[name]
    kind = kind_of(name)
    path, before, data = tmp_path / "file", tmp_path / "before", make()
    path.write_bytes(data)
    before.write_bytes(data)
    assert read_xmp(path, kind) == packet
    check_xmp(path, kind)
    assert path.read_bytes() == before.read_bytes()
    mark_file(path, kind, MARK)
    xmp, samples, rest = elsewhere(path, kind)
    assert xmp == marked(packet, MARK)
    assert tell(xmp)[0] == [MADE_WITH_A_MODEL]
    _, old_samples, old_rest = elsewhere(before, kind) if packet or kind == "tiff" else _without_xmp(before, kind)
    np.testing.assert_array_equal(samples, old_samples)
    assert rest == old_rest
    once = path.read_bytes()
    mark_file(path, kind, Mark("b 2", "again"))
    assert len(tell(read_xmp(path, kind))[1]) == (3 if packet else 2)
    path.write_bytes(data)
    mark_file(path, kind, MARK)
    assert path.read_bytes() == once  # the same mark gives the same bytes


def _without_xmp(path: Path, kind: str) -> tuple[bytes, np.ndarray, dict[str, object]]:
    with Image.open(path) as image:
        image.load()
        rest = {name: image.info.get(name) for name in ("exif", "icc_profile", "comment", "dpi", "jfif")}
        return b"", np.asarray(image), rest


def test_nothing_but_the_packet_changes_in_the_bytes(tmp_path: Path) -> None:
    for kind, cut in (("jpeg", 2), ("png", 8)):
        before = FILES[kind][0]()
        path = tmp_path / kind
        path.write_bytes(before)
        mark_file(path, kind, MARK)
        after = path.read_bytes()
        start = next(at for at in range(cut, len(before)) if before[at] != after[at])
        grown = len(after) - len(before)
        places = [at for at in range(max(0, start - 40), start + 1) if after[:at] + after[at + grown :] == before]
        assert places  # taking one piece out again gives the old file


def test_other_pages_and_all_old_bytes_of_a_tiff_stay(tmp_path: Path) -> None:
    path = tmp_path / "pages.tif"
    with tifffile.TiffWriter(path) as file:
        for seed in range(3):
            tag = [XMP_TAG] if seed == 2 else []
            file.write(cases.picture("rgb", seed=seed), photometric="rgb", metadata=None, extratags=tag)
    before = path.read_bytes()
    mark_file(path, "tiff", MARK, page=2)
    with tifffile.TiffFile(path) as file:
        assert [700 in page.tags for page in file.pages] == [False, True, True]
        assert file.pages[2].tags.valueof(700) == FULL
        for seed, page in enumerate(file.pages):
            np.testing.assert_array_equal(page.asarray(), cases.picture("rgb", seed=seed))
    after = path.read_bytes()[: len(before)]
    changed = [at for at in range(len(before)) if after[at] != before[at]]
    assert changed[-1] - changed[0] < 4  # the address of the second directory
    with pytest.raises(RowError, match="no page 4"):
        read_xmp(path, "tiff", 4)


def test_a_classic_tiff_does_not_grow_past_its_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inpaint_batch.imaging import xmp_tiff

    path = tmp_path / "a.tif"
    path.write_bytes(_tiff())
    monkeypatch.setattr(xmp_tiff, "CLASSIC_LIMIT_BYTES", path.stat().st_size + 1000)
    with pytest.raises(RowError, match="BigTIFF") as caught:
        mark_file(path, "tiff", MARK)
    assert caught.value.code is FailureCode.WRITE


def test_pictures_behind_the_first_are_found_again(tmp_path: Path) -> None:
    path = tmp_path / "two.jpg"
    first, second = (Image.fromarray(cases.picture("rgb", seed=seed)) for seed in (0, 1))
    first.save(path, "MPO", save_all=True, append_images=[second], quality=95)
    with Image.open(path) as image:
        expected = []
        for frame in range(2):
            image.seek(frame)
            expected.append(np.asarray(image))
    mark_file(path, "jpeg", MARK)
    with Image.open(path) as image:
        for frame in range(2):
            image.seek(frame)
            np.testing.assert_array_equal(np.asarray(image), expected[frame])


def _with_segment(body: bytes, times: int = 1) -> bytes:
    data = _picture("JPEG")
    return data[:2] + (b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body) * times + data[2:]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("jpeg", lambda: _with_segment(b"http://ns.adobe.com/xmp/extension/\x00" + b"0" * 50), "extended XMP"),
        ("jpeg", lambda: _with_segment(b"http://ns.adobe.com/xap/1.0/\x00" + FULL, 2), "several XMP"),
        ("jpeg", lambda: _with_segment(b"http://ns.adobe.com/xap/1.0/\x00" + FULL + b" " * 63_800), "would need"),
        ("jpeg", lambda: _with_segment(b"http://ns.adobe.com/xap/1.0/\x00<broken"), "damaged"),
        ("png", lambda: _png_with(b"<!DOCTYPE a><a/>", packed=True), "document type"),
        ("png", lambda: _png_with(b" " * (17 << 20), packed=True), "16 MiB"),
        ("png", lambda: _png_with_chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00no deflate"), "XMP is damaged"),
        (
            "png",
            lambda: _png_with_chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x01\x00\x00\x00" + zlib.compress(FULL)[:-9]),
            "XMP is damaged",
        ),
        ("png", lambda: _png_with_chunk(b"iTXt", b"XML:com.adobe.xmp\x00"), "XMP is damaged"),
        ("png", lambda: _png_with_chunk(b"zTXt", b"Raw profile type xmp\x00\x00..."), "raw profile"),
        ("tiff", lambda: _tiff(extratags=[(700, 3, 4, (1, 2, 3, 4), True)]), "type 3"),
        ("tiff", lambda: b"II*\x00\xff\xff\xff\x7f", "truncated"),
    ],
)
def test_what_cannot_be_added_to_is_refused_by_name(tmp_path: Path, kind: str, data, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(data())
    before = path.read_bytes()
    for action in (lambda: check_xmp(path, kind), lambda: mark_file(path, kind, MARK)):
        with pytest.raises(RowError, match=words) as caught:
            action()
        assert caught.value.code is FailureCode.READ
    assert path.read_bytes() == before
    assert MAX_JPEG_PACKET_BYTES == 65504


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("has_xmp", [False, True])
def test_an_independent_library_reads_it(tmp_path: Path, kind: str, has_xmp: bool) -> None:
    exiv2 = pytest.importorskip("pyexiv2", reason="pyexiv2 is not installed")
    packet = FULL.replace(b"r:", b"rdf:").replace(b"xmlns:r=", b"xmlns:rdf=") if has_xmp else b""  # it knows no other
    path = tmp_path / "file"
    if kind == "tiff":
        path.write_bytes(_tiff(extratags=[(700, 1, len(packet), packet, True)] if has_xmp else ()))
    else:
        path.write_bytes(_picture(kind.upper(), **({"xmp": packet} if has_xmp and kind != "png" else {})))
    if has_xmp and kind == "png":
        path.write_bytes(_png_with(packet, packed=True))
    mark_file(path, kind, MARK)
    exiv2.set_log_level(4)  # it remarks on the byte order mark
    with exiv2.Image(str(path)) as image:
        found = image.read_xmp()
    assert found["Xmp.iptcExt.DigitalSourceType"] == MADE_WITH_A_MODEL
    assert found[f"Xmp.xmpMM.History[{2 if has_xmp else 1}]/stEvt:softwareAgent"] == "inpaint-batch 9.9"
    assert ("Ein Bild: Ä < ☺" in str(found.get("Xmp.dc.title"))) == has_xmp
