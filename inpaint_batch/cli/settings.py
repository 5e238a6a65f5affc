"""Settings from four places: defaults < TOML file < environment < flags.

A setting has one name everywhere: `dilate` in a file, `INPAINT_BATCH_DILATE` in the environment, `--dilate` as a flag.
A name that is not known is an error, never ignored: an ignored setting is found out a hundred thousand images later.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from inpaint_batch.config import RowConfig, RunConfig, SettingError, TilingConfig
from inpaint_batch.errors import ConfigError, UsageError
from inpaint_batch.pipeline.shards import shard_from_environment
from inpaint_batch.storage.uris import is_uri, redacted, uri_problem

ENVIRONMENT_PREFIX = "INPAINT_BATCH_"
NOT_SETTINGS = frozenset({"CONFIG", "DATA", "ENGINES", "SHARD_COUNT"})
"""Variables with the prefix that are no settings of a run: the TOML file itself, the photographs for tests, the cache
of TensorRT plans, and the number of pods of a Kubernetes job."""

FLAGS_ONLY = frozenset({"masks", "depth", "config"})
"""Flags of `run` or `check` that belong to one call, and are no settings."""

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a named setting goes and what values it takes."""

    group: Literal["run", "row", "tiling"]
    """The dataclass that holds it."""
    field: str
    """Its field there."""
    kind: type
    """Type of the value in a TOML file: str, int, float, bool, Path, PurePath (a path or a URI) or tuple (of int)."""
    factor: int = 1
    """What a number is multiplied with to get the unit of the field."""


SETTINGS: Mapping[str, Setting] = {
    "output": Setting("run", "output", PurePath),
    "model": Setting("run", "model", str),
    "engine": Setting("run", "engine", str),
    "precision": Setting("run", "precision", str),
    "passes": Setting("run", "passes", int),
    "workers": Setting("run", "workers", int),
    "on_conflict": Setting("run", "on_conflict", str),
    "max_failures": Setting("run", "max_failures", int),
    "retry_failed": Setting("run", "retry_failed", bool),
    "content_hash": Setting("run", "content_hash", bool),
    "fresh": Setting("run", "fresh", bool),
    "max_image_megabytes": Setting("run", "max_image_bytes", int, factor=1 << 20),
    "max_memory": Setting("run", "max_memory", str),
    "executor": Setting("run", "executor", str),
    "actors": Setting("run", "actors", int),
    "row_timeout": Setting("run", "row_timeout_s", int),
    "grace": Setting("run", "grace_s", int),
    "shard": Setting("run", "shard", str),
    "log_format": Setting("run", "log_format", str),
    "sidecar": Setting("run", "sidecar", bool),
    "premis": Setting("run", "premis", bool),
    "metrics": Setting("run", "metrics", Path),
    "mask_polarity": Setting("row", "mask_polarity", str),
    "mask_threshold": Setting("row", "mask_threshold", int),
    "dilate": Setting("row", "dilate_px", int),
    "feather": Setting("row", "feather_px", int),
    "jpeg": Setting("row", "jpeg", str),
    "empty_mask": Setting("row", "empty_mask", str),
    "grain": Setting("row", "grain", bool),
    "xmp": Setting("row", "xmp", bool),
    "tiling.buckets_px": Setting("tiling", "buckets_px", tuple),
    "tiling.margin_px": Setting("tiling", "margin_px", int),
    "tiling.bridge_depth_px": Setting("tiling", "bridge_depth_px", float),
    "tiling.second_start_px": Setting("tiling", "second_start_px", float),
}
"""Every setting by its name; `tiling.x` stands as `x` in the table `[tiling]` of the file, and has no flag."""


class Given(NamedTuple):
    """What was given, by setting name."""

    values: dict[str, Any]
    places: dict[str, str]
    """What a person calls the value where it was found: `--dilate`, `INPAINT_BATCH_DILATE`, `dilate in s.toml`."""


def gather(flags: Mapping[str, Any], config_file: Path | None, environment: Mapping[str, str]) -> Given:
    """The values that were given, the strongest source winning; flags that are None were not given.

    Weakest are the tile sizes that the adapter of a model from elsewhere asks for. The file is `config_file`, else the
    one that `INPAINT_BATCH_CONFIG` names, else none. Relative paths in it count from its own folder. Raises ConfigError
    for an unreadable file, an unknown name, or a value of the wrong type, and EngineError for an unusable adapter.
    """
    named = environment.get(ENVIRONMENT_PREFIX + "CONFIG", "")
    file = config_file or (Path(named) if named else None)
    in_file = from_toml(file) if file is not None else {}
    in_environment = from_environment(environment)
    on_line = {name: value for name, value in flags.items() if value is not None}
    values = in_file | in_environment | on_line
    model = values.get("model", "default")
    of_model = _tiling_of_model(model)
    places = {name: f"{name} in {Path(model).with_suffix('.toml')}" for name in of_model}
    places |= {name: f"{name} in {file}" for name in in_file}
    places |= {name: _variable(name) for name in in_environment}
    places |= {name: "--" + name.replace("_", "-") for name in on_line}
    return Given(of_model | values, places)


def run_config(given: Given, *, output: Path | None = None) -> RunConfig:
    """The settings as one object; `output` stands in where none was given.

    Raises UsageError without any output, and ConfigError for a value out of range.
    """
    groups: dict[str, dict[str, Any]] = {"run": {}, "row": {}, "tiling": {}}
    for name, value in given.values.items():
        setting = SETTINGS[name]
        groups[setting.group][setting.field] = value * setting.factor if setting.factor != 1 else value
    if output is not None:
        groups["run"].setdefault("output", output)
    if "output" not in groups["run"]:
        raise UsageError("say where the results shall go: --output DIR")
    if isinstance(groups["run"]["output"], str):
        groups["run"]["store"], groups["run"]["output"] = groups["run"]["output"].rstrip("/"), Path()
    try:
        return RunConfig(row=RowConfig(**groups["row"]), tiling=TilingConfig(**groups["tiling"]), **groups["run"])
    except SettingError as error:
        raise ConfigError(f"{given.places.get(error.name, error.name)} {error.problem}") from error


def take_shard(given: Given, environment: Mapping[str, str]) -> str:
    """Have a scheduler say the shard where nobody else did; returns what told it, nothing where that was none.

    Raises UsageError as `shard_from_environment` does.
    """
    if "shard" in given.values or (told := shard_from_environment(environment)) is None:
        return ""
    given.values["shard"], shard_from = told
    return shard_from


def wants_json(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Whether the `log_format` of a command line is json, also of one that is wrong: it is asked for an error."""
    if not {"run", "check", "verify"} & set(arguments[:1]):
        return False
    if (told := _flag(arguments, "--log-format")) or (told := environment.get(ENVIRONMENT_PREFIX + "LOG_FORMAT", "")):
        return told == "json"
    file = _flag(arguments, "--config") or environment.get(ENVIRONMENT_PREFIX + "CONFIG", "")
    try:
        return bool(file) and tomllib.loads(Path(file).read_text("utf-8-sig")).get("log_format") == "json"
    except (OSError, ValueError):
        return False


def _flag(arguments: Sequence[str], name: str) -> str:
    """The last value of a flag, empty where there is none."""
    value = ""
    for argument, after in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == name or argument.startswith(f"{name}="):
            value = after if argument == name else argument.partition("=")[2]
    return value


def path_or_uri(text: str) -> Path | str:
    """A path, or as text the URI of something in a store. Raises UsageError for one that cannot be used."""
    if not is_uri(text):
        return _path(text)
    if (problem := uri_problem(text)) is not None:
        raise UsageError(f"{redacted(text)} {problem}")
    return text


def local_path(text: str) -> Path:
    """A path. Raises UsageError for none at all, and for a URI, which would be taken for the name of a folder."""
    if is_uri(text):
        raise UsageError(f"{redacted(text)} lies in a store, and this takes a path of this machine: copy there or back")
    return _path(text)


def _path(text: str) -> Path:
    if not text:  # would be the current folder, and a run would fill that
        raise UsageError("a path is empty, as where a script's variable is not set; name a folder or file")
    return Path(text)


def from_toml(file: Path) -> dict[str, Any]:
    """Settings in a TOML file, by name."""
    try:
        document = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the settings file {file} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the settings file {file} is not UTF-8 text; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the settings file {file} is not valid TOML: {error}") from error
    values = {}
    for name, value in _flatten(document):
        setting = SETTINGS.get(name)
        if setting is None:
            raise _unknown(name, SETTINGS, f"in {file}")
        value = _typed(value, setting.kind, f"{name} in {file}")
        if name == "model" and value != "default":
            value = str(_beside(file, value))
        values[name] = _beside(file, value) if isinstance(value, Path) else value
    return values


def _beside(file: Path, path: str | Path) -> Path:
    """What a settings file means by a path: relative to its own folder, and `~` as a shell would take it."""
    return file.parent / os.path.expanduser(path)  # noqa: PTH111  (leaves a user that is not known as it is)


def from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Settings in variables `INPAINT_BATCH_*`, by name. An empty variable counts as not set."""
    names = [name for name in SETTINGS if "." not in name]
    values = {}
    for variable, text in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or not text:
            continue
        if variable.removeprefix(ENVIRONMENT_PREFIX) in NOT_SETTINGS:
            continue
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name not in names:
            raise _unknown(name, names, "in the environment", spelled=_variable)
        values[name] = _parsed(text, SETTINGS[name].kind, variable)
    return values


def _variable(name: str) -> str:
    return ENVIRONMENT_PREFIX + name.upper()


def _tiling_of_model(model: str) -> dict[str, Any]:
    if not model.lower().endswith(".onnx"):  # beside weights may lie the recipe that they were trained by
        return {}
    from inpaint_batch.runtime.adapter import find_adapter
    from inpaint_batch.runtime.store import without_tilde

    adapter = find_adapter(without_tilde(model))
    if adapter is None:
        return {}
    # To such a network a prior is already the fill: no pass could go on from it.
    wanted = {"buckets_px": adapter.sides_px, "second_start_px": 0.0, **asdict(adapter.tiling)}
    return {f"tiling.{name}": value for name, value in wanted.items()}


def _flatten(document: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", deeper) for inner, deeper in value.items())
        else:
            yield name, value


def _unknown(name: str, known: Iterable[str], where: str, spelled: Callable[[str], str] = str) -> ConfigError:
    if name in FLAGS_ONLY:
        return ConfigError(f"{spelled(name)} {where}: this is no setting but a flag only; give it as --{name}")
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {spelled(nearest[0])}?" if nearest else "known are " + ", ".join(map(spelled, known))
    return ConfigError(f"unknown setting {spelled(name)} {where}; {hint}")


def _typed(value: Any, kind: type, what: str) -> Any:
    """A value from TOML, which has types of its own, as `kind`."""
    if kind is tuple and isinstance(value, list) and all(type(item) is int for item in value):
        return tuple(value)
    if kind in (Path, PurePath) and isinstance(value, str):
        return Path(value) if kind is Path else path_or_uri(value)
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise _wrong_type(value, kind, what)


def _parsed(text: str, kind: type, what: str) -> Any:
    """A value from the environment, which is always text, as `kind`."""
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise _wrong_type(text, kind, what)
    convert: Callable[[str], Any] = path_or_uri if kind is PurePath else kind
    try:
        return convert(text)
    except ValueError:
        raise _wrong_type(text, kind, what) from None


def _wrong_type(value: Any, kind: type, what: str) -> ConfigError:
    names = {
        str: "text",
        Path: "a path",
        PurePath: "a path",
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        tuple: "a list of whole numbers",
    }
    return ConfigError(f"{what} must be {names[kind]}, not {value!r}")
