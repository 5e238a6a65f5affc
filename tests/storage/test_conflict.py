from pathlib import Path

import pytest

from inpaint_batch.config import OnConflict
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.storage.conflict import resolve_conflict

POLICIES: list[OnConflict] = ["error", "skip", "overwrite", "suffix"]


@pytest.mark.parametrize("policy", POLICIES)
def test_no_conflict(tmp_path: Path, policy: OnConflict) -> None:
    assert resolve_conflict(tmp_path / "a.jpg", policy) == tmp_path / "a.jpg"


def test_policies(tmp_path: Path) -> None:
    path = tmp_path / "a.b.jpg"
    path.write_bytes(b"")
    with pytest.raises(RowError, match="--on-conflict") as caught:
        resolve_conflict(path, "error")
    assert caught.value.code is FailureCode.WRITE
    assert resolve_conflict(path, "skip") is None
    assert resolve_conflict(path, "overwrite") == path
    assert resolve_conflict(path, "suffix") == tmp_path / "a.b-1.jpg"
    (tmp_path / "a.b-1.jpg").write_bytes(b"")
    assert resolve_conflict(path, "suffix") == tmp_path / "a.b-2.jpg"
    assert resolve_conflict(path, "suffix", taken=lambda p: p.name in {"a.b.jpg", "a.b-1.jpg", "a.b-2.jpg"}) == (
        tmp_path / "a.b-3.jpg"
    )


def test_a_dangling_link_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "nowhere")
    assert resolve_conflict(tmp_path / "a.jpg", "skip") is None


@pytest.mark.parametrize("policy", POLICIES)
def test_a_folder_in_the_way_is_an_error(tmp_path: Path, policy: OnConflict) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(RowError, match="folder"):
        resolve_conflict(tmp_path / "a.jpg", policy)
