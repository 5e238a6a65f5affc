import csv
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inpaint_batch.config import Shard
from inpaint_batch.errors import FailureCode, ManifestError, UsageError
from inpaint_batch.manifest.read import count_rows, read_images, read_manifest
from inpaint_batch.manifest.row_reader import RowReader
from inpaint_batch.manifest.schema import COLUMNS, RowProblem, to_cells
from inpaint_batch.types import Row


def read(folder: Path, text: str | bytes, name: str = "manifest.csv") -> list[Row | RowProblem]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(read_manifest(path))


def problem(folder: Path, text: str) -> RowProblem:
    """The one problem of a manifest whose other rows are good."""
    [found] = [row for row in read(folder, text) if isinstance(row, RowProblem)]
    return found


def test_the_smallest_manifest(tmp_path: Path) -> None:
    assert read(tmp_path, "image,mask\na/b.jpg,m/b.png\n") == [
        Row(id="a/b.jpg", line=2, image=f"{tmp_path}/a/b.jpg", mask=f"{tmp_path}/m/b.png", output="a/b.jpg")
    ]


def test_paths_that_lead_up_are_told_as_they_lead(tmp_path: Path) -> None:
    (tmp_path / "real" / "masks").mkdir(parents=True)
    (tmp_path / "masks").symlink_to(tmp_path / "real" / "masks")
    rows = read(tmp_path / "masks", "image,mask\n../a.jpg,./../a/../a..b/m.png\n../masks/b.jpg,..m.png\n")
    assert [(row.image, row.mask, row.output) for row in rows] == [
        (f"{tmp_path}/real/a.jpg", f"{tmp_path}/real/a..b/m.png", "a.jpg"),
        (f"{tmp_path}/real/masks/b.jpg", f"{tmp_path}/masks/..m.png", "b.jpg"),
    ]


def test_every_column(tmp_path: Path) -> None:
    header = "message,jpeg,feather,dilate,mask_threshold,mask_polarity,truth,output,id,mask,image,code"
    [row] = read(tmp_path, header + "\r\noops,lossless,2, 3 ,200,black,t.png,o/x.jpg,one,/abs/m.png,../i.jpg,read\r\n")
    assert row == Row(
        id="one",
        line=2,
        image=f"{tmp_path.parent}/i.jpg",
        mask="/abs/m.png",
        output="o/x.jpg",
        truth=f"{tmp_path}/t.png",
        options={
            "jpeg": "lossless", "feather": "2", "dilate": "3", "mask_threshold": "200", "mask_polarity": "black",
        },
    )  # fmt: skip


def test_paths_are_relative_to_the_manifest_and_come_out_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path)
    Path("deep/m.csv").write_text("image,mask\na.jpg,b.png\n")
    [row] = read_manifest(Path("deep/m.csv"))
    assert isinstance(row, Row)
    assert row.image == str(tmp_path / "deep" / "a.jpg")
    monkeypatch.chdir("deep")
    assert list(read_manifest(Path("m.csv"))) == [row]


@pytest.mark.parametrize(
    ("image", "output"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("x/../a.jpg", "a.jpg"),
        ("x//a.jpg", "x/a.jpg"),
        ("../photos/a.jpg", "a.jpg"),
        ("/elsewhere/x/a.jpg", "a.jpg"),
        ("{folder}/x/a.jpg", "x/a.jpg"),
        ("{folder}-other/x/a.jpg", "a.jpg"),
        ("a..b/c.jpg", "a..b/c.jpg"),
    ],
)
def test_output_mirrors_the_tree(tmp_path: Path, image: str, output: str) -> None:
    [row] = read(tmp_path, f"image,mask\n{image.format(folder=tmp_path)},m.png\n")
    assert isinstance(row, Row)
    assert (row.output, row.id) == (output, output)


def test_a_leading_dot_of_an_output_is_no_matter(tmp_path: Path) -> None:
    [row] = read(tmp_path, "image,mask,output\na.jpg,m.png,./x/a.jpg\n")
    assert isinstance(row, Row)
    assert row.output == "x/a.jpg"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_those_of_the_file(tmp_path: Path, end: str) -> None:
    lines = [
        "image,mask,output",
        "a.jpg,m.png,",
        "",
        '"b',
        'b.jpg",m.png,',
        "c.jpg",
        '"d""d.jpg","m,m.png",',
        "e,,",
        "f,m,",
    ]
    rows = read(tmp_path, end.join(lines) + end)
    assert [(row.line, type(row)) for row in rows] == [
        (2, Row), (4, Row), (6, RowProblem), (7, Row), (8, RowProblem), (9, Row),
    ]  # fmt: skip
    assert rows[1].id == f"b{end}b.jpg"
    assert isinstance(rows[3], Row)
    assert (rows[3].output, rows[3].mask) == ('d"d.jpg', f"{tmp_path}/m,m.png")


def test_byte_order_mark_and_last_line_without_end(tmp_path: Path) -> None:
    assert len(read(tmp_path, b"\xef\xbb\xbfimage,mask\na.jpg,m.png")) == 1


def test_tabs(tmp_path: Path) -> None:
    [row] = read(tmp_path, "image\tmask\na,b.jpg\tm.png\n", "m.tsv")
    assert row.id == "a,b.jpg"


@pytest.mark.parametrize("sign", [";", ","])
def test_a_tsv_without_tabs(tmp_path: Path, sign: str) -> None:
    [row] = read(tmp_path, f"image{sign}mask\na.jpg{sign}m.png\n", "m.tsv")
    assert (row.id, row.mask) == ("a.jpg", f"{tmp_path}/m.png")


@pytest.mark.parametrize(("name", "image"), [("m.tsv", "a,b;c.jpg"), ("m.csv", "a;b\tc.jpg")])
def test_what_parts_cells_elsewhere_parts_none_of_a_single_column(tmp_path: Path, name: str, image: str) -> None:
    (tmp_path / name).write_text(f"image\n{image}\n")
    (row,) = read_images(tmp_path / name)
    assert row.id == image


def test_a_header_alone_is_nothing_to_do(tmp_path: Path) -> None:
    assert read(tmp_path, "image,mask,code,message\n") == []


@pytest.mark.parametrize("sign", [";", "\t"])
def test_cells_may_be_parted_as_table_programs_do(tmp_path: Path, sign: str) -> None:
    text = '\r\n"Image"|mask\r\na,1.jpg|"b|c.png"\r\nonly\r\n'.replace("|", sign)
    good, ragged = read(tmp_path, text)
    assert (good.line, good.image, good.mask) == (3, f"{tmp_path}/a,1.jpg", f"{tmp_path}/b{sign}c.png")
    assert (ragged.line, ragged.error.code) == (4, FailureCode.READ)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("image\na.jpg\n", "lacks the required column mask"),
        ("output,id\na,b\n", "lacks the required column image and mask"),
        ("imgae,mask\n", "unknown column 'imgae'; .* is 'image': .* delete it; the required column image is missing"),
        ("image,mask,dilate_px\n", "unknown column 'dilate_px'; the nearest known one is 'dilate': correct it"),
        ("image,mask,comment\n", "unknown column 'comment'; delete it, or call it '#comment'"),
        ("image,mask,\n", "column 3 of .* has no name"),
        ("image,mask,mask\n", "column 'mask' more than once"),
        ("a.jpg,m.png\n", "has no header"),
        ("image|mask\na|b\n", "separates its columns by '|'"),
        (b"\xff\xfei\0m\0", "UTF-16"),
        (b"\x1f\x8b\x08\x00", r"packed by gzip; let its name end in \.gz"),
        (b"PK\x03\x04\x14\x00\xe9", "a spreadsheet or a ZIP archive; save it as CSV"),
        (b"image,mask\na.jpg,m.png\nb\xe9.jpg,m.png\n", r"line 3 of .* is not UTF-8 \(byte 0xe9\)"),
        ('image,mask\na.jpg,m.png\n"b.jpg,m.png\nc.jpg,m.png\n', "quote that opens in line 3"),
        ('image,mask\n"a.jpg,m.png\n"b.jpg",m.png\n', "quote that opens in line 2"),
        ('image,mask\n"' + "x,y\n" * 50_000, "quote that opens in line 2"),
        ('image,mask\na.jpg,m.png\n"b.jpg,m.pn', "quote that opens in line 3"),
        ('im"age,mask\n"x"y,z\n"image"x,mask', "has an unknown column"),
        ('"image"x,mask\n', "header of .* is not CSV"),
    ],
)  # fmt: skip
def test_an_unusable_manifest_ends_the_run(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        read(tmp_path, text)


def test_columns_may_be_named_in_any_case_and_empty_rows_are_no_rows(tmp_path: Path) -> None:
    first, second = read(tmp_path, "Image, MASK ,Dilate\n,,\na.jpg,m.png,3\n\n,,\nb.jpg,m.png,\n,,\n")
    assert (first.line, first.output, dict(first.options)) == (3, "a.jpg", {"dilate": "3"})
    assert (second.line, second.output, dict(second.options)) == (6, "b.jpg", {})
    assert count_rows(tmp_path / "manifest.csv") == 2


def test_two_images_from_elsewhere_of_one_name_are_told_why_they_collide(tmp_path: Path) -> None:
    _, problem = read(tmp_path, "image,mask\n/a/box1/001.jpg,m.png\n/a/box2/001.jpg,m.png\n")
    assert "output '001.jpg' is already" in problem.error.message
    assert "images outside the folder of the manifest lose their folders" in problem.error.message
    assert "or join the masks of one image" in problem.error.message


def test_a_bad_header_is_told_before_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image\n")
    with pytest.raises(ManifestError):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        read_manifest(tmp_path / "missing.csv")
    with pytest.raises(ManifestError, match="no kind of manifest"):
        read_manifest(tmp_path / "m.xlsx")


def test_masks_go_with_folders_only(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,mask\n")
    with pytest.raises(UsageError, match="--masks"):
        read_manifest(tmp_path / "m.csv", masks=tmp_path)
    with pytest.raises(UsageError, match="a folder of images on a disk"):
        read_manifest("s3://bucket/m.csv", masks=tmp_path)
    with pytest.raises(UsageError, match="--masks"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match=r"gone does not exist; with --masks it is a folder of images"):
        read_manifest(tmp_path / "gone", masks=tmp_path)


def test_rows_of_a_part_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image,mask\n" + "".join(f"{number}.png,m.png\n" for number in range(40)) + ",m.png\n")
    counts = []
    for index in (1, 2, 3):
        part = Shard(index, 3)
        counts.append(count_rows(path, part=part))
        assert counts[-1] == sum(part.has(row.id) for row in read_manifest(path))
    assert sum(counts) == count_rows(path) == 41
    assert max(counts) < 25


@pytest.mark.parametrize(
    ("row", "code", "said"),
    [
        ("a.jpg", "read", "1 cell, the header 4; write the separator"),
        ("a.jpg,m.png", "read", "2 cells, the header 4; write the separator also where a cell is empty"),
        ("a,b.jpg,m.png,,", "read", "5 cells, the header 4; a path that contains the separator"),
        (",m.png,,", "read", "image cell is empty"),
        ("a.jpg,  ,,", "read", "mask cell is empty"),
        ("a\0.jpg,m.png,,", "read", "NUL"),
        ("ftp://host/a.jpg,m.png,,", "read", "the image ftp://host/a.jpg is of no store that is known here"),
        ("a.jpg,s3://me:secret@bucket/m.png,,", "read", "the mask s3://…@bucket/m.png names a user"),
        ("c://scans/a.jpg,m.png,,", "read", "the image c://scans/a.jpg is on a Windows drive"),
        ("a.jpg,s3://bucket/m.png?token=secret,,", "read", "the mask s3://bucket/m.png?… has a query"),
        ("x.jpg,m.png,,good", "read", "id 'good' is already"),
        ("x.jpg,m.png,good.jpg,", "write", "output 'good.jpg' is already"),
        ("x.jpg,m.png,./good.jpg,", "write", "output 'good.jpg' is already"),
        ("good.jpg,m.png,,", "write", "output 'good.jpg' is already"),
        ("/other/good.jpg,m.png,,", "write", "output 'good.jpg' is already"),
        ("x.jpg,m.png,/etc/x.jpg,", "write", "absolute"),
        ("x.jpg,m.png,C:/x.jpg,", "write", "absolute"),
        ("x.jpg,m.png,../x.jpg,", "write", "leaves the output folder"),
        ("x.jpg,m.png,a/../../x.jpg,", "write", "leaves the output folder"),
        ("x.jpg,m.png,..\\x.jpg,", "write", "backslash"),
        ("x\\y.jpg,m.png,,", "write", r"output 'x\y.jpg' (the image's own path, mirrored) contains a backslash"),
        ("x.jpg,m.png,a//x.jpg,", "write", "empty"),
        ("x.jpg,m.png,a\0.jpg,", "write", "NUL"),
        ("x.jpg,m.png,.inpaint-batch/x.jpg,", "write", "own state"),
        ('"x.jpg"y,m.png,,', "read", "not CSV"),
    ],
)
def test_a_bad_row_is_a_problem_and_the_others_go_on(tmp_path: Path, row: str, code: str, said: str) -> None:
    text = f"image,mask,output,id\ngood.jpg,m.png,,good\n{row}\nlast.jpg,m.png,,\n"
    first, found, last = read(tmp_path, text)
    assert isinstance(found, RowProblem)
    assert isinstance(first, Row)
    assert isinstance(last, Row)
    assert (found.line, found.error.code) == (3, FailureCode(code))
    assert said in found.error.message
    assert len({first.id, found.id, last.id}) == 3


def test_cells_that_name_no_object_of_the_store_fail_alone() -> None:
    reader = RowReader("s3://bucket/in/", ["image", "mask"])
    images = [("a.png", "#ff00ff"), ("b.png", "all.json#17"), ("c #1.png", "m.png"), ("d.png", "m?.png")]
    first, second, third, fourth = (reader.read(line, list(cells)) for line, cells in enumerate(images, start=2))
    assert isinstance(first, Row)
    assert isinstance(second, Row)
    assert isinstance(third, RowProblem)
    assert isinstance(fourth, RowProblem)
    assert "the image s3://bucket/in/c #1.png has a query or fragment" in third.error.message
    assert fourth.cells["mask"] == "s3://bucket/in/m?.png"


def test_a_colon_and_slashes_make_no_uri_of_a_path(tmp_path: Path) -> None:
    rows = read(tmp_path, "image,mask\nweb/http://host/a.jpg,1://m.png\n")
    assert [(row.image, row.mask) for row in rows if isinstance(row, Row)] == [
        (f"{tmp_path}/web/http://host/a.jpg", f"{tmp_path}/1://m.png")
    ]


def test_a_problem_keeps_its_id_and_its_cells(tmp_path: Path) -> None:
    found = problem(tmp_path, "image,mask,output,id,code\na.jpg,/m.png,../x,one,read\n")
    assert found.id == "one"
    assert found.cells == {"image": f"{tmp_path}/a.jpg", "mask": "/m.png", "output": "../x", "id": "one"}


def test_duplicates_are_seen_without_an_id_column(tmp_path: Path) -> None:
    found = problem(tmp_path, "image,mask\na.jpg,m.png\na.jpg,n.png\n")
    assert (found.line, found.id, found.error.code) == (3, "line 3", FailureCode.WRITE)


def test_an_id_may_not_be_the_output_of_another_row(tmp_path: Path) -> None:
    found = problem(tmp_path, "image,mask,id\na.jpg,m.png,\nb.jpg,m.png,a.jpg\n")
    assert (found.line, found.error.code) == (3, FailureCode.READ)


def test_reading_can_be_left_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("image,mask\n" + "".join(f"{i}.jpg,m.png\n" for i in range(10_000)))
    rows = read_manifest(tmp_path / "m.csv")
    assert next(rows).line == 2
    del rows  # the file is closed: a warning of an open one would fail the test


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12).filter(
    str.strip
)
PLAIN = st.text(st.characters(categories=["L", "N", "Zs"], include_characters="-_"), min_size=1, max_size=8).filter(
    str.strip
)
ROWS = st.builds(
    Row,
    id=CELLS,
    line=st.just(0),
    image=CELLS.map("/{}".format),
    mask=CELLS.map("/x/{}".format),
    output=st.lists(PLAIN, min_size=1, max_size=3).map("/".join),
    truth=st.none() | CELLS.map("/{}/t".format),
    options=st.dictionaries(st.sampled_from(["dilate", "jpeg", "mask_polarity"]), st.sampled_from(["3", "black"])),
).filter(lambda row: "://" not in row.image + row.mask + (row.truth or ""))


@given(rows=st.lists(ROWS, max_size=5, unique_by=(lambda row: row.id, lambda row: row.output)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_written_cells_read_as_the_same_rows(tmp_path: Path, rows: list[Row]) -> None:
    path = tmp_path / "failures.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "code", "message"], restval="")
        writer.writeheader()
        writer.writerows({**to_cells(row), "code": "read", "message": 'a "message", with a comma'} for row in rows)
    back = list(read_manifest(path))
    assert [to_cells(row) for row in back if isinstance(row, Row)] == [to_cells(row) for row in rows]
    if rows:
        assert back[0].line == 2


@given(data=st.binary(max_size=60), header=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_bytes_give_rows_or_a_manifest_error(tmp_path: Path, data: bytes, header: bool) -> None:
    try:
        rows = read(tmp_path, (b"image,mask,output\n" if header else b"") + data)
    except ManifestError:
        return
    for row in rows:
        if isinstance(row, Row):
            assert os.path.isabs(row.image)  # noqa: PTH117
            assert ".." not in row.output.split("/")


def test_a_manifest_that_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match="is a pipe"):
        read_manifest(tmp_path / "m.csv")


def test_an_image_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "scan.TIF").write_bytes(b"II*\0")
    with pytest.raises(UsageError, match=r"is an image; say with --masks"):
        read_manifest(tmp_path / "scan.TIF")


def test_a_folder_without_masks_tells_what_may_have_been_meant(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"with --masks where its masks are; `inpaint-batch mask` finds"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.csv").write_text("image,mask\n")  # as `mask` leaves it among its masks
    with pytest.raises(UsageError, match=r"or name its manifest, .*/manifest\.csv$"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("cell", ["alpha", "#ff00ff"])
def test_a_refused_row_keeps_what_says_that_its_mask_is_in_the_image(tmp_path: Path, cell: str) -> None:
    assert problem(tmp_path, f"image,mask,output\na.png,{cell},../a.png\n").cells["mask"] == cell
