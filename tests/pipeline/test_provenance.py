"""`--premis` and `--xmp`: what a result says of itself, and what is written beside it."""

from __future__ import annotations

import csv
import hashlib
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xmlschema
from gallery import Gallery, noise, run, tree
from PIL import Image

from inpaint_batch.config import RunConfig
from inpaint_batch.errors import RowsFailedError
from inpaint_batch.execution.premis import premis_event
from inpaint_batch.execution.sidecar import _without_secrets
from inpaint_batch.imaging.xmp import MADE_WITH_A_MODEL
from inpaint_batch.pipeline.check import check_manifest
from inpaint_batch.report.findings import FindingsPrinter

SCHEMA = Path(__file__).parents[1] / "execution" / "premis-v3-0.xsd"
"""PREMIS 3.0 as the Library of Congress publishes it."""
NAMES = {"p": "http://www.loc.gov/premis/v3"}
XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
VOCABULARY = "http://id.loc.gov/vocabulary/preservation/"


@pytest.fixture(scope="module")
def premis() -> xmlschema.XMLSchema:
    return xmlschema.XMLSchema(SCHEMA)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def said(result: Path) -> ET.Element:
    return ET.parse(result.with_name(result.name + ".premis.xml")).getroot()


def texts(element: ET.Element, path: str) -> list[str | None]:
    return [found.text for found in element.findall(path, NAMES)]


def test_the_event_is_valid_premis_and_ties_files_by_checksum(
    every_format: Gallery, tmp_path: Path, premis: xmlschema.XMLSchema
) -> None:
    output = tmp_path / "out"
    assert run(every_format.manifest(), output, premis=True, sidecar=True)["exit_code"] == 0
    for row in every_format.rows:
        result, source = output / row["output"], every_format.folder / row["image"]
        premis.validate(str(result) + ".premis.xml")
        root = said(result)
        master, mask, derivative = root.findall("p:object", NAMES)
        assert {one.get(XSI_TYPE) for one in (master, mask, derivative)} == {"premis:file"}
        digests = ".//p:messageDigest"
        assert texts(master, digests) == [sha256(source)]
        assert texts(mask, digests) == [sha256(every_format.folder / row["mask"])]
        assert texts(derivative, digests) == [sha256(result)]
        assert texts(derivative, ".//p:size") == [str(result.stat().st_size)]
        related = "p:relationship/p:relatedObjectIdentifier/p:relatedObjectIdentifierValue"
        assert texts(derivative, related) == [sha256(source)]
        (event,) = root.findall("p:event", NAMES)
        assert texts(event, "p:eventType") == ["modification"]
        assert texts(derivative, "p:relationship//p:relatedEventIdentifierValue") == texts(
            event, "p:eventIdentifier/p:eventIdentifierValue"
        )
        roles = [
            (one.find("p:linkingObjectRole", NAMES).text, one.find("p:linkingObjectIdentifierValue", NAMES).text)  # type: ignore[union-attr]
            for one in event.findall("p:linkingObjectIdentifier", NAMES)
        ]
        wanted = [("source", source), ("source", every_format.folder / row["mask"]), ("outcome", result)]
        assert roles == [(role, sha256(path)) for role, path in wanted]
        agents = set(texts(root, "p:agent/p:agentIdentifier/p:agentIdentifierValue"))
        assert agents == set(texts(event, ".//p:linkingAgentIdentifierValue"))
        detail = json.loads(texts(event, ".//p:eventDetail")[1] or "")
        beside = json.loads(result.with_name(result.name + ".inpaint-batch.json").read_text())
        assert detail["options"] == beside["options"]
        assert detail["hole"] == beside["hole"]


def test_terms_are_those_of_the_vocabularies() -> None:
    one = {"path": "s", "bytes": 1, "sha256": "s"}
    told = {"source": one, "mask": one, "result": {"name": "a.jpg", "bytes": 1, "sha256": "r"}, "id": "1"}
    told |= {"formats": {"source": "jpeg", "result": "png"}, "software": {"name": "inpaint-batch", "version": "1"}}
    told |= {"engine": "e", "model": "m", "options": {}, "hole": {"num_holes": 1, "num_pixels": 2}}
    told |= {"libraries": {}, "tiles_by_side_px": {}, "verified": "all", "seconds": {}, "written": "2026"}
    root = ET.fromstring(premis_event(told).encode())
    terms = {element.get("valueURI", "").removeprefix(VOCABULARY): element.text for element in root.iter()}
    del terms[""]
    assert terms == {
        "cryptographicHashFunctions/sha256": "SHA-256",
        "relationshipType/der": "derivation",
        "relationshipSubType/hss": "has source",
        "eventType/mod": "modification",
        "eventOutcome/suc": "success",
        "eventRelatedAgentRole/exe": "executing program",
        "eventRelatedObjectRole/sou": "source",
        "eventRelatedObjectRole/out": "outcome",
        "agentType/sof": "software",
    }
    assert len(root.findall("p:object", NAMES)) == 2  # the image is its own mask
    assert texts(root, ".//p:formatName") == ["image/jpeg", "image/png"]
    for name, mime in (
        ("a/m.TIFF", "image/tiff"),
        ("s3://b/holes.json", "application/json"),
        ("rle", "application/octet-stream"),
    ):
        told["mask"] = {"path": name, "bytes": 1, "sha256": "m"}
        root = ET.fromstring(premis_event(told).encode())
        assert texts(root, ".//p:formatName") == ["image/jpeg", mime, "image/png"]


def test_names_that_xml_does_not_know_are_told_nevertheless(
    gallery: Gallery, tmp_path: Path, premis: xmlschema.XMLSchema
) -> None:
    gallery.add("a & <b> \x01 ü.png")
    assert run(gallery.manifest(), tmp_path / "out", premis=True)["exit_code"] == 0
    result = tmp_path / "out" / "a & <b> \x01 ü.png"
    premis.validate(str(result) + ".premis.xml")
    assert "a & <b> \ufffd ü.png" in texts(said(result), "p:object/p:originalName")


def test_it_may_be_added_later_and_is_written_again_when_it_is_gone(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png")
    output = tmp_path / "out"
    run(gallery.manifest(), output)
    assert run(gallery.manifest(), output, premis=True)["rows"]["done"] == 1
    assert run(gallery.manifest(), output, premis=True)["rows"]["skipped"] == 1
    (output / "a.png.premis.xml").unlink()
    assert run(gallery.manifest(), output, premis=True)["rows"]["done"] == 1
    assert run(gallery.manifest(), output)["rows"]["skipped"] == 1


def test_secrets_of_uris_are_left_out() -> None:
    told = {"a": ["s3://key:secret@bucket/x", ("https://h/p?X-Amz-Signature=abc",)], "b": {"c": 3, "d": None}}
    assert _without_secrets(told) == {"a": ["s3://…@bucket/x", ["https://h/p?…"]], "b": {"c": 3, "d": None}}


def elsewhere(path: Path) -> tuple[str, np.ndarray]:
    """XMP and samples by readers that know nothing of ours."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            return file.pages.first.tags.valueof(700).decode(), file.pages.first.asarray()
    with Image.open(path) as image:
        image.load()
        xmp = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        return xmp.decode(), np.asarray(image)


def test_every_format_says_that_a_model_made_a_part(every_format: Gallery, tmp_path: Path) -> None:
    assert run(every_format.manifest(), tmp_path / "plain")["exit_code"] == 0
    assert run(every_format.manifest(), tmp_path / "marked", row={"xmp": True}, sidecar=True)["exit_code"] == 0
    for row in every_format.rows:
        xmp, samples = elsewhere(tmp_path / "marked" / row["output"])
        assert f"<Iptc4xmpExt:DigitalSourceType>{MADE_WITH_A_MODEL}<" in xmp
        assert f"source SHA-256 {sha256(every_format.folder / row['image'])}; " in xmp
        assert "filled 1 hole, 192 of " in xmp
        if row["output"].endswith("tif"):
            np.testing.assert_array_equal(samples, tifffile.imread(tmp_path / "plain" / row["output"]))
        else:
            with Image.open(tmp_path / "plain" / row["output"]) as image:
                np.testing.assert_array_equal(samples, np.asarray(image))
        beside = json.loads((tmp_path / "marked" / f"{row['output']}.inpaint-batch.json").read_text())
        assert beside["result"]["sha256"] == sha256(tmp_path / "marked" / row["output"])
    assert run(every_format.manifest(), tmp_path / "again", row={"xmp": True})["exit_code"] == 0
    marked = {name: digest for name, digest in tree(tmp_path / "marked").items() if not name.endswith(".json")}
    assert tree(tmp_path / "again") == marked  # the same row, the same bytes


def test_a_column_of_the_manifest_and_lossless_results(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.jpg", xmp="yes", jpeg="lossless")
    gallery.add("b.jpg", xmp="no")
    gallery.add("c.jpg", xmp="perhaps")
    summary = run(gallery.manifest(), tmp_path / "out", row={"xmp": True})
    assert summary["rows"]["failed_by_code"] == {"read": 1}
    assert MADE_WITH_A_MODEL in elsewhere(tmp_path / "out" / "a.png")[0]
    assert MADE_WITH_A_MODEL.encode() not in (tmp_path / "out" / "b.jpg").read_bytes()


def test_what_cannot_be_added_to_is_found_by_check(gallery: Gallery, tmp_path: Path) -> None:
    path = gallery.add("a.png")
    with Image.open(path) as image:
        image.save(path.with_suffix(".jpg"), xmp=b"<broken")
    gallery.rows[0].update(image="a.jpg", output="a.jpg")
    config = RunConfig(output=tmp_path / "out", engine="identity")
    assert check_manifest(
        config, gallery.manifest(), masks=None, with_output=False, report=FindingsPrinter("text")
    ).num_rows
    gallery.rows[0]["xmp"] = "true"
    gallery._columns.append("xmp")
    with pytest.raises(RowsFailedError):
        check_manifest(config, gallery.manifest(), masks=None, with_output=False, report=FindingsPrinter("text"))
    assert run(gallery.manifest(), tmp_path / "out")["rows"]["failed_by_code"] == {"read": 1}
    with (tmp_path / "out" / ".inpaint-batch" / "failures.csv").open() as file:
        (failure,) = csv.DictReader(file)
    assert "without --xmp" in failure["message"]


def test_the_page_that_was_restored_says_so(gallery: Gallery, tmp_path: Path) -> None:
    with tifffile.TiffWriter(gallery.folder / "pages.tif") as file:
        for seed in range(2):
            file.write(noise(seed, 72, "RGB"), photometric="rgb", metadata=None)
    mask = np.zeros((72, 72), np.uint8)
    mask[20:30, 20:30] = 255
    gallery.add_row("pages.tif", gallery.mask("m.png", mask), page="2")
    assert run(gallery.manifest(), tmp_path / "out", row={"xmp": True})["exit_code"] == 0
    with tifffile.TiffFile(tmp_path / "out" / "pages.tif") as file:
        assert [700 in page.tags for page in file.pages] == [False, True]
