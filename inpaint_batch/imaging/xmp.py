"""XMP packets: say in one that part of the picture was made by a model. Everything else in it stays byte for byte.

The packet is not parsed and written again, which would lose prefixes, order and spacing, but edited where it must be:
old values of the one property that is set are cut out, a line is put at the end of the history, the rest is added in
a description of its own at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

MAX_PACKET_BYTES = 1 << 24
MADE_WITH_A_MODEL = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a picture of which a trained model has made a part."""
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_MM = "http://ns.adobe.com/xap/1.0/mm/"
_EVENT = "http://ns.adobe.com/xap/1.0/sType/ResourceEvent#"
_SOURCE_TYPE, _HISTORY = (_EXT, "DigitalSourceType"), (_MM, "History")
_BEGIN = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_EMPTY = (
    f'{_BEGIN}\n<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}"></rdf:RDF></x:xmpmeta>\n'
    '<?xpacket end="w"?>'
).encode()
_START_TAG = re.compile(rb"""<[^\s/>]+(?:\s+[^\s=]+\s*=\s*(?:"[^"]*"|'[^']*'))*\s*/?>""")
_SPACE = b" \t\r\n\x00"


class XmpError(ValueError):
    """A packet that cannot be edited; the message is a clause that says what it is."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What is said of a picture in its metadata."""

    software: str
    """Name and version."""
    parameters: str
    """What was done, in one line."""


class _Name(NamedTuple):
    uri: str
    local: str
    prefix: str


@dataclass(slots=True)
class _Element:
    name: _Name
    start: int
    """Offset of its start tag."""
    tag: bytes
    attributes: dict[_Name, str]
    text: str = ""
    end: int = 0
    """Offset of its end tag, or just behind an empty element."""
    children: list[_Element] = field(default_factory=list)

    @property
    def is_empty_tag(self) -> bool:
        return self.tag.endswith(b"/>")

    @property
    def behind(self) -> int:
        """Offset just behind the whole element."""
        return self.end if self.is_empty_tag else self.end + self.end_tag_length

    end_tag_length: int = 0

    def is_named(self, uri: str, local: str) -> bool:
        return (self.name.uri, self.name.local) == (uri, local)

    def insertion(self, content: bytes) -> _Edit:
        """The edit that puts `content` at the end of this element."""
        if not self.is_empty_tag:
            return _Edit(self.end, self.end, content)
        name = self.tag[1:].split(None, 1)[0].rstrip(b"/>")
        opened = self.tag[:-2].rstrip() + b">"
        return _Edit(self.start, self.start + len(self.tag), opened + content + b"</" + name + b">")


class _Edit(NamedTuple):
    start: int
    end: int
    content: bytes


def marked(packet: bytes, mark: Mark) -> bytes:
    """`packet` (empty: none yet) with IPTC's digital source type set and a line added to its history.

    What the type was before stands in the line. Raises XmpError for a packet that is damaged, no UTF-8, or unlike what
    the XMP specification allows.
    """
    packet = packet.rstrip(b"\x00") if packet.strip(_SPACE) else _EMPTY
    descriptions, rdf = _descriptions(packet)
    edits: list[_Edit] = []
    before: list[str] = []
    history: _Element | None = None
    for description in descriptions:
        for name, value in description.attributes.items():
            if name[:2] == _SOURCE_TYPE:
                before.append(value)
                edits.append(_without(description, name))
        for child in description.children:
            if child.is_named(*_SOURCE_TYPE):
                resource = {name[:2]: value for name, value in child.attributes.items()}.get((_RDF, "resource"))
                before.append(resource or child.text.strip())
                edits.append(_Edit(child.start, child.behind, b""))
            if child.is_named(*_HISTORY):
                if history is not None:
                    raise XmpError("XMP of several histories")
                history = child
    line = _history_line(mark, [value for value in before if value and value != MADE_WITH_A_MODEL])
    if history is not None:
        lists = [child for child in history.children if child.is_named(_RDF, "Seq")]
        if len(lists) != 1 or len(history.children) != 1:
            raise XmpError("an XMP history that is no list")
        edits.append(lists[0].insertion(line.encode()))
        line = ""
    about = [value for one in descriptions for name, value in one.attributes.items() if name[:2] == (_RDF, "about")]
    edits.append(rdf.insertion(_description(about[0] if about else "", line).encode()))
    result = packet
    for edit in sorted(edits, reverse=True):
        result = result[: edit.start] + edit.content + result[edit.end :]
    _check(result, mark)
    return result


def _check(packet: bytes, mark: Mark) -> None:
    """Read the edited packet back, as any reader would."""
    descriptions, _ = _descriptions(packet)
    types = [child for one in descriptions for child in one.children if child.is_named(*_SOURCE_TYPE)]
    lines = [
        (event.name.local, event.text)
        for one in descriptions
        for child in one.children
        if child.is_named(*_HISTORY)
        for event in child.children[0].children[-1].children
    ]
    if [one.text for one in types] != [MADE_WITH_A_MODEL] or ("softwareAgent", mark.software) not in lines:
        raise XmpError("XMP that does not read back as it was edited")


def _history_line(mark: Mark, before: list[str]) -> str:
    parameters = mark.parameters + "".join(f"; digital source type before: {value}" for value in before)
    return (
        f'<rdf:li xmlns:rdf="{_RDF}" xmlns:stEvt="{_EVENT}" rdf:parseType="Resource">'
        "<stEvt:action>edited</stEvt:action>"
        f"<stEvt:softwareAgent>{escape(mark.software)}</stEvt:softwareAgent>"
        "<stEvt:changed>/content</stEvt:changed>"
        f"<stEvt:parameters>{escape(parameters)}</stEvt:parameters>"
        "</rdf:li>"
    )


def _description(about: str, line: str) -> str:
    history = f'<xmpMM:History xmlns:xmpMM="{_MM}"><rdf:Seq>{line}</rdf:Seq></xmpMM:History>' if line else ""
    return (
        f'<rdf:Description xmlns:rdf="{_RDF}" xmlns:Iptc4xmpExt="{_EXT}" rdf:about={quoteattr(about)}>'
        f"<Iptc4xmpExt:DigitalSourceType>{MADE_WITH_A_MODEL}</Iptc4xmpExt:DigitalSourceType>{history}</rdf:Description>"
    )


def _without(element: _Element, name: _Name) -> _Edit:
    """The edit that takes an attribute out of a start tag."""
    wanted = f"{name.prefix}:{name.local}".encode()
    found = re.search(rb"\s+" + re.escape(wanted) + rb"""\s*=\s*(?:"[^"]*"|'[^']*')""", element.tag)
    if found is None:
        raise XmpError("XMP with a tag that cannot be understood")
    return _Edit(element.start + found.start(), element.start + found.end(), b"")


def _descriptions(packet: bytes) -> tuple[list[_Element], _Element]:
    """The descriptions of the one RDF element, and that element."""
    found = [one for root in _parse(packet) for one in (root, *root.children) if one.is_named(_RDF, "RDF")]
    if len(found) != 1:
        raise XmpError(f"XMP with {len(found)} RDF elements")
    return [child for child in found[0].children if child.is_named(_RDF, "Description")], found[0]


def _parse(packet: bytes) -> list[_Element]:
    """The outermost elements, as a tree that knows where in the packet everything stands."""
    if len(packet) > MAX_PACKET_BYTES:
        raise XmpError(f"XMP of {len(packet) >> 20} MiB")
    parser = expat.ParserCreate("utf-8", " ")
    parser.namespace_prefixes = True
    parser.buffer_text = True
    top = _Element(_Name("", "", ""), 0, b"", {})
    open_elements = [top]

    def start(name: str, attributes: dict[str, str]) -> None:
        offset = parser.CurrentByteIndex
        tag = _START_TAG.match(packet, offset)
        if tag is None:
            raise XmpError("XMP with a tag that cannot be understood")
        own = {_name(key): value for key, value in attributes.items()}
        element = _Element(_name(name), offset, tag[0], own)
        open_elements[-1].children.append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        element = open_elements.pop()
        if element.is_empty_tag:
            element.end = element.start + len(element.tag)
        else:
            element.end = parser.CurrentByteIndex
            element.end_tag_length = packet.index(b">", element.end) + 1 - element.end

    def text(data: str) -> None:
        open_elements[-1].text += data

    def doctype(*_: object) -> None:
        raise XmpError("XMP with a document type, which may hide anything")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        packet.decode("utf-8")
        parser.Parse(packet, True)
    except UnicodeDecodeError as error:
        raise XmpError("XMP that is not UTF-8") from error
    except expat.ExpatError as error:
        raise XmpError(f"XMP that is damaged ({error})") from error
    return top.children


def _name(text: str) -> _Name:
    parts = text.split(" ")
    return _Name(*parts) if len(parts) == 3 else _Name(parts[0] if len(parts) == 2 else "", parts[-1], "")
