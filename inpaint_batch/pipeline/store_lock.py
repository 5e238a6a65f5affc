"""Who is at work on an output in a store.

Stores have no locks. So a run renews an object that says who it is, and one that is not renewed for STALE_S seconds
belongs to a run that died. A run that finds the name of another in it ends: it was taken for dead, or both began within
the same second.
"""

from __future__ import annotations

import json
import math
import time
from typing import Any

from inpaint_batch.config import Shard
from inpaint_batch.errors import StorageError
from inpaint_batch.processes import lives, process_name
from inpaint_batch.report.summary import state_ending
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import read_bytes, remove, write_bytes
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.uris import joined

BEAT_S = 15.0
"""Seconds after which a run renews its lock."""
STALE_S = 60.0
"""Seconds without renewal after which a lock counts as left behind."""
POLL_S = 2.0
"""Seconds between two looks at somebody else's lock."""


class StoreLock:
    """The lock of one run."""

    def __init__(self, store: str, part: Shard | None) -> None:
        """Nothing is asked of the store yet. Shards of one count do not keep each other out."""
        self._store, self._part = store, part
        self._process = process_name()
        self._ending = state_ending(part)
        self._name = f"lock{self._ending}.json"
        self._beat_at_s = 0.0

    def take(self, names: list[str]) -> None:
        """Wait until no lock among these names, relative to the state's folder, is alive; then show our own.

        Raises StorageError where another run is at work, and ObjectError.
        """
        for name in names:
            if name.startswith("lock") and name.endswith(".json"):
                self._wait_for(name)
        self._beat()

    def keep(self, *, at_once: bool = False) -> None:
        """Renew it where that is due, or `at_once`. Raises ObjectError, and StorageError where another run has it."""
        if at_once:
            self._beat_at_s = -math.inf  # and where it is another's by now, ask again the next time
        if time.monotonic() - self._beat_at_s >= BEAT_S:
            about = _read_json(self._uri(self._name))
            if about is not None and about["process"] != self._process:
                raise StorageError(
                    f"another run ({about['process']}) has taken over {self._store}, since this one did not show "
                    "in time that it lives, or both began at once; wait for that one to end, then run again"
                )
            self._beat()

    def give_back(self) -> None:
        """Remove it, unless another run has it by now. Raises ObjectError."""
        about = _read_json(self._uri(self._name))
        if about is not None and about["process"] == self._process:
            remove(self._uri(self._name))

    def _uri(self, name: str) -> str:
        return joined(self._store, f"{STATE_FOLDER}/{name}")

    def _beat(self) -> None:
        about = {"process": self._process, "at": time.time()}
        write_bytes(self._uri(self._name), json.dumps(about).encode())
        self._beat_at_s = time.monotonic()

    def _wait_for(self, name: str) -> None:
        ending = name.removeprefix("lock").removesuffix(".json")
        if self._part is not None and ending.endswith(f"-of-{self._part.count}") and ending != self._ending:
            return  # another shard of the same n
        about = _read_json(self._uri(name))
        until_s = time.monotonic() + STALE_S
        while about is not None and (may_live(about) or _is_late(about)) and time.monotonic() < until_s:
            again = about if _is_here(about) else _read_json(self._uri(name))
            if _is_here(about) or (again is not None and again != about):
                raise StorageError(
                    f"{self._store} is in use by another run ({about['process']}); wait for it to end, or choose "
                    "another --output"
                )
            about = again
            time.sleep(POLL_S)


def _read_json(uri: str) -> dict[str, Any] | None:
    try:
        return holder_in(read_bytes(uri))
    except ObjectError as error:
        if error.trouble == "missing":
            return None
        raise


def _is_here(about: dict[str, Any]) -> bool:
    return lives(about["process"]) is not None and may_live(about)


def _is_late(about: dict[str, Any]) -> bool:
    """Whether a process of that number is on this machine, which does not renew its lock: it was suspended, and may go
    on, or it is another one by now.
    """
    return about["process"] != process_name() and lives(about["process"]) is True


def holder_in(content: bytes) -> dict[str, Any] | None:
    """What a lock says of who holds it; None where it is damaged."""
    try:
        value = json.loads(content)
        return {"process": str(value["process"]), "at": float(value["at"])}
    except (ValueError, TypeError, KeyError):
        return None


def may_live(about: dict[str, Any]) -> bool:
    """Whether the holder of a lock is alive, as far as this machine and its clock can tell."""
    holder = about["process"]
    if holder == process_name():  # what we ourselves left behind
        return False
    return lives(holder) is not False and time.time() - about["at"] < STALE_S
