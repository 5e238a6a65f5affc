"""The recipes for clusters, as far as text can be tested: commands, fields, and what our codes make them do."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from inpaint_batch import errors
from inpaint_batch.cli.main import app
from inpaint_batch.pipeline.shards import shard_from_environment

FOLDER = Path(__file__).parents[2] / "docs" / "cluster"


def parse(words: list[str]) -> None:
    group = typer.main.get_command(app)
    parent = group.make_context("inpaint-batch", list(words))
    name, command, rest = group.resolve_command(parent, list(words))
    command.make_context(name, rest, parent=parent)


def launched() -> list[str]:
    """Commands that another program launches."""
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^(?:srun|ray job submit .*--) inpaint-batch (.*)$", page, re.MULTILINE)


def test_launched_commands_are_taken():
    assert len(launched()) == 2
    for words in launched():
        parse(shlex.split(words))


def test_the_slurm_array_is_one_that_shards_can_be_told_from():
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    first, last = map(int, re.search(r"^#SBATCH --array=(\d+)-(\d+)$", page, re.MULTILINE).groups())
    found = [
        shard_from_environment(
            {
                "SLURM_ARRAY_TASK_ID": f"{task}",
                "SLURM_ARRAY_TASK_COUNT": f"{last - first + 1}",
                "SLURM_ARRAY_TASK_MIN": f"{first}",
            }
        )[0]
        for task in range(first, last + 1)
    ]
    assert found == [f"{index}/32" for index in range(1, 33)]
    assert "-eq 75" in page
    assert errors.StopRequestedError.exit_code == 75


def test_the_indexed_job():
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    job = yaml.safe_load((FOLDER / "indexed-job.yaml").read_text(encoding="utf-8"))
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"], spec["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it
    assert "backoffLimitPerIndex" in spec  # FailIndex wants it
    parse(container["args"])
    count = {entry["name"]: entry["value"] for entry in container["env"]}["INPAINT_BATCH_SHARD_COUNT"]
    assert int(count) == spec["completions"]
    shards = [
        shard_from_environment({"JOB_COMPLETION_INDEX": f"{index}", "INPAINT_BATCH_SHARD_COUNT": count})[0]
        for index in range(spec["completions"])
    ]
    assert shards == [f"{index}/8" for index in range(1, 9)]
    rules = spec["podFailurePolicy"]["rules"]
    acted_on = {}
    for rule in rules:
        assert rule["action"] in ("Ignore", "FailIndex", "FailJob", "Count")
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == container["name"]
            assert 0 not in rule["onExitCodes"]["values"]
            acted_on |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
    assert acted_on[errors.StopRequestedError.exit_code] == "Ignore"
    needs_a_person = (
        errors.UsageError,
        errors.ConfigError,
        errors.ManifestError,
        errors.MissingDependencyError,
        errors.EngineError,
        errors.RowsFailedError,
        errors.FailureLimitError,
    )
    assert {error.exit_code for error in needs_a_person} == {
        code for code, act in acted_on.items() if act == "FailIndex"
    }
