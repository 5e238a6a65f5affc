"""Reads a Dockerfile and a .dockerignore, as far as ours use them; what it does not know it refuses."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

KEYWORDS = frozenset({"RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "HEALTHCHECK"})


@dataclass(frozen=True)
class Instruction:
    """One step."""

    keyword: str
    rest: str

    def words(self) -> list[str]:
        """Of a step in JSON, or else as a shell would split it."""
        return json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass
class Stage:
    """What stands between one FROM and the next."""

    name: str
    parent: str
    """Another stage, or an image from outside."""
    steps: list[Instruction] = field(default_factory=list)


def stages_of(path: Path) -> dict[str, Stage]:
    """All stages by name, in their order. Raises ValueError for what is not understood."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    found: dict[str, Stage] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        keyword, _, rest = line.strip().partition(" ")
        if keyword == "FROM":
            parent, between, name = rest.partition(" AS ")
            if not between:
                raise ValueError(f"a stage without a name: {line}")
            found[name] = Stage(name, parent)
        elif keyword in KEYWORDS and found:
            list(found.values())[-1].steps.append(Instruction(keyword, rest.strip()))
        else:
            raise ValueError(f"not understood: {line}")
    return found


def lineage(stages: dict[str, Stage], target: str) -> list[Stage]:
    """The stages that `target` is made of, the first one first."""
    stage = stages[target]
    return [*(lineage(stages, stage.parent) if stage.parent in stages else []), stage]


def steps_of(stages: dict[str, Stage], target: str) -> list[Instruction]:
    """All steps of a target, those of the stages it builds on first."""
    return [step for stage in lineage(stages, target) for step in stage.steps]


def context_of(root: Path) -> list[Path]:
    """Files that a build sees, relative to `root`: the last line of .dockerignore that fits a file decides."""
    rules = [line.strip() for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()]
    seen = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.startswith(".git/") or not path.is_file():
            continue
        ignored = False
        for rule in rules:
            if rule and not rule.startswith("#") and _fits(name, rule.removeprefix("!")):
                ignored = not rule.startswith("!")
        if not ignored:
            seen.append(Path(name))
    return seen


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern fits the path or a folder above it."""
    parts = name.split("/")
    wanted = pattern.removeprefix("**/")
    starts = range(len(parts)) if wanted != pattern else [0]
    length = wanted.count("/") + 1
    return any(
        all(fnmatchcase(part, piece) for part, piece in zip(parts[start:], wanted.split("/"), strict=False))
        for start in starts
        if len(parts) - start >= length
    )
