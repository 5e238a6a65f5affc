"""How far the runs of an output folder are, told from its files alone, while they run or after.

Every run leaves a small file when it begins, `run.json` or `run-i-of-n.json`, and takes away the summary of the run
before it; so a summary that is there is that of a run that ended. What happened in between stands in the ledger, where
the id of a row tells its shard.
"""

from __future__ import annotations

import fnmatch
import json
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from inpaint_batch.config import Shard
from inpaint_batch.errors import StorageError
from inpaint_batch.execution.ledger_lines import read_lines
from inpaint_batch.execution.lock import holder_of
from inpaint_batch.execution.packed_map import PackedMap
from inpaint_batch.processes import lives, process_name
from inpaint_batch.report.summary import Summary, state_ending
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.paths import STATE_FOLDER, names_in

RATE_WINDOW_S = 600.0
"""The pace is that of the last ten minutes: the rows before may have been of another kind."""

ShardState = Literal["absent", "running", "killed", "ended"]


@dataclass(slots=True)
class ShardStatus:
    """One shard, or the whole where there are none."""

    shard: str
    """`i/n`; `1/1` for a run of the whole manifest."""
    state: ShardState = "absent"
    """`absent`: not begun. `killed`: its process is gone, and left no summary. `running` is what a process on another
    machine, or in another container, said when it began."""
    manifest: str = ""
    """Of its last run: the manifest that was given, or a list of failed rows."""
    process: str = ""
    """Who runs it: see `process_name`."""
    exit_code: int | None = None
    """Of a run that ended."""
    num_rows: int | None = None
    """Rows of its part of the manifest; None while it has not begun."""
    num_done: int = 0
    """Rows that need not be done any more, by this run or an earlier one."""
    num_left: int = 0
    """Rows that `--on-conflict skip` left alone, where its run has ended."""
    by_code: Counter[str] = field(default_factory=Counter)
    """Failed rows by code."""
    outdated: bool = False
    """Whether the manifest has changed since: other shards have run over what it is now."""
    num_in_flight: int = 0
    started_s: float = 0.0
    """When its run began, in seconds since 1970."""
    last_s: float = 0.0
    """When it last wrote a line into the ledger."""
    num_recent: int = 0
    """Rows done by this run within RATE_WINDOW_S."""

    @property
    def num_failed(self) -> int:
        """Rows that failed."""
        return sum(self.by_code.values())

    @property
    def num_waiting(self) -> int:
        """Rows that no run has brought to an end yet."""
        return max(0, (self.num_rows or 0) - self.num_done - self.num_left - self.num_failed)

    def rate(self, now_s: float) -> float:
        """Rows done per second, lately; 0 where it does not run."""
        since_s = min(RATE_WINDOW_S, now_s - self.started_s)
        return self.num_recent / since_s if self.state == "running" and since_s > 0 else 0.0


def run_file(state: Path, part: Shard | None) -> Path:
    """The file that tells of the run that is at work, or was last."""
    return state / f"run{state_ending(part)}.json"


def begin_run_file(state: Path, summary: Summary, num_rows: int, digest: str) -> None:
    """Say that a run of `num_rows` rows begins; the summary of the one before goes.

    `digest` is that of the manifest, empty where it has none.
    """
    part = summary.config.part
    about = {
        "run": summary.run,
        "shard": str(part or Shard(1, 1)),
        "manifest": summary.manifest,
        "digest": digest,
        "rows": num_rows,
        "at": summary.started_s,
        "process": process_name(),
    }
    (state / f"summary{state_ending(part)}.json").unlink(missing_ok=True)
    with atomic_write(run_file(state, part)) as temporary:
        temporary.write_text(json.dumps(about, ensure_ascii=True) + "\n", encoding="utf-8")


def latest_shards(state: Path) -> list[Shard]:
    """The shards 1/n to n/n, for the n of the run that began last; [1/1] where that had none, [] before any run.

    Raises OSError where it cannot be read.
    """
    begun: dict[int, float] = {}
    for name in fnmatch.filter(names_in(state), "run*.json"):
        about = read_json(state / name)
        if about is not None:
            count = Shard.parse(about["shard"]).count
            begun[count] = max(begun.get(count, 0.0), about["at"])
    if not begun:
        return []
    count = max(begun, key=lambda count: begun[count])
    return [Shard(index, count) for index in range(1, count + 1)]


def outdated_shards(state: Path, shards: list[Shard]) -> list[Shard]:
    """Of these, those that last ran over the manifest as it was before the run that began last.

    Nothing is known of folders of images, and of runs over different manifests. Raises OSError where it cannot be read.
    """
    about = {shard: found for shard in shards if (found := read_json(run_file(state, shard))) is not None}
    if not about:
        return []
    last = max(about.values(), key=lambda found: found["at"])
    manifest, digest = last["manifest"], last.get("digest")
    return [
        shard
        for shard, found in about.items()
        if digest and found.get("digest") and found["manifest"] == manifest and found["digest"] != digest
    ]


def folder_status(output: Path, *, shown: str = "") -> list[ShardStatus]:
    """What is known of every shard of the runs that began last. Raises StorageError where there was never one.

    `shown` is how people know the folder, where it is a copy of the state of a store.
    """
    state = output / STATE_FOLDER
    shards = latest_shards(state)
    if not shards:
        raise StorageError(
            f"no run has begun in {shown or output}; name the folder that was given to run with --output"
        )
    found = {shard: _begun(state, shard) for shard in shards}
    for shard in outdated_shards(state, shards):
        found[shard].outdated = True
    _count_ledger(state, found)
    for shard, status in found.items():
        summary = read_json(state / f"summary{state_ending(shard)}.json")
        if summary is not None:
            rows = summary["rows"]
            status.state, status.exit_code = "ended", summary["exit_code"]
            status.num_done, status.by_code = rows["done"] + rows["skipped"], Counter(rows["failed_by_code"])
            status.num_left, status.num_in_flight = rows.get("left", 0), 0
    return list(found.values())


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object in a file, or None where there is none (any more). Raises OSError where it cannot be read."""
    with suppress(FileNotFoundError, ValueError):
        value = json.loads(path.read_text("utf-8"))
        if isinstance(value, dict):
            return value
    return None


def _begun(state: Path, shard: Shard) -> ShardStatus:
    about = read_json(run_file(state, shard))
    if about is None:
        return ShardStatus(str(shard))
    alive = holder_of(state / f"lock{state_ending(shard)}") == about["process"] and lives(about["process"]) is not False
    return ShardStatus(
        str(shard),
        state="running" if alive else "killed",
        manifest=about["manifest"],
        process=about["process"],
        num_rows=about["rows"],
        started_s=about["at"],
    )


def _count_ledger(state: Path, found: dict[Shard, ShardStatus]) -> None:
    shards = list(found)
    last = PackedMap()  # the last word by id: a code for failed rows, else the status
    words: defaultdict[Shard, Counter[str]] = defaultdict(Counter)
    since_s = time.time() - RATE_WINDOW_S
    for line in read_lines(state):
        of = shards[Shard.index_of(line.id, len(shards)) - 1]
        word = line.code or line.status
        if before := last.get(line.id):
            words[of][before.decode()] -= 1
        words[of][word] += 1
        last.put(line.id, word.encode())
        found[of].last_s = max(found[of].last_s, line.at_s)
        found[of].num_recent += line.status == "done" and line.at_s >= max(since_s, found[of].started_s)
    for of, counts in words.items():
        shard = found[of]
        shard.num_done = counts.pop("done", 0)
        in_flight = counts.pop("started", 0)
        shard.num_in_flight = in_flight if shard.state == "running" else 0
        del counts["dropped"]
        shard.by_code = +counts
