"""`inpaint-batch engines`: the TensorRT plans that were built on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from inpaint_batch.cli.apps import new_app
from inpaint_batch.errors import UsageError
from inpaint_batch.words import counted

app = new_app(
    no_args_is_help=True,
    help="List, inspect and prune the TensorRT plans in this machine's cache.",
)


@app.command("list")
def list_engines() -> None:
    """One line for each plan, newest first.

    Name, size, precision, GPU, TensorRT, builder, hash of the model, and whether the gate has judged it.
    """
    from inpaint_batch.runtime.plans import is_intact, list_plans, plan_folder

    plans = list_plans(plan_folder())
    for plan in plans:
        verdict = f"judged, {plan.latency_ms:.2f} ms a batch" if plan.judged else "not judged"
        if not is_intact(plan):
            verdict = "damaged, build it again"
        typer.echo(
            f"{plan.key.digest}  {plan.path.stat().st_size / 1e6:6.1f} MB  {plan.key.precision:4}  "
            f"{plan.key.gpu or 'any GPU'}  {plan.key.tensorrt}  by {plan.key.builder}  "
            f"model {plan.key.model_hash[:12]}  {verdict}"
        )
    if not plans:
        typer.echo(f"no plans in {plan_folder()}; inpaint-batch compile MODEL --target tensorrt builds one")


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that `list` gives, or how it begins.")],
) -> None:
    """Print the card of one plan as JSON.

    Key, versions, gate, latency, and TensorRT's own description of its layers.
    """
    from inpaint_batch.runtime.plans import list_plans, plan_folder

    found = [plan for plan in list_plans(plan_folder()) if plan.key.digest.startswith(name)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} plans have a name that begins with {name!r}; see inpaint-batch engines list")
    typer.echo(json.dumps(found[0].card, indent=1))


@app.command()
def prune(
    everything: Annotated[
        bool, typer.Option("--all", help="Remove every plan. Default: those that this machine cannot run.")
    ] = False,
) -> None:
    """Remove the plans that cannot run here.

    Those for another GPU, driver or TensorRT than are here now, damaged ones, and what belongs to no plan any more.
    """
    from inpaint_batch.runtime.plans import is_intact, list_plans, plan_folder, remove_leftovers, remove_plan
    from inpaint_batch.runtime.tensorrt_api import import_tensorrt, key_here

    plans = list_plans(plan_folder())
    if not everything and plans:
        trt = import_tensorrt()
        keys = {plan.key: key_here(trt, plan.key.model_hash, plan.key.precision) for plan in plans}
        plans = [plan for plan in plans if not (_runs_here(plan.key, keys[plan.key]) and is_intact(plan))]
    freed = sum(remove_plan(plan) for plan in plans) + remove_leftovers(plan_folder(), timings=everything)
    typer.echo(f"removed {counted(len(plans), 'plan')}, {freed / 1e6:.1f} MB")


def _runs_here(key: object, here: object) -> bool:
    from inpaint_batch.runtime.plans import PORTABLE, PlanKey

    assert isinstance(key, PlanKey)
    assert isinstance(here, PlanKey)
    same_build = (key.shapes, key.tensorrt) == (here.shapes, here.tensorrt)
    return same_build and (key.gpu == PORTABLE or (key.gpu, key.driver) == (here.gpu, here.driver))
