import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.storage.paths import check_output_root, folds_names, output_problem, refuse_input, safe_join
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row

BAD_OUTPUTS = [
    "", "  ", "/etc/passwd", "../a.jpg", "a/../../b.jpg", "a/..", "..", "a\\b.jpg", "..\\a.jpg", "\\\\server\\a.jpg",
    "C:/a.jpg", "c:a.jpg", "a\0b.jpg", "a//b.jpg", "a/", "./a.jpg", "a/./b.jpg", ".inpaint-batch/ledger.jsonl",
    ".inpaint-batch", ".Inpaint-Batch/x.jpg", "x/.a.jpg.inpaint-batch-12-0123456789ab.tmp",
    "x" * 252 + ".jpg", "ü" * 126 + ".jpg/a.jpg",
]  # fmt: skip


@pytest.mark.parametrize("relative", BAD_OUTPUTS)
def test_bad_outputs_are_refused(tmp_path: Path, relative: str) -> None:
    assert output_problem(relative) is not None
    with pytest.raises(RowError) as caught:
        safe_join(tmp_path, relative)
    assert caught.value.code is FailureCode.WRITE


@pytest.mark.parametrize(
    "relative",
    ["a.jpg", "a/b/c.jpg", "..a.jpg", "a..b/c", "ü/é 1.tif", ".hidden/a.png", "ab:c.jpg", "x" * 251 + ".jpg"],
)
def test_good_outputs_are_joined(tmp_path: Path, relative: str) -> None:
    assert safe_join(tmp_path, relative) == tmp_path / relative


PARTS = st.one_of(
    st.sampled_from(
        ["..", ".", "", "a", "link", "away", "C:", "..\\x", ".inpaint-batch", "/", "\0", "\ud800", "x" * 300]
    ),
    st.text(max_size=6),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "out"
    (root / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (root / "away").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "link").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    return root


@given(parts=st.lists(PARTS, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_leaves_the_root(tree: Path, parts: list[str]) -> None:
    try:
        joined = safe_join(tree, "/".join(parts))
    except RowError:
        return
    assert os.path.realpath(joined.parent).startswith(os.path.realpath(tree))
    assert ".." not in joined.relative_to(tree).parts


def test_links_out_of_the_root_are_refused_and_links_inside_are_followed(tree: Path) -> None:
    with pytest.raises(RowError, match="symbolic link"):
        safe_join(tree, "away/x.jpg")
    with pytest.raises(RowError, match="cannot be a path"):
        safe_join(tree, "loop/x.jpg")
    assert safe_join(tree, "a/link/a/x.jpg") == tree / "a/link/a/x.jpg"
    (tree / "last.jpg").symlink_to(tree.parent / "elsewhere" / "x.jpg")
    assert safe_join(tree, "last.jpg") == tree / "last.jpg"


def test_root_may_be_a_link_itself(tree: Path) -> None:
    entry = tree.parent / "entry"
    entry.symlink_to(tree)
    assert safe_join(entry, "a/x.jpg") == entry / "a/x.jpg"


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://b/a.jpg", True),
        ("https://x/y", True),
        ("az+x://c", True),
        ("C:/a.jpg", False),
        ("a/b://c", False),
        ("a", False),
    ],
)
def test_uri(location: str, expected: bool) -> None:
    assert is_uri(location) is expected


def row(image: Path, mask: Path, truth: Path | None = None) -> Row:
    return Row(id="1", line=2, image=str(image), mask=str(mask), output="x", truth=str(truth) if truth else None)


def test_an_input_is_never_the_output(tmp_path: Path) -> None:
    image, mask, truth = (tmp_path / name for name in ("a.jpg", "m.png", "t.jpg"))
    for path in (image, mask, truth):
        path.write_bytes(b"x")
    for path, role in ((image, "image"), (mask, "mask"), (truth, "truth")):
        with pytest.raises(RowError, match=f"is the {role} "):
            refuse_input(path, row(image, mask, truth))
    (tmp_path / "folder").symlink_to(tmp_path)
    with pytest.raises(RowError):
        refuse_input(tmp_path / "folder" / "a.jpg", row(image, mask))
    (tmp_path / "shown.jpg").symlink_to(image)  # the link itself is this row's image
    with pytest.raises(RowError):
        refuse_input(tmp_path / "shown.jpg", row(tmp_path / "shown.jpg", mask))
    (tmp_path / "other.jpg").write_bytes(b"y")
    refuse_input(tmp_path / "other.jpg", row(image, mask))
    refuse_input(tmp_path / "new.jpg", row(image, mask))


def test_output_root_away_from_the_input(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (tmp_path / "alias").symlink_to(photos)
    for bad in (photos, photos / "out", tmp_path / "alias", tmp_path / "alias" / "x" / "y"):
        with pytest.raises(StorageError, match="input folder"):
            check_output_root(bad, [photos])
    assert list(photos.iterdir()) == []
    check_output_root(tmp_path / "photos-restored" / "deep", [photos])
    assert list((tmp_path / "photos-restored" / "deep").iterdir()) == []
    check_output_root(tmp_path, [photos])  # the input inside the output is no loop


def test_a_folder_of_results_has_not_the_name_of_an_image(tmp_path: Path) -> None:
    for name in ("restored.jpg", "restored.TIFF"):  # where one image was named, one file was meant
        with pytest.raises(StorageError, match="has the name of an image; name a folder"):
            check_output_root(tmp_path / name, [])
        assert not (tmp_path / name).exists()
    (tmp_path / "restored.jpg").mkdir()
    check_output_root(tmp_path / "restored.jpg", [])
    check_output_root(tmp_path / "restored.2026", [])


def test_output_root_in_the_input_by_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "box").mkdir(parents=True)

    def samefile(first: Path, second: Path) -> bool:  # as where names that differ in case alone are one file
        return str(first.resolve()).lower() == str(second.resolve()).lower()

    monkeypatch.setattr(Path, "samefile", samefile)
    for bad in ("Photos", "PHOTOS/out", "photos/BOX/out"):
        with pytest.raises(StorageError, match="input folder"):
            check_output_root(tmp_path / bad, [tmp_path / "photos"], create=False)
    check_output_root(tmp_path / "Photos-restored", [tmp_path / "photos"], create=False)


def test_output_root_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match="not a folder"):
            check_output_root(bad, [])


def test_dry_check_creates_nothing(tmp_path: Path) -> None:
    check_output_root(tmp_path / "new", [], create=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
@pytest.mark.parametrize("create", [True, False])
def test_output_root_must_be_writable(tmp_path: Path, create: bool) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(StorageError, match="cannot write in"):
        check_output_root(closed / "out", [], create=create)


def test_closed_folder_as_the_system_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StorageError, match="cannot write in"):
        check_output_root(tmp_path / "out", [], create=False)


def test_output_root_in_a_loop_of_links(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(StorageError):
        check_output_root(tmp_path / "loop" / "x", [])


def test_a_folder_tells_whether_it_makes_a_difference_of_case(tmp_path: Path) -> None:
    assert not folds_names(tmp_path / "not" / "there")
    (tmp_path / "1").touch()  # has no other case
    assert not folds_names(tmp_path)
    (tmp_path / "state").mkdir()
    assert not folds_names(tmp_path)
    (tmp_path / "STATE").symlink_to(tmp_path / "state")  # as such a folder would answer
    assert folds_names(tmp_path)
    assert folds_names(tmp_path / "not" / "there")
