"""A project folder that is moved or copied as a whole goes on where it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from gallery import Gallery, run, tree

from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.places import MAX_EARLIER, PLACES, Places
from inpaint_batch.pipeline.report import write_report


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Four rows that are done and one that failed; the manifest lies beside images and results, and names the masks."""
    folder = tmp_path / "project"
    gallery = Gallery(folder)
    for number in range(4):
        gallery.add(f"photos/{number}.png")
    gallery.add("photos/4.png", hole=(0, 0, 0, 0))
    gallery.manifest()
    summary = run(folder / "manifest.csv", folder / "restored")
    assert (summary["rows"]["done"], summary["rows"]["failed"]) == (4, 1)
    return folder


def again(folder: Path, **settings: object) -> dict[str, int]:
    counts = run(folder / "manifest.csv", folder / "restored", **settings)["rows"]
    return {name: counts[name] for name in ("done", "skipped", "failed", "failed_now", "redone")}


UNCHANGED = {"done": 0, "skipped": 4, "failed": 1, "failed_now": 0, "redone": {}}


def test_nothing_is_done_again_where_all_was_moved(project: Path, tmp_path: Path) -> None:
    before = tree(project / "restored")
    for name in ("a/b/c/elsewhere", "again", "project"):  # back again at last
        folder = tmp_path / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        project = project.rename(folder)
        assert again(folder) == UNCHANGED
        assert again(folder) == UNCHANGED  # by what was settled
        assert tree(folder / "restored") == before
    assert (project / "restored" / ".inpaint-batch" / PLACES).read_text().split() == [
        str(tmp_path / name / "restored") for name in ("project", "a/b/c/elsewhere", "again")
    ]


def test_what_has_changed_is_done_again_at_the_new_place(project: Path, tmp_path: Path) -> None:
    folder = project.rename(tmp_path / "elsewhere")
    os.utime(folder / "photos" / "0.png", ns=(1, 1))
    os.utime(folder / "photos" / "1.png.mask.png", ns=(1, 1))
    (folder / "restored" / "photos" / "2.png").unlink()
    found = again(folder)
    assert found == {
        "done": 3, "skipped": 1, "failed": 1, "failed_now": 0, "redone": {"image": 1, "mask": 1, "missing": 1}
    }  # fmt: skip
    assert again(folder) == UNCHANGED


def test_results_may_be_moved_alone(project: Path, tmp_path: Path) -> None:
    (project / "restored").rename(tmp_path / "results")
    counts = run(project / "manifest.csv", tmp_path / "results")["rows"]
    assert (counts["skipped"], counts["failed_now"]) == (4, 0)


@pytest.mark.parametrize("keeps_times", [True, False])
def test_a_copy_beside_the_first_replaces_nothing_of_other_images(
    project: Path, tmp_path: Path, keeps_times: bool
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(project, folder, copy_function=shutil.copy2 if keeps_times else shutil.copyfile)
    if keeps_times:
        assert again(folder) == UNCHANGED
        assert again(project) == UNCHANGED
        return
    before = tree(folder / "restored")
    assert again(folder)["failed_now"] == 5  # whose images these are is not known, since the others are still there
    assert tree(folder / "restored") == before
    project.rename(tmp_path / "gone")
    assert again(folder, retry_failed=True)["done"] == 4


def test_a_report_finds_the_sources(project: Path, tmp_path: Path) -> None:
    folder = project.rename(tmp_path / "elsewhere")
    page = write_report(folder / "restored", None, num_rows=0, max_image_bytes=1 << 30).read_text()
    assert "cannot be shown" not in page
    assert str(folder / "photos" / "0.png") in page
    assert str(tmp_path / "project" / "photos") not in page


def test_places_are_told_from_names_alone(tmp_path: Path) -> None:
    state = tmp_path / "here" / "out" / ".inpaint-batch"
    state.mkdir(parents=True)
    image = f"{tmp_path}/here/photos/a.png"
    assert list(Places(state, read_only=True).were(image)) == []
    (state / PLACES).write_text("/old/out\n/very/old/o")  # cut short
    places = Places(state, read_only=False)
    assert list(places.were(image)) == ["/old/photos/a.png", "/very/old/photos/a.png"]
    assert list(places.were("s3://bucket/a.png")) == []
    assert places.now("/old/photos/a.png") == "/old/photos/a.png"  # nowhere
    (tmp_path / "here" / "photos").mkdir()
    Path(image).touch()
    assert places.now("/old/photos/a.png") == image
    assert places.now("s3://bucket/a.png") == "s3://bucket/a.png"
    assert (state / PLACES).read_text().split("\n")[-2:] == [str(state.parent), ""]
    (state / PLACES).write_text("".join(f"/{number}/out\n" for number in range(100)))
    assert next(iter(Places(state, read_only=True).were(image))) == f"/{100 - MAX_EARLIER}/photos/a.png"


def test_a_copy_of_the_state_in_a_store_has_no_place(tmp_path: Path) -> None:
    Ledger(tmp_path / ".inpaint-batch", is_copy=True).close()
    assert not (tmp_path / ".inpaint-batch" / PLACES).exists()
