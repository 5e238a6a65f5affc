"""Settings: precedence, refusal of unknown names, types, units."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from inpaint_batch.cli import options
from inpaint_batch.cli.settings import NOT_SETTINGS, SETTINGS, Given, from_environment, from_toml, gather, run_config
from inpaint_batch.config import RowConfig, RunConfig, TilingConfig
from inpaint_batch.errors import ConfigError, UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_every_field_of_the_configuration_has_a_setting():
    reachable = {(setting.group, setting.field) for setting in SETTINGS.values()}
    wanted = {("row", field.name) for field in dataclasses.fields(RowConfig)}
    wanted -= {("row", "page"), ("row", "mask_from"), ("row", "mask_image")}  # columns of a manifest only
    wanted |= {("tiling", field.name) for field in dataclasses.fields(TilingConfig)}
    wanted |= {("run", field.name) for field in dataclasses.fields(RunConfig)} - {("run", "row"), ("run", "tiling")}
    wanted -= {("run", "store")}  # an output that is a URI
    assert reachable == wanted


def test_defaults_in_help_are_the_defaults():
    config = RunConfig(output=Path("out"))
    groups = {"run": config, "row": config.row}
    checked = 0
    for alias in vars(options).values():
        for parameter in getattr(alias, "__metadata__", ()):
            names = [name for name in (str(parameter.default), *(parameter.param_decls or ())) if name.startswith("--")]
            told = re.search(r"Default: (\S+)\.$", parameter.help or "")
            if not names or told is None:
                continue
            setting = SETTINGS[names[0].partition("/")[0].removeprefix("--").replace("-", "_")]
            value = getattr(groups[setting.group], setting.field)
            value = value // setting.factor if setting.factor != 1 else value
            wanted = ("on" if value else "off") if isinstance(value, bool) else str(value)
            assert told[1] == wanted, names[0]
            checked += 1
    assert checked >= 24  # as many as say it in these words


def test_precedence(tmp_path):
    file = write(tmp_path / "s.toml", 'dilate = 1\nfeather = 1\njpeg = "lossless"\n[tiling]\nmargin_px = 16\n')
    environment = {"INPAINT_BATCH_DILATE": "2", "INPAINT_BATCH_FEATHER": "2", "OTHER": "x"}
    config = run_config(gather({"dilate": 3, "output": Path("o"), "workers": None}, file, environment))
    assert config.row == RowConfig(dilate_px=3, feather_px=2, jpeg="lossless")
    assert config.tiling.margin_px == 16
    assert config.workers == 0


def test_the_environment_may_name_the_file(tmp_path):
    file = write(tmp_path / "s.toml", "workers = 3\n")
    assert gather({}, None, {"INPAINT_BATCH_CONFIG": str(file)}).values == {"workers": 3}


def test_paths_in_a_file_count_from_its_folder(tmp_path):
    values = from_toml(write(tmp_path / "s.toml", 'output = "restored"\nmodel = "my.onnx"\n'))
    assert values == {"output": tmp_path / "restored", "model": str(tmp_path / "my.onnx")}
    assert from_toml(write(tmp_path / "t.toml", 'model = "default"\n')) == {"model": "default"}
    weights = from_toml(write(tmp_path / "t.toml", 'model = "my.safetensors"\n'))
    assert weights == {"model": str(tmp_path / "my.safetensors")}


def test_a_file_may_name_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    values = from_toml(write(tmp_path / "s.toml", 'output = "~/restored"\nmodel = "~/my.onnx"\n'))
    assert values == {"output": tmp_path / "home" / "restored", "model": str(tmp_path / "home" / "my.onnx")}


def test_units_are_converted():
    assert run_config(Given({"output": Path("o"), "max_image_megabytes": 3}, {})).max_image_bytes == 3 << 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dilaet = 3", "unknown setting dilaet .* did you mean dilate"),
        ("[tiling]\nmargin = 3", "did you mean tiling.margin_px"),
        ("xyzzy = 1", "known are output, model"),
        ("dilate = 'x'", "dilate .* must be a whole number, not 'x'"),
        ("dilate = true", "must be a whole number, not True"),
        ("fresh = 1", "must be true or false"),
        ("dilate = ", "not valid TOML"),
        ("[tiling]\nbuckets_px = [64, 'x']", "a list of whole numbers"),
    ],
)
def test_what_a_file_may_not_say(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        from_toml(write(tmp_path / "s.toml", text))


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        from_toml(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"model = '\xe9'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        from_toml(tmp_path / "latin.toml")


def test_environment():
    values = from_environment(
        {"INPAINT_BATCH_FRESH": "yes", "INPAINT_BATCH_RETRY_FAILED": "0", "INPAINT_BATCH_OUTPUT": "o", "PATH": "x"}
    )
    assert values == {"fresh": True, "retry_failed": False, "output": Path("o")}
    assert from_environment({"INPAINT_BATCH_DATA": "x", "INPAINT_BATCH_WORKERS": ""}) == {}
    with pytest.raises(ConfigError, match="INPAINT_BATCH_WORKERS must be a whole number"):
        from_environment({"INPAINT_BATCH_WORKERS": "many"})
    with pytest.raises(ConfigError, match="did you mean INPAINT_BATCH_WORKERS"):
        from_environment({"INPAINT_BATCH_WORKER": "1"})
    with pytest.raises(ConfigError, match="true or false"):
        from_environment({"INPAINT_BATCH_FRESH": "maybe"})


def test_no_variable_that_is_told_of_stops_a_run():
    root = Path(__file__).parents[2]
    told = [root / "README.md", *(root / "engines").rglob("*.md")]
    told += [file for folder in ("docs", "inpaint_batch") for file in (root / folder).rglob("*.[mpy]*")]
    texts = (file.read_text(encoding="utf-8") for file in told if file.suffix in (".md", ".py", ".yaml"))
    variables = {name for text in texts for name in re.findall(r"\bINPAINT_BATCH_[A-Z_]+[A-Z]\b", text)}
    assert "INPAINT_BATCH_ENGINES" in variables
    for variable in variables:
        name = variable.removeprefix("INPAINT_BATCH_")
        assert name in NOT_SETTINGS or name.lower() in SETTINGS, variable


def test_an_output_is_required_unless_one_stands_in():
    with pytest.raises(UsageError, match="--output"):
        run_config(Given({}, {}))
    assert run_config(Given({}, {}), output=Path("x")).output == Path("x")
    assert run_config(Given({"output": Path("y")}, {}), output=Path("x")).output == Path("y")


@pytest.mark.parametrize(
    ("flags", "file", "environment", "message"),
    [
        ({"dilate": 900}, "dilate = 300", {}, "--dilate must lie in 0..256 px, not 900"),
        ({}, "dilate = 300", {"INPAINT_BATCH_DILATE": "400"}, "INPAINT_BATCH_DILATE must lie in 0..256 px, not 400"),
        ({}, "dilate = 300", {}, "dilate in s.toml must lie in 0..256 px, not 300"),
        ({"on_conflict": "ask"}, "", {}, "--on-conflict must be error, skip, overwrite or suffix, not 'ask'"),
        ({"max_image_megabytes": 0}, "", {}, "--max-image-megabytes must be at least 1, not 0"),
        ({}, "max_image_megabytes = -1", {}, "max_image_megabytes in s.toml must be at least 1, not -1"),
        ({}, "", {"INPAINT_BATCH_MAX_MEMORY": "6X"}, "INPAINT_BATCH_MAX_MEMORY must be a size such as 6G or 800M"),
        ({}, "", {"INPAINT_BATCH_SHARD": "5/2"}, "INPAINT_BATCH_SHARD must be i/n with i from 1 to n"),
        ({}, "[tiling]\nmargin_px = 999", {}, "tiling.margin_px in s.toml must lie in 0..127, not 999"),
        ({}, "[tiling]\nsecond_start_px = -1", {}, "tiling.second_start_px in s.toml must not be negative, not -1"),
    ],
)
def test_out_of_range_says_where_it_came_from(tmp_path, monkeypatch, flags, file, environment, message):
    monkeypatch.chdir(tmp_path)
    given = gather(flags, write(Path("s.toml"), file), environment)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        run_config(given, output=Path("x"))


def test_a_flag_is_no_setting(tmp_path):
    for name in ("depth", "masks"):
        file = write(tmp_path / "s.toml", f'{name} = "rows"')
        with pytest.raises(ConfigError, match=f"{name} in .*s.toml: this is no setting but a flag only.* --{name}$"):
            from_toml(file)
        with pytest.raises(ConfigError, match=f"INPAINT_BATCH_{name.upper()} in the environment: .* --{name}$"):
            from_environment({f"INPAINT_BATCH_{name.upper()}": "rows"})


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbfdilate = 3\n")
    assert from_toml(tmp_path / "s.toml") == {"dilate": 3}
