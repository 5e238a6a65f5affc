"""`inpaint-batch report`: a page to look at results, made from what a run left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import gather, run_config

app = new_app()


@app.command()
def report(
    output: options.OutputOfRuns,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Where the page goes; nothing but an earlier page is written over. Default: "
            "DIR/.inpaint-batch/report.html.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        int,
        typer.Option(
            "--rows",
            metavar="N",
            min=0,
            help="Results to show, 0 for all; about 150 kB of the page each. Default: 40.",
            show_default=False,
        ),
    ] = 40,
    max_image_megabytes: options.MaxImageMegabytes = None,
) -> None:
    """Write one HTML file that shows results of the runs in DIR beside their sources, and what failed.

    A third of the results are those that are most in doubt or have a warning, the others are chosen by chance. Each is
    compared with its source anew: what has changed is marked, and the largest changes are shown pixel by pixel. Runs
    need not have ended.
    """
    from inpaint_batch.pipeline.report import write_report

    settings = run_config(gather({"max_image_megabytes": max_image_megabytes}, None, {}), output=Path("unused"))
    typer.echo(write_report(output, html, num_rows=rows, max_image_bytes=settings.max_image_bytes))
