"""Every command that the documents show must be one that the program takes, and the set-up lines those of .ci/run."""

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from inpaint_batch.cli.main import app
from inpaint_batch.runtime.adapter import find_adapter
from inpaint_batch.training.config import TrainConfig

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "manifests" / "README.md",
    ROOT / "engines" / "README.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "bash", "console", "shell"}

SETUP = [
    "pip install . && inpaint-batch run manifests/demo.csv --output restored",
    "pip install -e '.[dev]' && pytest",
]


def shell_lines(document: Path) -> Iterator[str]:
    """The lines of all shell blocks, continued lines joined, comments and prompts removed."""
    for language, body in FENCE.findall(document.read_text(encoding="utf-8")):
        if language in SHELLS:
            for line in body.replace("\\\n", " ").splitlines():
                line = line.removeprefix("$ ").strip()
                if line and not line.startswith("#"):
                    yield line


def our_commands() -> Iterator[tuple[str, list[str]]]:
    for document in DOCUMENTS:
        for line in shell_lines(document):
            for part in re.split(r"&&|\|\||[|;]", line):
                words = shlex.split(part, comments=True)
                if words and words[0] == "inpaint-batch":
                    yield str(document.relative_to(ROOT)), words[1:]
                elif words and words[0] == "torchrun":
                    module, *rest = words[words.index("-m") + 1 :]
                    # Another module of ours would start, do nothing, and end with 0.
                    yield str(document.relative_to(ROOT)), rest if module == "inpaint_batch" else [module, *rest]


@pytest.mark.parametrize(("document", "words"), [pytest.param(*one, id=" ".join(one[1])) for one in our_commands()])
def test_the_program_takes_the_command(document: str, words: list[str]) -> None:
    group = typer.main.get_command(app)
    parent = group.make_context("inpaint-batch", list(words))
    name, command, rest = group.resolve_command(parent, list(words))
    assert command is not None, f"{document}: there is no command {name}"
    command.make_context(name, rest, parent=parent)  # parses flags and values, runs nothing


def test_the_documents_show_commands() -> None:
    assert {words[0] for _, words in our_commands()} >= {"run", "check", "train"}


def documented_toml() -> list[dict[str, object]]:
    page = (ROOT / "engines" / "README.md").read_text(encoding="utf-8")
    return [tomllib.loads(body) for language, body in FENCE.findall(page) if language == "toml"]


def test_documented_recipes_are_training_settings() -> None:
    recipes = [values for values in documented_toml() if "inputs" not in values]
    assert recipes
    for values in recipes:
        settings = TrainConfig.from_dict(values).to_dict()
        assert all(settings[name] == (tuple(v) if isinstance(v, list) else v) for name, v in values.items())


def test_the_documented_adapter_is_one(tmp_path: Path) -> None:
    text = (ROOT / "engines" / "README.md").read_text(encoding="utf-8")
    (page,) = (body for _, body in FENCE.findall(text) if "[[inputs]]" in body)
    (tmp_path / "model.toml").write_text(page)
    adapter = find_adapter(tmp_path / "model.onnx")
    assert adapter is not None
    assert (adapter.sides_px, adapter.output, adapter.tiling.margin_px) == ((512,), "output", 96)


def test_readme_and_ci_run_the_same_two_commands() -> None:
    readme = [line for line in shell_lines(ROOT / "README.md") if line.startswith("pip install") and "&&" in line]
    ci = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert readme == SETUP
    assert [line for line in ci if "pip install" in line] == SETUP
