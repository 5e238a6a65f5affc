"""A location as a file of this machine: the file itself, or a copy of an object for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import fetch
from inpaint_batch.storage.scratch import scratch_file
from inpaint_batch.storage.uris import is_uri


@contextmanager
def on_this_machine(location: str, role: str) -> Iterator[Path]:
    """Where `location` can be opened; of a URI, a copy that is fetched now and removed at the end.

    `role` is what it is to its row, for messages: image, mask, output. Raises RowError(READ) where the object cannot be
    fetched or there is no room for it, and StorageError where the store refuses to answer at all.
    """
    if not is_uri(location):
        yield Path(location)
        return
    with ExitStack() as life:
        try:
            path = life.enter_context(scratch_file(location))
            fetch(location, path)
        except ObjectError as error:
            raise error.for_row(location, role) from error
        except OSError as error:
            raise RowError(
                FailureCode.READ,
                f"there is no room for a copy of the {role} {location} in the folder for temporary files "
                f"({error.strerror}); free some, or set TMPDIR to a folder with more",
                retryable=True,
            ) from error
        yield path
