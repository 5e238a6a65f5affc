"""`inpaint-batch train`: make a checkpoint from photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inpaint_batch.cli.apps import new_app
from inpaint_batch.cli.settings import local_path
from inpaint_batch.errors import MissingDependencyError

app = new_app()


@app.command()
def train(
    data: Annotated[
        Path,
        typer.Argument(
            parser=local_path,
            metavar="DATA",
            help="Folder of photographs; subfolders are searched too. With train/ and val/ in it, val/ is held out. "
            "Or a manifest: of each row the truth, or else the image without what its mask covers.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", parser=local_path, metavar="RUN", help="Folder of the run: checkpoints and log."),
    ],
    damage: Annotated[
        Path | None,
        typer.Option(
            "--damage",
            metavar="DIR",
            help="Folder of damage elements (PNG with alpha) to learn from. Default: strokes and boxes only.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="FILE", help="TOML file of hyper-parameters. Default: those of docs/training.md."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", help="Optimiser steps in all. Default: 6000.", min=1)
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Seed of crops, holes and first weights. Default: 0.", min=0),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            "--threads",
            metavar="N",
            help="Threads of torch; 0: its own choice. Default: 0.",
            min=0,
            show_default=False,
        ),
    ] = 0,
    loaders: Annotated[
        int,
        typer.Option(
            "--loaders",
            metavar="N",
            help="Threads that prepare crops; changes nothing else. Default: 2.",
            min=1,
            show_default=False,
        ),
    ] = 2,
    ray_workers: Annotated[
        int,
        typer.Option(
            "--ray-workers",
            metavar="N",
            help="Train in N processes on the Ray cluster of RAY_ADDRESS, or on this machine; 0: without Ray. "
            "RUN must be a folder that all machines see. Default: 0.",
            min=0,
            show_default=False,
        ),
    ] = 0,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="cpu, cuda, cuda:N, or auto: a GPU where there is one. Default: auto.",
            show_default=False,
        ),
    ] = "auto",
    init: Annotated[
        Path | None,
        typer.Option(
            "--init",
            metavar="MODEL",
            help="Weights to start from (safetensors). Their sizes are taken over too; where --config names others, "
            "what fits. Default: none.",
        ),
    ] = None,
    few_shot: Annotated[
        bool,
        typer.Option(
            "--few-shot",
            help="Adapt the model of --init to a few photographs of your own: a short run with gentle steps, which "
            "ends with weights that fill held-out ones better than those it began with, or with these. Default: off.",
        ),
    ] = False,
    pretrain: Annotated[
        bool,
        typer.Option(
            "--pretrain",
            help="Teach the encoder alone, as a masked autoencoder; give the weights to --init of a run that learns "
            "to fill holes. Default: off.",
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in RUN, bit-exactly, with its settings unless given. Default: off."
        ),
    ] = False,
) -> None:
    """Train the DCF generator on photographs and write checkpoints to RUN.

    The best one, `RUN/model.safetensors`, is what `inpaint-batch compile` takes. SIGTERM saves and exits 75;
    --resume goes on. Under torchrun the processes share every batch.
    """
    from inpaint_batch.storage.paths import check_output_root
    from inpaint_batch.training.photographs import searched_folders

    check_output_root(output, searched_folders(data), create=False)  # before seconds are spent on torch
    try:
        import torch

        from inpaint_batch.training.ray_team import train_on_ray
        from inpaint_batch.training.settings import settings_of_run
        from inpaint_batch.training.trainer import train as run_training
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"training needs {error.name}: install it with pip install 'inpaint-batch[train]'"
        ) from error
    import logging

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    settings = settings_of_run(
        output, config, init=init, few_shot=few_shot, pretrain=pretrain, resume=resume, steps=steps, seed=seed
    )
    if ray_workers:
        best: float | None = train_on_ray(
            settings,
            data,
            output,
            num_workers=ray_workers,
            damage=damage,
            resume=resume,
            init=init,
            device=device,
            num_loaders=loaders,
            num_threads=threads,
        )
    else:
        if threads:
            torch.set_num_threads(threads)
        best = run_training(
            settings, data, output, damage=damage, resume=resume, init=init, device=device, num_loaders=loaders
        )
    if best is not None:  # the first of a team speaks for all
        typer.echo(
            f"best PSNR inside the hole on held-out photographs: {best:.2f} dB; weights: {output / 'model.safetensors'}"
        )
