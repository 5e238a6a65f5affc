"""What is left when a run has ended: `summary.json`, for programs."""

from __future__ import annotations

import json
import platform
import resource
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from inpaint_batch import __version__
from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.report.tally import Tally
from inpaint_batch.storage.atomic import atomic_write

LIBRARIES = ("imagecodecs", "jpeglib", "numpy", "onnxruntime", "opencv-python-headless", "pyvips", "tifffile")
"""Packages whose versions are told: another one might decode, fill or encode differently."""


@dataclass(slots=True)
class Summary:
    """Everything that `summary.json` says."""

    config: RunConfig
    manifest: str
    started_s: float
    """Seconds since 1970."""
    tally: Tally = field(default_factory=Tally)
    run: str = ""
    """Id of the run, as log and ledger have it."""
    engine: str = ""
    """Engine that ran."""
    model: str = ""
    """Model that it ran, with the hash of its file."""
    precision: str = ""
    notes: list[str] = field(default_factory=list)
    """Fallbacks and other things worth knowing."""
    num_batches: int = 0

    def to_json(self, exit_code: int, error: str) -> dict[str, Any]:
        """The summary as plain data."""
        ended_s = time.time()
        elapsed_s = max(ended_s - self.started_s, 1e-9)
        tally = self.tally
        return {
            "run": self.run,
            "exit_code": exit_code,
            "error": error,
            "rows": {
                "done": tally.num_done,
                "copied": tally.num_copied,
                "skipped": tally.num_skipped,
                "left": tally.num_left,
                "failed": tally.num_all_failed,
                "failed_now": tally.num_failed,
                "failed_by_code": dict(sorted(tally.by_code.items())),
                "warnings": tally.num_warnings,
                "redone": dict(sorted(tally.redone.items())),
            },
            "megapixels": round(tally.num_pixels / 1e6, 6),
            "images_per_s": round(tally.num_done / elapsed_s, 4),
            "megapixels_per_s": round(tally.num_pixels / 1e6 / elapsed_s, 4),
            "tiles_by_side_px": {str(side): count for side, count in sorted(tally.num_tiles.items())},
            "batches": self.num_batches,
            "seconds_by_stage": {stage: round(seconds, 4) for stage, seconds in tally.seconds.items()},
            "engine": self.engine,
            "model": self.model,
            "precision": self.precision,
            "notes": self.notes,
            "shard": self.config.shard or None,
            "manifest": self.manifest,
            "options": self._options(),
            "started": _iso(self.started_s),
            "ended": _iso(ended_s),
            "elapsed_s": round(elapsed_s, 3),
            "peak_memory_bytes": peak_memory_bytes(),
            "versions": versions(),
        }

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = _plain(asdict(self.config))
        if options.pop("store"):
            options["output"] = self.config.place
        return options

    def write(self, state: Path, exit_code: int, error: str = "") -> None:
        """Write `summary.json` (of a shard `summary-i-of-n.json`) into the state folder, whole or not at all."""
        text = json.dumps(self.to_json(exit_code, error), indent=2, ensure_ascii=True)
        with atomic_write(state / f"summary{state_ending(self.config.part)}.json") as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")


def state_ending(part: Shard | None) -> str:
    """What a shard adds to the names of its files in the state folder, before the suffix; 1/1 is a whole run."""
    return f"-{part.name}" if part is not None and part.count > 1 else ""


def peak_memory_bytes() -> int:
    """The largest resident size this program has had.

    Linux keeps `ru_maxrss` across fork and exec, so that a small program started by a large one would seem large; the
    high-water mark of the present memory map (VmHWM) is the program's own.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass  # not Linux, or no /proc
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def versions() -> dict[str, str]:
    """Of this package, Python, the system, and the libraries that touch pixels."""
    own = {"inpaint-batch": __version__, "python": platform.python_version(), "system": platform.platform()}
    return {**own, **library_versions()}


@cache
def library_versions() -> Mapping[str, str]:
    """Of LIBRARIES, as far as they are known."""
    found = {}
    for library in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):  # vendored, or replaced by a build under another name
            found[library] = metadata.version(library)
    return found


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, Path) else value
