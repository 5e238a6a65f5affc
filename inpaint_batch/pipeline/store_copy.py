"""Copies of the state of an output in a store, to look at: how far all runs have come, and what they made together."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from inpaint_batch.errors import StorageError
from inpaint_batch.execution.ledger_lines import ARCHIVE_FOLDER, LEDGER_FOLDER, part_name
from inpaint_batch.pipeline.merge import merge_shards
from inpaint_batch.pipeline.status import ShardStatus, folder_status
from inpaint_batch.pipeline.store_lock import holder_in, may_live
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import names_below, read_bytes, remove, write_bytes
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.scratch import scratch_folder
from inpaint_batch.storage.uris import joined
from inpaint_batch.threads import in_turn

LEDGER, ARCHIVE = f"{LEDGER_FOLDER}/", f"{ARCHIVE_FOLDER}/"
"""What the names of parts begin with, below the state's URI."""
NUM_REQUESTS = 16
"""Requests at a time."""
MAX_LISTINGS = 8
"""How often a state that changes while it is read is begun anew."""


@contextmanager
def state_copy(store: str) -> Iterator[Path]:
    """A folder with a copy of the state of an output in a store, for as long as it is looked at.

    The lock of a run that is alive is in it, as text that says who it is. Raises StorageError.
    """
    with TemporaryDirectory(prefix="state-", dir=scratch_folder()) as name:
        _bring_state(store, Path(name, STATE_FOLDER))
        yield Path(name)


def store_status(store: str) -> list[ShardStatus]:
    """See `status.folder_status`."""
    with state_copy(store) as root:
        return folder_status(root, shown=store)


def merge_in_store(store: str) -> dict[str, Any]:
    """See `merge.merge_shards`."""
    with state_copy(store) as root:
        for lock in (root / STATE_FOLDER).glob("lock*"):
            holder = lock.read_text("utf-8").strip()
            raise StorageError(f"{store} is in use by another run ({holder}); wait for it to end, then merge again")
        try:
            return merge_shards(root, shown=store)
        finally:
            _put_back(store, root, "summary.json", "failures.csv", "left.csv")


def _put_back(store: str, root: Path, *names: str) -> None:
    """Send files of a state copy to the store. Raises StorageError."""
    with as_storage_error():
        for name in names:
            if not (root / STATE_FOLDER / name).exists():
                continue
            write_bytes(joined(store, f"{STATE_FOLDER}/{name}"), (root / STATE_FOLDER / name).read_bytes())


def _bring_state(store: str, folder: Path) -> None:
    uri = joined(store, STATE_FOLDER)

    def bring(names: list[str]) -> None:
        parts = [name for name in names if name.startswith(LEDGER)]
        bring_ledger(uri, parts, [name for name in names if name.startswith(ARCHIVE)], folder)
        small = [name for name in names if "/" not in name and not name.endswith(".log")]
        for name, content in zip(small, contents(uri, small), strict=True):
            if name.startswith("lock"):
                about = holder_in(content)
                if about is not None and may_live(about):
                    (folder / name.removesuffix(".json")).write_text(f"{about['process']}\n", "utf-8")
            else:
                (folder / name).write_bytes(content)

    with as_storage_error("read the state of the runs"):
        bring_all(uri, folder, bring)


def bring_all(uri: str, folder: Path, bring: Callable[[list[str]], None]) -> None:
    """Have `bring` fill `folder` with what lies below `uri`; it is told the names, in order.

    Other runs may be at work there: they put parts of the ledger together, and take away locks and summaries. Where
    one of the names is gone once its turn comes, all begins anew. Raises ObjectError.
    """
    for attempt in range(1, MAX_LISTINGS + 1):
        try:
            return bring(sorted(names_below(uri)))
        except ObjectError as error:
            if error.trouble != "missing" or attempt == MAX_LISTINGS:
                raise
            shutil.rmtree(folder, ignore_errors=True)
    return None


def bring_ledger(uri: str, parts: list[str], archived: list[str], folder: Path) -> None:
    """Make a ledger in `folder` of the parts with these names below `uri`, and an archive. Raises ObjectError."""
    for names, place in ((parts, folder / LEDGER), (archived, folder / ARCHIVE / "000001")):
        place.mkdir(parents=True)
        if not names:
            continue
        with (place / part_name(1)).open("wb") as file:
            file.writelines(contents(uri, names))


def contents(uri: str, names: list[str]) -> Iterator[bytes]:
    """What is in the objects with these names below `uri`, in their order. Raises ObjectError."""
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        # Not `pool.map`: while one is waited for, all the others would come into memory.
        yield from in_turn(pool, lambda name: read_bytes(joined(uri, name)), names, 2 * NUM_REQUESTS)


def remove_all(uri: str, names: list[str]) -> None:
    """Delete the objects with these names below `uri`. Raises ObjectError."""
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        list(pool.map(lambda name: remove(joined(uri, name)), names))


@contextmanager
def as_storage_error(verb: str = "keep the state of the run") -> Iterator[None]:
    """Turn an ObjectError or OSError into the StorageError that ends a run; `verb` is what was to be done."""
    try:
        yield
    except ObjectError as error:
        raise error.for_run(verb) from error
    except OSError as error:
        raise StorageError(f"cannot {verb}: {error}; run again once that is mended") from error
