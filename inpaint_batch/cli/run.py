"""`inpaint-batch run`: restore every row of a manifest."""

from __future__ import annotations

import os

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.exits import leave_at_once
from inpaint_batch.cli.settings import gather, run_config, take_shard
from inpaint_batch.errors import StopRequestedError
from inpaint_batch.logids import in_run

app = new_app()


@app.command()
def run(
    manifest: options.Manifest,
    output: options.Output = None,
    masks: options.Masks = None,
    model: options.Model = None,
    engine: options.Engine = None,
    precision: options.Precision = None,
    passes: options.Passes = None,
    workers: options.Workers = None,
    mask_polarity: options.MaskPolarity = None,
    mask_threshold: options.MaskThreshold = None,
    dilate: options.Dilate = None,
    feather: options.Feather = None,
    jpeg: options.Jpeg = None,
    empty_mask: options.EmptyMask = None,
    grain: options.Grain = None,
    xmp: options.Xmp = None,
    on_conflict: options.OnConflict = None,
    max_failures: options.MaxFailures = None,
    retry_failed: options.RetryFailed = None,
    content_hash: options.ContentHash = None,
    fresh: options.Fresh = None,
    max_image_megabytes: options.MaxImageMegabytes = None,
    max_memory: options.MaxMemory = None,
    executor: options.Executor = None,
    actors: options.Actors = None,
    row_timeout: options.RowTimeout = None,
    grace: options.Grace = None,
    shard: options.Shard = None,
    log_format: options.LogFormat = None,
    sidecar: options.Sidecar = None,
    premis: options.Premis = None,
    metrics: options.Metrics = None,
    config: options.Config = None,
) -> None:
    """Fill the holes of every image in MANIFEST and write the results to the output folder.

    Run it again at any time: rows that are done are not done again. What failed is listed in
    DIR/.inpaint-batch/failures.csv, which is itself a manifest; DIR/.inpaint-batch/summary.json tells the rest.
    """
    flags = {name: value for name, value in locals().items() if name not in ("manifest", "masks", "config")}
    given = gather(flags, config, os.environ)
    shard_from = take_shard(given, os.environ)
    settings = run_config(given)

    from inpaint_batch.pipeline.stop import stop_on_signals

    # Before the heavy imports, so that a signal during them is heard too.
    with stop_on_signals(settings.grace_s) as stop:
        from inpaint_batch.pipeline.run import run_manifest
        from inpaint_batch.report.progress import make_progress

        try:
            with (
                in_run(settings.shard),
                make_progress(settings.log_format, settings.metrics, has_lines=masks is None) as progress,
            ):
                run_manifest(settings, manifest, masks=masks, progress=progress, stop=stop, shard_from=shard_from)
        except (StopRequestedError, KeyboardInterrupt) as error:
            if stop.left_threads:
                leave_at_once(error)
            raise
