"""What goes wrong with the file of an image, as the error of its row: as it is read, refused, written, read back."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from inpaint_batch.errors import FailureCode, InpaintBatchError, RowError
from inpaint_batch.storage.atomic import final_path
from inpaint_batch.storage.byte_ranges import UnreadableError

_BAD_PATHS = {
    errno.ELOOP: "is a link that leads back to itself; mend the link or name another file",
    errno.ENAMETOOLONG: "has a name that is too long for this file system; correct the path in the manifest",
}


@contextmanager
def reading(path: Path, what: str = "image") -> Iterator[None]:
    """Turn whatever goes wrong inside into one `RowError` about `path`. `what` is "image" or "mask".

    Errors that concern the whole run pass as they are, such as those of a store that is asked meanwhile.
    """
    try:
        yield
    except (RowError, InpaintBatchError):
        raise
    except FileNotFoundError:
        raise RowError(FailureCode.READ, f"the {what} {path} {_why_missing(path)}") from None
    except NotADirectoryError:
        message = f"the {what} {path} lies below a file, not a folder; correct the path in the manifest"
        raise RowError(FailureCode.READ, message) from None
    except IsADirectoryError:
        raise RowError(FailureCode.READ, f"the {what} {path} is a folder; name a file in the manifest") from None
    except PermissionError:
        raise RowError(FailureCode.READ, f"the {what} {path} may not be read; check its permissions") from None
    except OSError as error:
        if error.errno in _BAD_PATHS:
            message = f"the {what} {path} {_BAD_PATHS[error.errno]}"
            raise RowError(FailureCode.READ, message) from None
        reason = error.strerror or error
        message = f"the {what} {path} could not be read: {reason}; check the disk or share it lies on, then run again"
        raise RowError(FailureCode.READ, message, retryable=True) from error
    except MemoryError:
        message = f"there was no memory left to decode the {what} {path}; use fewer workers or a larger machine"
        raise RowError(FailureCode.MEMORY, message, retryable=True) from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        message = f"the {what} {path} is damaged or truncated ({error}); replace it with a sound copy"
        raise RowError(FailureCode.READ, message) from error


def opened(path: Path) -> BinaryIO:
    """The file of an image, open; raises as `reading` does, so that nobody takes it for one that is written."""
    with reading(path):
        return path.open("rb")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into one `RowError` (write, memory; read: what it is a copy of).

    Other `RowError`s pass, and errors that concern the whole run.
    """
    try:
        yield
    except (RowError, InpaintBatchError):
        raise
    except UnreadableError as error:
        with reading(Path(error.filename)):
            raise
    except OSError as error:
        reason = error.strerror or error
        message = (
            f"the output {final_path(path)} could not be written: {reason}; check free space and permissions, then run "
            "again"
        )
        raise RowError(FailureCode.WRITE, message, retryable=True) from error
    except MemoryError:
        message = f"there was no memory left to write {final_path(path)}; use fewer workers or a larger machine"
        raise RowError(FailureCode.MEMORY, message, retryable=True) from None
    except Exception as error:  # encoders raise whatever they like
        message = (
            f"the output {final_path(path)} could not be encoded ({type(error).__name__}: {error}); please report this "
            "with the image"
        )
        raise RowError(FailureCode.WRITE, message) from error


@contextmanager
def verifying(path: Path) -> Iterator[None]:
    """Like `writing`, for reading `path` back: what cannot be read there was not written well.

    Where it is the source that cannot be read any more, its error (read) passes.
    """
    with writing(path):
        try:
            yield
        except RowError as error:
            if error.code == FailureCode.READ and str(path) in error.message:
                raise spoiled(path, error.message) from error
            raise


def _why_missing(path: Path) -> str:
    """What to say of a path where there is nothing, and what to do about it."""
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist; mend the link or name another file"
    if "\\" in path.name:
        return "does not exist; write the paths in the manifest with forward slashes, and as they are on this machine"
    if any(os.path.exists(unicodedata.normalize(form, str(path))) for form in ("NFC", "NFD")):  # noqa: PTH110
        return "does not exist, but one with the accents put together otherwise does; write its name as `ls` prints it"
    if os.path.exists("/".join(part.strip() for part in str(path).split("/"))):  # noqa: PTH110
        return "does not exist, but one without the spaces around its name does; take them out of the manifest"
    for suffix in (path.suffix.lower(), path.suffix.upper()):
        if path.with_suffix(suffix).exists():
            return f"does not exist, but {path.with_suffix(suffix).name} does; write its name as it is on this machine"
    return "does not exist; correct the path in the manifest"


def refuse(path: Path, kind: str, advice: str, what: str = "image") -> RowError:
    """The error for a file that is sound but of a kind that cannot be kept exactly (an image) or used (a mask)."""
    reason = "cannot be kept exactly" if what == "image" else f"cannot serve as a {what}"
    return RowError(FailureCode.READ, f"the {what} {path} is {kind}, which {reason}; {advice}")


def damaged(path: Path, detail: str, what: str = "image") -> RowError:
    """The error for a file that is not what its first bytes promise."""
    return RowError(FailureCode.READ, f"the {what} {path} is damaged: {detail}; replace it with a sound copy")


def spoiled(path: Path, detail: str) -> RowError:
    """The error for an output that read back different from what was meant."""
    message = (
        f"the output {final_path(path)} read back wrong: {detail}; check the disk, and report this if it happens again"
    )
    return RowError(FailureCode.WRITE, message, retryable=True)


def check_budget(
    path: Path, width_px: int, height_px: int, bytes_per_pixel: int, max_bytes: int, what: str = "image"
) -> None:
    """Raise `RowError`: memory if the decoded samples would take more than `max_bytes`, read if there are none."""
    if width_px < 1 or height_px < 1:
        raise damaged(path, f"its header says {width_px} x {height_px} px", what)
    needed_bytes = width_px * height_px * bytes_per_pixel
    if needed_bytes > max_bytes:
        message = (
            f"the {what} {path} is {width_px} x {height_px} px and takes {needed_bytes / 2**20:.0f} MiB decoded, over "
            f"the limit of {max_bytes / 2**20:.0f} MiB; raise --max-image-megabytes if the file can be trusted"
        )
        raise RowError(FailureCode.MEMORY, message)


def check_file_size(path: Path, num_bytes: int, max_bytes: int, what: str = "image") -> None:
    """Raise `RowError` (memory) for a file that is itself larger than the budget for its samples."""
    if num_bytes > max_bytes:
        message = (
            f"the {what} {path} is {num_bytes >> 20} MiB on disk, over the limit of {max_bytes >> 20} MiB; raise "
            "--max-image-megabytes if the file can be trusted"
        )
        raise RowError(FailureCode.MEMORY, message)
