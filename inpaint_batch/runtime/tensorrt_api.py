"""What must be known of TensorRT before anything is built or run: which package, which GPU, which shapes."""

from __future__ import annotations

import importlib
import os
import subprocess
from types import ModuleType
from typing import Any

from inpaint_batch.errors import MissingDependencyError
from inpaint_batch.machine import number_gpus_as_nvidia_smi, visible_gpus
from inpaint_batch.runtime.plans import PORTABLE, PlanKey

PACKAGES = ("tensorrt", "tensorrt_rtx")
"""In the order of preference; both have the same Python interface as far as it is used here."""
RTX = "tensorrt_rtx"
BATCH_SIZES = {64: 32, 128: 16, 256: 8}
"""Tiles in a batch by side: as many pixels in each. A plan has one profile for each side, with this one shape."""

_loggers: dict[ModuleType, object] = {}


def import_tensorrt() -> ModuleType:
    """`tensorrt`, or `tensorrt_rtx` where only that is installed. Raises MissingDependencyError.

    From here on CUDA numbers GPUs as nvidia-smi does, unless the environment says otherwise.
    """
    number_gpus_as_nvidia_smi()
    for name in PACKAGES:
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError):  # not there, or its libraries are not
            continue
        if hasattr(module, "Builder"):  # a folder of that name is a module too
            return module
    raise MissingDependencyError(
        "TensorRT is not installed or cannot be loaded: pip install 'inpaint-batch[gpu]', or pip install tensorrt-rtx"
    )


def logger(trt: ModuleType) -> object:
    """The one logger of this process (TensorRT ignores every further one); errors only."""
    # By the module itself, not by its name: one package does not take the logger of another of the same name.
    if trt not in _loggers:
        _loggers[trt] = trt.Logger(trt.Logger.ERROR)
    return _loggers[trt]


def version(trt: ModuleType) -> str:
    """Package and version, as in a key."""
    return f"{trt.__name__} {trt.__version__}"


def query_gpu() -> tuple[str, str]:
    """Name with capability, and driver, of the GPU that this process would use; PORTABLE twice where there is none."""
    first = next(iter(visible_gpus()), None)
    if first is None and "CUDA_VISIBLE_DEVICES" in os.environ:
        return PORTABLE, PORTABLE
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,driver_version", "--format=csv,noheader"]
    if first is not None and (first.card or not first.name.startswith("MIG-")):  # of slices it takes no names
        command.append(f"--id={first.card or first.name}")
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True, timeout=30)
        name, capability, driver = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return PORTABLE, PORTABLE
    _, is_slice, size = first.kind.partition(" MIG ") if first is not None else ("", "", "")
    return f"{name}{is_slice}{size} {capability}", driver  # a slice has fewer processors, and less memory


def why_no_cuda(torch: Any) -> str:
    """Why torch sees no GPU where there is one, as far as can be told, and what to do."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} was built without CUDA; install one that was built with it"
    return f"torch {torch.__version__} does not see it; the driver may be too old for CUDA {torch.version.cuda}"


def key_here(trt: ModuleType, model_hash: str, precision: str) -> PlanKey:
    """The key of a plan that is built, or could run, on this machine."""
    gpu, driver = query_gpu()
    shapes = " ".join(f"{side}x{batch}" for side, batch in BATCH_SIZES.items())
    return PlanKey(
        model_hash=model_hash, precision=precision, shapes=shapes, tensorrt=version(trt), gpu=gpu, driver=driver
    )
