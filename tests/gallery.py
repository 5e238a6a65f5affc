"""A gallery of small made-up pictures to run, and ways to look at what became of them."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.errors import FailureLimitError, RowsFailedError, StopRequestedError
from inpaint_batch.report.progress import make_progress


class Gallery:
    """A manifest of small made-up pictures with holes, and ways to look at what became of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: list[dict[str, str]] = []
        self._columns = ["id", "image", "mask", "output"]

    def add(
        self,
        name: str,
        *,
        side: int = 72,
        mode: str = "RGB",
        hole: tuple[int, int, int, int] = (20, 24, 12, 16),
        **cells: str,
    ) -> Path:
        """A noisy picture in the format of its suffix; its mask is white in the box (top, left, height, width)."""
        picture = noise(len(self.rows), side, mode)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        options: dict[str, object] = {".webp": {"lossless": True, "exact": True}, ".jpg": {"quality": 92}}.get(
            path.suffix, {}
        )
        Image.fromarray(picture).save(path, **options)
        drawn = np.zeros((side, side), np.uint8)
        top, left, height, width = hole
        drawn[top : top + height, left : left + width] = 255
        return self.add_row(name, self.mask(f"{name}.mask.png", drawn), **cells)

    def mask(self, name: str, drawn: np.ndarray) -> str:
        """Save a mask; returns its name."""
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn).save(self.folder / name)
        return name

    def add_row(self, image: str, mask: str, **cells: str) -> Path:
        """A row for files that are there already, or shall not be."""
        self.rows.append({"id": image, "image": image, "mask": mask, "output": image, **cells})
        self._columns += [name for name in cells if name not in self._columns]
        return self.folder / image

    def manifest(self, name: str = "manifest.csv") -> Path:
        """Write the manifest."""
        path = self.folder / name
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        return path


def noise(seed: int, side: int, mode: str) -> np.ndarray:
    """A random picture that JPEG does not hate: blocks of 4 px."""
    bands = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-side // 4), -(-side // 4), bands), np.uint8)
    picture = coarse.repeat(4, axis=0).repeat(4, axis=1)[:side, :side]
    return picture[..., 0] if bands == 1 else picture


def tree(output: Path) -> dict[str, str]:
    """Hash of every result below an output folder, without its state, by relative path."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".inpaint-batch" not in path.parent.parts
    }


def ledger_lines(output: Path) -> list[dict[str, Any]]:
    """All readable lines of the ledger, in order."""
    lines = []
    for part in sorted((output / ".inpaint-batch" / "ledger").glob("*.jsonl")):
        for line in part.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def run(
    manifest: Path,
    output: Path,
    *,
    stop: Any = None,
    row: dict[str, Any] | None = None,
    masks: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run a manifest in this process on the identity engine; returns what `summary.json` says.

    The exit code is in it, so that errors of the run need not be caught; those before the output folder is ours are
    raised.
    """
    from inpaint_batch.pipeline.run import run_manifest
    from inpaint_batch.pipeline.stop import Stop

    config = RunConfig(output=output, row=RowConfig(**(row or {})), **{"engine": "identity", "workers": 2, **settings})
    with contextlib.suppress(RowsFailedError, FailureLimitError, StopRequestedError), make_progress("text") as progress:
        run_manifest(config, manifest, masks=masks, progress=progress, stop=stop or Stop())
    summary: dict[str, Any] = json.loads((output / ".inpaint-batch" / "summary.json").read_text())
    return summary


def wait_until_done(process: subprocess.Popen[str], output: Path, num_rows: int, patience_s: float = 150) -> None:
    """Until so many rows of a run are done, or it has ended, or patience has."""
    wait_until(process, lambda: sum(line["status"] == "done" for line in ledger_lines(output)) >= num_rows, patience_s)


def wait_for_text(process: subprocess.Popen[str], path: Path, text: str, patience_s: float = 150) -> None:
    """Until a file that a run writes has that text, or it has ended, or patience has."""
    wait_until(process, lambda: path.exists() and text in path.read_text(), patience_s)


def wait_until(process: subprocess.Popen[str], is_so: Callable[[], bool], patience_s: float = 150) -> None:
    """Until that is so, or a process has ended, or patience has."""
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s and process.poll() is None and not is_so():
        time.sleep(0.005)
