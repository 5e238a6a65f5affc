"""Rows that fail after a run had done them, or fail once more: what is said of them, and what stays."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, ledger_lines, run, tree


def told(output: Path) -> list[str]:
    """The messages in failures.csv."""
    with (output / ".inpaint-batch" / "failures.csv").open(newline="") as file:
        return [line["message"] for line in csv.DictReader(file)]


@pytest.mark.parametrize("spoilt", ["mask", "image"])
def test_a_row_that_fails_now_names_the_result_that_still_lies_there(
    gallery: Gallery, tmp_path: Path, spoilt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    path = gallery.add("box 1/a.png")
    gallery.add("b.png")
    manifest = gallery.manifest()
    run(manifest, output)
    before = tree(output)
    if spoilt == "mask":
        gallery.mask("box 1/a.png.mask.png", np.zeros((72, 72), np.uint8))
    else:
        path.unlink()
    capsys.readouterr()
    assert run(manifest, output)["rows"]["failed"] == 1
    (message,) = told(output)
    assert message.endswith(f"; an earlier result still lies at {output}/box 1/a.png")
    assert message in capsys.readouterr().err
    assert ledger_lines(output)[-1]["message"] == message
    assert tree(output) == before  # nothing is deleted by itself
    run(manifest, output, retry_failed=True)
    assert told(output) == [message]  # once, not once more for each time
    (output / "box 1" / "a.png").unlink()
    run(manifest, output, retry_failed=True)
    assert "earlier result" not in told(output)[0]


def test_a_row_that_is_refused_now_names_it_too(gallery: Gallery, tmp_path: Path) -> None:
    output = tmp_path / "out"
    gallery.add("a.png")
    run(gallery.manifest(), output)
    gallery.rows[0]["mask"] = ""
    assert run(gallery.manifest(), output)["rows"]["failed_now"] == 1
    message = f"the mask cell is empty; name the file of the mask; an earlier result still lies at {output}/a.png"
    assert told(output) == [message]
    assert run(gallery.manifest(), output)["rows"]["failed_now"] == 0  # told already


def test_a_row_that_never_was_done_names_nothing(gallery: Gallery, tmp_path: Path) -> None:
    gallery.add("a.png", hole=(0, 0, 72, 72))
    gallery.add("b.png")
    gallery.add_row("b.png", "b.png.mask.png", id="twin")
    for _ in range(2):
        run(gallery.manifest(), tmp_path / "out", retry_failed=True)
        assert not [message for message in told(tmp_path / "out") if "earlier result" in message]


def test_what_is_wrong_with_the_row_itself_counts_as_tried_where_that_is_asked_for(
    gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    gallery.add("a.png")
    gallery.add_row("a.png", "a.png.mask.png", id="twin")
    manifest = gallery.manifest()
    for retry_failed, num_now in ((False, 1), (False, 0), (True, 1), (True, 1)):
        capsys.readouterr()
        rows = run(manifest, output, retry_failed=retry_failed)["rows"]
        assert (rows["failed"], rows["failed_now"]) == (1, num_now)
        said = capsys.readouterr().err
        assert ("write: output 'a.png' is already that of an earlier row" in said) == bool(num_now)
        assert ("failed before" in said) == (not num_now)
