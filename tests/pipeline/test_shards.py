"""Shards of one manifest: side by side, after one another, with another n, killed and merged."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from gallery import Gallery, ledger_lines, run, tree, wait_until
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.errors import ConfigError, RowsFailedError, StopRequestedError, StorageError, UsageError
from inpaint_batch.pipeline.merge import merge_shards
from inpaint_batch.pipeline.run import run_manifest
from inpaint_batch.pipeline.shards import shard_from_environment
from inpaint_batch.pipeline.status import folder_status
from inpaint_batch.pipeline.stop import Stop
from inpaint_batch.report.progress import make_progress

PATIENCE_S = 120


def start(manifest: Path, output: Path, *flags: str, **variables: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    hidden = ("INPAINT_BATCH_", "SLURM_", "JOB_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | variables
    return subprocess.Popen(
        [*command, "--engine", "identity", "--workers", "1", *flags], stderr=subprocess.PIPE, text=True, env=environment
    )


def run_shard(manifest: Path, output: Path, shard: str, **settings: object) -> dict:
    """As `gallery.run`, for one shard."""
    config = RunConfig(output=output, shard=shard, **{"engine": "identity", "workers": 1, **settings})
    try:
        with make_progress("text") as progress:
            run_manifest(config, manifest, masks=None, progress=progress, stop=Stop())
    except RowsFailedError:
        pass
    return json.loads((output / ".inpaint-batch" / f"summary-{Shard.parse(shard).name}.json").read_text())


@pytest.fixture
def rows(gallery: Gallery) -> Gallery:
    for number in range(12):
        gallery.add(f"sub{number % 2}/{number:02d}.{('png', 'jpg', 'tif', 'webp')[number % 4]}")
    return gallery


def test_a_merge_before_all_shards_of_a_list_have_ended_leaves_the_list_to_them(gallery, tmp_path):
    output, failures = tmp_path / "out", tmp_path / "out" / ".inpaint-batch" / "failures.csv"
    for number in range(8):
        gallery.add(f"{number}.png").rename(gallery.folder / f"{number}.away")
    run(gallery.manifest(), output)
    before = failures.read_text()
    for number in range(8):
        (gallery.folder / f"{number}.away").rename(gallery.folder / f"{number}.png")
    done = run_shard(failures, output, "1/2", retry_failed=True)["rows"]["done"]
    assert 0 < done < 8
    with pytest.raises(StopRequestedError, match="shard 2/2 was never begun"):
        merge_shards(output)
    assert failures.read_text() == before
    assert run_shard(failures, output, "2/2", retry_failed=True)["rows"]["done"] == 8 - done
    assert merge_shards(output)["rows"]["done"] == 8
    assert len(failures.read_text().splitlines()) == 1


@given(st.text(), st.integers(1, 50))
def test_every_row_belongs_to_exactly_one_part(row_id, count):
    assert sum(Shard(index, count).has(row_id) for index in range(1, count + 1)) == 1


def test_the_part_of_a_row_never_changes():
    # Other figures than these would do the rows of a run that has begun again on other machines.
    assert [Shard.index_of(f"photo-{number}.jpg", 5) for number in range(8)] == [5, 5, 5, 3, 4, 5, 1, 3]
    counts = Counter(Shard.index_of(f"{number}", 8) for number in range(8000))
    assert min(counts.values()) > 850


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/3/5"])
def test_a_shard_that_cannot_be_is_refused(text, tmp_path):
    with pytest.raises(ConfigError, match="i/n"):
        RunConfig(output=tmp_path, shard=text)
    assert RunConfig(output=tmp_path, shard="1/1").part is None
    assert RunConfig(output=tmp_path, shard=" 2/3").part == Shard(2, 3)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"}, "1/4"),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "0"}, "4/4"),
        (
            {
                "SLURM_ARRAY_TASK_ID": "14",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "2",
            },
            "3/3",
        ),
        ({"JOB_COMPLETION_INDEX": "0", "INPAINT_BATCH_SHARD_COUNT": "8"}, "1/8"),
        ({"JOB_COMPLETION_INDEX": "7", "INPAINT_BATCH_SHARD_COUNT": "8"}, "8/8"),
    ],
)
def test_schedulers_tell_the_shard(variables, expected):
    found = shard_from_environment(variables)
    assert (found[0] if found else None) == expected


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"},  # --array=1,5,9
        {"SLURM_ARRAY_TASK_ID": "1"},
        {"JOB_COMPLETION_INDEX": "1"},
        {"JOB_COMPLETION_INDEX": "8", "INPAINT_BATCH_SHARD_COUNT": "8"},
    ],
)
def test_half_a_word_from_a_scheduler_is_refused(variables):
    with pytest.raises(UsageError, match=r"--shard i/n|completions"):
        shard_from_environment(variables)


def test_three_shards_side_by_side_make_what_one_run_makes(rows, tmp_path):
    manifest, output = rows.manifest(), tmp_path / "out"
    assert run(manifest, tmp_path / "whole")["exit_code"] == 0
    shards = [
        start(manifest, output, "--shard", "1/3"),
        start(manifest, output, SLURM_ARRAY_TASK_ID="2", SLURM_ARRAY_TASK_COUNT="3", SLURM_ARRAY_TASK_MIN="1"),
        start(manifest, output, JOB_COMPLETION_INDEX="2", INPAINT_BATCH_SHARD_COUNT="3"),
    ]
    for shard in shards:
        _, told = shard.communicate(timeout=PATIENCE_S)
        assert shard.returncode == 0, told
    assert tree(output) == tree(tmp_path / "whole")
    done = Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")
    assert done == Counter({row["id"]: 1 for row in rows.rows})
    summaries = [json.loads(path.read_text()) for path in (output / ".inpaint-batch").glob("summary-*-of-3.json")]
    assert sum(summary["rows"]["done"] for summary in summaries) == 12
    assert any("SLURM_ARRAY_TASK_ID" in note for summary in summaries for note in summary["notes"])
    for index in (1, 2, 3, 4, 5):  # another n finds everything done
        again = run_shard(manifest, output, f"{index}/5")
        assert (again["rows"]["done"], again["exit_code"]) == (0, 0)
    assert run(manifest, output)["rows"] == {
        "done": 0, "copied": 0, "skipped": 12, "left": 0, "failed": 0, "failed_now": 0, "failed_by_code": {},
        "warnings": 0, "redone": {},
    }  # fmt: skip


def test_merge_and_status_add_up(rows, tmp_path):
    rows.add_row("missing.png", rows.rows[0]["mask"], dilate="3")
    rows.add("no-mask.png", hole=(0, 0, 0, 0))
    manifest, output = rows.manifest(), tmp_path / "out"
    with pytest.raises(StorageError, match="no run has begun"):
        folder_status(output)
    with pytest.raises(StorageError, match="no shards"):
        merge_shards(output)
    summaries = [run_shard(manifest, output, "1/3")]
    with pytest.raises(StopRequestedError, match="not all is done: shards 2/3, 3/3 were never begun"):
        merge_shards(output)
    summaries.append(run_shard(manifest, output, "2/3"))
    first, second, third = folder_status(output)
    assert [one.state for one in (first, second, third)] == ["ended", "ended", "absent"]
    assert first.num_done == summaries[0]["rows"]["done"]
    with pytest.raises(StopRequestedError, match="not all is done: shard 3/3 was never begun; run what is left"):
        merge_shards(output)
    summaries.append(run_shard(manifest, output, "3/3"))
    with pytest.raises(RowsFailedError, match=rf"rows failed: 2; reasons in {output}/.inpaint-batch/failures\.csv"):
        merge_shards(output)
    merged = json.loads((output / ".inpaint-batch" / "summary.json").read_text())
    assert merged["rows"]["done"] == sum(one["rows"]["done"] for one in summaries) == 12
    assert merged["rows"]["failed_by_code"] == {"mask": 1, "read": 1}
    assert merged["tiles_by_side_px"] == {"64": 12}
    assert merged["exit_code"] == 8
    assert merged["missing_shards"] == []
    with (output / ".inpaint-batch" / "failures.csv").open(newline="") as file:
        failures = {line["id"]: line for line in csv.DictReader(file)}
    assert set(failures) == {"missing.png", "no-mask.png"}
    assert failures["missing.png"]["dilate"] == "3"
    told = folder_status(output)
    assert sum(one.num_rows for one in told) == 14
    assert sum(one.num_done for one in told) == 12
    assert sum((one.by_code for one in told), Counter()) == {"mask": 1, "read": 1}
    assert all(one.num_waiting == 0 and one.exit_code in (0, 8) for one in told)
    rows.add("missing.png")
    assert run(output / ".inpaint-batch" / "failures.csv", output, retry_failed=True)["rows"]["done"] == 1
    (retried,) = folder_status(output)
    assert (retried.num_rows, retried.manifest) == (2, str(output / ".inpaint-batch" / "failures.csv"))
    with pytest.raises(StorageError, match=r"after its shards, .* had a run of the whole of .*failures\.csv"):
        merge_shards(output)
    for index in (1, 2, 3):
        run_shard(manifest, output, f"{index}/3", retry_failed=True)
    with pytest.raises(RowsFailedError, match="rows failed: 1;"):
        merge_shards(output)


def test_a_shard_that_has_not_run_since_the_manifest_changed_is_missing(rows, tmp_path):
    """As one of a nightly array that never began: its summary is that of another night."""
    manifest, output = rows.manifest(), tmp_path / "out"
    for index in (1, 2):
        run_shard(manifest, output, f"{index}/2")
    assert merge_shards(output)["rows"]["done"] == 12
    for number in range(6):
        rows.add(f"new/{number}.png")
    rows.manifest()
    run_shard(manifest, output, "1/2")
    assert [one.outdated for one in folder_status(output)] == [False, True]
    with pytest.raises(
        StopRequestedError, match=r"not all is done: shard 2/2 ran over the manifest as it was before it changed; run"
    ):
        merge_shards(output)
    assert json.loads((output / ".inpaint-batch" / "summary.json").read_text())["missing_shards"] == ["2/2"]
    program = [sys.executable, "-m", "inpaint_batch", "status", str(output)]
    told = subprocess.run(program, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "ended with exit code 0, over the manifest as it was before it changed: run again" in told[1]
    assert "changed" not in told[0]
    run_shard(manifest, output, "2/2")
    assert not any(one.outdated for one in folder_status(output))
    assert merge_shards(output)["rows"]["skipped"] == 12


def test_status_and_merge_as_commands(rows, tmp_path):
    manifest, output = rows.manifest(), tmp_path / "out"
    for index in (1, 2):
        run_shard(manifest, output, f"{index}/2")
    program = [sys.executable, "-m", "inpaint_batch"]
    told = subprocess.run([*program, "status", str(output)], capture_output=True, text=True, check=True).stdout
    assert "12 of 12 rows done, 0 failed" in told
    assert "shard 2/2" in told
    values = json.loads(subprocess.run([*program, "status", str(output), "--json"], capture_output=True).stdout)
    assert (values["rows"], values["done"], values["failed"], len(values["shards"])) == (12, 12, 0, 2)
    merged = subprocess.run([*program, "merge", str(output)], capture_output=True, text=True, check=True)
    assert merged.stdout == "2 shards: 12 rows done, 0 done before, none failed\n"


def test_runs_that_would_do_the_same_rows_exclude_each_other(rows, tmp_path):
    manifest, output = rows.manifest(), tmp_path / "out"
    with start(manifest, output, "--shard", "1/2", "--engine", "faulty:s@30") as shard:
        wait_for_started(shard, output)
        for other in ("1/2", "2/3"):
            with pytest.raises(StorageError, match=f"process {shard.pid} "):
                run_shard(manifest, output, other)
        with pytest.raises(StorageError, match="in use"):
            run(manifest, output)
        with pytest.raises(StorageError, match="in use"):
            merge_shards(output)
        assert run_shard(manifest, output, "2/2")["exit_code"] == 0
        assert [one.state for one in folder_status(output)] == ["running", "ended"]
        shard.kill()
        shard.communicate(timeout=PATIENCE_S)
    assert [one.state for one in folder_status(output)] == ["killed", "ended"]
    with pytest.raises(StopRequestedError, match="shard 1/2 did not end or was stopped"):
        merge_shards(output)
    whole = run(manifest, output)
    assert whole["exit_code"] == 0
    assert whole["rows"]["skipped"] > 0
    (status,) = folder_status(output)
    assert (status.state, status.num_done, status.num_rows) == ("ended", 12, 12)


def test_only_temporaries_of_killed_runs_go(rows, tmp_path):
    manifest, output = rows.manifest(), tmp_path / "out"
    left = {}
    for shard in ("1/2", "2/2"):
        # Killed, with a temporary of its own left: an engine that sleeps holds no file open, so one is made here.
        script = (
            "import os, signal, sys; from pathlib import Path\n"
            "from inpaint_batch.storage import atomic\n"
            "with atomic.temporaries_of(sys.argv[2]), atomic.atomic_write(Path(sys.argv[1])):\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        name = Shard.parse(shard).name
        before = set(output.glob("*"))
        assert subprocess.run([sys.executable, "-c", script, str(output / "a.png"), name]).returncode == -signal.SIGKILL
        (left[shard],) = set(output.glob(".*.tmp")) - before
        (output / ".inpaint-batch").mkdir(exist_ok=True)
        (output / ".inpaint-batch" / f"lock-{name}").write_text("process 1 on nowhere\n")
    run_shard(manifest, output, "1/2")
    assert not left["1/2"].exists()
    assert left["2/2"].exists()  # as far as this shard knows, its writer may live in a container of its own
    run_shard(manifest, output, "1/3")  # nobody of 2 can be alive now
    assert not left["2/2"].exists()


def test_fresh_forgets_the_rows_of_its_shard_alone(rows, tmp_path):
    manifest, output = rows.manifest(), tmp_path / "out"
    ours, theirs = (run_shard(manifest, output, f"{index}/2")["rows"]["done"] for index in (1, 2))
    assert run_shard(manifest, output, "1/2", fresh=True)["rows"]["done"] == ours
    assert run_shard(manifest, output, "1/2")["rows"]["done"] == 0
    assert run_shard(manifest, output, "2/2")["rows"]["skipped"] == theirs


def test_name_conflicts_end_as_without_shards(gallery, tmp_path):
    for name in "abcdefgh":
        gallery.add(f"{name}.jpg", jpeg="lossless")
        gallery.add(f"{name}.png")
    manifest = gallery.manifest()
    for policy in ("error", "suffix"):
        run(manifest, tmp_path / policy, on_conflict=policy)
        for index in (3, 1, 2):
            run_shard(manifest, tmp_path / f"{policy}3", f"{index}/3", on_conflict=policy)
        assert tree(tmp_path / policy) == tree(tmp_path / f"{policy}3")
        assert len(tree(tmp_path / policy)) == (8 if policy == "error" else 16)


def wait_for_started(process: subprocess.Popen[str], output: Path) -> None:
    wait_until(process, lambda: any(line["status"] == "started" for line in ledger_lines(output)), PATIENCE_S)
