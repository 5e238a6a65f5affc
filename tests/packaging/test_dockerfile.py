"""The Dockerfile and the lists of what it installs, as text; `.ci/container/dry-build` does the steps for real."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / ".ci" / "container"
sys.path.insert(0, str(CONTAINER))

from dockerfile import Instruction, Stage, context_of, stages_of, steps_of  # noqa: E402

PINNED = re.compile(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}")
EXTRAS = {
    "cpu": ("metrics", "parquet", "ray", "s3", "gs", "az"),
    "gpu": ("metrics", "parquet", "ray", "s3", "gs", "az", "gpu"),
}


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return stages_of(ROOT / "Dockerfile")


def last(stages: dict[str, Stage], target: str) -> dict[str, Instruction]:
    """Of each keyword the last one, which counts."""
    return {step.keyword: step for step in steps_of(stages, target)}


def locked(name: str) -> dict[str, str]:
    """Version by package, as it would be installed on Linux; every one must have a hash."""
    text = (CONTAINER / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    found = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        requirement, *hashes = re.split(r"\s+--hash=", line)
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", one) for one in hashes)
        entry = Requirement(requirement)
        if entry.marker is None or entry.marker.evaluate({"python_version": "3.11", "sys_platform": "linux"}):
            (version,) = entry.specifier
            assert version.operator == "=="
            found[entry.name.lower().replace("_", "-")] = version.version
    return found


def test_images_from_outside_are_pinned_to_the_byte(stages: dict[str, Stage]) -> None:
    outside = {stage.parent for stage in stages.values()} - set(stages)
    assert len(outside) == 1
    assert all(PINNED.fullmatch(image) for image in outside)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_a_target_runs_the_program_without_root(stages: dict[str, Stage], target: str) -> None:
    found = last(stages, target)
    assert found["USER"].rest.split(":")[0] not in ("", "0", "root")
    assert found["ENTRYPOINT"].words() == ["inpaint-batch"]
    assert steps_of(stages, target)[-1].keyword == "USER"  # nothing is installed after the rights are given up


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_health_check_needs_no_network(stages: dict[str, Stage], target: str) -> None:
    command = Instruction("CMD", last(stages, target)["HEALTHCHECK"].rest.partition("CMD ")[2]).words()
    assert command[0] == "inpaint-batch"
    assert not re.search(r"://|curl|wget", " ".join(command))


@pytest.mark.parametrize("target", ["cpu", "gpu", "wheel"])
def test_nothing_is_installed_that_is_not_pinned(stages: dict[str, Stage], target: str) -> None:
    installing = [step.rest for step in steps_of(stages, target) if step.keyword == "RUN" and "pip " in step.rest]
    assert len(installing) == 2
    for command in installing:
        assert "--require-hashes" in command or {"--no-index", "--no-deps"} <= set(command.split())
        assert "apt" not in command


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_the_lists_are_those_of_the_project(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS[name]:
        wanted += project["optional-dependencies"][extra]
    have = locked(name)
    for text in wanted:
        requirement = Requirement(text)
        version = have.get(requirement.name.lower())
        assert version is not None, f"{requirement.name} is not in {name}.txt; run .ci/container/lock"
        assert requirement.specifier.contains(version), f"{text}: {version} is listed; run .ci/container/lock"
    assert "aiohttp-cors" in have  # of ray[default]
    assert ("torch" in have) == (name == "gpu")


def test_plans_can_be_built_where_they_run() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(extras["train"]) <= set(extras["gpu"])  # export, quantisation and the gate need the same as training


def test_the_build_needs_what_is_listed_for_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for text in project["build-system"]["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked("build")[requirement.name])


def test_what_a_build_sees() -> None:
    names = {path.as_posix() for path in context_of(ROOT)}
    assert {"pyproject.toml", "README.md", "LICENSE", "inpaint_batch/cli/main.py", "manifests/demo.csv"} <= names
    assert {"engines/default/card.toml", ".ci/container/cpu.txt"} <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {"pyproject.toml", "README.md", "LICENSE", "inpaint_batch", "engines", "manifests", ".ci"}
    assert not [name for name in names if name.endswith((".safetensors", ".pyc"))]
    assert not [name for name in names if name.startswith(".ci/") and not name.endswith(".txt")]


def test_the_default_target_is_for_cpus(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "cpu"  # what a build without --target makes


def test_what_is_not_understood_is_refused(tmp_path: Path) -> None:
    for text in ("FROM a:1 AS b\nADD x y\n", "FROM a:1\n", "RUN before\n"):
        (tmp_path / "Dockerfile").write_text(text)
        with pytest.raises(ValueError, match=r"not understood|without a name"):
            stages_of(tmp_path / "Dockerfile")
