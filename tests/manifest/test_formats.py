"""Manifests in every format: the same rows, the same complaints."""

from __future__ import annotations

import csv
import errno
import gzip
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import ManifestError, MissingDependencyError, StorageError
from inpaint_batch.manifest import sources
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.manifest.schema import COLUMNS, RowProblem, row_config
from inpaint_batch.manifest.sources import _zstd, spooled_stdin
from inpaint_batch.types import Row

zstd = _zstd("a manifest")
PACKERS = {".gz": gzip.compress, ".zst": zstd.compress}
needs_pyarrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed: pip install 'inpaint-batch[parquet]'"
)


def write_table(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="", delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(PACKERS.get(path.suffix, bytes)(data))
    return path


def write_json_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(PACKERS.get(path.suffix, bytes)(data))
    return path


def write_parquet(path: Path, rows: list[dict[str, object]], columns: tuple[str, ...] = COLUMNS) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), path, row_group_size=3)
    return path


def plain(path: Path) -> list[object]:
    """What a manifest says, without line numbers: a Parquet file has none, and JSON Lines no header."""
    found: list[object] = []
    for row in read_manifest(path):
        if isinstance(row, RowProblem):
            found.append((row.error.code, row.error.message, dict(row.cells)))
        else:
            found.append((row.id, row.image, row.mask, row.output, row.truth, dict(row.options)))
    return found


cells = st.one_of(
    st.sampled_from(
        ["a.png", "sub/b.jpg", "sub/b.jpg", "", " ", "../x.png", "/abs/c.tif", "s3://b/k.png", "3", "é,\"'.png"]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=12),
)
rows_of_cells = st.lists(st.dictionaries(st.sampled_from(COLUMNS), cells), min_size=1, max_size=8)


@needs_pyarrow
@given(rows=rows_of_cells)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_format_gives_the_same_rows(rows, tmp_path):
    rows = [{"image": "first.png", "mask": "first-mask.png"}, *(row for row in rows if any(row.values()))]
    expected = plain(write_table(tmp_path / "m.csv", rows))
    assert len(expected) == len(rows)
    assert plain(write_table(tmp_path / "m.csv.gz", rows)) == expected
    assert plain(write_table(tmp_path / "m.tsv", rows, "\t")) == expected
    assert plain(write_table(tmp_path / "m.tsv.gz", rows, "\t")) == expected
    assert plain(write_json_lines(tmp_path / "m.jsonl", rows)) == expected
    assert plain(write_json_lines(tmp_path / "m.ndjson.gz", rows)) == expected
    for name in ("m.csv.zst", "m.tsv.zst"):
        assert plain(write_table(tmp_path / name, rows, "\t" if "tsv" in name else ",")) == expected
    assert plain(write_json_lines(tmp_path / "m.jsonl.zst", rows)) == expected
    assert plain(write_parquet(tmp_path / "m.parquet", rows)) == expected


@pytest.mark.parametrize("name", ["box.12.jsonl.gz", "BOX.JSONL.GZ", "box.12.v2.jsonl", "jsonl.jsonl"])
def test_the_last_suffixes_tell_the_format_in_any_case(name, tmp_path):
    text = b'{"image": "a.png", "mask": "m.png"}\n'
    (tmp_path / name).write_bytes(gzip.compress(text) if name.lower().endswith(".gz") else text)
    assert [row.id for row in read_manifest(tmp_path / name)] == ["a.png"]


@needs_pyarrow
@pytest.mark.parametrize("name", ["m.csv", "m.tsv", "m.jsonl", "m.parquet"])
def test_columns_of_ones_own_are_ignored(name, tmp_path):
    """Whatever they hold, and however often; a row that fails does not carry them on."""
    path = tmp_path / name
    values = {"#Shelfmark": "Ms. 3, f. 2", "Image": "a.png", "#": "", "mask": "m.png", "#pages": [1, 2]}
    bad = values | {"Image": ""}
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in (values, bad)))
    elif path.suffix == ".parquet":
        write_parquet(path, [values, bad], tuple(values))
    else:
        sign = "," if path.suffix == ".csv" else "\t"
        lines = ([*values, "#"], *([*map(str, row.values()), "x"] for row in (values, bad)))
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter=sign).writerows(lines)
    good, problem = read_manifest(path)
    assert (good.id, good.mask, dict(good.options)) == ("a.png", f"{tmp_path}/m.png", {})
    assert isinstance(problem, RowProblem)
    assert dict(problem.cells) == {"mask": f"{tmp_path}/m.png"}


@needs_pyarrow
def test_names_of_columns_may_be_written_in_any_way(tmp_path):
    row = {" Image": "a.png", "MASK ": "m.png", "Dilate": 3}
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(row)}\n{json.dumps(row | {'dilate': 4})}\n")
    write_parquet(tmp_path / "m.parquet", [row], tuple(row))
    first, problem = read_manifest(tmp_path / "m.jsonl")
    assert "the key 'dilate' stands there more than once" in problem.error.message
    for found in (first, *read_manifest(tmp_path / "m.parquet")):
        assert (found.id, found.mask, found.options) == ("a.png", f"{tmp_path}/m.png", {"dilate": "3"})


@pytest.mark.parametrize(
    "text",
    ["sep=;\r\nimage;mask\r\na,b.png;m.png\r\n", '"sep=|"\nimage|mask\na,b.png|m.png\n', "Sep=,\n\nimage,mask\n"],
)
def test_a_line_that_tells_excel_what_parts_the_cells_is_heeded(tmp_path, text):
    path = tmp_path / "m.csv"
    path.write_bytes(text.encode())
    rows = list(read_manifest(path))
    assert [(row.line, row.image, row.mask) for row in rows] == [
        (3, f"{tmp_path}/a,b.png", f"{tmp_path}/m.png") for _ in range(text.count("b.png"))
    ]


@pytest.mark.parametrize(
    "text",
    ["image;mask;#Signatur, alt\na,b.png;m.png;x\n", '#a;b\t"image"\t"mask"\nx\ta,b.png\tm.png\n'],
)
def test_a_sign_in_the_name_of_a_column_of_ones_own_parts_nothing(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    (row,) = read_manifest(tmp_path / "m.csv")
    assert (row.image, row.mask) == (f"{tmp_path}/a,b.png", f"{tmp_path}/m.png")


@needs_pyarrow
def test_parquet_whose_text_is_not_utf8_says_so(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    ends, data = b"".join(at.to_bytes(4, "little") for at in (0, 5)), b"\xe9.png"
    image = pa.StringArray.from_buffers(1, pa.py_buffer(ends), pa.py_buffer(data))
    pq.write_table(pa.table({"image": image, "mask": ["m.png"]}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="text that is not UTF-8"):
        list(read_manifest(tmp_path / "m.parquet"))


def test_switches_may_be_told_as_such(tmp_path):
    rows = [{"image": f"{name}.png", "mask": "m.png", "grain": value} for name, value in (("a", True), ("b", False))]
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_parquet(tmp_path / "m.parquet", rows, ("image", "mask", "grain"))
    for manifest in (path, tmp_path / "m.parquet"):
        configs = [row_config(row, RowConfig()) for row in read_manifest(manifest)]
        assert [config.grain for config in configs] == [True, False]


def test_what_is_wrong_in_the_first_line_alone_fails_alone(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"image": 3, "mask": "m.png", "feather": []}\n{"image": "a.png", "mask": "m.png"}\n')
    problem, row = read_manifest(path)
    assert (problem.line, row.image) == (1, str(tmp_path / "a.png"))
    assert "feather must be text" in problem.error.message


def test_json_lines_fail_one_by_one_with_their_lines(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"image": "a.png", "mask": "a-mask.png", "dilate": 3}\n'
        "\n"
        '{"image": "b.png", "mask": \n'
        '["image"]\n'
        '{"image": "c.png", "maks": "m.png"}\n'
        '{"image": "d.png", "mask": "m.png", "feather": true}\n'
        '{"image": "e.png"}\n'
        '{"image": "\\ud800.png", "mask": "m.png"}\n'
        '{"image": "f.png", "mask": "m.png", "id": null, "truth": null}\r\n'
    )
    first, *problems, last = read_manifest(path)
    assert (first.line, first.image, dict(first.options)) == (1, str(tmp_path / "a.png"), {"dilate": "3"})
    assert (last.line, last.id, last.truth) == (9, "f.png", None)
    told = {problem.line: problem.error.message for problem in problems}
    assert set(told) == {3, 4, 5, 6, 7, 8}
    assert "not JSON (Expecting value" in told[3]
    assert "not an object" in told[4]
    assert "unknown key 'maks'; the nearest known one is 'mask'" in told[5]
    assert "feather must be text or a number, not bool" in told[6]  # only grain and xmp are on or off
    assert "the mask cell is empty" in told[7]
    assert "image is not text" in told[8]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("m.jsonl", b"", "is empty"),
        ("m.jsonl", b"image,mask\n", "line 1 of .* not JSON"),
        ("m.jsonl", b'[{"image": "a"}]', "not an object; write one object a line"),
        ("m.jsonl", b'{"picture": "a"}', "no key of a manifest"),
        ("m.jsonl", b'{"image": "a"}', "lacks the required column mask"),
        ("m.jsonl", b'{"image": "a", "mask": "b"}\n{"image": "\xe9"}', r"line 2 of .* not UTF-8 \(byte 0xe9\)"),
        ("m.csv.gz", b"image,mask\n", "not a whole gzip file"),
        ("m.csv.gz", gzip.compress(b"image,mask\na,b\n" * 99)[:-9], "not a whole gzip file"),
        ("m.csv.gz", gzip.compress(b"image,mask\na,\xe9\n"), r"line 2 of .* not UTF-8"),
        ("m.json", b"{}", "no kind of manifest"),
        ("m.xlsx", b"PK", "no kind of manifest"),
        ("m.csv.zst", b"image,mask\n", "not a whole zstd file"),
        ("m.csv.zst", zstd.compress(b"image,mask\na,b\n" * 99)[:-3], "not a whole zstd file"),
        ("m.csv.zst", zstd.compress(b"image,mask\na,\xe9\n"), r"line 2 of .* not UTF-8"),
        ("m.csv.bz2", b"", "no kind of manifest"),
        ("m.parquet.gz", b"", "no kind of manifest"),
    ],
)
def test_files_that_are_no_manifest_say_why(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=match):
        list(read_manifest(tmp_path / name))


@needs_pyarrow
def test_parquet_with_other_types_and_columns(tmp_path):
    rows = [{"image": f"{n}.png", "mask": "m.png", "dilate": n, "id": n} for n in range(7)]
    rows[3]["dilate"] = None
    found = list(read_manifest(write_parquet(tmp_path / "m.parquet", rows, ("mask", "image", "dilate", "id"))))
    assert all(isinstance(row, Row) for row in found)
    assert [row.id for row in found] == [str(n) for n in range(7)]
    assert [dict(row.options).get("dilate") for row in found] == ["0", "1", "2", None, "4", "5", "6"]
    assert [row.line for row in found] == list(range(1, 8))
    with pytest.raises(ManifestError, match="unknown column 'maks'"):
        read_manifest(write_parquet(tmp_path / "x.parquet", rows, ("image", "maks")))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "m.parquet").read_bytes()[:-7])
    with pytest.raises(ManifestError, match="not a whole Parquet file"):
        read_manifest(tmp_path / "cut.parquet")
    with pytest.raises(ManifestError, match="cannot read the manifest"):
        read_manifest(tmp_path / "missing.parquet")


@needs_pyarrow
def test_numbers_of_a_column_with_gaps_are_floats_and_its_gaps_no_numbers(tmp_path):
    """As pandas writes them."""
    rows = [{"image": f"{n}.png", "mask": "m.png", "dilate": n} for n in (3.0, float("nan"))]
    found = list(read_manifest(write_parquet(tmp_path / "m.parquet", rows, ("image", "mask", "dilate"))))
    assert [row_config(row, RowConfig(dilate_px=7)).dilate_px for row in found] == [3, 7]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(read_manifest(tmp_path / "m.jsonl"))
    assert [row_config(row, RowConfig(dilate_px=7)).dilate_px for row in found] == [3, 7]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"inpaint-batch\[parquet\]"):
        read_manifest(tmp_path / "m.parquet")


def test_zstd_without_its_reader_says_what_to_install(tmp_path, monkeypatch):
    path = write_table(tmp_path / "m.csv.zst", [])
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"inpaint-batch\[zstd\]"):
        read_manifest(path)


def test_a_standard_input_that_cannot_be_kept_says_why(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ManifestError, match="the standard input, and that is closed"):
        spooled_stdin.__wrapped__()
    with (tmp_path / "m.csv").open("w+") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sources.shutil, "copyfileobj", full)
        with pytest.raises(StorageError, match=r"temporary files \(No space left on device\); .* TMPDIR"):
            spooled_stdin.__wrapped__()


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "gz", "zst", pytest.param("parquet", marks=needs_pyarrow)])
def test_the_standard_input_is_known_by_its_first_bytes(tmp_path, kind):
    rows = [{"id": f"{n}", "image": f"in/{n}.png", "mask": "m.png"} for n in range(3)]
    write = {
        "csv": lambda path: write_table(path, rows),
        "tsv": lambda path: write_table(path, rows, "\t"),
        "jsonl": lambda path: write_json_lines(path, rows),
        "gz": lambda path: write_json_lines(path, rows),
        "zst": lambda path: write_table(path, rows),
        "parquet": lambda path: write_parquet(path, rows),
    }[kind]
    content = write(tmp_path / f"m.{kind}").read_bytes()
    script = (
        "from pathlib import Path; from inpaint_batch.manifest.read import read_manifest\n"
        "for _ in range(2): print([(row.id, row.image) for row in read_manifest(Path('-'))])\n"
        "from inpaint_batch.manifest.sources import spooled_stdin; print(spooled_stdin())"
    )
    done = subprocess.run([sys.executable, "-c", script], input=content, capture_output=True, check=True, cwd=tmp_path)
    first, second, spooled = done.stdout.decode().splitlines()
    assert first == second == str([(row["id"], str(tmp_path / row["image"])) for row in rows])
    assert not Path(spooled).exists()
