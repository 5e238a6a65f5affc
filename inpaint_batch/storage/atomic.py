"""A file appears under its name whole and on disk, or not at all.

The bytes go to a temporary file in the same folder, are synced, and are renamed over the destination. What a killed
run leaves behind is a temporary with a name that `remove_stale_temporaries` knows::

    .scan-0017.jpg.inpaint-batch-4711-3f9c0d1e2a5b.tmp      pid 4711; 4 digits of host and writer, 8 random ones

A *writer* is one of several runs that share an output folder, such as a shard; the only run of a folder has no name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.processes import may_run, pid_and_host

_WHOLE = MappingProxyType({"": ""})
"""A run of the whole manifest, of whose process nothing is known."""
STALE_AFTER_S = 24 * 3600.0
"""A temporary that has not been touched for so long is stale, whoever wrote it."""

MAX_NAME_BYTES = 255
_TEMPORARY = re.compile(r"\.(?P<name>.*)\.inpaint-batch-(?P<pid>\d+)-(?P<host>[0-9a-f]{4})[0-9a-f]{8}\.tmp", re.DOTALL)


def _digits(writer: str, host: str = "") -> str:
    host = host or socket.gethostname()
    name = f"{host}\0{writer}" if writer else host
    return hashlib.blake2b(name.encode(), digest_size=2).hexdigest()


_HOST = _digits("")
_signed_as = ""  # what signs our temporaries, where it is not our own pid and host
_in_flight: dict[str, Path] = {}  # the temporaries that this process is writing now, by name

_STORE_ERRORS = {
    errno.ENOSPC: "the disk is full; free some space and run again to go on",
    errno.EDQUOT: "the disk quota is used up; free some space and run again to go on",
    errno.EROFS: "the file system is read-only; choose another output folder",
    errno.ESTALE: "the network file system has lost it (stale handle); mount it again, then run again to go on",
    errno.ENOTCONN: "the file system it lies on is gone; mount it again, then run again to go on",  # of FUSE
}
_PERMISSION_ERRORS = (errno.EACCES, errno.EPERM)


def storage_error(error: BaseException, path: Path) -> StorageError | None:
    """The run-level error behind a failed write to `path`: disk full, quota, read-only, lost, folder not writable.

    None where `error` concerns this one file only. Follows `__cause__` and `__context__`, and knows the system's own
    sentence ("No space left on device") where a codec library reports it in an exception that is not an OSError.
    """
    link: BaseException | None = error
    while link is not None:
        for number, advice in _STORE_ERRORS.items():
            if getattr(link, "errno", None) == number or os.strerror(number) in str(link):
                return StorageError(f"cannot write {path}: {advice}")
        if isinstance(link, OSError) and link.errno in _PERMISSION_ERRORS:
            folder = _nearest_folder(path)
            if not os.access(folder, os.W_OK | os.X_OK):
                return StorageError(f"cannot write in {folder}; change its permissions or choose another output folder")
        link = link.__cause__ or link.__context__
    return None


def is_temporary(name: str) -> bool:
    """Whether `name` is one that `atomic_write` gives to an unfinished file."""
    return name.endswith(".tmp") and _TEMPORARY.fullmatch(name) is not None


def final_path(path: Path) -> Path:
    """The path that an unfinished file will get in the end (cut short where the name is very long); others unchanged.

    What people are told about is the output, not its temporary name.
    """
    match = _TEMPORARY.fullmatch(path.name) if path.name.endswith(".tmp") else None
    return path.with_name(match["name"]) if match and match["name"] else path


@contextmanager
def atomic_write(destination: Path) -> Iterator[Path]:
    """Yield an empty temporary file beside `destination`; on leaving, sync it and rename it over `destination`.

    Missing folders are made. The file gets the mode of any new file (0666 less the umask). On any error the temporary
    is removed and what stood at `destination` stays. Raises StorageError where nothing can be written at all (see
    `storage_error`) and RowError(WRITE) where this file cannot; other errors of the body pass as they are, those of a
    file that cannot be read (RowError(READ)) among them.
    """
    temporary: Path | None = None
    is_there = False
    try:
        with _own_errors(destination):
            made = _make_folders(destination.parent)
            temporary = _new_temporary(destination)
        try:
            yield temporary
        except Exception as error:
            is_told = isinstance(error, StorageError) or (
                isinstance(error, RowError) and error.code is FailureCode.READ
            )
            if not is_told and (mapped := storage_error(error, destination)) is not None:
                raise mapped from error
            raise
        with _own_errors(destination):
            _sync_file(temporary)
            temporary.replace(destination)
            is_there = True
            for folder in (destination.parent, *made):
                sync_folder(folder)
    finally:
        if temporary is not None:
            with suppress(OSError):  # an error on its way must not be hidden by this one
                if not is_there:
                    temporary.unlink(missing_ok=True)
            _in_flight.pop(temporary.name, None)


def sync_folder(folder: Path) -> None:
    """Make new names in `folder` durable, on file systems where a folder can be synced at all. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems do not know it
            raise
    finally:
        os.close(descriptor)


def give_up_temporaries() -> None:
    """Remove what this process is writing and has not finished, for a process that is about to end with threads at it.

    A file that has lost its temporary cannot appear under its name any more.
    """
    for path in list(_in_flight.values()):
        with suppress(OSError):
            path.unlink(missing_ok=True)


@contextmanager
def temporaries_of(writer: str) -> Iterator[str]:
    """Within it, temporaries carry the name of this writer; yields the signature, for helpers of this process."""
    with signing_as(f"{os.getpid()}-{_digits(writer)}" if writer else ""):
        yield _signed_as or f"{os.getpid()}-{_HOST}"


@contextmanager
def signing_as(signature: str) -> Iterator[None]:
    """Within it, temporaries look as if the process with this signature wrote them, and go stale when it ends."""
    global _signed_as
    before, _signed_as = _signed_as, signature
    try:
        yield
    finally:
        _signed_as = before


def remove_stale_temporaries(root: Path, writers: Mapping[str, str] = _WHOLE) -> int:
    """Delete what killed runs of `writers` left below `root`; returns how many files that were.

    Each comes with the process that is known to be gone (`process_name`), or with nothing: what that process left is
    removed wherever it was, on another machine too. So are temporaries of processes of this host that are gone, of
    this process where it is not writing them now (a container starts with the same pid again), and any that is older
    than STALE_AFTER_S. Those of other hosts are younger than that while in use, so shards that share an output folder
    do not disturb each other. Follows no links.
    """
    removed = 0
    ours = {_digits(writer) for writer in writers}
    gone = set()
    for writer, process in writers.items():
        if (found := pid_and_host(process)) is not None:
            pid, host = found
            gone.add((pid, _digits(writer, host)))
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith(".tmp") and (match := _TEMPORARY.fullmatch(name)) is not None:
                path = Path(folder, name)
                with suppress(OSError):
                    pid, host = int(match["pid"]), match["host"]
                    if ((pid, host) in gone and name not in _in_flight) or _is_stale(path, pid, host in ours):
                        path.unlink()
                        removed += 1
    return removed


def probe_folder(folder: Path) -> None:
    """Make `folder` and write and remove a file in it; raises StorageError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = _new_temporary(folder / "probe")
        try:
            temporary.write_bytes(b"probe")
        finally:
            temporary.unlink(missing_ok=True)
            _in_flight.pop(temporary.name, None)
    except OSError as error:
        known = storage_error(error, folder / "probe")
        raise known or StorageError(f"the output folder {folder} cannot be used: {error.strerror}") from error


def _is_stale(path: Path, pid: int, is_ours: bool) -> bool:
    if time.time() - path.stat().st_mtime > STALE_AFTER_S:
        return True
    if not is_ours:
        return False
    if pid == os.getpid():
        return path.name not in _in_flight
    return not may_run(pid)  # else it is left to its age


def _new_temporary(destination: Path) -> Path:
    ending = f".inpaint-batch-{_signed_as or f'{os.getpid()}-{_HOST}'}{secrets.token_hex(4)}.tmp"
    stem = os.fsencode(destination.name)[: MAX_NAME_BYTES - 1 - len(ending)]  # the destination itself may be 255 bytes
    temporary = destination.with_name("." + stem.decode("utf-8", "ignore") + ending)
    _in_flight[temporary.name] = temporary
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except BaseException:
        _in_flight.pop(temporary.name, None)
        raise
    return temporary


def _make_folders(folder: Path) -> list[Path]:
    """Make `folder` with its parents; returns the folders that got a new entry, to be synced with the file."""
    if folder.is_dir():  # as for nearly all files
        return []
    changed = []
    missing = folder
    while not missing.exists() and missing != missing.parent:
        missing = missing.parent
        changed.append(missing)
    folder.mkdir(parents=True, exist_ok=True)
    return changed


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)  # as for writing: some systems sync nothing else
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _nearest_folder(path: Path) -> Path:
    folder = path.absolute().parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


@contextmanager
def _own_errors(destination: Path) -> Iterator[None]:
    """Turn the OSErrors of our own steps into StorageError or RowError(WRITE)."""
    try:
        yield
    except (OSError, ValueError) as error:
        known = storage_error(error, destination)
        if known is not None:
            raise known from error
        reason = getattr(error, "strerror", None) or str(error)
        raise RowError(FailureCode.WRITE, f"cannot write {destination}: {reason}", retryable=True) from error
