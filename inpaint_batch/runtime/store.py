"""Where models are found: the one in the package, or a file that the user names."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import inpaint_batch
from inpaint_batch.errors import EngineError

STEM = "dcf-base"
"""Model files are called STEM.PRECISION.onnx."""
PRECISIONS = ("int8", "fp32")
"""In the order of preference of `--precision auto`: INT8 is about twice as fast on a CPU."""


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model that can be run on the CPU."""

    name: str
    """`default`, or the path that the user gave."""
    files: dict[str, Path]
    """ONNX file by precision."""
    card: dict[str, Any]
    """The model card; empty where there is none."""


def default_folder() -> Path:
    """Folder of the default model: inside an installed package, else at the top of a checkout."""
    package = Path(inpaint_batch.__file__).parent
    candidates = (package / "engines" / "default", package.parent / "engines" / "default")
    return next((folder for folder in candidates if _files_in(folder)), candidates[-1])


def find_model(name: str) -> StoredModel:
    """The model called `default`, or that of an `.onnx` file. Raises EngineError where there is none."""
    if name != "default":
        return _user_model(name)
    folder = default_folder()
    files = _files_in(folder)
    if not files:
        raise EngineError(
            f"the default model is not there (looked for {STEM}.*.onnx in {folder}): "
            "install the package again, or name a model with --model path/to/model.onnx"
        )
    return StoredModel(name, files, _read_card(folder / "card.toml"))


def without_tilde(name: str) -> Path:
    """A path as a shell would take it; that of a user who is not known stays as it is, and nothing is there."""
    return Path(os.path.expanduser(name))  # noqa: PTH111  (the other one raises RuntimeError)


def find_weights(name: str) -> Path:
    """The FP32 weights of the model called `default`, or a `.safetensors` file. Raises EngineError."""
    if name == "default":
        path = default_folder() / f"{STEM}.safetensors"
        if not path.is_file():
            raise EngineError(
                f"the weights of the default model are not there ({path}): they are in a checkout, not in the wheel; "
                "name a file with --model path/to/model.safetensors"
            )
        return path
    path = without_tilde(name)
    if path.suffix.lower() != ".safetensors":
        raise EngineError(f"torch runs `default` or a .safetensors file, not {name!r}")
    if not path.is_file():
        raise EngineError(f"there are no weights {path}: check the path given with --model")
    return path


def hash_file(path: Path) -> str:
    """SHA-256 of a model file, hexadecimal. Raises EngineError where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"cannot read the model {path} ({error.strerror}); check --model") from error


def _user_model(name: str) -> StoredModel:
    path = without_tilde(name)
    if path.suffix.lower() == ".safetensors":
        raise EngineError(
            f"--model {name} is weights: make an .onnx file of them with inpaint-batch compile {name} --output DIR, or "
            "say --engine torch"
        )
    if path.suffix.lower() != ".onnx":
        raise EngineError(f"--model must be `default` or the path of an .onnx file, not {name!r}")
    if not path.is_file():
        raise EngineError(f"there is no model {path}: check the path given with --model")
    precision = "int8" if re.search(r"(^|[._-])int8([._-]|$)", path.stem.lower()) else "fp32"
    return StoredModel(str(path), {precision: path}, {})  # a card beside it may be about anything


def _files_in(folder: Path) -> dict[str, Path]:
    paths = {precision: folder / f"{STEM}.{precision}.onnx" for precision in PRECISIONS}
    return {precision: path for precision, path in paths.items() if path.is_file()}


def _read_card(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EngineError(f"the model card {path} cannot be read ({error}): restore or remove it") from error
