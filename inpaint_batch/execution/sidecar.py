"""Files beside each result: what it was made of, with what, and where it differs from its source.

`scan.tif` gets `scan.tif.inpaint-batch.json`, `scan.tif.premis.xml`, or both. Archives keep them with the derivative;
checksums tie it to the master. What they say is one description, made once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inpaint_batch import __version__
from inpaint_batch.config import RunConfig, TilingConfig
from inpaint_batch.execution.premis import premis_event
from inpaint_batch.imaging.write import written_format
from inpaint_batch.imaging.xmp import Mark
from inpaint_batch.report.summary import library_versions
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.uris import redacted
from inpaint_batch.words import counted

if TYPE_CHECKING:
    from inpaint_batch.execution.prepared import PreparedRow

SUFFIX = ".inpaint-batch.json"
"""Put behind the whole name of the result, like the next."""
PREMIS_SUFFIX = ".premis.xml"
SUFFIXES = (SUFFIX, PREMIS_SUFFIX)
"""Of everything that may stand beside a result."""
FORMAT = "inpaint-batch sidecar 1"
"""Its number rises when a key changes its meaning or goes away; new keys may come without."""
MAX_BOXES = 10_000
"""Holes whose boxes are listed, the first by position; dust can make a million."""
_SAMPLES = "every sample outside the hole"
_SOFTWARE = f"inpaint-batch {__version__}"


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What is said of the run beside and in its results, the same for all rows."""

    engine: str
    """See `Engine.identity`: engine, precision, hash of the model, passes."""
    model: str
    tiling: TilingConfig
    suffixes: tuple[str, ...] = ()
    """Of the files that go beside a result."""


def companions(config: RunConfig) -> tuple[str, ...]:
    """What is wanted beside each result: what such a file's name has behind that of the result."""
    wanted = (config.sidecar, config.premis)
    return tuple(suffix for is_wanted, suffix in zip(wanted, SUFFIXES, strict=True) if is_wanted)


def paths_beside(result: Path, suffixes: Sequence[str]) -> list[Path]:
    """Where the files beside a result stand."""
    return [result.with_name(result.name + suffix) for suffix in suffixes]


def write_beside(prepared: PreparedRow, facts: RunFacts, num_tiles: Mapping[int, int], written: Path) -> None:
    """Write the wanted files beside a result that was verified as `written`. Reads source, mask and result once more.

    Raises RowError(WRITE), and StorageError where nothing at all can be written any more.
    """
    if not facts.suffixes:
        return
    told = describe(prepared, facts, num_tiles, written)
    texts = {
        SUFFIX: lambda: json.dumps(told, indent=2, ensure_ascii=True) + "\n",
        PREMIS_SUFFIX: lambda: premis_event(told),
    }
    result = Path(prepared.task.destination)
    for suffix, path in zip(facts.suffixes, paths_beside(result, facts.suffixes), strict=True):
        with atomic_write(path) as temporary:
            temporary.write_text(texts[suffix](), encoding="utf-8")


def xmp_mark(prepared: PreparedRow, facts: RunFacts) -> Mark:
    """What the XMP of a result says. No time: the same row shall give the same bytes."""
    holes, boxes = prepared.holes, prepared.hole_boxes
    return Mark(
        _SOFTWARE,
        f"filled {counted(len(boxes), 'hole')}, {holes.num_hole_px} of {holes.num_pixels} pixels; "
        f"engine {facts.engine}; source SHA-256 {prepared.checksum('source')['sha256']}; "
        f"mask SHA-256 {prepared.checksum('mask')['sha256']}",
    )


def describe(prepared: PreparedRow, facts: RunFacts, num_tiles: Mapping[int, int], written: Path) -> dict[str, Any]:
    """All that is told of a result, as plain data: what the JSON file holds."""
    task, holes, header = prepared.task, prepared.holes, prepared.source.header
    result_format = written_format(header.format, task.config.jpeg)
    by_coefficient = header.has_coefficients and result_format == header.format
    samples = "every JPEG coefficient of every block without a hole sample" if by_coefficient else _SAMPLES
    changes = []
    if prepared.num_previews:
        changes.append(counted(prepared.num_previews, "preview"))
    if task.config.xmp and prepared.patches:
        changes.append("what --xmp added")
    changed = f" but for {' and '.join(changes)}" if changes else ""
    boxes = prepared.hole_boxes
    told = {
        "format": FORMAT,
        "id": task.row.id,
        "result": {"name": task.output, **checksum(written)},
        "source": {"path": task.row.image, **prepared.checksum("source")},
        "mask": {"path": task.row.mask, **prepared.checksum("mask")},
        "formats": {"source": header.format, "result": result_format},
        "software": {"name": "inpaint-batch", "version": __version__},
        "libraries": library_versions(),
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
        "doubt": None if prepared.doubt is None else round(prepared.doubt, 2),
        "tiles_by_side_px": {str(side): count for side, count in sorted(num_tiles.items())},
        "verified": f"{samples}, and the metadata{changed}, equal the source's",
        "seconds": {stage: round(seconds, 4) for stage, seconds in prepared.watch.seconds.items()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return {key: _without_secrets(value) for key, value in told.items()}


def checksum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def told_checksums(sidecar: Path) -> dict[str, dict[str, Any]]:
    """What the JSON beside a result says of the files: by source, mask and result the number of bytes and the SHA-256.

    Raises ValueError where it is no such JSON, and OSError.
    """
    try:
        told = json.loads(sidecar.read_bytes())
        if not str(told["format"]).startswith("inpaint-batch sidecar "):
            raise ValueError("it is another kind of JSON")
        return {role: {key: told[role][key] for key in ("bytes", "sha256")} for role in ("source", "mask", "result")}
    except (KeyError, TypeError) as error:
        raise ValueError("it lacks what such a file has") from error


def _without_secrets(value: Any) -> Any:
    """The same data, with nothing in its texts that a URI may hide: users, passwords, signatures."""
    if isinstance(value, dict):
        return {key: _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_secrets(inner) for inner in value]
    return redacted(value) if isinstance(value, str) else value
