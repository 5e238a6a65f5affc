"""Where an output folder has lain: a project that is moved or copied as a whole keeps what its ledger knows.

The ledger names images by absolute path. Seen from the output folder, those that were moved along are where they were,
so what such an image is called now tells what it was called at an earlier place of the folder, and the other way round.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from inpaint_batch.storage.uris import is_uri

PLACES = "places.txt"
"""In the state folder: every place at which a run has written the ledger, one a line, the first one first."""
MAX_EARLIER = 16
"""Earlier places that are asked, the last ones; each costs a little for each row that is not known as it is."""


class Places:
    """The place of an output folder, and those before."""

    def __init__(self, state: Path, *, read_only: bool) -> None:
        """`state` is `DIR/.inpaint-batch`; unless `read_only`, its place is noted. Raises OSError."""
        self._here = os.path.realpath(state.parent)
        path = state / PLACES
        told = path.read_text("utf-8", "surrogateescape").split("\n") if path.exists() else []
        places = list(dict.fromkeys(place for place in told if place))  # shards that begin together may note it twice
        self._earlier = [place for place in places if place != self._here][-MAX_EARLIER:]
        if not read_only and self._here not in places and "\n" not in self._here:
            with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"\n{self._here}\n")  # a line that was cut short must not swallow this one
        self._of_folder = lru_cache(maxsize=4096)(self._seen)

    def were(self, path: str) -> Iterable[str]:
        """What a file, by its `location`, would have been called at earlier places."""
        if not self._earlier or is_uri(path):
            return ()
        folder, name = os.path.split(path)
        return [f"{old}/{name}" for old in self._of_folder(folder, self._here, tuple(self._earlier))]

    def now(self, path: str) -> str:
        """Where a file lies that the ledger calls so: there, or where it is now if it came along."""
        if not self._earlier or is_uri(path) or os.path.lexists(path):
            return path
        folder, name = os.path.split(path)
        for place in reversed(self._earlier):
            (came,) = self._of_folder(folder, place, (self._here,)) or (folder,)
            if os.path.lexists(f"{came}/{name}"):
                return f"{came}/{name}"
        return path

    @staticmethod
    def _seen(folder: str, place: str, others: tuple[str, ...]) -> list[str]:
        """`folder`, as it is seen from `place`, at the others."""
        way = os.path.relpath(folder, place)
        found = (os.path.normpath(f"{other}/{way}") for other in others)
        return [other for other in found if other != folder]
