"""`inpaint-batch verify`: results beside their sources once more, at any later time."""

from __future__ import annotations

import os

from inpaint_batch.cli import options
from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import gather, run_config, take_shard

app = new_app()


@app.command()
def verify(
    manifest: options.Manifest,
    output: options.Output = None,
    masks: options.Masks = None,
    workers: options.Workers = None,
    mask_polarity: options.MaskPolarity = None,
    mask_threshold: options.MaskThreshold = None,
    dilate: options.Dilate = None,
    feather: options.Feather = None,
    jpeg: options.Jpeg = None,
    empty_mask: options.EmptyMask = None,
    sidecar: options.NeedSidecar = None,
    max_image_megabytes: options.MaxImageMegabytes = None,
    max_memory: options.MaxMemory = None,
    shard: options.Shard = None,
    log_format: options.LogFormat = None,
    config: options.Config = None,
) -> None:
    """Compare the result of every row of MANIFEST with its source, without changing anything.

    Every sample outside the hole has to be that of the source (of a JPEG every coefficient of the blocks without a
    hole), and where a sidecar stands beside the result, source, mask and result have to have its checksums. Holes are
    found anew: give it the flags of the run. Sources, masks and results are all that it needs.

    Ends with exit code 8 if any result is missing or not sound, else 0.
    """
    flags = {name: value for name, value in locals().items() if name not in ("manifest", "masks", "config")}
    given = gather(flags, config, os.environ)
    take_shard(given, os.environ)
    settings = run_config(given)

    from inpaint_batch.pipeline.verify import verify_manifest
    from inpaint_batch.report.findings import FindingsPrinter

    verify_manifest(
        settings, manifest, masks=masks, report=FindingsPrinter(settings.log_format, has_lines=masks is None)
    )
