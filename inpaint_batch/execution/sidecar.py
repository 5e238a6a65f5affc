"""A sidecar beside each result: what it was made of, with what, and where it differs from its source.

`scan.tif` gets `scan.tif.inpaint-batch.json`. Archives keep it with the derivative; checksums tie both to the master.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inpaint_batch import __version__
from inpaint_batch.config import TilingConfig
from inpaint_batch.storage.atomic import atomic_write

if TYPE_CHECKING:
    from inpaint_batch.execution.stages import PreparedRow

SUFFIX = ".inpaint-batch.json"
"""Put behind the whole name of the result."""
FORMAT = "inpaint-batch sidecar 1"
"""Its number rises when a key changes its meaning or goes away; new keys may come without."""
MAX_BOXES = 10_000
"""Holes whose boxes are listed, the first by position; dust can make a million."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a sidecar says of the run, the same for all rows."""

    engine: str
    """See `Engine.identity`: engine, precision, hash of the model, passes."""
    model: str
    tiling: TilingConfig


def sidecar_path(result: Path) -> Path:
    """Where the sidecar of a result stands."""
    return result.with_name(result.name + SUFFIX)


def write_sidecar(prepared: PreparedRow, facts: RunFacts, num_tiles: Mapping[int, int], written: Path) -> None:
    """Write the sidecar of a result that was verified as `written`. Reads source, mask and result once more.

    Raises RowError(WRITE), and StorageError where nothing at all can be written any more.
    """
    text = json.dumps(describe(prepared, facts, num_tiles, written), indent=2, ensure_ascii=True)
    with atomic_write(sidecar_path(prepared.task.destination)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def describe(prepared: PreparedRow, facts: RunFacts, num_tiles: Mapping[int, int], written: Path) -> dict[str, Any]:
    """The sidecar as plain data."""
    task, holes, header = prepared.task, prepared.holes, prepared.source.header
    by_coefficient = header.format == "jpeg" and task.config.jpeg == "patch"
    boxes = prepared.hole_boxes
    return {
        "format": FORMAT,
        "id": task.row.id,
        "result": {"name": task.output, **_checksum(written)},
        "source": {"path": task.row.image, **_checksum(prepared.files.image)},
        "mask": {"path": task.row.mask, **_mask_checksum(prepared)},
        "software": {"name": "inpaint-batch", "version": __version__},
        "engine": facts.engine,
        "model": facts.model,
        "options": {**asdict(task.config), "tiling": asdict(facts.tiling)},
        "image": {"width_px": header.width_px, "height_px": header.height_px, "orientation": header.orientation},
        "hole": {
            "num_pixels": holes.num_hole_px,
            "coverage": round(holes.coverage, 9),
            "num_holes": len(boxes),
            "boxes": [{"top": b.top, "left": b.left, "height": b.height, "width": b.width} for b in boxes[:MAX_BOXES]],
        },
        "tiles_by_side_px": {str(side): count for side, count in sorted(num_tiles.items())},
        "verified": "every JPEG coefficient of every block without a hole sample, and the metadata, equal the source's"
        if by_coefficient
        else "every sample outside the hole, and the metadata, equal the source's",
        "seconds": {stage: round(seconds, 4) for stage, seconds in prepared.watch.seconds.items()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _mask_checksum(prepared: PreparedRow) -> dict[str, Any]:
    if prepared.mask_checksum is None:
        return _checksum(prepared.files.mask)
    num_bytes, sha256 = prepared.mask_checksum
    return {"bytes": num_bytes, "sha256": sha256}


def _checksum(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
