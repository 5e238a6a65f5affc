"""`inpaint-batch merge`: one summary and one list of failures for all shards."""

from __future__ import annotations

import typer

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.words import counted

app = new_app()


@app.command()
def merge(
    output: options.OutputOfRuns,
) -> None:
    """Join what the shards of DIR left behind: summary.json and failures.csv in DIR/.inpaint-batch.

    Ends with the exit code that one run of everything would have ended with; 75 where a shard is missing.
    """
    if isinstance(output, str):
        from inpaint_batch.pipeline.store_copy import merge_in_store

        merged = merge_in_store(output)
    else:
        from inpaint_batch.pipeline.merge import merge_shards

        merged = merge_shards(output)
    rows = merged["rows"]
    left = f"{rows['left']} left as they were, " if rows["left"] else ""
    typer.echo(
        f"{counted(len(merged['shards']), 'shard')}: {counted(rows['done'], 'row')} done, "
        f"{rows['skipped']} done before, {left}none failed"
    )
