"""The two lists that `mask` writes: a manifest of the masks, and the names of the images without one."""

from __future__ import annotations

import csv
import filecmp
from collections.abc import Sequence
from pathlib import Path

from inpaint_batch.manifest.schema import COLUMNS
from inpaint_batch.pipeline.detect_items import Item
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.conflict import resolve_conflict
from inpaint_batch.storage.paths import relative_to

MANIFEST = "manifest.csv"
CLEAN = "clean.txt"
EDITED = "manifest-edited.csv"
"""What a manifest is called that a person has edited, once there is another."""


def write_lists(output: Path, kept: Sequence[Item], clean: Sequence[Item]) -> str:
    """Write the two lists; returns what a manifest that a person has edited is called from now, else nothing."""
    columns = ["image", "mask", "output", *(c for c in COLUMNS if any(c in item.carried for item in kept))]
    relative = relative_to(output, within_home=False)
    manifest, edited = output / MANIFEST, ""
    with atomic_write(manifest) as path:
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = csv.DictWriter(file, columns, restval="")
            rows.writeheader()
            for item in kept:
                row = {**item.carried, "image": item.image, "mask": item.mask, "output": item.output}
                rows.writerow(row | {name: relative(row[name]) for name in ("image", "truth") if row.get(name)})
        if _is_edited(manifest, output / CLEAN) and not filecmp.cmp(manifest, path, shallow=False):
            free = resolve_conflict(output / EDITED, "suffix")
            assert free is not None
            edited = manifest.rename(free).name
    with atomic_write(output / CLEAN) as path:
        path.write_text("".join(f"{item.image}\n" for item in clean), encoding="utf-8")
    return edited


def _is_edited(manifest: Path, clean: Path) -> bool:
    """Whether a manifest has been written since the list that is written right after it."""
    try:
        return manifest.stat().st_mtime_ns > clean.stat().st_mtime_ns
    except OSError:
        return False
