"""Links lead somewhere, and the tables of codes say what the code says."""

import inspect
import json
import re
from pathlib import Path
from typing import get_args

import pytest
from gallery import Gallery, run
from typer.testing import CliRunner

from inpaint_batch import errors
from inpaint_batch.cli.main import app
from inpaint_batch.manifest.schema import COLUMNS
from inpaint_batch.pipeline.status import ShardState
from inpaint_batch.report import findings, json_lines

ROOT = Path(__file__).parents[2]
IGNORED = {".venv", "node_modules", "runs", "restored"}
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") or part in IGNORED for part in path.parts)
)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
TABLE_ROW = re.compile(r"^\| (?:`(\w+)`|(\d+)) \|(?: `?(\w*)`?)?", re.MULTILINE)

EXIT_CODES_WITHOUT_A_CLASS = {0, 130}


def classes() -> dict[int, str]:
    """Exit code -> name of its class; the base stands for a bug."""
    found = [one for _, one in inspect.getmembers(errors, inspect.isclass)]
    return {one.exit_code: one.__name__ for one in found if issubclass(one, errors.InpaintBatchError)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    targets = [target for target in LINK.findall(document.read_text(encoding="utf-8")) if "://" not in target]
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_every_exit_code_is_documented_with_its_class() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## Rows")[0]
    documented = {int(code): name for _, code, name in TABLE_ROW.findall(page) if code}
    assert set(documented) == set(classes()) | EXIT_CODES_WITHOUT_A_CLASS
    for code, name in classes().items():
        assert documented[code] == name


def test_the_readme_lists_the_same_exit_codes() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8").split("## Exit codes")[1].split("\n## ")[0]
    assert {int(code) for _, code, _ in TABLE_ROW.findall(page) if code} == set(classes()) | EXIT_CODES_WITHOUT_A_CLASS


def test_every_failure_code_is_documented() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## Rows")[1].split("\n## ")[0]
    assert {name for name, _, _ in TABLE_ROW.findall(page) if name} == {code.value for code in errors.FailureCode}


def test_the_schema_of_manifests_lists_every_column() -> None:
    page = (ROOT / "manifests" / "README.md").read_text(encoding="utf-8")
    documented = {name for name, _, _ in TABLE_ROW.findall(page) if name}
    assert documented == set(COLUMNS)


def test_every_event_for_programs_is_documented() -> None:
    page = (ROOT / "docs" / "cluster" / "README.md").read_text(encoding="utf-8").split("## Logs")[1].split("\n## ")[0]
    source = inspect.getsource(json_lines) + inspect.getsource(findings)
    events = set(re.findall(r'(?:_emit\(|_print_event\(stream,)\s*"(\w+)"', source))
    assert events >= {"start", "error", "finding"}
    assert events <= set(re.findall(r"`(\w+)`", page))


def test_what_a_run_leaves_is_documented(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "in")
    for name in ("done.png", "failed.png", "left.png"):
        gallery.add(name)
    (gallery.folder / "failed.png").write_bytes(b"no picture")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "left.png").write_bytes(b"a stranger")
    run(gallery.manifest(), tmp_path / "out", on_conflict="skip")
    summary = run(gallery.manifest(), tmp_path / "out", on_conflict="overwrite", fresh=True)
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## What a run leaves behind")[1]
    documented = set(re.findall(r"`([\w.-]+)/?`", page))
    left = {path.name for path in (tmp_path / "out" / ".inpaint-batch").iterdir()}
    assert left >= {"ledger", "ledger-archive", "failures.csv", "left.csv"}
    assert left <= documented
    assert set(summary) | set(summary["rows"]) <= documented


def test_what_status_tells_programs_is_documented(tmp_path: Path) -> None:
    gallery = Gallery(tmp_path / "in")
    gallery.add("done.png")
    run(gallery.manifest(), tmp_path / "out")
    told = json.loads(CliRunner().invoke(app, ["status", str(tmp_path / "out"), "--json"]).stdout)
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8").split("## What `status --json` tells")[1]
    assert set(told) | set(told["shards"][0]) | set(get_args(ShardState)) <= set(re.findall(r"`(\w+)`", page))


def test_no_line_of_the_changelog_stands_twice() -> None:
    """As after a merge of two orders of it."""
    lines = [line for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("- ")]
    assert len(lines) == len(set(lines))
