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
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from inpaint_batch.errors import EngineError, StorageError

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


def plan_folder() -> Path:
    """Where plans are kept; it need not exist yet."""
    named = os.environ.get("INPAINT_BATCH_ENGINES")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "inpaint-batch" / "engines"


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
    portable = {"gpu": PORTABLE, "driver": PORTABLE}
    for key in (wanted, PlanKey(**{**asdict(wanted), **portable})):
        for plan in list_plans(folder):
            if plan.key == key:
                return plan
    return None


def write_plan(folder: Path, key: PlanKey, content: bytes, card: dict[str, Any]) -> StoredPlan:
    """Put a plan into the cache; the card is written last and makes it complete. Raises StorageError."""
    path = folder / f"{key.digest}.plan"
    card = {"key": asdict(key), "plan_sha256": hashlib.sha256(content).hexdigest(), **card}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
        for target, data in ((path, content), (path.with_suffix(".json"), json.dumps(card, indent=1).encode())):
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            temporary.write_bytes(data)
            temporary.replace(target)
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


def remove_plan(plan: StoredPlan) -> int:
    """Remove plan and card; return the bytes that this freed."""
    freed = 0
    for path in (plan.path.with_suffix(".json"), plan.path):  # the card first: a plan without a card is not used
        with contextlib.suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            freed += size
    return freed


@contextlib.contextmanager
def building(folder: Path, key: PlanKey) -> Iterator[None]:
    """Hold the right to build this plan; waits where another process is building it. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / f"{key.digest}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StorageError(
            f"cannot write to {folder} ({error.strerror}); set INPAINT_BATCH_ENGINES to another folder"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
