"""Rows that `--on-conflict skip` leaves as they were are told apart from rows that are done."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from gallery import Gallery, ledger_lines, run
from typer.testing import CliRunner

from inpaint_batch.cli.merge import app as merge
from inpaint_batch.cli.status import app as status
from inpaint_batch.config import OnConflict, RunConfig
from inpaint_batch.pipeline.run import run_manifest
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.report.progress import make_progress


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    (tmp_path / "in").mkdir()
    gallery = Gallery(tmp_path / "in")
    for number in range(6):
        gallery.add(f"{number}.png")
    (tmp_path / "out").mkdir()
    for name in ("2.png", "4.png"):
        (tmp_path / "out" / name).write_bytes(b"a stranger")
    return gallery


def listed(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_they_are_counted_and_listed_by_themselves(
    gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    state = output / ".inpaint-batch"
    for num_done, num_before in ((4, 0), (0, 4)):
        capsys.readouterr()
        rows = run(gallery.manifest(), output, on_conflict="skip")["rows"]
        assert (rows["done"], rows["skipped"], rows["left"], rows["failed"]) == (num_done, num_before, 2, 0)
        said = capsys.readouterr().err
        assert "2 left as they were" in said
        assert f"they are listed in {state}/left.csv" in said
    assert [line["id"] for line in listed(state / "left.csv")] == ["2.png", "4.png"]
    assert listed(state / "left.csv")[0]["message"] == f"{output}/2.png exists and was not written for this row"
    assert {line["id"] for line in ledger_lines(output)}.isdisjoint({"2.png", "4.png"})
    assert (output / "2.png").read_bytes() == b"a stranger"

    told = CliRunner().invoke(status, [str(output)]).stdout
    assert told.startswith("4 of 6 rows done, 2 left as they were, 0 failed, 0 in flight")
    values = json.loads(CliRunner().invoke(status, [str(output), "--json"]).stdout)
    assert (values["done"], values["left"], values["shards"][0]["left"]) == (4, 2, 2)

    # The list is a manifest: these rows are done once the user has made up their mind.
    assert run(state / "left.csv", output, on_conflict="overwrite")["rows"]["done"] == 2
    assert listed(state / "left.csv") == []
    assert "left.csv" not in run(gallery.manifest(), output)["notes"]


def test_without_any_there_is_no_list(gallery: Gallery, tmp_path: Path) -> None:
    assert run(gallery.manifest(), tmp_path / "other", on_conflict="skip")["rows"]["left"] == 0
    assert not (tmp_path / "other" / ".inpaint-batch" / "left.csv").exists()


def run_shards(gallery: Gallery, output: Path, on_conflict: OnConflict) -> str:
    """What `merge` says once both have ended."""
    for shard in ("1/2", "2/2"):
        config = RunConfig(output=output, shard=shard, engine="identity", workers=1, on_conflict=on_conflict)
        with make_progress("text") as progress:
            run_manifest(config, gallery.manifest(), masks=None, progress=progress, stop=Stop())
    return CliRunner().invoke(merge, [str(output)]).stdout


def test_merge_adds_them_up(gallery: Gallery, tmp_path: Path) -> None:
    output = tmp_path / "out"
    told = run_shards(gallery, output, "skip")
    assert told == "2 shards: 4 rows done, 0 done before, 2 left as they were, none failed\n"
    assert sorted(line["id"] for line in listed(output / ".inpaint-batch" / "left.csv")) == ["2.png", "4.png"]

    assert run_shards(gallery, output, "overwrite") == "2 shards: 2 rows done, 4 done before, none failed\n"
    assert listed(output / ".inpaint-batch" / "left.csv") == []
