"""What travels: the wheel is built for real, from the tree as it stands."""

import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFAULT_ENGINE = ROOT / "engines" / "default"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    # The build backend itself, which the dev extra brings: quicker than pip, and needs no network.
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        yield archive


def test_the_wheel_carries_the_default_model(wheel: zipfile.ZipFile) -> None:
    carried = {name for name in wheel.namelist() if name.startswith("inpaint_batch/engines/default/")}
    expected = [path for path in DEFAULT_ENGINE.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert carried == {
        f"inpaint_batch/engines/default/{path.relative_to(DEFAULT_ENGINE).as_posix()}" for path in expected
    }
    assert any(name.endswith(".onnx") for name in carried)
    for path in expected:
        name = f"inpaint_batch/engines/default/{path.relative_to(DEFAULT_ENGINE).as_posix()}"
        assert wheel.read(name) == path.read_bytes()


def test_the_wheel_carries_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "inpaint_batch").rglob("*.py")}
    names = set(wheel.namelist())
    assert {name for name in names if name.endswith(".py")} == sources
    assert "inpaint_batch/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"inpaint_batch"}


def test_a_plain_installation_is_light(wheel: zipfile.ZipFile) -> None:
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    required = [line.split(":", 1)[1].strip() for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    plain = [line for line in required if "extra ==" not in line]
    assert plain
    heavy = ("torch", "onnx>", "onnx;", "ray", "tensorrt", "scipy", "scikit")
    assert not [line for line in plain if line.startswith(heavy)]


def test_the_extras_are_those_of_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Extras")[1].split("\n## ")[0]
    named = {
        name.strip(" `")
        for line in section.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    }
    assert named == set(project["optional-dependencies"])
