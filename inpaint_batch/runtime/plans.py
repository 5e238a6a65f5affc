"""The cache of TensorRT plans: one file for each model, precision, shape, TensorRT and GPU, with a card beside it.

A plan runs only where it was built for. What it was built for is its key; the key names its file, so that a plan for
something else is never opened by mistake, and a cache may be shared by machines. The folder is INPAINT_BATCH_ENGINES,
else `inpaint-batch/engines` below XDG_CACHE_HOME or `~/.cache`. TensorRT is not imported here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from inpaint_batch.errors import EngineError, StorageError

PLANS_VARIABLE = "INPAINT_BATCH_ENGINES"
"""In the environment: the folder of plans."""
PORTABLE = ""
"""GPU of a plan that was built without one; only TensorRT for RTX can do that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanKey:
    """Everything that decides whether a plan may run."""

    model_hash: str
    """SHA-256 of the FP32 ONNX file that the plan was made from, hexadecimal."""
    precision: str
    """`fp32`, `fp16` or `int8`."""
    shapes: str
    """Tiles in a batch for each side, as `64x32 128x16 256x8`."""
    tensorrt: str
    """Package and version, as `tensorrt 11.0.0.114` or `tensorrt_rtx 1.7.1.116`."""
    gpu: str
    """Name and compute capability, as `NVIDIA H100 9.0`; PORTABLE where the plan is for any."""
    driver: str
    """Version of the driver; PORTABLE likewise."""
    builder: str = "onnx"
    """Who turned the model into a network: `onnx`, TensorRT's own parser, or `torch_tensorrt` with its version."""

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name the files of this plan."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def differences(self, other: PlanKey) -> list[str]:
        """What differs, for a person: `driver 570.1, here 580.2`."""
        labels = {"model_hash": "model ", "tensorrt": ""}
        pairs = [
            (labels.get(f.name, f"{f.name} "), getattr(self, f.name), getattr(other, f.name)) for f in fields(self)
        ]
        return [f"{label}{mine or 'any'}, here {theirs or 'none'}" for label, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan in the cache."""

    key: PlanKey
    path: Path
    """The plan itself."""
    card: dict[str, Any]
    """Key, versions, hashes, gate, latency and the inspector's description, as they were when it was built."""

    @property
    def judged(self) -> bool:
        """Whether it was run on a GPU and passed the gate there, or was kept in spite of it."""
        return bool(self.card.get("gate"))

    @property
    def latency_ms(self) -> float:
        """Of the slowest full batch, as measured when it was judged; infinite where it was not. Batches of all sides
        have as many pixels, so plans that were judged by tiles of different sides can be compared."""
        return max((self.card.get("latency_ms") or {}).values(), default=math.inf)


def plan_folder() -> Path:
    """Where plans are kept; it need not exist yet. Raises EngineError where nobody knows the home."""
    named = os.environ.get(PLANS_VARIABLE)
    cache = os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(cache) if cache else Path.home() / ".cache") / "inpaint-batch" / "engines"
    except RuntimeError as error:  # a user by number only, without HOME, as in some containers
        raise EngineError(
            "where plans of TensorRT are kept depends on a home folder, and the system knows none: set "
            "INPAINT_BATCH_ENGINES to a folder"
        ) from error


def list_plans(folder: Path) -> list[StoredPlan]:
    """All complete plans, newest first. A card that cannot be read is passed over: its plan cannot be used either."""
    plans = []
    for card_path in folder.glob("*.json"):
        plan = card_path.with_suffix(".plan")
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            card = json.loads(card_path.read_text(encoding="utf-8"))
            plans.append((plan.stat().st_mtime, StoredPlan(PlanKey(**card["key"]), plan, card)))
    return [plan for _, plan in sorted(plans, key=lambda each: each[0], reverse=True)]


def find_plan(folder: Path, wanted: PlanKey) -> StoredPlan | None:
    """The plan for exactly this key, or a portable one that differs in nothing else."""
    plans = list_plans(folder)
    for key in (wanted, replace(wanted, gpu=PORTABLE, driver=PORTABLE)):
        for plan in plans:
            if plan.key == key:
                return plan
    return None


def usable_plans(folder: Path, wanted: PlanKey) -> list[StoredPlan]:
    """What may run where `wanted` is asked for, by whichever builder, best first: judged before not judged, then the
    faster one as measured when it was judged, then an own plan before a portable one."""
    here = (replace(wanted, builder=""), replace(wanted, builder="", gpu=PORTABLE, driver=PORTABLE))
    plans = [plan for plan in list_plans(folder) if replace(plan.key, builder="") in here]
    return sorted(plans, key=lambda plan: (not plan.judged, plan.latency_ms, plan.key.gpu == PORTABLE))


def write_plan(folder: Path, key: PlanKey, content: bytes, card: dict[str, Any]) -> StoredPlan:
    """Put a plan into the cache; the card is written last and makes it complete. Raises StorageError."""
    path = folder / f"{key.digest}.plan"
    card = {"key": asdict(key), "plan_sha256": hashlib.sha256(content).hexdigest(), **card}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        write_file(path, content)
        write_file(path.with_suffix(".json"), json.dumps(card, indent=1).encode())
    except OSError as error:
        raise StorageError(
            f"cannot write {path} ({error.strerror}); set INPAINT_BATCH_ENGINES to a folder with room"
        ) from error
    return StoredPlan(key, path, card)


def read_plan(plan: StoredPlan, rebuild: str) -> bytes:
    """The bytes of a plan, checked against its card. Raises EngineError, with the command `rebuild`, where they are
    missing or changed."""
    try:
        content = plan.path.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read the plan {plan.path} ({error.strerror}); rebuild it: {rebuild}") from error
    if hashlib.sha256(content).hexdigest() != plan.card.get("plan_sha256"):
        raise EngineError(f"the plan {plan.path} is not the one its card describes; rebuild it: {rebuild}")
    return content


def is_intact(plan: StoredPlan) -> bool:
    """Whether the plan is there and the one that its card describes; one that is not can only be built again."""
    try:
        read_plan(plan, "")
    except EngineError:
        return False
    return True


def write_file(path: Path, content: bytes) -> None:
    """Under a temporary name, then renamed. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_plan(plan: StoredPlan) -> int:
    """Remove plan, card and the kernels compiled for it; return the bytes that this freed."""
    # The card first: a plan without a card is not used.
    files = (plan.path.with_suffix(".json"), plan.path, *plan.path.parent.glob(f"{plan.path.stem}-*.kernels"))
    return sum(remove_file(path) for path in files)


def remove_leftovers(folder: Path, *, timings: bool = False) -> int:
    """Remove plans without a card, kernels without a plan, and what a killed process left half written; return the
    bytes that this freed. With `timings` the timing caches too.

    What is younger than an hour is left alone: somebody may be writing it.
    """
    cards = {path.stem for path in folder.glob("*.json")}
    stale = [path for path in folder.glob("*.plan") if path.stem not in cards]
    stale += [path for path in folder.glob("*.kernels") if path.stem.split("-")[0] not in cards]
    stale += folder.glob(".*.tmp")
    freed = sum(remove_file(path) for path in stale if path.stat().st_mtime < time.time() - 3600)
    return freed + sum(remove_file(path) for path in folder.glob("timing-*.cache") if timings)


def remove_file(path: Path) -> int:
    """Remove a file that may be gone already; return its bytes."""
    with contextlib.suppress(FileNotFoundError):
        size = path.stat().st_size
        path.unlink()
        return size
    return 0


def building(folder: Path, key: PlanKey) -> contextlib.AbstractContextManager[None]:
    """Hold the right to build this plan; waits where another process is building it. Raises StorageError."""
    return locked(folder / f"{key.digest}.lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which stays; waits where another process holds it. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(
            f"cannot write to {path.parent} ({error.strerror}); set INPAINT_BATCH_ENGINES to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
