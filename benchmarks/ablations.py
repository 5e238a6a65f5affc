"""What each choice of the training recipe costs and brings, at equal training time.

    python benchmarks/ablations.py --data PHOTOGRAPHS --output RUNS [--damage ELEMENTS] [--steps 1000] [--seeds 0 1]

Every variant changes one thing of a small base recipe. How much longer one of its steps takes is measured first,
in turns with the base; then it is trained for as many steps as fit into the time that the base has. So a busy machine
makes the whole take longer, but favours nobody. What is finished in RUNS is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import torch
from torch.utils.flop_counter import FlopCounterMode

from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.spec import DcfSpec
from inpaint_batch.training.checkpoint import load_checkpoint
from inpaint_batch.training.config import TrainConfig
from inpaint_batch.training.data import Crops
from inpaint_batch.training.losses.weights import LossWeights
from inpaint_batch.training.photographs import split_photographs
from inpaint_batch.training.state import TrainingState
from inpaint_batch.training.trainer import EXPORT, LAST, train

SIZES: dict[str, Any] = {
    "width": 16,
    "encoder_blocks": (1, 1, 2, 2),
    "decoder_blocks": (1, 1, 0),
    "bottleneck_hidden": 64,
    "stage_widths": (48, 24, 16),
    "key_channels": 24,
    "value_channels": (32, 8, 4),
}
BASE = TrainConfig(
    model=DcfSpec(**SIZES),
    batch_size=4,
    sides_px=(64, 128),
    side_shares=(0.5, 0.5),
    validation_crops=4,
    validate_every=10_000,
    checkpoint_every=200,
    learning_rate=2e-3,
)
PRETRAIN_SHARE = 0.25
"""Part of the time that goes to the encoder alone, in the variant that has it."""
NUM_TIMED_STEPS = 12


@dataclass(frozen=True)
class Variant:
    """One change to the base."""

    model: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False

    def config(self) -> TrainConfig:
        """The settings of the variant, for as many steps as anybody likes."""
        sizes = DcfSpec(**{**SIZES, **self.model})
        return replace(BASE, model=sizes, losses=LossWeights(**self.losses), **self.run)


VARIANTS = {
    "base: convolutions at 1/16": Variant(),
    "self-attention at 1/16": Variant(model={"bottleneck": "transformer", "bottleneck_hidden": 256}),
    "wavelets at 1/16": Variant(model={"bottleneck": "wavelet", "bottleneck_hidden": 256}),
    "no blocks at 1/16": Variant(model={"encoder_blocks": (1, 1, 2, 0)}),
    "a quarter of the time for the encoder alone": Variant(pretrained=True),
    "AdamW": Variant(run={"optimizer": "adamw"}),
    "log error": Variant(losses={"charbonnier": 0.0, "log_error": 0.1}),
    "focal frequency 1": Variant(losses={"focal_frequency": 1.0}),
    "no boundary loss": Variant(losses={"boundary": 0.0}),
    "no priors while training": Variant(run={"prior_share": 0.0}),
}


def seconds_of_steps(variants: dict[str, Variant], data: Path, damage: Path | None) -> dict[str, float]:
    """Processor seconds of a step, the median of steps taken in turns; a variant's own batches."""
    states, batches = {}, {}
    for name, variant in variants.items():
        config = variant.config()
        states[name] = TrainingState(config)
        batches[name] = list(Crops(split_photographs(data, config)[0], config, damage).prefetch(0, NUM_TIMED_STEPS))
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for index in range(NUM_TIMED_STEPS):
        for name, state in states.items():
            start = time.process_time()
            state.learn(batches[name][index])
            taken[name].append(time.process_time() - start)
    # Steps differ in side and prior: the sum over the same ones is what compares.
    return {name: sum(seconds[2:]) for name, seconds in taken.items()}


def measured_once(file: Path, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """What `measure` returns, or what it returned the first time: else unfinished runs would get another length."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(measure()) + "\n")
    costs: dict[str, float] = json.loads(file.read_text())
    return costs


def trained(config: TrainConfig, data: Path, damage: Path | None, run: Path, init: Path | None = None) -> float:
    """Best PSNR (dB) of the run, trained or found finished."""
    if (run / LAST).exists():
        checkpoint = load_checkpoint(run / LAST)
        if checkpoint.step == config.steps:
            return checkpoint.best_psnr
        return train(config, data, run, damage=damage, resume=True)
    return train(config, data, run, damage=damage, init=init)


def result(variant: Variant, steps: int, seed: int, data: Path, damage: Path | None, run: Path) -> float:
    """PSNR (dB) inside the hole of the variant after `steps` in all."""
    config = replace(variant.config(), seed=seed, steps=steps)
    if not variant.pretrained:
        return trained(config, data, damage, run)
    first = replace(config, pretrain=True, steps=round(steps * PRETRAIN_SHARE))
    trained(first, data, damage, run / "encoder")
    rest = replace(config, steps=steps - first.steps)
    return trained(rest, data, damage, run / "whole", init=run / "encoder" / EXPORT)


def size(spec: DcfSpec) -> tuple[float, float]:
    """(millions of parameters, multiply-adds in 1e9 for a tile of 256 × 256)."""
    generator = DcfGenerator(spec).eval()
    image, hole = torch.zeros(1, 3, 256, 256), torch.ones(1, 1, 256, 256)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        generator(image, hole, image, torch.zeros(1, 1, 1, 1))
    return sum(p.numel() for p in generator.parameters()) / 1e6, counter.get_total_flops() / 2e9


def main() -> None:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--damage", type=Path, help="folder of damage elements")
    parser.add_argument("--output", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=1000, help="steps of the base (default: 1000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of each variant (default: 0 1)")
    parser.add_argument("--only", nargs="+", default=[], help="names (beginnings) of variants, besides the base")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    chosen = {
        name: variant
        for name, variant in VARIANTS.items()
        if name.startswith("base") or not args.only or name.startswith(tuple(args.only))
    }
    costs = measured_once(args.output / "costs.json", lambda: seconds_of_steps(chosen, args.data, args.damage))
    base = next(iter(chosen))
    reference: dict[int, float] = {}
    print(
        "| variant | M parameters | GMAC at 256 px | time of a step | steps | PSNR in hole, dB | gain, dB (each seed) |"
    )
    print("|---|---:|---:|---:|---:|---:|---|", flush=True)
    for name, variant in chosen.items():
        ratio = costs[name] / costs[base]
        steps = round(args.steps / ratio)
        folder = args.output / "".join(c if c.isalnum() else "_" for c in name)
        values = {s: result(variant, steps, s, args.data, args.damage, folder / str(s)) for s in args.seeds}
        reference = reference or values
        gains = [values[seed] - reference[seed] for seed in args.seeds]
        parameters, macs = size(variant.config().model)
        told = "" if name == base else f"{statistics.mean(gains):+.2f} ({', '.join(f'{g:+.2f}' for g in gains)})"
        print(
            f"| {name} | {parameters:.2f} | {macs:.2f} | {ratio:.2f} | {steps} "
            f"| {statistics.mean(values.values()):.2f} | {told} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
