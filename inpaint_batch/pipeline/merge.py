"""`merge`: one summary and one list of failures out of those of all shards."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from inpaint_batch import errors
from inpaint_batch.config import Shard
from inpaint_batch.errors import InpaintBatchError, StopRequestedError, StorageError
from inpaint_batch.execution.lock import hold_folder
from inpaint_batch.manifest.schema import COLUMNS
from inpaint_batch.pipeline.status import latest_shards, outdated_shards, read_json, run_file
from inpaint_batch.report.failures import ALWAYS, PlainLines
from inpaint_batch.report.summary import state_ending
from inpaint_batch.storage.atomic import atomic_write, remove_stale_temporaries
from inpaint_batch.storage.paths import STATE_FOLDER

_GRAVEST_FIRST = (1, 2, 3, 4, 5, 6, 7, 10, 9, 75, 8, 0)
_BY_CODE: dict[int, type[InpaintBatchError]] = {
    one.exit_code: one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, InpaintBatchError)
}


def merge_shards(output: Path, *, shown: str = "") -> dict[str, Any]:
    """Write `summary.json` and `failures.csv` for all shards of the last n; returns the summary if all rows are done.

    Raises StorageError where there are no shards, or one still runs; otherwise, once the files are written, the error
    that a run of the whole would have ended with: that of the gravest exit code of a shard, and StopRequestedError
    where one did not run, was killed, or ran over the manifest as it was before. `shown` is how people know the folder,
    where it is a copy of a store's state.
    """
    state = output / STATE_FOLDER
    shards = latest_shards(state)
    place = shown or str(output)
    if len(shards) < 2:
        raise StorageError(_explain_no_shards(state, place))
    with hold_folder(state, None) as killed:
        remove_stale_temporaries(output, killed)
        summaries = {shard: read_json(state / f"summary{state_ending(shard)}.json") for shard in shards}
        ended = {shard: summary for shard, summary in summaries.items() if summary is not None}
        outdated = [shard for shard in outdated_shards(state, shards) if shard in ended]
        missing = [shard for shard in shards if shard not in ended or shard in outdated]
        merged = _merged(ended, missing, *_gravest(ended, missing, state, place))
        kept = set() if merged["exit_code"] in (0, errors.RowsFailedError.exit_code) else _manifests(shards, state)
        if "failures.csv" not in kept:
            _write_list("failures", state, ended)
        if "left.csv" not in kept and (merged["rows"]["left"] or (state / "left.csv").exists()):
            _write_list("left", state, ended)
        with atomic_write(state / "summary.json") as temporary:
            temporary.write_text(json.dumps(merged, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    if merged["exit_code"]:
        raise _BY_CODE[merged["exit_code"]](merged["error"])
    return merged


def _merged(ended: dict[Shard, dict[str, Any]], missing: list[Shard], exit_code: int, error: str) -> dict[str, Any]:
    parts = list(ended.values())
    counts = ("done", "copied", "skipped", "left", "failed", "failed_now")
    rows = {name: sum(part["rows"].get(name, 0) for part in parts) for name in counts}
    first = parts[0] if parts else {}
    return {
        "exit_code": exit_code,
        "error": error,
        "rows": {
            **rows,
            "failed_by_code": _sums(part["rows"]["failed_by_code"] for part in parts),
            "warnings": sum(part["rows"]["warnings"] for part in parts),
            "redone": _sums(part["rows"].get("redone", {}) for part in parts),
        },
        "megapixels": round(sum(part["megapixels"] for part in parts), 6),
        "tiles_by_side_px": _sums(part["tiles_by_side_px"] for part in parts),
        "batches": sum(part["batches"] for part in parts),
        "seconds_by_stage": _sums(part["seconds_by_stage"] for part in parts),
        **{name: first.get(name, "") for name in ("engine", "model", "precision", "manifest")},
        "notes": list(
            dict.fromkeys(f"shard {shard}: {note}" for shard, part in ended.items() for note in part["notes"])
        ),
        "started": min((part["started"] for part in parts), default=""),
        "ended": max((part["ended"] for part in parts), default=""),
        "peak_memory_bytes": max((part["peak_memory_bytes"] for part in parts), default=0),
        "shards": [
            {"shard": str(shard), **{name: part[name] for name in ("exit_code", "error", "rows", "started", "ended")}}
            for shard, part in ended.items()
        ],
        "missing_shards": [str(shard) for shard in missing],
    }


def _explain_no_shards(state: Path, place: str) -> str:
    last = read_json(state / "run.json")
    if last is None or not any(state.glob("run-*.json")):
        return f"there are no shards in {place}; name the folder that was given to run --shard as --output"
    return (
        f"after its shards, {place} had a run of the whole of {last['manifest']}, and its summary.json tells of that; "
        "to add the shards up run them again (with --retry-failed for rows that failed; what is done is passed over), "
        "then merge again"
    )


def _gravest(ended: dict[Shard, dict[str, Any]], missing: list[Shard], state: Path, place: str) -> tuple[int, str]:
    """The exit code of all, and its sentence."""
    codes: dict[int, list[Shard]] = {}
    for shard, part in ended.items():
        code = StopRequestedError.exit_code if part["exit_code"] == 130 else part["exit_code"]
        codes.setdefault(code, []).append(shard)
    if missing:
        codes.setdefault(StopRequestedError.exit_code, []).extend(missing)
    code = min(codes, key=lambda code: _GRAVEST_FIRST.index(code) if code in _GRAVEST_FIRST else -1, default=0)
    if code == 0:
        return 0, ""
    if code == StopRequestedError.exit_code:
        absent = [shard for shard in missing if not run_file(state, shard).exists()]
        outdated = [shard for shard in missing if shard in ended]
        stopped = [shard for shard in codes[code] if shard not in (*absent, *outdated)]
        told = [f"{_listed(stopped)} did not end or {_was(stopped)} stopped"] * bool(stopped)
        told += [f"{_listed(absent)} {_was(absent)} never begun"] * bool(absent)
        told += [f"{_listed(outdated)} ran over the manifest as it was before it changed"] * bool(outdated)
        return code, f"not all is done: {', and '.join(told)}; run what is left, then merge again"
    if code == errors.RowsFailedError.exit_code:
        failed = sum(part["rows"]["failed"] for part in ended.values())
        return code, f"rows failed: {failed}; reasons in {place}/{STATE_FOLDER}/failures.csv"
    return code, f"{_listed(codes[code])} ended with exit code {code}: {ended[codes[code][0]]['error']}"


def _manifests(shards: list[Shard], state: Path) -> set[str]:
    """Names of the lists that shards run over. Where not all ended, nothing else names the rows that are left."""
    begun = (read_json(run_file(state, shard)) for shard in shards)
    return {Path(about["manifest"]).name for about in begun if about is not None}


def _listed(shards: list[Shard]) -> str:
    names = ", ".join(map(str, sorted(shards, key=lambda shard: shard.index)))
    return f"shard {names}" if len(shards) == 1 else f"shards {names}"


def _was(shards: list[Shard]) -> str:
    return "was" if len(shards) == 1 else "were"


def _sums(counts: Iterable[dict[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in counts:
        for name, value in one.items():
            total[name] += value  # type: ignore[assignment]  # a Counter adds up floats as well
    return {name: round(value, 4) for name, value in sorted(total.items())}


def _write_list(name: str, state: Path, ended: Iterable[Shard]) -> None:
    paths = [path for shard in ended if (path := state / f"{name}{state_ending(shard)}.csv").exists()]
    text = partial(Path.open, encoding="utf-8", errors="surrogateescape", newline="")
    given: set[str] = set()
    for path in paths:
        with text(path) as file:
            given.update(next(csv.reader(file), ()))
    columns = [name for name in COLUMNS if name in given or name in ALWAYS]
    with atomic_write(state / f"{name}.csv") as temporary, text(temporary, "w") as merged:
        writer = csv.DictWriter(PlainLines(merged), [*columns, "code", "message"], restval="")
        writer.writeheader()
        for path in paths:
            with text(path) as file:
                writer.writerows(csv.DictReader(file))
