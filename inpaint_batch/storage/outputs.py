"""What stands at the place where results go, and under which names they may go there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import each_name_below
from inpaint_batch.storage.paths import composed, folds_names, output_problem, refuse_input, safe_join
from inpaint_batch.storage.uris import joined, split_uri, uri_problem
from inpaint_batch.types import Row

FOLDERS_KEPT = 4096
"""Folders that were found to lie inside the output folder are not followed again, up to so many."""

MAX_KEY_BYTES = 1024
"""Of one object's key, in S3 and Google's store; Azure's takes as many characters."""


class Outputs(Protocol):
    """A folder or a store, by names relative to it."""

    def exists(self, name: str) -> bool:
        """Whether a result of that name is there."""
        ...

    def is_taken(self, name: str) -> bool:
        """Whether anything is there, be it a link to nothing."""
        ...

    def key(self, name: str) -> str:
        """What names of one and the same result have in common."""
        ...

    def place(self, name: str, row: Row) -> tuple[str, bool]:
        """Where the row's result is to be written on this machine, and whether anything is there (see `is_taken`).

        Raises RowError(WRITE) where it may not go.
        """
        ...

    def shown(self, error: RowError) -> RowError:
        """An error about a destination, as it is told to people."""
        ...


class FolderOutputs:
    """Results in a folder; this is where they are written, too."""

    def __init__(self, root: Path, *, read_only: bool = False) -> None:
        """`read_only`: nobody writes there meanwhile, so a folder that is not there need not be looked for again."""
        self._root = root
        self._prefix = os.path.join(root, "")  # noqa: PTH118  (paths are made a million times)
        self._read_only = read_only
        self._folds = folds_names(root)
        self._checked: set[str] = set()  # folders that lie inside, and are there unless nothing is written

    def exists(self, name: str) -> bool:
        """See `Outputs`."""
        return os.path.exists(self._prefix + name)  # noqa: PTH110

    def is_taken(self, name: str) -> bool:
        """See `Outputs`."""
        return os.path.lexists(self._prefix + name)

    def key(self, name: str) -> str:
        """See `Outputs`. What makes no difference of case makes none of how an accent is put together, as a rule."""
        return composed(name).casefold() if self._folds else name

    def place(self, name: str, row: Row) -> tuple[str, bool]:
        """See `Outputs`."""
        destination = self._prefix + name
        folder = name.rpartition("/")[0]
        # Following every link on the way costs more than all else that is decided about a row.
        if folder not in self._checked or (name != row.output and output_problem(name) is not None):
            parent = safe_join(self._root, name).parent
            if len(self._checked) >= FOLDERS_KEPT:
                self._checked.clear()
            if self._read_only or parent.is_dir():
                self._checked.add(folder)
        is_taken = os.path.lexists(destination)
        if is_taken:
            refuse_input(Path(destination), row)
        return destination, is_taken

    def shown(self, error: RowError) -> RowError:
        """See `Outputs`."""
        return error


class StoreOutputs:
    """Results in a store, listed once: one request for a thousand of them, where a look at each would cost one each.

    `root` is a folder on this machine that stands for the store in paths; nothing is written there under these names.
    """

    def __init__(self, store: str, root: Path, *, beside_bytes: int = 0) -> None:
        """`beside_bytes`: see `outputs_at`. Raises StorageError where the store cannot be listed."""
        self._store, self._root = store, root
        self._max_key_bytes = MAX_KEY_BYTES - beside_bytes
        try:
            self._names = {hash(name) for name in each_name_below(store)}  # a number each: there may be millions
        except ObjectError as error:
            raise error.for_run("list the results") from error

    def exists(self, name: str) -> bool:
        """See `Outputs`."""
        return hash(name) in self._names

    def is_taken(self, name: str) -> bool:
        """See `Outputs`."""
        return hash(name) in self._names

    def key(self, name: str) -> str:
        """See `Outputs`."""
        return name

    def place(self, name: str, row: Row) -> tuple[str, bool]:
        """See `Outputs`."""
        if (problem := output_problem(name)) is not None:
            raise RowError(FailureCode.WRITE, f"output {name!r} {problem}")
        uri = joined(self._store, name)
        if uri_problem(uri) is not None:
            raise RowError(
                FailureCode.WRITE,
                f"output {name!r} has a '?' or '#', which no name in a store may have here; give it another one in the "
                "output column of a manifest",
            )
        if len(split_uri(uri).key.encode("utf-8", "surrogateescape")) > self._max_key_bytes:
            beside = " with --sidecar or --premis" if self._max_key_bytes < MAX_KEY_BYTES else ""
            raise RowError(
                FailureCode.WRITE,
                f"output {name[:40]!r}...{beside} makes a key of more than {MAX_KEY_BYTES} bytes, which no store "
                "takes; give it a shorter name in the output column of a manifest",
            )
        for role, location in row.inputs():
            if location == uri:
                raise RowError(
                    FailureCode.WRITE,
                    f"the output {uri} is the {role} of this row; choose an output prefix away from the input",
                )
        return str(self._root / name), self.is_taken(name)

    def shown(self, error: RowError) -> RowError:
        """See `Outputs`."""
        return RowError(error.code, error.message.replace(str(self._root), self._store), retryable=error.retryable)


def outputs_at(store: str, root: Path, *, read_only: bool = False, beside_bytes: int = 0) -> Outputs:
    """The folder `root`, or the store that it stands for where one is named; `read_only`: see `FolderOutputs`.

    `beside_bytes` is what the longest name of a file that is wanted beside a result has more than that.
    """
    if store:
        return StoreOutputs(store, root, beside_bytes=beside_bytes)
    return FolderOutputs(root, read_only=read_only)
