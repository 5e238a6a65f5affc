"""One name for each file; and where a result may go: inside the output folder, and never onto an input."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from inpaint_batch.errors import FailureCode, RowError, StorageError
from inpaint_batch.storage.atomic import is_temporary, probe_folder
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import NAMED_SUFFIXES, Row

STATE_FOLDER = ".inpaint-batch"
"""Folder inside the output root that holds ledger, summary and `failures.csv`; no row may write there."""

MAX_NAME_BYTES = 255
"""Of one name in a path, on every file system in use."""

_PLAIN = re.compile(r"\w[\w .-]*(?:/\w[\w .-]*)*")  # nearly all names; nothing below can object to one of these
_DRIVE = re.compile(r"[A-Za-z]:")


def location(path: str) -> str:
    """One name for one file: absolute, and without `..`, which `failures.csv` is full of. URIs stay as they are.

    Links stay, too, unless there is a `..` that may lead out of one: following them means a look at every folder.
    """
    if is_uri(path):
        return path
    if not path.startswith("/"):
        path = os.path.abspath(path)  # noqa: PTH100
    if "/../" in path or "/./" in path or "//" in path:
        folder, name = os.path.split(path)
        return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
    return path


def relative_to(folder: Path, *, within_home: bool = True) -> Callable[[str], str]:
    """What turns paths into such that count from `folder`; absolute where links lead to a file.

    Without `within_home` also where no folder holds both but the root, the home folder or one above it: such two do
    not travel together.
    """
    root = folder.resolve()
    home = os.path.expanduser("~")  # noqa: PTH111  (which raises nothing where there is none)

    @lru_cache(maxsize=4096)
    def seen_from_there(parent: str) -> str:
        if not within_home and Path(os.path.realpath(home)).is_relative_to(os.path.commonpath([root, parent])):
            return parent
        way = os.path.relpath(parent, root)  # from the root without links: `..` out of one leads elsewhere than it says
        # A run that goes this way follows all links. Where there are any, files would have other names in its ledger.
        return way if os.path.realpath(f"{root}/{way}") == parent else parent

    def relative(path: str) -> str:
        if is_uri(path):
            return path
        parent, name = os.path.split(location(path))
        return os.path.normpath(f"{seen_from_there(parent)}/{name}")

    return relative


def output_problem(relative: str) -> str | None:
    """Why `relative` cannot name an output below the output folder, as a clause to put after its name; None if it can.

    Looks at the text only. Backslashes are refused everywhere: one manifest means the same files on every system.
    """
    if len(relative) <= MAX_NAME_BYTES // 4 and _PLAIN.fullmatch(relative):  # a character has 4 bytes at most
        return None
    parts = relative.split("/")
    if not relative.strip():
        return "is empty; leave the column out to mirror the image's own path"
    if "\0" in relative:
        return "contains a NUL character"
    if "\\" in relative:
        return "contains a backslash; write paths with forward slashes"
    if relative.startswith("/") or _DRIVE.match(relative):
        return "is an absolute path; write it relative to the output folder"
    if ".." in parts:
        return "leaves the output folder through '..'; name a path inside it"
    if "" in parts or "." in parts:
        return "has an empty or '.' part; write it as folder/name.jpg"
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for part in parts):
        return f"has a name of more than {MAX_NAME_BYTES} bytes; give it a shorter one in the output column"
    if parts[0].casefold() == STATE_FOLDER:
        return f"lies in {STATE_FOLDER}/, where the run keeps its own state; choose another folder"
    if is_temporary(parts[-1]):
        return "has the name of an unfinished output, which the next run would delete; choose another name"
    return None


def safe_join(root: Path, relative: str) -> Path:
    """`root / relative`, certain to lie inside `root`, also where folders on the way are symbolic links.

    The last part may itself be a link: an atomic write replaces the link and leaves its target alone. Creates nothing.
    Raises RowError(WRITE) where the path would leave `root` or cannot be followed.
    """
    problem = output_problem(relative)
    if problem is not None:
        raise RowError(FailureCode.WRITE, f"output {relative!r} {problem}")
    destination = root / relative
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            destination.parent.stat()  # finds a loop of links; resolve() follows what it can, from Python 3.13 on
        inside = destination.parent.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, not encodable
        raise RowError(FailureCode.WRITE, f"output {relative!r} cannot be a path here: {error}") from error
    if not inside:
        raise RowError(
            FailureCode.WRITE,
            f"output {relative!r} leaves the output folder through a symbolic link; remove it or name another path",
        )
    return destination


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder and its subfolders, in any order; hidden ones and what lies in hidden folders left out.

    A Mac keeps a `._a.jpg` beside each `a.jpg` on disks of others, which is no image.
    """
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts) and path.is_file():
            yield path


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder.

    Raises OSError where it cannot be read. `Path.glob` says of such a folder that nothing is in it.
    """
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208  (names, by the million perhaps)
    except (FileNotFoundError, NotADirectoryError):
        return []


def composed(name: str) -> str:
    """`name` with accents in one way (NFC): what others write as `é` is `e` and an accent in names from macOS."""
    return unicodedata.normalize("NFC", name)


def folds_names(folder: Path) -> bool:
    """Whether names that differ in case alone are one file in `folder`: on macOS, and on many shares and sticks.

    Asks for an entry of it by another case, or of the nearest folder that is there; False where no entry can tell.
    """
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.isascii() and (other := entry.name.swapcase()) != entry.name:
                return os.path.samefile(entry.path, folder / other)  # noqa: PTH121
    return False


def refuse_input(destination: Path, row: Row) -> None:
    """Raise RowError(WRITE) if writing `destination` would replace the image, the mask or the truth of `row`."""
    if not os.path.lexists(destination):
        return
    try:
        there = destination.stat()
    except OSError:  # a link to nothing
        there = None
    for role, location in row.inputs():
        if _same_file(location, there) if there is not None else _same_name(Path(location), destination):
            raise RowError(
                FailureCode.WRITE,
                f"the output {destination} is the {role} of this row; choose an output folder away from the input",
            )


def _same_file(location: str, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(location), there)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _same_name(first: Path, second: Path) -> bool:
    return first.parent.resolve() / first.name == second.parent.resolve() / second.name


def _is_one_folder(first: Path, second: Path) -> bool:
    """Also where one is written in another case, as macOS allows it, or is a second way to the other (a mount)."""
    try:
        return first == second.resolve() or first.samefile(second)
    except OSError:  # one of them is not there
        return False


def check_output_root(output: Path, inputs: Iterable[Path | str | None], *, create: bool = True) -> None:
    """Refuse an output folder that cannot be used; raises StorageError.

    `inputs` are what is read. Folders among them are read as a whole (one of images, one of masks): the output must not
    be one of them nor lie inside one, or the next run would restore its own results. With `create` the folder is made
    and a file written and removed; without it (a dry check) only the permissions of the nearest existing folder count.
    """
    try:
        resolved = output.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise StorageError(f"the output folder {output} cannot be used: {error}") from error
    for folder in (one for one in inputs if isinstance(one, Path) and one.is_dir()):
        around = next((one for one in (resolved, *resolved.parents) if _is_one_folder(one, folder)), None)
        if around is not None:
            where = "is the input folder" if around == resolved else f"lies inside the input folder {folder}"
            raise StorageError(f"the output folder {output} {where}; choose one outside, such as ../restored")
    if output.suffix.lower() in NAMED_SUFFIXES and not os.path.lexists(resolved):
        raise StorageError(
            f"the output folder {output} has the name of an image; name a folder, in which the result of an image has "
            "its name, or make this one first"
        )
    nearest = resolved
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        raise StorageError(f"the output folder {output} cannot be made: {nearest} is not a folder; choose another name")
    if create:
        probe_folder(output)
    elif not os.access(nearest, os.W_OK | os.X_OK):
        raise StorageError(f"cannot write in {nearest}; change its permissions or choose another output folder")
