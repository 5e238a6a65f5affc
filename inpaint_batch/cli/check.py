"""`inpaint-batch check`: everything about a manifest that costs no inference."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import gather, run_config
from inpaint_batch.words import either

app = new_app()


@app.command()
def check(
    manifest: options.Manifest,
    output: options.Output = None,
    masks: options.Masks = None,
    depth: Annotated[
        str,
        typer.Option(
            "--depth",
            metavar="LEVEL",
            help="rows: the manifest alone, no file is opened; headers: also the header of each image, and whether its "
            "mask is there; pixels: everything. Default: pixels.",
            show_default=False,
        ),
    ] = "pixels",
    model: options.Model = None,
    engine: options.Engine = None,
    precision: options.Precision = None,
    workers: options.Workers = None,
    mask_polarity: options.MaskPolarity = None,
    mask_threshold: options.MaskThreshold = None,
    dilate: options.Dilate = None,
    feather: options.Feather = None,
    jpeg: options.Jpeg = None,
    empty_mask: options.EmptyMask = None,
    grain: options.Grain = None,
    sidecar: options.Sidecar = None,
    premis: options.Premis = None,
    xmp: options.Xmp = None,
    passes: options.Passes = None,
    on_conflict: options.OnConflict = None,
    max_image_megabytes: options.MaxImageMegabytes = None,
    max_memory: options.MaxMemory = None,
    executor: options.Executor = None,
    actors: options.Actors = None,
    log_format: options.LogFormat = None,
    config: options.Config = None,
) -> None:
    """Look at every row of MANIFEST without filling anything: files, headers, sizes, masks, outputs, cost.

    Of the engine only that it is known and its model there; a model from elsewhere plans with its own tiles.

    Rows that an earlier run has done are looked at, and counted, as all others are.

    Ends with the exit code that `run` would end with: 4 for an unusable manifest, 8 if any row would fail, else 0. Give
    it the flags of the run: with --actors, for instance, a row may take less memory.
    """
    flags = {name: value for name, value in locals().items() if name not in ("manifest", "masks", "depth", "config")}
    given = gather(flags, config, os.environ)
    settings = run_config(given, output=Path("unused"))

    from inpaint_batch.errors import UsageError
    from inpaint_batch.pipeline.check import Depth, check_manifest
    from inpaint_batch.report.findings import FindingsPrinter

    if depth not in get_args(Depth):
        raise UsageError(f"--depth must be {either(get_args(Depth))}, not {depth!r}")
    check_manifest(
        settings,
        manifest,
        masks=masks,
        with_output="output" in given.values,
        report=FindingsPrinter(settings.log_format, has_lines=masks is None),
        depth=cast("Depth", depth),
    )
