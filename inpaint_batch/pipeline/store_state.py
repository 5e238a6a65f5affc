"""The state of an output in a store: its ledger as immutable parts, the lock, and the small files around them.

A run works on a copy in a folder of its own machine, `DIR/.inpaint-batch` as everywhere, which may be lost at any time.
Objects cannot be appended to, so new lines of the ledger go to the store as parts::

    prefix/.inpaint-batch/ledger/000003-whole-000017.jsonl      third run, all rows, 17th part; read in order of names

What the ledger promises holds for the parts: the line that says `started` is in the store before the row is worked on,
so that a result without a `done` line is known to be ours. `done` and `failed` follow within PUSH_S seconds; what a
killed run did in the last of them is done again, to the same bytes. Stores have no locks, so a run renews an object
that says who it is, and one that is not renewed for STALE_S seconds belongs to a run that died.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.errors import StorageError
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.pipeline.merge import merge_shards
from inpaint_batch.pipeline.status import ShardStatus, folder_status
from inpaint_batch.report.summary import state_ending
from inpaint_batch.storage.objects import ObjectError, names_below, read_bytes, remove, write_bytes
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.scratch import scratch_folder
from inpaint_batch.storage.uris import joined

log = logging.getLogger(__name__)

PUSH_S = 5.0
"""Seconds after which new lines of the ledger go to the store."""
BEAT_S = 15.0
"""Seconds after which a run renews its lock."""
STALE_S = 60.0
"""Seconds without renewal after which a lock counts as left behind."""
BLOCK_ROWS = 32
"""Rows that are announced in the store together, before the first of them is worked on."""
SMALL_PARTS = 64
"""Parts of one run that are put together to one."""
NUM_REQUESTS = 16
_LEDGER, _ARCHIVE = "ledger/", "ledger-archive/"


@contextmanager
def open_place(config: RunConfig) -> Iterator[tuple[RunConfig, StoreState | None]]:
    """The settings with a folder to work in: the output itself, or where it is in a store one that stands for it.

    Raises StorageError where the store cannot be used, or another run is at work there.
    """
    if not config.store:
        yield config, None
        return
    root = Path(mkdtemp(prefix="output-", dir=scratch_folder()))
    state = StoreState(config.store, root / STATE_FOLDER, config.part)
    with _as_storage_error():
        state.open(fresh=config.fresh and config.part is None)
    try:
        yield replace(config, output=root), state
    except BaseException:
        with suppress(ObjectError, StorageError):  # what ends the run is told already
            state.close()
        raise
    with _as_storage_error():
        state.close()


class StoreState:
    """The state folder of one run, here and in the store."""

    def __init__(self, store: str, folder: Path, part: Shard | None) -> None:
        self._uri = joined(store, STATE_FOLDER)
        self._store, self._folder, self._part = store, folder, part
        self._process = f"process {os.getpid()} on {socket.gethostname()}"
        self._lock_uri = joined(self._uri, f"lock{state_ending(part)}.json")
        self._prefix = ""
        self._own_part = self._folder / _LEDGER
        self._pushed: list[str] = []  # small parts of this run, by name
        self._num_parts = 0
        self._done_bytes = self._group_bytes = 0  # of this run's lines: in the store; and in parts that stay
        self._sent: dict[str, bytes] = {}
        self._pushing = threading.Lock()
        self._ended = threading.Event()
        self._error: ObjectError | None = None
        self._beat_at_s = 0.0
        self._thread = threading.Thread(target=self._keep_up, name="store-state", daemon=True)

    def open(self, *, fresh: bool) -> None:
        """Take the lock, and bring the ledger here; with `fresh` it is archived. Raises ObjectError, StorageError."""
        names = names_below(self._uri)
        self._wait_for_others([name for name in names if name.startswith("lock") and name.endswith(".json")])
        self._beat()
        parts = sorted(name for name in names if name.startswith(_LEDGER))
        numbers = [int(name[len(_LEDGER) :][:6]) for name in parts if name[len(_LEDGER) :][:6].isdigit()]
        archived = sorted(name for name in names if name.startswith(_ARCHIVE))
        if fresh:
            for name, content in zip(parts, _contents(self._uri, parts), strict=True):
                write_bytes(joined(self._uri, _ARCHIVE + name[len(_LEDGER) :]), content)
                archived.append(_ARCHIVE + name[len(_LEDGER) :])
            _remove_all(self._uri, parts)
            parts = []
        self._prefix = f"{max(numbers, default=0) + 1:06d}-{self._part.name if self._part else 'whole'}"
        _bring_ledger(self._uri, parts, archived, self._folder)
        self._own_part /= "000002.jsonl" if parts else "000001.jsonl"  # what `Ledger` will write to
        self._thread.start()

    def begin(self) -> None:
        """Show that the run has begun: its small files are there, and the summary of the one before is not."""
        with _as_storage_error():
            remove(joined(self._uri, f"summary{state_ending(self._part)}.json"))
            self._push_files()

    def announced(self, tasks: Iterable[RowTask]) -> Iterator[RowTask]:
        """The same tasks, each once the store knows that it was begun. Raises StorageError where it cannot be told."""
        tasks = iter(tasks)
        while block := list(islice(tasks, BLOCK_ROWS)):
            with _as_storage_error():
                if self._error is not None:
                    raise self._error
                self._push_lines()
            yield from block

    def close(self) -> None:
        """Bring everything into the store and give the lock back. Raises ObjectError."""
        self._ended.set()
        self._thread.join()
        try:
            self._push_lines()
            self._put_together()
            self._push_files()
        finally:
            remove(self._lock_uri)

    # ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _push_lines(self) -> None:
        with self._pushing:
            lines = self._lines(self._done_bytes)
            if lines:
                self._num_parts += 1
                name = f"{_LEDGER}{self._prefix}-{self._num_parts:06d}.jsonl"
                write_bytes(joined(self._uri, name), lines)
                self._pushed.append(name)
                self._done_bytes += len(lines)
            if len(self._pushed) >= SMALL_PARTS:
                self._put_together()

    def _lines(self, start: int) -> bytes:
        """Whole lines of this run's part of the ledger, from that byte on."""
        if not self._own_part.exists():
            return b""
        with self._own_part.open("rb") as file:
            file.seek(start)
            lines = file.read()
        return lines[: lines.rfind(b"\n") + 1]

    def _put_together(self) -> None:
        """Make one part of the small ones, under the name of the last: reading them twice in between does no harm."""
        if len(self._pushed) < 2:
            return
        *others, last = self._pushed
        write_bytes(joined(self._uri, last), self._lines(self._group_bytes)[: self._done_bytes - self._group_bytes])
        _remove_all(self._uri, others)
        self._pushed = []
        self._group_bytes = self._done_bytes

    # ── the lock and the small files ─────────────────────────────────────────────────────────────────────────────────

    def _keep_up(self) -> None:
        while not self._ended.wait(PUSH_S):
            try:
                self._push_lines()
                if time.monotonic() - self._beat_at_s >= BEAT_S:
                    self._beat()
            except ObjectError as error:
                self._error = error

    def _beat(self) -> None:
        self._beat_at_s = time.monotonic()
        write_bytes(self._lock_uri, json.dumps({"process": self._process, "at": time.time()}).encode())

    def _wait_for_others(self, locks: list[str]) -> None:
        """Until no lock of another run is alive; raises StorageError where one is."""
        for name in locks:
            ending = name.removeprefix("lock").removesuffix(".json")
            beside = self._part is not None and ending.endswith(f"-of-{self._part.count}")
            if beside and ending != state_ending(self._part):
                continue  # another shard of the same n
            about = _read_json(joined(self._uri, name))
            until_s = time.monotonic() + STALE_S
            while about is not None and _may_live(about) and time.monotonic() < until_s:
                again = about if _is_here(about) else _read_json(joined(self._uri, name))
                if _is_here(about) or (again is not None and again != about):
                    raise StorageError(
                        f"{self._store} is in use by another run ({about.get('process')}); wait for it to end, or "
                        "choose another --output"
                    )
                about = again
                time.sleep(2.0)

    def _push_files(self) -> None:
        for path in sorted(self._folder.iterdir()):
            if path.suffix in (".json", ".csv", ".log") and path.is_file():
                content = path.read_bytes()
                if self._sent.get(path.name) != content:
                    write_bytes(joined(self._uri, path.name), content)
                    self._sent[path.name] = content


@contextmanager
def state_copy(store: str) -> Iterator[Path]:
    """A folder with a copy of the state of an output in a store, for as long as it is looked at.

    The lock of a run that is alive is in it, as text that says who it is. Raises StorageError.
    """
    root = Path(mkdtemp(prefix="state-", dir=scratch_folder()))
    folder = root / STATE_FOLDER
    uri = joined(store, STATE_FOLDER)
    with _as_storage_error("read the state of the runs"):
        names = sorted(names_below(uri))
        parts = [name for name in names if name.startswith(_LEDGER)]
        _bring_ledger(uri, parts, [name for name in names if name.startswith(_ARCHIVE)], folder)
        small = [name for name in names if "/" not in name and not name.endswith(".log")]
        for name, content in zip(small, _contents(uri, small), strict=True):
            if name.startswith("lock"):
                about = json.loads(content)
                if _may_live(about):
                    (folder / name.removesuffix(".json")).write_text(about["process"] + "\n", "utf-8")
            else:
                (folder / name).write_bytes(content)
    yield root


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
            put_back(store, root, "summary.json", "failures.csv")


def put_back(store: str, root: Path, *names: str) -> None:
    """Send files of a state copy to the store. Raises StorageError."""
    with _as_storage_error():
        for name in names:
            if not (root / STATE_FOLDER / name).exists():
                continue
            write_bytes(joined(store, f"{STATE_FOLDER}/{name}"), (root / STATE_FOLDER / name).read_bytes())


def _bring_ledger(uri: str, parts: list[str], archived: list[str], folder: Path) -> None:
    for names, place in ((parts, folder / _LEDGER), (archived, folder / _ARCHIVE / "000001")):
        place.mkdir(parents=True)
        if not names:
            continue
        with (place / "000001.jsonl").open("wb") as file:
            file.writelines(_contents(uri, names))


def _contents(uri: str, names: list[str]) -> Iterator[bytes]:
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        yield from pool.map(lambda name: read_bytes(joined(uri, name)), names)


def _remove_all(uri: str, names: list[str]) -> None:
    with ThreadPoolExecutor(NUM_REQUESTS) as pool:
        list(pool.map(lambda name: remove(joined(uri, name)), names))


def _read_json(uri: str) -> dict[str, Any] | None:
    try:
        value = json.loads(read_bytes(uri))
    except ObjectError as error:
        if error.trouble == "missing":
            return None
        raise
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_here(about: dict[str, Any]) -> bool:
    return str(about.get("process", "")).endswith(f" on {socket.gethostname()}")


def _may_live(about: dict[str, Any]) -> bool:
    """Whether the holder of a lock is alive, as far as this machine and its clock can tell."""
    words = str(about.get("process", "")).split()
    if _is_here(about) and words[1:2] and words[1].isdigit():
        if int(words[1]) == os.getpid():
            return False
        try:
            os.kill(int(words[1]), 0)
        except ProcessLookupError:
            return False
        except OSError:  # alive, under another user
            return True
        return True
    return time.time() - float(about.get("at", 0)) < STALE_S


@contextmanager
def _as_storage_error(verb: str = "keep the state of the run") -> Iterator[None]:
    try:
        yield
    except ObjectError as error:
        raise error.for_run(verb) from error
