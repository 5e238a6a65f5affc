"""`inpaint-batch compile`: from a checkpoint to the files that `run` uses."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import local_path
from inpaint_batch.errors import ConfigError, EngineError, MissingDependencyError, UsageError

app = new_app()

DEFAULTS: dict[str, Any] = {"target": "onnx", "precision": None, "name": "dcf-base", "calibrate": None, "tiles": 192}
"""What a recipe may set, with the value where neither recipe nor flag does."""
PRECISIONS = {"onnx": ("fp32", "int8"), "tensorrt": ("fp32", "fp16", "int8"), "torch-tensorrt": ("fp32", "fp16")}


@app.command("compile")
def compile_model(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL",
            help="Weights: RUN/model.safetensors of a training run, or a checkpoint. For TensorRT also NAME.fp32.onnx.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            parser=local_path,
            metavar="DIR",
            help="Folder that receives NAME.fp32.onnx and NAME.int8.onnx. TensorRT plans go to the cache instead.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar="onnx|tensorrt|torch-tensorrt", help="What to build. Default: onnx."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="fp32|fp16|int8",
            help="Default: onnx int8 (and fp32) with --calibrate, else fp32; TensorRT fp16. torch-tensorrt: no int8.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Stem of the files. Default: dcf-base.")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="MANIFEST",
            help="Manifest of images with holes (column truth: judged against it): calibrates INT8 and judges.",
        ),
    ] = None,
    tiles: Annotated[
        int | None,
        typer.Option(
            "--tiles", metavar="N", help="Most tiles: two thirds calibrate, the rest judges. Default: 192.", min=6
        ),
    ] = None,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Keep the result even where the gate refuses it. Default: off.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", metavar="FILE", help="TOML with target, precision, name, calibrate, tiles; flags win."
        ),
    ] = None,
) -> None:
    """Compile MODEL to ONNX or TensorRT, and keep what is not FP32 only if it fills as well as FP32 does.

    The figures of the gate, hashes and versions go to DIR/NAME.gate.json, or into the card of the plan.
    """
    from inpaint_batch.storage.paths import check_output_root

    flags = {"target": target, "precision": precision, "name": name, "calibrate": calibrate, "tiles": tiles}
    values = {**DEFAULTS, **_read_recipe(recipe), **{key: value for key, value in flags.items() if value is not None}}
    target, precision, calibrate = values["target"], values["precision"], values["calibrate"]
    if target not in PRECISIONS:
        raise UsageError(f"unknown target {target!r}: choose {' or '.join(PRECISIONS)}")
    if precision is None:
        precision = "fp16" if target != "onnx" else "fp32" if calibrate is None else "int8"
    if precision not in PRECISIONS[target]:
        raise UsageError(f"--target {target} has no precision {precision!r}: choose {' or '.join(PRECISIONS[target])}")
    if precision == "int8" and calibrate is None:
        raise UsageError("INT8 needs --calibrate MANIFEST: a manifest of images with holes")
    if target == "torch-tensorrt" and model.suffix == ".onnx":
        raise UsageError(
            "torch-tensorrt builds from weights (model.safetensors), not from ONNX: --target tensorrt does"
        )
    if output is None and (target == "onnx" or model.suffix != ".onnx"):
        raise UsageError("give --output DIR: the folder that receives the ONNX files")
    if not model.is_file():
        raise EngineError(f"there is no model {model}: name a file of weights, such as RUN/model.safetensors")
    if not values["name"].strip(" .") or {"/", "\\", "\0"} & set(values["name"]):
        raise UsageError(f"--name is the stem of a file name, without a folder, not {values['name']!r}")
    if output is not None:
        check_output_root(output, [], create=False)  # before seconds are spent on torch
    if calibrate is not None:
        from inpaint_batch.manifest.read import read_examples

        read_examples(calibrate).close()  # before minutes are spent on the export
    try:
        from inpaint_batch.compile.build import build_onnx, build_plan_of
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"compiling needs {error.name}: install it with pip install 'inpaint-batch[train]'"
        ) from error
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for talkative in ("pyvips", "onnxscript", "onnx_ir"):  # of every thread pool, and every node that they leave alone
        logging.getLogger(talkative).setLevel(logging.WARNING)
    common = {"calibrate": calibrate, "max_tiles": values["tiles"], "accept_loss": accept_loss}
    if target != "onnx":
        through_torch = target == "torch-tensorrt"
        typer.echo(
            build_plan_of(
                model, output, name=values["name"], precision=precision, through_torch=through_torch, **common
            )
        )
    else:
        assert output is not None
        common["calibrate"] = calibrate if precision == "int8" else None
        typer.echo(build_onnx(model, output, name=values["name"], **common))


def _read_recipe(path: Path | None) -> dict[str, Any]:
    """What the recipe sets; a relative `calibrate` is meant from the recipe's folder. Raises ConfigError."""
    if path is None:
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from error
    unknown = sorted(set(values) - set(DEFAULTS))
    if unknown:
        raise ConfigError(f"{path} sets {', '.join(unknown)}; a recipe knows {', '.join(DEFAULTS)}")
    faults = [key for key, value in values.items() if not isinstance(value, int if key == "tiles" else str)]
    if faults or values.get("tiles", 6) < 6:
        raise ConfigError(f"{path}: tiles is a whole number of 6 or more, everything else text")
    if "calibrate" in values:
        values["calibrate"] = path.parent / values["calibrate"]
    return values
