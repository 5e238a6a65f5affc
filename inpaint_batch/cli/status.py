"""`inpaint-batch status`: how far the runs of an output folder are."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.report.durations import roughly
from inpaint_batch.words import counted

if TYPE_CHECKING:
    from inpaint_batch.pipeline.status import ShardStatus

app = new_app()


@app.command()
def status(
    output: options.OutputOfRuns,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show how far the runs in DIR are, from any machine that sees it, without disturbing them.

    Ends with 0 whatever it shows; --json has the exit code of each run.
    """
    if isinstance(output, str):
        from inpaint_batch.pipeline.store_copy import store_status

        shards = store_status(output)
    else:
        from inpaint_batch.pipeline.status import folder_status

        shards = folder_status(output)
    now_s = time.time()
    told = _as_json(shards, now_s)
    if as_json:
        typer.echo(json.dumps(told, ensure_ascii=True))
        return
    for shard in shards if len(shards) > 1 else []:
        typer.echo(_sentence(shard, now_s))
    rows = counted(told["rows"], "row") if told["rows"] is not None else "an unknown number of rows"
    codes = ", ".join(f"{count} {code}" for code, count in told["failed_by_code"].items())
    typer.echo(
        f"{told['done']} of {rows} done, "
        + (f"{told['left']} left as they were, " if told["left"] else "")
        + f"{told['failed']} failed{f' ({codes})' if codes else ''}, {told['in_flight']} in flight; "
        f"{told['rows_per_s']:.3g} rows/s"
        + (f", about {roughly(told['left_s'])} left" if told["left_s"] is not None else "")
        + (f"; last activity {roughly(told['idle_s'])} ago" if told["idle_s"] is not None else "")
    )
    if len(shards) == 1:
        typer.echo(f"the last run, over {shards[0].manifest}: {_state(shards[0])}")


def _as_json(shards: list[ShardStatus], now_s: float) -> dict[str, Any]:
    rate = sum(shard.rate(now_s) for shard in shards)
    waiting = sum(shard.num_waiting for shard in shards)
    last_s = max(shard.last_s for shard in shards)
    known = all(shard.num_rows is not None for shard in shards)
    by_code = sum((shard.by_code for shard in shards), Counter[str]())
    return {
        "rows": sum(shard.num_rows or 0 for shard in shards) if known else None,
        "done": sum(shard.num_done for shard in shards),
        "left": sum(shard.num_left for shard in shards),
        "failed": sum(by_code.values()),
        "failed_by_code": dict(sorted(by_code.items())),
        "in_flight": sum(shard.num_in_flight for shard in shards),
        "rows_per_s": round(rate, 4),
        "left_s": round(waiting / rate, 1) if rate and known else None,
        "last_activity": round(last_s, 3) if last_s else None,
        "idle_s": round(max(0.0, now_s - last_s), 1) if last_s else None,
        "shards": [
            {
                "shard": shard.shard,
                "state": shard.state,
                "outdated": shard.outdated,
                "manifest": shard.manifest,
                "process": shard.process,
                "exit_code": shard.exit_code,
                "rows": shard.num_rows,
                "done": shard.num_done,
                "left": shard.num_left,
                "failed": shard.num_failed,
                "failed_by_code": dict(sorted(shard.by_code.items())),
                "in_flight": shard.num_in_flight,
                "rows_per_s": round(shard.rate(now_s), 4),
                "last_activity": round(shard.last_s, 3) if shard.last_s else None,
            }
            for shard in shards
        ],
    }


def _sentence(shard: ShardStatus, now_s: float) -> str:
    if shard.num_rows is None:
        return f"shard {shard.shard}: not begun ({shard.num_done} of its rows done by earlier runs)"
    last = f", last activity {roughly(max(0.0, now_s - shard.last_s))} ago" if shard.last_s else ""
    return (
        f"shard {shard.shard}: {shard.num_done} of {counted(shard.num_rows, 'row')} done, {shard.num_failed} failed; "
        f"{_state(shard)}{last}"
    )


def _state(shard: ShardStatus) -> str:
    match shard.state:
        case "ended":
            before = ", over the manifest as it was before it changed: run again" if shard.outdated else ""
            return f"ended with exit code {shard.exit_code}{before}"
        case "running":
            return f"running as {shard.process}"
        case "killed":
            return f"died as {shard.process}; run again to go on"
        case _:
            return "not begun"
