"""The page about provenance shows what a run gives: its own example, run."""

import json
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from inpaint_batch.cli.run import app
from inpaint_batch.cli.verify import app as verify_app
from inpaint_batch.errors import RowsFailedError
from inpaint_batch.imaging.xmp import MADE_WITH_A_MODEL
from inpaint_batch.imaging.xmp_files import MAX_JPEG_PACKET_BYTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "provenance.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def restored(tmp_path_factory) -> Path:
    (line,) = re.findall(r"^inpaint-batch run (.*)$", PAGE, re.MULTILINE)
    output = tmp_path_factory.mktemp("page") / "restored"
    words = [
        {"restored": str(output), "manifests/demo.csv": str(ROOT / line.split()[0])}.get(w, w)
        for w in shlex.split(line)
    ]
    done = CliRunner().invoke(app, [*words, "--engine", "identity"])
    assert done.exit_code == 0, done.output
    return output


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("sha256sum")), reason="takes jq and sha256sum")
def test_the_checksums_can_be_verified_as_the_page_says(restored: Path) -> None:
    (line,) = re.findall(r"^find restored .*$", PAGE, re.MULTILINE)

    def verified(line: str) -> bool:
        return subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=restored.parent, check=False).returncode == 0

    assert verified(line)
    assert verified(line.replace(".result.", ".source.").replace(".name", ".path"))
    (spoiled,) = restored.rglob("astronaut.jpg")
    whole = spoiled.read_bytes()
    spoiled.write_bytes(whole + b".")
    assert not verified(line)
    spoiled.write_bytes(whole)


def test_results_are_looked_at_once_more_as_the_page_says(restored: Path) -> None:
    (line,) = re.findall(r"^inpaint-batch verify (.*)$", PAGE, re.MULTILINE)
    words = line.replace("restored", str(restored)).replace("manifests/", f"{ROOT}/manifests/").split()
    sound = CliRunner().invoke(verify_app, words)
    assert (sound.exit_code, sound.output.splitlines()[0]) == (0, "4 rows: 4 sound, 0 not, 0 warnings")
    (spoiled,) = restored.rglob("astronaut.jpg")
    whole = spoiled.read_bytes()
    spoiled.write_bytes(whole + b".")
    found = CliRunner().invoke(verify_app, words)
    spoiled.write_bytes(whole)
    assert isinstance(found.exception, RowsFailedError)
    assert found.output.splitlines()[-2] == "4 rows: 3 sound, 1 not, 0 warnings"


def test_the_sidecar_has_the_keys_that_the_page_lists(restored: Path) -> None:
    (table,) = re.findall(r"^## The sidecar\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    documented = [
        name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    told = [json.loads(path.read_text()) for path in restored.rglob("*.inpaint-batch.json")]
    assert len(told) == 4
    for one in told:
        assert set(one) == set(documented)


def test_the_premis_event_has_the_relationship_that_the_page_shows(restored: Path) -> None:
    (shown,) = re.findall(r"^```xml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    wanted = ET.fromstring(
        shown.replace("<premis:relationship>", '<premis:relationship xmlns:premis="http://www.loc.gov/premis/v3">')
    )
    for path in restored.rglob("*.premis.xml"):
        (found,) = ET.parse(path).getroot().iter(wanted.tag)
        for one in wanted.iter():
            (same,) = (other for other in found.iter(one.tag) if other.get("valueURI") == one.get("valueURI"))
            assert same.text == one.text or not one.text.strip() or one.text == "(of the source)"


def test_the_images_say_it(restored: Path) -> None:
    assert f"`{MADE_WITH_A_MODEL}`" in PAGE
    assert f"{MAX_JPEG_PACKET_BYTES:,} bytes" in PAGE
    images = [path for path in restored.rglob("*") if path.suffix in (".jpg", ".png", ".tif", ".webp")]
    assert len(images) == 4
    assert all(MADE_WITH_A_MODEL.encode() in path.read_bytes() for path in images)
