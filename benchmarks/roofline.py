"""The time that a machine would need at the least, for what a network asks of it: work counted, peaks measured.

*Work* is the multiply-accumulates of all convolutions and matrix products, and the bytes that these read and write if
each fetches its inputs and weights once and everything between them costs nothing. *Peaks* are what this machine does
best in the same run, through torch: a large matrix product in each precision (on a CPU a convolution too, which some
do twice as fast), and a large copy. The roof is the longer of the two times: work over the peak of products, bytes over
the peak of copies.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Of one number between two layers."""
REPEATS = 20
GPU_SIDE, CPU_SIDE = 8192, 768
"""Rows and columns of the matrices that are multiplied."""
CHANNELS, MAP_SIDE = 128, 56
"""Of the convolution, 3×3."""
GPU_COPY_BYTES, CPU_COPY_BYTES = 2**30, 2**27


@dataclass(frozen=True)
class Work:
    """What a network asks for, for one batch."""

    macs: int
    """Multiply-accumulates of its convolutions and matrix products."""
    numbers: int
    """Numbers that these read and write, weights among them."""


@dataclass(frozen=True)
class Peaks:
    """What a device does best."""

    device: str
    macs_per_s: dict[str, float]
    """By precision: `fp32`, and on a GPU `tf32`, `fp16` and `int8`."""
    bytes_per_s: float
    """Read and written by a copy, added up."""

    def roof(self, work: Work, precision: str) -> tuple[float, str]:
        """Seconds for the work, and what they are counted by: `fp16 products`, `copies`; by FP32 where the peak of the
        precision is not known."""
        known = precision if precision in self.macs_per_s else "fp32"
        return max(
            (work.macs / self.macs_per_s[known], f"{known} products"),
            (work.numbers * BYTES[precision] / self.bytes_per_s, "copies"),
        )

    def to_dict(self) -> dict[str, str]:
        """For the head of a table."""
        products = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in self.macs_per_s.items())
        return {
            f"peak of {self.device}, tera-MAC/s": products,
            f"copies of {self.device}, GB/s read and written": f"{self.bytes_per_s / 1e9:.3g}",
        }


@dataclass
class _Counter(TorchDispatchMode):
    macs: int = 0
    numbers: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.macs += count(*args, **(kwargs or {}), out_val=result) // 2
            self.numbers += sum(each.numel() for each in (*args, result) if isinstance(each, torch.Tensor))
        return result


def count_work(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Work:
    """Of one forward pass; with everything on the `meta` device nothing is computed for it."""
    with torch.no_grad(), _Counter() as counter:
        network(*inputs)
    return Work(counter.macs, counter.numbers)


def work_of(weights: Path, side_px: int, batch: int) -> Work:
    """Of the generator in `weights` on so many tiles."""
    from inpaint_batch.models.checkpoint import load_generator
    from inpaint_batch.runtime.convention import INPUT_CHANNELS

    generator = load_generator(weights).to("meta")
    shapes = [
        (batch, channels, *((1, 1) if name == "prior_weight" else (side_px, side_px)))
        for name, channels in INPUT_CHANNELS.items()
    ]
    return count_work(generator, tuple(torch.zeros(shape, device="meta") for shape in shapes))


def measure_peaks(device: str) -> Peaks:
    """Of `cuda`, or of `cpu` with as many threads as torch uses. The best of REPEATS: who else computes only takes from
    it."""
    on_gpu = device == "cuda"
    side = GPU_SIDE if on_gpu else CPU_SIDE
    macs_per_s = {}
    for precision in ("fp32", "tf32", "fp16", "int8") if on_gpu else ("fp32",):
        with contextlib.suppress(RuntimeError):  # not every GPU multiplies 8-bit matrices
            macs_per_s[precision] = side**3 / _product_s(precision, side, device)
    if not on_gpu:
        macs_per_s["fp32"] = max(macs_per_s["fp32"], _convolution_macs_per_s())
    num_bytes = GPU_COPY_BYTES if on_gpu else CPU_COPY_BYTES
    source = torch.ones(num_bytes // 4, device=device)
    target = torch.empty_like(source)
    copy_s = _best_s(lambda: target.copy_(source), device)
    name = torch.cuda.get_device_name() if on_gpu else f"the CPU, {torch.get_num_threads()} threads"
    return Peaks(name, macs_per_s, 2 * num_bytes / copy_s)


def _product_s(precision: str, side: int, device: str) -> float:
    random = torch.Generator(device).manual_seed(0)
    if precision == "int8":
        first, second = (
            torch.randint(-127, 128, (side, side), dtype=torch.int8, device=device, generator=random) for _ in range(2)
        )
        # The tensor cores want the second matrix column by column.
        return _best_s(lambda: torch._int_mm(first, second.t()), device)
    kind = torch.float16 if precision == "fp16" else torch.float32
    one, other = (torch.randn(side, side, device=device, generator=random).to(kind) for _ in range(2))
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        return _best_s(lambda: torch.matmul(one, other), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


@torch.inference_mode()
def _convolution_macs_per_s() -> float:
    features = torch.randn(1, CHANNELS, MAP_SIDE, MAP_SIDE)
    weights = torch.randn(CHANNELS, CHANNELS, 3, 3)
    run = partial(torch.nn.functional.conv2d, features, weights, padding=1)
    return 9 * CHANNELS**2 * MAP_SIDE**2 / _best_s(run, "cpu")


def _best_s(run: Callable[[], object], device: str) -> float:
    taken = []
    for _ in range(REPEATS):
        wait_for(device)
        started = time.perf_counter()
        run()
        wait_for(device)
        taken.append(time.perf_counter() - started)
    return min(taken)


def wait_for(device: str) -> None:
    """Until a GPU has done all that it was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
