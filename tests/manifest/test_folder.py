import errno
import os
from pathlib import Path

import pytest

from inpaint_batch.errors import FailureCode, ManifestError, UsageError
from inpaint_batch.manifest.folder import image_names, read_folder
from inpaint_batch.manifest.read import count_rows, manifest_digest, read_manifest
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.pipeline.detect_items import items_of
from inpaint_batch.types import Row


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    (tmp_path / "masks").mkdir()
    return tmp_path / "masks"


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def pairs(images: Path, masks: Path) -> dict[str, str]:
    """Output and mask of every good row, code of every problem."""
    found: dict[str, str] = {}
    for row in read_folder(images, masks):
        if isinstance(row, RowProblem):
            found[row.id] = row.error.code.value
        else:
            found[row.output] = str(Path(row.mask).relative_to(masks))
    return found


def test_rows_are_complete_and_sorted(images: Path, masks: Path) -> None:
    put(images, "b/z.JPG", "b/c/d.webp", "a.tiff", "z.png", "B.jpeg", "notes.txt", ".hidden.jpg", ".cache/x.jpg")
    put(masks, "b/z.png", "b/c/d.TIF", "a.png", "z.webp", "B.jpg")
    rows = list(read_manifest(images, masks=masks))
    assert [(row.line, row.id) for row in rows] == [
        (1, "B.jpeg"), (2, "a.tiff"), (3, "z.png"), (4, "b/z.JPG"), (5, "b/c/d.webp"),
    ]  # fmt: skip
    assert rows[4] == Row(
        id="b/c/d.webp", line=5, image=f"{images}/b/c/d.webp", mask=f"{masks}/b/c/d.TIF", output="b/c/d.webp"
    )


def test_every_name_that_promises_an_image_counts(images: Path, masks: Path) -> None:
    names = ["a.jpe", "b.jfif", "c.jpeg", "d.jpg", "e.tif", "f.tiff", "g.jp2", "h.png", "i.webp", "j.JFIF"]
    put(images, *names)
    put(masks, *names)
    assert pairs(images, masks) == {name: name for name in names}
    (row,) = read_manifest(images / "b.jfif", masks=masks / "a.jpe")
    assert row == Row("b.jfif", 1, str(images / "b.jfif"), str(masks / "a.jpe"), "b.jfif")


def test_an_image_without_a_mask_is_a_problem_and_the_others_go_on(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "b.jpg", "deep/c.jpg")
    put(masks, "b.png", "c.png", "a.txt")
    rows = list(read_folder(images, masks))
    assert [type(row) for row in rows] == [RowProblem, Row, RowProblem]
    assert isinstance(rows[0], RowProblem)
    assert rows[0].error.code is FailureCode.MASK
    assert "no mask a.jpg.png or a.png" in rows[0].error.message
    assert rows[0].cells == {"id": "a.jpg", "image": f"{images}/a.jpg", "output": "a.jpg"}


def test_two_images_of_one_stem(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "a.png", "b.jpg", "b.png", "c.jpg", "c.png", "d.jpg", "d.png", "d.tif")
    put(masks, "a.jpg.png", "a.png.png", "b.png", "c.jpg.tif", "c.png", "d.jpg.png", "d.webp")
    assert pairs(images, masks) == {
        "a.jpg": "a.jpg.png",
        "a.png": "a.png.png",
        "b.jpg": "mask",
        "b.png": "mask",
        "c.jpg": "c.jpg.tif",
        "c.png": "c.png",  # c.jpg has its own: nobody else waits for this one
        "d.jpg": "d.jpg.png",  # its own, whoever waits for the other
        "d.png": "mask",
        "d.tif": "mask",
    }


def test_images_that_are_not_read_are_rows_unless_they_were_converted(images: Path, masks: Path) -> None:
    put(images, "a.HEIC", "b.heic", "b.png", "b.psd", "sub/c.dpx", "notes.pdf")
    put(masks, "a.png", "b.png")
    assert pairs(images, masks) == {"a.HEIC": "a.HEIC.png", "b.png": "b.png", "sub/c.dpx": "sub/c.dpx.png"}
    (row,) = read_manifest(images / "a.HEIC", masks=masks)
    assert isinstance(row, Row)


def test_the_mask_of_another_image_is_nobody_elses(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "a.jpg.png", "b.jpg.png")
    put(masks, "a.jpg.png", "b.jpg.png")
    assert pairs(images, masks) == {"a.jpg": "a.jpg.png", "a.jpg.png": "mask", "b.jpg.png": "b.jpg.png"}


def test_a_mask_that_is_not_read_is_named(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "b.jpg")
    put(masks, "a.jpg.BMP", "b.xcf")
    for row, name in zip(read_folder(images, masks), ("a.jpg.BMP", "b.xcf"), strict=True):
        assert isinstance(row, RowProblem)
        assert row.error.code is FailureCode.MASK
        assert f"the mask {name} in {masks} is of a format that is not read; save it as a PNG" in row.error.message
    put(masks, "a.png", "b.jpg.png")
    assert pairs(images, masks) == {"a.jpg": "a.png", "b.jpg": "b.jpg.png"}


def test_two_masks_for_one_image(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "b.jpg", "c.jpg")
    put(masks, "a.png", "a.tif", "b.jpg.png", "b.jpg.webp", "c.jpg.png", "c.png")
    assert pairs(images, masks) == {"a.jpg": "mask", "b.jpg": "mask", "c.jpg": "c.jpg.png"}


def test_masks_may_lie_inside_the_images(images: Path) -> None:
    put(images, "a.jpg", "masks/a.png", "sub/masks/b.jpg")
    assert pairs(images, images / "masks") == {"a.jpg": "a.png", "sub/masks/b.jpg": "mask"}


def test_masks_named_in_another_case_are_no_images(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(images, "a.jpg", "masks/a.png", "sub/b.jpg", "scratch.png")

    def samefile(first: Path, second: Path) -> bool:  # as where names that differ in case alone are one file
        return str(first).lower() == str(second).lower()

    monkeypatch.setattr(Path, "samefile", samefile)
    assert list(image_names(images, "", images / "MASKS")) == [("", ["a.jpg", "scratch.png"]), ("sub/", ["b.jpg"])]
    monkeypatch.setattr(Path, "is_file", lambda path: path.name == "Scratch.png")
    assert [row.id for row in read_folder(images, images / "Scratch.png")] == ["a.jpg", "masks/a.png", "sub/b.jpg"]


def test_links(images: Path, masks: Path, tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg")
    put(masks, "linked.png", "gone.png", "ring.png", "folder/a.png")
    (images / "linked.jpg").symlink_to(tmp_path / "real" / "a.jpg")
    (images / "gone.jpg").symlink_to(tmp_path / "nothing.jpg")
    (images / "folder").symlink_to(tmp_path / "real")
    (images / "folder.jpg").symlink_to(tmp_path / "real")
    (images / "loop").symlink_to(images)
    (images / "ring.jpg").symlink_to("ring.jpg")
    os.mkfifo(images / "pipe.jpg")
    assert pairs(images, masks) == {"gone.jpg": "gone.png", "linked.jpg": "linked.png", "ring.jpg": "ring.png"}


def test_a_folder_that_may_not_be_read_fails_alone(images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(images, "a.png", "lost+found/b.png", "z/c.png")
    put(masks, "a.png", "z/c.png")
    scandir, refusal = os.scandir, PermissionError(errno.EACCES, "Permission denied")

    def refusing(folder: Path):  # type: ignore[no-untyped-def]  (root, as whom tests may run, is refused nothing)
        if Path(folder).name == "lost+found":
            raise refusal
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert pairs(images, masks) == {"a.png": "a.png", "lost+found": "read", "z/c.png": "z/c.png"}
    items = items_of(images)
    assert [item.output for item in items] == ["a.png", "", "z/c.png"]
    assert "lost+found: Permission denied, so images in it, if any, are left" in str(items[1].error)
    refusal = OSError(errno.EIO, "Input/output error")  # the disk itself: nothing is known of any folder any more
    with pytest.raises(ManifestError, match="Input/output error"):
        pairs(images, masks)


def test_results_of_a_run_among_the_images_are_not_restored_once_more(images: Path, masks: Path) -> None:
    put(images, "a.png", "box/restored/b.png", "box/restored/.inpaint-batch/run.json", "box/z.png")
    put(masks, "a.png", "box/restored/b.png", "box/z.png")
    assert pairs(images, masks) == {"a.png": "a.png", "box/z.png": "box/z.png", "box/restored": "read"}
    items = items_of(images)
    assert [item.output for item in items] == ["a.png", "box/z.png", ""]
    assert "box/restored is the output folder of a run (.inpaint-batch is in it); move it away" in str(items[2].error)
    assert pairs(images / "box" / "restored", masks / "box" / "restored") == {"b.png": "b.png"}  # named itself


def test_names_that_cannot_be_written(images: Path, masks: Path) -> None:
    put(images, "a\\b.jpg", "good.jpg")
    put(masks, "a\\b.png", "good.png")
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.jpg")).write_bytes(b"")
    assert pairs(images, masks) == {"a\\b.jpg": "write", "good.jpg": "good.png", "\\udcff.jpg": "read"}


def test_folders_that_cannot_be(images: Path, masks: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="folder of images"):
        read_folder(tmp_path / "missing", masks)
    with pytest.raises(ManifestError, match="folder of masks"):
        read_folder(images, tmp_path / "missing")
    with pytest.raises(UsageError, match="same folder"):
        read_folder(images, images)
    put(images, "notes.txt")
    with pytest.raises(ManifestError, match=r"no image below .*\.jpg"):
        list(read_folder(images, masks))


def test_relative_folders_give_absolute_paths(images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(images, "a.jpg")
    put(masks, "a.png")
    monkeypatch.chdir(images.parent)
    for mask in (masks, masks / "a.png"):
        (row,) = read_folder(Path(images.name), mask.relative_to(images.parent))
        assert row == Row("a.jpg", 1, str(images / "a.jpg"), str(masks / "a.png"), "a.jpg")


def test_one_mask_for_all_images(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "sub/b.tif", "sub/line.png", "line.png", "z.jpg")
    for mask in (images / "line.png", images / "sub" / ".." / "line.png"):
        rows = list(read_folder(images, mask))
        assert [(row.line, row.id) for row in rows] == [
            (1, "a.jpg"),
            (2, "z.jpg"),
            (3, "sub/b.tif"),
            (4, "sub/line.png"),
        ]
        assert {Path(row.mask).resolve() for row in rows if isinstance(row, Row)} == {(images / "line.png").resolve()}
    put(masks, "line.bmp", "LINE.PNG")
    assert len(list(read_folder(images, masks / "LINE.PNG"))) == 5
    with pytest.raises(UsageError, match=r"line\.bmp is no mask \(.*\.png.*one mask for all images"):
        read_folder(images, masks / "line.bmp")


def test_one_image_and_its_mask(images: Path, masks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(images, "a.JPG")
    put(masks, "any.png", "a.JPG.tif", "a.png")
    monkeypatch.chdir(images)
    for mask, found in (("any.png", "any.png"), (".", "a.JPG.tif")):
        (row,) = read_manifest(Path("a.JPG"), masks=masks / mask)
        assert row == Row("a.JPG", 1, str(images / "a.JPG"), str(masks / found), "a.JPG")
        assert count_rows(Path("a.JPG"), masks=masks / mask) == 1
    assert manifest_digest(Path("a.JPG")) == ""


def test_names_are_the_same_however_their_accents_are_put_together(images: Path, masks: Path) -> None:
    put(images, "e\u0301.jpg", "\u00fc.jpg", "o\u0308/a\u030a/x.jpg", "o.jpg", "o\u0308/gone/y.jpg", "no/\u00e9/z.jpg")
    put(masks, "\u00e9.png", "u\u0308.jpg.png", "\u00f6/\u00e5/x.png", "o\u0308.png")
    assert pairs(images, masks) == {
        "e\u0301.jpg": "\u00e9.png",
        "\u00fc.jpg": "u\u0308.jpg.png",
        "o\u0308/a\u030a/x.jpg": "\u00f6/\u00e5/x.png",
        "o.jpg": "mask",
        "o\u0308/gone/y.jpg": "mask",
        "no/\u00e9/z.jpg": "mask",
    }
    (row,) = read_manifest(images / "e\u0301.jpg", masks=masks)
    assert isinstance(row, Row)
    assert row.mask == str(masks / "\u00e9.png")


def test_many_folders_with_accents_are_looked_for_in_one_listing(images: Path, masks: Path, monkeypatch) -> None:
    for number in range(30):
        put(images, f"\u00e9{number}/x.jpg", f"\u00fc{number}/y.jpg")
        put(masks, f"e\u0301{number}/x.png")
    listed: list[Path] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(Path(folder)) or scandir(folder))
    found = pairs(images, masks)
    assert found["\u00e97/x.jpg"] == "e\u03017/x.png"
    assert found["\u00fc7/y.jpg"] == "mask"
    assert listed.count(masks) == 1


def test_one_image_that_cannot_be(images: Path, masks: Path) -> None:
    put(images, "a.jpg", "b\\c.jpg")
    put(masks, "b.png", "b\\c.png")
    with pytest.raises(ManifestError, match=r"the image .*gone\.jpg does not exist"):
        read_manifest(images / "gone.jpg", masks=masks / "b.png")
    with pytest.raises(ManifestError, match=r"the mask .*gone\.png does not exist"):
        read_manifest(images / "a.jpg", masks=masks / "gone.png")
    with pytest.raises(UsageError, match="same file"):
        read_manifest(images / "a.jpg", masks=images / "a.jpg")
    for name, code in (("a.jpg", FailureCode.MASK), ("b\\c.jpg", FailureCode.WRITE)):
        (row,) = read_manifest(images / name, masks=masks)
        assert isinstance(row, RowProblem)
        assert row.error.code == code
