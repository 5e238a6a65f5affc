"""How fast are the engines? Interleaved runs of one model in several forms, beside what the machine could do at best.

Usage: python benchmarks/engines.py FOLDER [--weights FILE] [--only WORD...] [--rounds N] [--threads N] [--json FILE]

FOLDER holds NAME.fp32.onnx and NAME.int8.onnx as `inpaint-batch compile` writes them; further *.int8.onnx, of an older
build for example, are run as well. With weights (the one *.safetensors there, or --weights) torch runs the same
network: on a GPU as the engines `torch` and `torch-compile` in FP32 and FP16, on a CPU eager with channels last.
OpenVINO joins where it is installed; where there is a GPU ONNX Runtime's CUDA provider and the TensorRT plan of each
precision in the cache. What cannot run is said and left out; --only takes engines with one of these words in the name.

Each round runs every engine in turn, so that a busy machine slows all alike; a ratio to FP32 in ONNX Runtime is taken
within a round, and its median over the rounds is what counts. In a round each fills the batch once, and then again for
STEADY_S, the median of which counts: in a run tiles follow tiles, while here another engine's weights have just gone
through the caches. `after another` is the ratio of the first times. A fill begins and ends in the memory of the host.
`GPU ms` is without the copies to and from the GPU. The roof (see roofline.py) is of the real tiles of a batch; the GPU
engines compute full batches whatever they get, so that a small batch lies far below it. `--clock cpu` takes processor
time of all threads in the place of time on the wall, which means little on a machine that others use. Inputs are tiles
of noise with holes. Prints Markdown.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inpaint_batch.errors import EngineError, InpaintBatchError
from inpaint_batch.machine import num_cores
from inpaint_batch.runtime.convention import INPUT_CHANNELS
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import PORTABLE
from inpaint_batch.runtime.tensorrt_api import query_gpu
from inpaint_batch.types import FloatArray

if TYPE_CHECKING:
    from roofline import Peaks, Work

SIDES_PX = (64, 128, 256)
BATCHES = (1, 8, 32)
BASE = "onnxruntime fp32"
STEADY_S = 0.03
"""Seconds for which a batch is filled again and again in each round; at least once."""
GPU_REPEATS = 20
"""Fills in a row by which the work of a GPU alone is timed."""

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Fill = Callable[[TileBatch], FloatArray]


@dataclass(frozen=True)
class Runner:
    """One engine."""

    fill: Fill
    precision: str
    """Of most of its products: `fp32`, `fp16`, `int8`."""
    device: str
    """`cpu` or `cuda`."""
    compute_s: Callable[[TileBatch, int], float] | None = None
    """Seconds for one of so many fills, without copies, where that can be told apart."""


def main() -> None:
    """Load, run in turn, print."""
    arguments = parse()
    load = os.getloadavg()
    weights = arguments.weights or next(iter(sorted(arguments.folder.glob("*.safetensors"))), None)
    engines = load_engines(arguments.folder, weights, arguments.threads, arguments.only)
    peaks = peaks_of({each.device for each in engines.values()}, arguments.threads) if weights else {}
    results = []
    for side in arguments.sides:
        for size in arguments.batches:
            rows = measure(engines, noise(side, size), arguments.rounds, CLOCKS[arguments.clock])
            if weights and peaks:
                from roofline import work_of

                put_below_roofs(rows, engines, peaks, work_of(weights, side, size))
            results += rows
    machine = describe(arguments.threads, arguments.rounds, arguments.clock, load)
    for each in peaks.values():
        machine |= each.to_dict()
    print(markdown(machine, results))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--weights", type=Path, help="checkpoint of the same model, for torch")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="engines with one of these in the name")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=num_cores())
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES_PX)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="wall: as it passes; cpu: of all threads")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def load_engines(folder: Path, weights: Path | None, threads: int, only: list[str]) -> dict[str, Runner]:
    """Every engine that can run here and is asked for, FP32 ONNX Runtime first; that one always."""
    (fp32,) = folder.glob("*.fp32.onnx")
    engines = {BASE: onnx_engine(fp32, "fp32", threads)}
    for name, load in loaders(folder, fp32, weights, threads).items():
        if any(word in name for word in only):
            try:
                engines[name] = load()
            except ImportError:  # OpenVINO, which few have
                continue
            except (InpaintBatchError, RuntimeError) as error:
                leave_out(name, error)
    return engines


def loaders(folder: Path, fp32: Path, weights: Path | None, threads: int) -> dict[str, Callable[[], Runner]]:
    """What to try, by the name under which it is told of."""
    found: dict[str, Callable[[], Runner]] = {}
    quantised = sorted(folder.glob("*.int8.onnx"))
    for int8 in quantised:
        which = "" if len(quantised) == 1 else f" {int8.name.removesuffix('.int8.onnx')}"
        found[f"onnxruntime int8{which}"] = partial(onnx_engine, int8, "int8", threads)
    on_gpu = query_gpu()[0] != PORTABLE
    if on_gpu:
        found["onnxruntime-cuda fp32"] = partial(gpu_engine, "onnxruntime-cuda", fp32, "fp32")
        for precision in ("fp32", "fp16", "int8"):
            found[f"tensorrt {precision}"] = partial(gpu_engine, "tensorrt", fp32, precision)
    if weights is not None and on_gpu:
        for name in ("torch", "torch-compile"):
            for precision in ("fp32", "fp16"):
                found[f"{name} {precision}"] = partial(gpu_engine, name, weights, precision)
    elif weights is not None:
        found["torch eager fp32"] = partial(torch_engine, weights, threads)
    for hint in ("f32", "bf16"):
        found[f"openvino {hint}"] = partial(openvino_engine, fp32, hint, threads)
    return found


def onnx_engine(path: Path, precision: str, threads: int) -> Runner:
    """ONNX Runtime on the CPU."""
    return Runner(OnnxEngine(path, precision=precision, threads=threads).fill, precision, "cpu")


def gpu_engine(name: str, model: Path, precision: str) -> Runner:
    """An engine of the package on a GPU."""
    from inpaint_batch.runtime.select import select_engine

    engine: Any = select_engine(name, model=str(model), precision=precision)
    if engine.identity.startswith(f"{name}-cpu:"):
        raise EngineError("torch sees no GPU")
    return Runner(engine.fill, precision, "cuda", getattr(engine, "compute_s", None))


def torch_engine(weights: Path, threads: int) -> Runner:
    """The generator as it was trained, on the CPU, a whole batch at a time."""
    import torch

    from inpaint_batch.models.checkpoint import load_generator

    torch.set_num_threads(threads)
    generator = load_generator(weights).to(memory_format=torch.channels_last)

    def fill(batch: TileBatch) -> FloatArray:
        with torch.inference_mode():
            filled: FloatArray = generator(*(torch.from_numpy(getattr(batch, name)) for name in INPUT_CHANNELS)).numpy()
        return filled

    return Runner(fill, "fp32", "cpu")


def openvino_engine(path: Path, hint: str, threads: int) -> Runner:
    """OpenVINO on the CPU; `hint` is the precision it computes in. Raises ImportError where it is not installed."""
    openvino: Any = importlib.import_module("openvino")
    config = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(str(path), "CPU", config)

    def fill(batch: TileBatch) -> FloatArray:
        filled: FloatArray = compiled({name: getattr(batch, name) for name in INPUT_CHANNELS})[0]
        return filled

    return Runner(fill, "fp32" if hint == "f32" else hint, "cpu")


def leave_out(name: str, error: Exception) -> None:
    """Say why an engine is not in the table."""
    print(f"{name} is left out: {error}", file=sys.stderr)


def noise(side_px: int, size: int) -> TileBatch:
    """`size` tiles with holes made of 8×8 cells, three tenths of each tile; every other one has a prior."""
    random = np.random.default_rng(side_px + size)
    cells = (random.random((size, 1, side_px // 8, side_px // 8)) < 0.3).astype(np.float32)
    hole = np.kron(cells, np.ones((8, 8), np.float32))
    image, prior = (random.random((size, 3, side_px, side_px), dtype=np.float32) for _ in range(2))
    weight = (np.arange(size) % 2).astype(np.float32).reshape(-1, 1, 1, 1)
    return TileBatch(image * (1 - hole), hole, prior * weight, weight)


def measure(
    engines: dict[str, Runner], batch: TileBatch, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> list[dict[str, Any]]:
    """One entry for each engine: milliseconds a tile (best, median), the median ratio to BASE, and whether it fills as
    it should. An engine that fails is said, and removed from `engines`."""
    checks: dict[str, dict[str, float]] = {}
    expected = engines[BASE].fill(batch)
    for name, engine in list(engines.items()):
        try:
            checks[name] = check(engine, batch, expected)  # what is only done once is done then
        except Exception as error:
            leave_out(name, error)
            del engines[name]
    first: dict[str, list[float]] = {name: [] for name in engines}
    steady: dict[str, list[float]] = {name: [] for name in engines}

    def time_s(engine: Runner) -> float:
        started = clock()
        engine.fill(batch)
        return clock() - started

    for _ in range(rounds):
        for name, engine in engines.items():
            first[name].append(time_s(engine))
            again = [time_s(engine)]
            while sum(again) < STEADY_S:
                again.append(time_s(engine))
            steady[name].append(statistics.median(again))

    def ratio(taken: dict[str, list[float]], name: str) -> float:
        return statistics.median(base / own for base, own in zip(taken[BASE], taken[name], strict=True))

    return [
        {
            "side_px": batch.side_px,
            "batch": len(batch),
            "engine": name,
            "best_ms": min(times) * 1e3 / len(batch),
            "median_ms": statistics.median(times) * 1e3 / len(batch),
            "ratio": ratio(steady, name),
            "ratio_after_another": ratio(first, name),
            **checks[name],
        }
        for name, times in steady.items()
    ]


def check(engine: Runner, batch: TileBatch, expected: FloatArray) -> dict[str, float]:
    """PSNR inside the holes to `expected`; the largest difference of a tile to itself in another company (`company`);
    and, where a GPU's own work can be told apart, its milliseconds a tile, the best of three times GPU_REPEATS."""
    filled = engine.fill(batch)
    turned = engine.fill(TileBatch(*(np.roll(getattr(batch, name), 1, axis=0) for name in INPUT_CHANNELS)))
    others = [np.roll(turned, -1, axis=0) - filled]
    others += [engine.fill(batch.only(index)) - filled[index : index + 1] for index in {0, len(batch) - 1}]
    error = np.mean((filled - expected)[np.broadcast_to(batch.hole, filled.shape) > 0] ** 2)
    found = {
        "agreement_db": float(-10 * np.log10(error + 1e-10)),
        "company": max(float(np.abs(other).max()) for other in others),
    }
    if engine.compute_s is not None:
        found["gpu_ms"] = min(engine.compute_s(batch, GPU_REPEATS) for _ in range(3)) * 1e3 / len(batch)
    return found


def peaks_of(devices: set[str], threads: int) -> dict[str, Peaks]:
    """By device, the CPU's with so many threads; none without torch."""
    try:
        import torch
        from roofline import measure_peaks
    except ImportError:
        return {}
    torch.set_num_threads(threads)
    seen = devices if torch.cuda.is_available() else devices - {"cuda"}
    return {device: measure_peaks(device) for device in sorted(seen)}


def put_below_roofs(
    rows: list[dict[str, Any]], engines: dict[str, Runner], peaks: dict[str, Peaks], work: Work
) -> None:
    """Write into each row the milliseconds a tile at which its device would be at its peak, which peak that is, and
    the share of it that is reached: by the GPU alone where that was measured."""
    for row in rows:
        engine = engines[row["engine"]]
        if engine.device in peaks and engine.precision in ("fp32", "fp16", "int8"):
            seconds, row["roof_by"] = peaks[engine.device].roof(work, engine.precision)
            row["roof_ms"] = seconds * 1e3 / row["batch"]
            row["roof_share"] = row["roof_ms"] / row.get("gpu_ms", row["median_ms"])


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
    for package in ("onnxruntime", "onnxruntime-gpu", "torch", "tensorrt", "tensorrt-rtx", "openvino"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    gpu = query_gpu()
    return {
        "CPU": f"{cpu}, {num_cores()} cores usable, {features}",
        "GPU": "none" if PORTABLE in gpu else " driver ".join(gpu),
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
    timed = ("side px", "batch", "engine", "best ms", "median ms", "tiles/s", "times FP32", "after another")
    heads = (*timed, "GPU ms", "roof ms", "roof by", "of the roof", "dB to FP32", "other company")
    lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in results:
        cells = [
            str(row["side_px"]),
            str(row["batch"]),
            row["engine"],
            f"{row['best_ms']:.3g}",
            f"{row['median_ms']:.3g}",
            f"{1e3 / row['median_ms']:.0f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_after_another']:.2f}",
            f"{row['gpu_ms']:.3g}" if "gpu_ms" in row else "-",
            *([f"{row['roof_ms']:.3g}", row["roof_by"], f"{row['roof_share']:.0%}"] if "roof_ms" in row else "---"),
            f"{row['agreement_db']:.1f}",
            f"{row['company']:.1g}" if row["company"] else "same bytes",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
