"""No container engine is needed, nor used: this reads the Dockerfile and checks its form."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^[\w./-]+:\d+\.\d+\.\d+[\w.-]*$")

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def stages() -> dict[str, list[Instruction]]:
    """Stage -> its instructions, those of the stage it builds on first. `FROM` holds the image or stage."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    found: dict[str, list[Instruction]] = {}
    for line in lines:
        keyword, _, rest = line.partition(" ")
        if keyword == "FROM":
            parent, _, name = rest.partition(" AS ")
            found[name] = [*found.get(parent, []), (keyword, parent)]
        else:
            found[list(found)[-1]].append((keyword, rest))
    return found


def test_images_from_outside_are_pinned(stages: dict[str, list[Instruction]]) -> None:
    parents = {rest for instructions in stages.values() for keyword, rest in instructions if keyword == "FROM"}
    outside = parents - set(stages)
    assert outside
    assert all(PINNED.match(image) for image in outside)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_the_program_without_root(stages: dict[str, list[Instruction]], target: str) -> None:
    last = dict(stages[target])  # of each keyword the last one counts
    assert last["USER"].split(":")[0] not in ("", "0", "root")
    assert json.loads(last["ENTRYPOINT"]) == ["inpaint-batch"]
    assert stages[target][-1][0] == "USER"  # nothing is installed or copied after the rights are given up


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_health_check_needs_no_network(stages: dict[str, list[Instruction]], target: str) -> None:
    command = json.loads(dict(stages[target])["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "inpaint-batch"
    assert not re.search(r"://|curl|wget", " ".join(command))


def test_what_is_copied_is_not_ignored(stages: dict[str, list[Instruction]]) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {"pyproject.toml", "README.md", "LICENSE", "inpaint_batch", "engines"} == allowed
    assert list(stages)[-1] == "cpu"  # what a build without --target makes
