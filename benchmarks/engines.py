"""How fast are the engines? Interleaved runs of one model in several forms, as medians of ratios to FP32 ONNX Runtime.

Usage: python benchmarks/engines.py FOLDER [--weights FILE] [--rounds N] [--threads N] [--clock cpu] [--json FILE]

FOLDER holds NAME.fp32.onnx and NAME.int8.onnx as `inpaint-batch compile` writes them; further *.int8.onnx, of an older
build for example, are run as well. With --weights torch runs the same network (eager, channels last); OpenVINO joins
where it is installed, CUDA and TensorRT where there is a GPU. Each round runs every engine once, in turn, so that a
busy machine slows all alike; a ratio is taken within a round, and its median over the rounds is what counts. `--clock
cpu` takes processor time of all threads in the place of time on the wall, which means little on a machine that others
use. Inputs are tiles of noise with holes. Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_batch.machine import num_cores
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.types import FloatArray

SIDES_PX = (64, 128, 256)
BATCHES = (1, 8, 32)
BASE = "onnxruntime fp32"

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Fill = Callable[[TileBatch], FloatArray]


def main() -> None:
    """Load, run in turn, print."""
    arguments = parse()
    load = os.getloadavg()
    engines = load_engines(arguments.folder, arguments.weights, arguments.threads)
    results = []
    for side in arguments.sides:
        for size in arguments.batches:
            results += measure(engines, noise(side, size), arguments.rounds, CLOCKS[arguments.clock])
    machine = describe(arguments.threads, arguments.rounds, arguments.clock, load)
    print(markdown(machine, results))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, help="checkpoint of the same model, for torch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES_PX)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="wall: as it passes; cpu: of all threads")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load_engines(folder: Path, weights: Path | None, threads: int) -> dict[str, Fill]:
    """Every engine that can run here, FP32 ONNX Runtime first."""
    (fp32,) = folder.glob("*.fp32.onnx")
    engines: dict[str, Fill] = {BASE: OnnxEngine(fp32, precision="fp32", threads=threads).fill}
    quantised = sorted(folder.glob("*.int8.onnx"))
    for int8 in quantised:
        which = "" if len(quantised) == 1 else f" {int8.name.removesuffix('.int8.onnx')}"
        engines[f"onnxruntime int8{which}"] = OnnxEngine(int8, precision="int8", threads=threads).fill
    engines |= gpu_engines(fp32)
    if weights is not None:
        engines["torch eager fp32"] = torch_engine(weights, threads)
    for hint in ("f32", "bf16"):
        try:
            engines[f"openvino {hint}"] = openvino_engine(fp32, hint, threads)
        except ImportError:
            break
    return engines


def gpu_engines(fp32: Path) -> dict[str, Fill]:
    """CUDA and the best TensorRT plan, where they can run."""
    from inpaint_batch.errors import InpaintBatchError
    from inpaint_batch.runtime.select import select_engine

    found: dict[str, Fill] = {}
    for name in ("onnxruntime-cuda", "tensorrt"):
        try:
            engine = select_engine(name, model=str(fp32))
        except InpaintBatchError:
            continue
        found[f"{name} {engine.precision}"] = engine.fill
    return found


def torch_engine(weights: Path, threads: int) -> Fill:
    """The generator as it was trained, a whole batch at a time."""
    import torch

    from inpaint_batch.models.checkpoint import load_generator

    torch.set_num_threads(threads)
    generator = load_generator(weights).to(memory_format=torch.channels_last)

    def fill(batch: TileBatch) -> FloatArray:
        with torch.inference_mode():
            filled: FloatArray = generator(*(torch.from_numpy(getattr(batch, name)) for name in INPUT_CHANNELS)).numpy()
        return filled

    return fill


def openvino_engine(path: Path, hint: str, threads: int) -> Fill:
    """OpenVINO on the CPU; `hint` is the precision it computes in. Raises ImportError where it is not installed."""
    openvino: Any = importlib.import_module("openvino")
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(str(path), "CPU", config)

    def fill(batch: TileBatch) -> FloatArray:
        filled: FloatArray = compiled({name: getattr(batch, name) for name in INPUT_CHANNELS})[0]
        return filled

    return fill


def noise(side_px: int, size: int) -> TileBatch:
    """`size` tiles with holes made of 8×8 cells, three tenths of each tile; every other one has a prior."""
    random = np.random.default_rng(side_px + size)
    cells = (random.random((size, 1, side_px // 8, side_px // 8)) < 0.3).astype(np.float32)
    hole = np.kron(cells, np.ones((8, 8), np.float32))
    image, prior = (random.random((size, 3, side_px, side_px), dtype=np.float32) for _ in range(2))
    weight = (np.arange(size) % 2).astype(np.float32).reshape(-1, 1, 1, 1)
    return TileBatch(image * (1 - hole), hole, prior * weight, weight)


def measure(
    engines: dict[str, Fill], batch: TileBatch, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, Any]]:
    """One entry for each engine: milliseconds a tile (best, median) and the median ratio to BASE."""
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for fill in engines.values():
        fill(batch)  # what is only done once is not part of it
    for _ in range(rounds):
        for name, fill in engines.items():
            started = clock()
            fill(batch)
            taken[name].append((clock() - started) * 1e3 / len(batch))
    return [
        {
            "side_px": batch.side_px,
            "batch": len(batch),
            "engine": name,
            "best_ms": min(times),
            "median_ms": statistics.median(times),
            "ratio": statistics.median(base / own for base, own in zip(taken[BASE], times, strict=True)),
        }
        for name, times in taken.items()
    ]


def describe(threads: int, rounds: int, clock: str, load: tuple[float, float, float]) -> dict[str, str]:
    """Hardware, versions, date and how busy the machine was."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    features = ""
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        values = {key.strip(): value.strip() for key, value in lines.items()}
        cpu = values.get("model name", cpu)
        wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")
        features = " ".join(name for name in wanted if name in values.get("flags", "").split())
    versions = []
    for package in ("onnxruntime", "torch", "openvino"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "CPU": f"{cpu}, {num_cores()} cores usable, {features}",
        "threads": str(threads),
        "clock": clock,
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "load": " → ".join(" ".join(f"{value:.1f}" for value in each) for each in (load, os.getloadavg())),
        "rounds": str(rounds),
    }


def markdown(machine: dict[str, str], results: list[dict[str, Any]]) -> str:
    """One table; milliseconds are for one tile."""
    lines = [f"{key}: {value}  " for key, value in machine.items()]
    lines += ["", "| side px | batch | engine | best ms | median ms | times FP32 |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['side_px']} | {row['batch']} | {row['engine']} | {row['best_ms']:.2f} | {row['median_ms']:.2f} "
        f"| {row['ratio']:.2f} |"
        for row in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
