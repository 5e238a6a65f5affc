"""The last stage of a row: its result is written, compared with the source, and given its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inpaint_batch.execution.prepared import PreparedRow
from inpaint_batch.execution.sidecar import paths_beside, write_beside, xmp_mark
from inpaint_batch.imaging.previews import fill_previews
from inpaint_batch.imaging.write import verify_written, write_filled, written_format
from inpaint_batch.imaging.xmp_files import mark_file
from inpaint_batch.storage.atomic import atomic_write


def write_row(prepared: PreparedRow, num_tiles: Mapping[int, int]) -> None:
    """Write the result under a temporary name, compare it with the source, and only then give it its own name.

    What is wanted beside it has its name first; `num_tiles` by side in pixels is what that says of the work. With a
    store all of it is then sent there. Raises RowError(WRITE), and StorageError where nothing at all can be written any
    more.
    """
    task, watch, patches = prepared.task, prepared.watch, prepared.patches
    destination = Path(task.destination)
    watch.lap("")
    with prepared.files.by_name():
        with atomic_write(destination) as temporary:
            is_copy = prepared.copy is not None and prepared.copy.take(temporary)
            write_filled(prepared.source, patches, temporary, jpeg=task.config.jpeg, is_copy=is_copy)
            watch.lap("write")
            verify_written(prepared.source, patches, temporary, jpeg=task.config.jpeg)
            kind = written_format(prepared.source.header.format, task.config.jpeg)
            prepared.num_previews, warnings = fill_previews(prepared.source, patches, temporary, kind)
            prepared.warnings += warnings
            watch.lap("verify")
            if task.facts is not None:
                if task.config.xmp and patches:  # a copy has nothing that a model made
                    mark_file(temporary, kind, xmp_mark(prepared, task.facts), task.config.page)
                # Before the result has its name: a result never stands without what is wanted beside it.
                write_beside(prepared, task.facts, num_tiles, temporary)
        prepared.files.deliver(*paths_beside(destination, task.facts.suffixes if task.facts else ()))
    watch.lap("write")
