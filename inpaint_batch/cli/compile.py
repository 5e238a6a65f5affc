"""`inpaint-batch compile`: from a checkpoint to the ONNX files that `run` uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inpaint_batch.errors import MissingDependencyError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("compile")
def compile_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Weights: RUN/model.safetensors of a training run, or a checkpoint.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder that receives NAME.fp32.onnx and NAME.int8.onnx.")
    ],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Stem of the files. Default: dcf-base.")] = (
        "dcf-base"
    ),
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="MANIFEST",
            help="Manifest of images with holes (column truth: judged against it): also make INT8. Default: FP32 only.",
        ),
    ] = None,
    tiles: Annotated[
        int,
        typer.Option(
            "--tiles", metavar="N", help="Most tiles: two thirds calibrate, the rest judges. Default: 192.", min=6
        ),
    ] = 192,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Keep INT8 even where the gate refuses it. Default: off.")
    ] = False,
) -> None:
    """Export MODEL to ONNX, quantise it, and keep the INT8 file only if it fills as well as FP32 does.

    The figures of the gate, hashes and versions go to DIR/NAME.gate.json.
    """
    try:
        from inpaint_batch.compile.build import build_onnx
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"compiling needs {error.name}: install it with pip install 'inpaint-batch[train]'"
        ) from error
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    typer.echo(build_onnx(model, output, name=name, calibrate=calibrate, max_tiles=tiles, accept_loss=accept_loss))
