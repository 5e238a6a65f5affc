"""Flags that several commands share, each with its unit and default in the help text.

A flag's value is None where it was not given, so that the environment and the settings file can speak.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inpaint_batch.cli.settings import path_or_uri

# Typer takes no union, shows the name of the type, and before 0.29 makes a Path of what is annotated as one, whatever
# the parser gave.
if TYPE_CHECKING:
    PathOrUri = Path | str
else:
    PathOrUri = type("path or URI", (), {})

Manifest = Annotated[
    PathOrUri,
    typer.Argument(
        parser=path_or_uri,
        metavar="MANIFEST",
        help="Table with the columns image and mask, paths relative to it: CSV, TSV, JSON Lines (.gz, .zst too), "
        "Parquet; - means standard input. Or a folder of images, or one image. May lie in a store: s3://, gs://, az://.",
        show_default=False,
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        metavar="PATH",
        help="Where MANIFEST is a folder: folder of masks of the same relative paths, one mask for all images, or one "
        "COCO file (.json). Where it is an image: its mask.",
    ),
]
Output = Annotated[
    PathOrUri | None,
    typer.Option(
        "--output",
        parser=path_or_uri,
        metavar="DIR",
        help="Folder that receives the restored tree, or s3://bucket/prefix; its state: DIR/.inpaint-batch.",
    ),
]
OutputOfRuns = Annotated[
    PathOrUri,
    typer.Argument(
        parser=path_or_uri,
        metavar="DIR",
        help="The output folder of one run or of many shards, or s3://bucket/prefix.",
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file of these settings (dilate = 3), all but --masks and --depth. Environment: INPAINT_BATCH_*.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="`default`, the model in the package, an .onnx file, or for torch .safetensors. Default: default.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="auto (a judged TensorRT plan, or CUDA, where there is a GPU; else the CPU), onnxruntime, "
        "onnxruntime-cuda, tensorrt (compile first), torch, torch-compile, or identity (rehearsal: leaves holes "
        "black). Default: auto.",
    ),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", metavar="NAME", help="auto, fp32, fp16 (on a GPU) or int8. Default: auto."),
]
Passes = Annotated[
    int | None,
    typer.Option(
        "--passes",
        metavar="N",
        help="Fill every tile 1, 2 or 4 times, mirrored, and average: better, for N times the work. Default: 2.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Threads of a process that decode, and as many that encode; 0: one per core, 4 at most. Default: 0.",
    ),
]
MaskPolarity = Annotated[
    str | None,
    typer.Option(
        "--mask-polarity", metavar="COLOUR", help="Colour that marks the hole: white or black. Default: white."
    ),
]
MaskThreshold = Annotated[
    int | None,
    typer.Option("--mask-threshold", metavar="N", help="Mask values above it, 0-254 of 255, are white. Default: 127."),
]
Dilate = Annotated[
    int | None, typer.Option("--dilate", metavar="PX", help="Grow the hole by so many pixels, 0-256. Default: 0.")
]
Feather = Annotated[
    int | None,
    typer.Option(
        "--feather", metavar="PX", help="Blend fill and source over a further rim of so many pixels. Default: 0."
    ),
]
Jpeg = Annotated[
    str | None,
    typer.Option(
        "--jpeg",
        metavar="MODE",
        help="patch: new coefficients under the hole only; lossless: write a PNG. Default: patch.",
    ),
]
EmptyMask = Annotated[
    str | None,
    typer.Option(
        "--empty-mask",
        metavar="POLICY",
        help="What becomes of an image whose mask marks nothing: fail, or copy: its result is a copy. Default: fail.",
    ),
]
OnConflict = Annotated[
    str | None,
    typer.Option(
        "--on-conflict",
        metavar="POLICY",
        help="Where an output exists that is not ours: error, skip, overwrite or suffix. Default: error.",
    ),
]
MaxFailures = Annotated[
    int | None,
    typer.Option(
        "--max-failures", metavar="N", help="End (exit 9) once more rows have failed; -1: never. Default: -1."
    ),
]
RetryFailed = Annotated[
    bool | None,
    typer.Option(
        "--retry-failed/--no-retry-failed",
        help="Do rows again that failed in an earlier run. Default: off.",
        show_default=False,
    ),
]
ContentHash = Annotated[
    bool | None,
    typer.Option(
        "--content-hash/--no-content-hash",
        help="Tell changed images and masks by their bytes, not by path, size and time: for files that are copied or "
        "touched. Reads all of them in every run. Default: off.",
        show_default=False,
    ),
]
Fresh = Annotated[
    bool | None,
    typer.Option("--fresh/--no-fresh", help="Forget earlier runs and do every row. Default: off.", show_default=False),
]
Sidecar = Annotated[
    bool | None,
    typer.Option(
        "--sidecar/--no-sidecar",
        help="Write NAME.inpaint-batch.json beside each result: checksums of source, mask and result, model, options, "
        "where the holes are. Default: off.",
        show_default=False,
    ),
]
NeedSidecar = Annotated[
    bool | None,
    typer.Option(
        "--sidecar/--no-sidecar",
        help="A result without its sidecar is not sound. Default: off, and the sidecars that are there are compared.",
        show_default=False,
    ),
]
Premis = Annotated[
    bool | None,
    typer.Option(
        "--premis/--no-premis",
        help="Write NAME.premis.xml beside each result: the restoration as a PREMIS 3 event that ties the result to "
        "its source by checksums. Default: off.",
        show_default=False,
    ),
]
Grain = Annotated[
    bool | None,
    typer.Option(
        "--grain/--no-grain",
        help="Give the fill the grain or noise that its surroundings have and it lacks; the same at every run. "
        "Default: off.",
        show_default=False,
    ),
]
Xmp = Annotated[
    bool | None,
    typer.Option(
        "--xmp/--no-xmp",
        help="Say in the XMP of each result that a trained model made a part of it: IPTC's digital source type and a "
        "line of history. All other metadata stays. Default: off.",
        show_default=False,
    ),
]
MaxImageMegabytes = Annotated[
    int | None,
    typer.Option(
        "--max-image-megabytes",
        metavar="MB",
        help="Refuse an image of which more must be decoded at once (of a TIFF a strip or tile), in MiB. "
        "Default: 1024.",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="What one process may take, such as 6G or 800M; a row that needs more fails with code memory. Default: a "
        "quarter of the machine's or container's memory, and at least 1G of it; less where workers share it.",
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="local: threads; process: worker processes, which a row may kill or hang; ray: a Ray cluster. auto: ray "
        "where RAY_ADDRESS is set or there are several GPUs, process with --actors or --row-timeout, else local. "
        "Default: auto.",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        "--actors",
        metavar="N",
        help="Worker processes or Ray actors; 0: one per GPU; without GPUs one process, or actor per node. Default: 0.",
    ),
]
RowTimeout = Annotated[
    int | None,
    typer.Option(
        "--row-timeout",
        metavar="S",
        help="Fail a row after so many seconds; 0: never. Takes worker processes or Ray. Default: 0.",
    ),
]
Grace = Annotated[
    int | None,
    typer.Option(
        "--grace",
        metavar="S",
        help="Asked to stop (SIGTERM, SIGUSR1, Ctrl-C), give rows in flight so many seconds, then drop them; 0: as "
        "long as they take. Default: 25.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do only the I-th of N parts, by row id; several may run at a time. Default: from a Slurm job array or a "
        "Kubernetes Indexed Job, else 1/1, all rows.",
    ),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        help="text (stderr), or json: one object a line (stdout) with ids of run, shard, worker, row. Default: text.",
    ),
]
Metrics = Annotated[
    Path | None,
    typer.Option(
        "--metrics",
        metavar="FILE",
        help="Numbers of the run for Prometheus' textfile collector (a name that ends in .prom), written every 10 s "
        "and at the end. Default: no file.",
    ),
]
