"""The restoration of one image as PREMIS 3: an event, the files before and after it, and the program that did it.

Files are known by their SHA-256, so that an archive finds master and derivative whatever they are called there.
"""

from __future__ import annotations

import json
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from inpaint_batch.types import FORMAT_SUFFIXES
from inpaint_batch.words import counted

NAMESPACE = "http://www.loc.gov/premis/v3"
SCHEMA = "https://www.loc.gov/standards/premis/premis.xsd"
_XSI = "http://www.w3.org/2001/XMLSchema-instance"
_VOCABULARY = "http://id.loc.gov/vocabulary/preservation/"
_BY_CHECKSUM = "SHA-256"
_MIME = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "webp": "image/webp",
    "jp2": "image/jp2",
}
_DETAILS = ("id", "engine", "model", "options", "hole", "tiles_by_side_px", "libraries", "seconds")
"""What of the description goes into the event as JSON; the rest has elements of its own."""


def premis_event(told: Mapping[str, Any]) -> str:
    """A PREMIS document from what `sidecar.describe` tells: objects, one event of the type modification (replication
    where nothing was to be filled), agents.
    """
    ET.register_namespace("premis", NAMESPACE)
    ET.register_namespace("xsi", _XSI)
    where = {f"{{{_XSI}}}schemaLocation": f"{NAMESPACE} {SCHEMA}", "version": "3.0"}
    root = ET.Element(f"{{{NAMESPACE}}}premis", where)
    source, mask, result = told["source"], told["mask"], told["result"]
    event = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{result['sha256']} {told['written']} {told['id']}"))
    formats = told["formats"]
    _object(root, source["path"], source, _MIME[formats["source"]])
    if mask["sha256"] != source["sha256"]:
        _object(root, mask["path"], mask, _mime_by_name(mask["path"]))
    derivative = _object(root, result["name"], result, _MIME[formats["result"]])
    relationship = _below(derivative, "relationship")
    _below(relationship, "relationshipType", "derivation", "relationshipType/der")
    _below(relationship, "relationshipSubType", "has source", "relationshipSubType/hss")
    _identifier(relationship, "relatedObjectIdentifier", _BY_CHECKSUM, source["sha256"])
    _identifier(relationship, "relatedEventIdentifier", "UUID", event)
    _event(root, event, told)
    for agent in _agents(told):
        _agent(root, agent)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _mime_by_name(path: str) -> str:
    """Of a mask, whose kind is not written down: it may serve many rows, and be a list of polygons."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in (".json", ".geojson"):
        return "application/json"
    return _MIME[FORMAT_SUFFIXES[suffix]] if suffix in FORMAT_SUFFIXES else "application/octet-stream"


def _object(root: ET.Element, name: str, checksum: Mapping[str, Any], mime: str) -> ET.Element:
    element = _below(root, "object")
    element.set(f"{{{_XSI}}}type", "premis:file")
    _identifier(element, "objectIdentifier", _BY_CHECKSUM, checksum["sha256"])
    _identifier(element, "objectIdentifier", "path", name)
    characteristics = _below(element, "objectCharacteristics")
    fixity = _below(characteristics, "fixity")
    _below(fixity, "messageDigestAlgorithm", "SHA-256", "cryptographicHashFunctions/sha256")
    _below(fixity, "messageDigest", checksum["sha256"])
    _below(fixity, "messageDigestOriginator", "inpaint-batch")
    _below(characteristics, "size", str(checksum["bytes"]))
    designation = _below(_below(characteristics, "format"), "formatDesignation")
    _below(designation, "formatName", mime)
    _below(element, "originalName", name.rsplit("/", 1)[-1])
    return element


def _event(root: ET.Element, identifier: str, told: Mapping[str, Any]) -> None:
    event = _below(root, "event")
    _identifier(event, "eventIdentifier", "UUID", identifier)
    hole = told["hole"]
    if hole["num_holes"]:
        kind, term = "modification", "eventType/mod"
        areas = f"{counted(hole['num_holes'], 'hole')}, {hole['num_pixels']} pixels in all"
        detail = f"inpainting: the samples in {areas}, were replaced by those that a trained model made up"
    else:
        kind, term, detail = "replication", "eventType/rep", "copied: the mask marks nothing"
    _below(event, "eventType", kind, term)
    _below(event, "eventDateTime", told["written"])
    _below(_below(event, "eventDetailInformation"), "eventDetail", detail)
    details = {name: told[name] for name in _DETAILS}
    _below(_below(event, "eventDetailInformation"), "eventDetail", json.dumps(details, ensure_ascii=True))
    outcome = _below(event, "eventOutcomeInformation")
    _below(outcome, "eventOutcome", "success", "eventOutcome/suc")
    _below(_below(outcome, "eventOutcomeDetail"), "eventOutcomeDetailNote", f"verified: {told['verified']}")
    for agent in _agents(told):
        linked = _identifier(event, "linkingAgentIdentifier", agent.kind, agent.value)
        _below(linked, "linkingAgentRole", "executing program", "eventRelatedAgentRole/exe")
    for checksum in dict.fromkeys((told["source"]["sha256"], told["mask"]["sha256"])):
        linked = _identifier(event, "linkingObjectIdentifier", _BY_CHECKSUM, checksum)
        _below(linked, "linkingObjectRole", "source", "eventRelatedObjectRole/sou")
    linked = _identifier(event, "linkingObjectIdentifier", _BY_CHECKSUM, told["result"]["sha256"])
    _below(linked, "linkingObjectRole", "outcome", "eventRelatedObjectRole/out")


class _Agent(NamedTuple):
    """Software that took part."""

    kind: str
    value: str
    name: str
    version: str | None


def _agents(told: Mapping[str, Any]) -> list[_Agent]:
    """The program, and the engine with its model unless all was copied."""
    software = told["software"]
    program = _Agent("program", f"{software['name']} {software['version']}", software["name"], software["version"])
    engine = _Agent("engine and model", told["engine"], told["model"], None)
    return [program, engine] if told["hole"]["num_holes"] else [program]


def _agent(root: ET.Element, about: _Agent) -> None:
    agent = _below(root, "agent")
    _identifier(agent, "agentIdentifier", about.kind, about.value)
    _below(agent, "agentName", about.name)
    _below(agent, "agentType", "software", "agentType/sof")
    if about.version is not None:
        _below(agent, "agentVersion", about.version)


def _identifier(parent: ET.Element, name: str, kind: str, value: str) -> ET.Element:
    element = _below(parent, name)
    _below(element, f"{name}Type", kind)
    _below(element, f"{name}Value", value)
    return element


def _below(parent: ET.Element, name: str, text: str | None = None, term: str | None = None) -> ET.Element:
    """A new element; `term` is its place in the vocabularies of the Library of Congress."""
    element = ET.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    if term is not None:
        vocabulary = term.split("/", 1)[0]
        element.set("authority", vocabulary)
        element.set("authorityURI", _VOCABULARY + vocabulary)
        element.set("valueURI", _VOCABULARY + term)
    element.text = None if text is None else "".join(sign if _is_xml(sign) else "\ufffd" for sign in text)
    return element


def _is_xml(sign: str) -> bool:
    """Whether XML 1.0 knows the character: names of files may hold others."""
    code = ord(sign)
    return sign in "\t\n\r" or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000
