"""Rows from a folder of images and a folder of masks, matched by relative path without suffix; or from one image."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Generator, Iterator
from pathlib import Path

from inpaint_batch.errors import FailureCode, ManifestError, RowError, UsageError
from inpaint_batch.manifest.schema import RowProblem
from inpaint_batch.storage.paths import STATE_FOLDER, composed, output_problem
from inpaint_batch.types import IMAGE_SUFFIXES, NAMED_SUFFIXES, UNREAD_SUFFIXES, Row
from inpaint_batch.words import writable

MASK_SUFFIXES = IMAGE_SUFFIXES | {".json", ".geojson", ".rle"}
"""A mask may also be text: polygons, or run lengths."""
_PROJECTS = frozenset((".xcf", ".kra", ".svg"))
"""What programs for drawing keep their own work in, where a mask would be an export of it."""


def read_folder(images: Path, masks: Path) -> Generator[Row | RowProblem]:
    """One row for each image below `images`, folder by folder, sorted; the images of a folder before its folders.

    The mask of `a/b.jpg` is `a/b.jpg.<suffix>` below `masks` where there is one, else `a/b.<suffix>`. Where that leaves
    a choice (two such masks, or two images `b.jpg` and `b.png` for one mask `b.png`), the row is a problem, as it is
    for an image without a mask. Names are the same however their accents are put together. Any of IMAGE_SUFFIXES in
    any case counts, for masks any of MASK_SUFFIXES. Hidden files are left out, links to files are followed, links to
    folders are not; `masks` may lie inside `images`. `line` is the ordinal of the image from 1. If `masks` is a file,
    it is the mask of every image, and not one of them: COCO annotations of all, or a picture that all share. An image
    of UNREAD_SUFFIXES is a row, too, which then fails by what it is; but not beside an image of the same stem that is
    read, which was made of it or with it.

    Raises UsageError where both are one folder, and ManifestError where one is missing; later, while rows are taken,
    ManifestError where a folder cannot be read or there was no image at all. A folder below `images` that this user
    may not read is a problem, too, and the others go on.
    """
    if masks.is_file() and masks.suffix.lower() not in MASK_SUFFIXES:
        raise UsageError(
            f"{masks} is no mask ({', '.join(sorted(MASK_SUFFIXES))}); --masks takes a folder of masks, one mask for "
            "all images, or a COCO file (.json) of the whole folder"
        )
    for folder, role in ((images, "images"), (masks, "masks")):
        if not folder.is_dir() and not (folder is masks and masks.is_file()):
            raise ManifestError(f"the folder of {role} {folder} does not exist or is not a folder")
    if images.samefile(masks):
        raise UsageError(f"images and masks are the same folder {images}; put the masks in a folder of their own")
    return _rows(images.absolute(), masks.absolute())


def read_image(image: Path, mask: Path) -> Generator[Row | RowProblem]:
    """One row: the result has the name of `image`. `mask` is a file, or the folder in which its mask has the name that
    `read_folder` would look for.

    Raises ManifestError where one of the two is missing, and UsageError where they are the same file.
    """
    for path, role in ((image, "image"), (mask, "mask")):
        if not path.exists():
            raise ManifestError(f"the {role} {path} does not exist")
    if image.samefile(mask):
        raise UsageError(f"image and mask are the same file {image}; draw the mask in a file of its own")
    return _row(image.absolute(), mask.absolute())


def _row(image: Path, mask: Path) -> Generator[Row | RowProblem]:
    name = image.name
    try:
        check_name(name)
        if mask.is_dir():
            mask = Path(_Masks(mask, [name]).of(name))
        yield Row(id=name, line=1, image=str(image), mask=str(mask), output=name)
    except RowError as error:
        yield _problem(1, name, str(image), error)


def _problem(line: int, output: str, image: str, error: RowError) -> RowProblem:
    shown, shown_image = map(writable, (output, image))
    return RowProblem(line, shown, error, {"id": shown, "image": shown_image, "output": shown})


def _rows(images: Path, masks: Path) -> Generator[Row | RowProblem]:
    line = 0
    folders = _FoldersAlike(masks)
    for relative, names in image_names(images, "", masks):
        if isinstance(names, RowError):
            line += 1
            yield _problem(line, relative.rstrip("/"), f"{images}{os.sep}{relative}", names)
            continue
        chosen = None if masks.is_file() else _Masks(folders.find(relative), list(filter(is_read, names)))
        for name in names:
            output = f"{relative}{name}"
            image = f"{images}{os.sep}{output}"
            if chosen is None and name.casefold() == masks.name.casefold() and _is_it(Path(image), masks):
                continue
            line += 1
            try:
                check_name(output)
                mask = chosen.of(name) if chosen is not None else str(masks)
                yield Row(id=output, line=line, image=image, mask=mask, output=output)
            except RowError as error:
                yield _problem(line, output, image, error)
    if line == 0:
        raise ManifestError(f"no image below {images} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")


def is_read(name: str) -> bool:
    """Whether an image of that name is read by what its suffix promises."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122


def pictures_in(folder: Path) -> list[str]:
    """Sorted names of what are images by their names right inside `folder`, which need not be there.

    Raises ManifestError where it cannot be read.
    """
    return _listed(folder, NAMED_SUFFIXES)[0] if folder.is_dir() else []


def image_names(
    root: Path, relative: str = "", skipped: Path | None = None
) -> Iterator[tuple[str, list[str] | RowError]]:
    """(relative folder, empty or with a trailing slash; sorted names of its images) of `root` and all folders below.

    Which files these are, `read_folder` says; the folder `skipped` is left out. Of a folder below that this user may
    not read, there is an error in the place of names: a disk has its `lost+found`, and macOS keeps a library of
    photographs to itself. So there is of the output folder of a run: its results would be restored once more, and
    theirs at the next call. Raises ManifestError where a folder cannot be read for another reason.
    """
    if relative and os.path.isdir(root / relative / STATE_FOLDER):  # noqa: PTH112  (False where it may not be told)
        problem = (
            f"{root / relative} is the output folder of a run (.inpaint-batch is in it); move it away from the images, "
            "or its results would be restored once more. If that is meant, list them in a manifest"
        )
        yield relative, RowError(FailureCode.READ, problem)
        return
    try:
        names, folders = _listed(root / relative, NAMED_SUFFIXES)
    except ManifestError as error:
        if not relative or not isinstance(error.__cause__, PermissionError):
            raise
        problem = f"{error}, so images in it, if any, are left; change its permissions, or take it out of {root}"
        yield relative, RowError(FailureCode.READ, problem)
        return
    if not all(map(is_read, names)):
        read = {Path(name).stem for name in names if is_read(name)}
        names = [name for name in names if is_read(name) or Path(name).stem not in read]
    if names:
        yield relative, names
    for folder in folders:
        if skipped is None or not _is_it(root / relative / folder, skipped):
            yield from image_names(root, f"{relative}{folder}/", skipped)


def _is_it(found: Path, masks: Path) -> bool:
    """Whether what was found is the masks themselves, also where a link leads to them, or where they were named in
    another case, as macOS allows it.
    """
    try:
        return found.samefile(masks)
    except OSError:  # a link to nothing
        return False


def _listed(folder: Path, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
    """The files of these suffixes and the folders right inside `folder`, each sorted."""
    names, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in suffixes and _is_listed(entry):  # noqa: PTH122
                    names.append(entry.name)
    except OSError as error:
        raise ManifestError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(names), sorted(folders)


def _is_listed(entry: os.DirEntry[str]) -> bool:
    """Files are, and links that lead nowhere: their rows then fail, where leaving them out would say nothing."""
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:  # of what a link leads to: a loop, a folder that may not be read, a share that is lost
        return True


def check_name(output: str) -> None:
    """Raise RowError (read, write) where a file of a folder has a name that no result can have."""
    check_text(output)
    problem = output_problem(output)
    if problem is not None:
        raise RowError(FailureCode.WRITE, f"the file name {output!r} {problem}, or list the file in a CSV manifest")


def check_text(path: str) -> None:
    """Raise RowError (read) where a path is not UTF-8, as a manifest is."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(FailureCode.READ, f"the name {path!r} is not UTF-8; rename the file or its folder") from error


class _FoldersAlike:
    """Folders whose names differ from those asked for in how accents are put together; each is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[Path, dict[str, str]] = {}  # of a folder, the names inside by what they are composed

    def find(self, relative: str) -> Path:
        """The folder `relative` below the root, or the one alike; it need not be there."""
        folder = self._root
        for part in filter(None, relative.split("/")):
            exact = folder / part
            if not part.isascii() and not exact.exists() and folder.is_dir():
                if folder not in self._listed:
                    names = reversed(_listed(folder, frozenset())[1])  # of two alike the first
                    self._listed[folder] = {composed(name): name for name in names}
                exact = folder / self._listed[folder].get(composed(part), part)
            folder = exact
        return folder


class _Masks:
    """The masks in one folder, and which image of the same relative folder each one belongs to."""

    def __init__(self, folder: Path, images: list[str]) -> None:
        self._folder = folder
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._unread: dict[str, str] = {}  # what would be a mask if it were of another format, by stem
        for name in _listed(folder, MASK_SUFFIXES | UNREAD_SUFFIXES | _PROJECTS)[0] if folder.is_dir() else []:
            stem, suffix = os.path.splitext(composed(name))  # noqa: PTH122
            if suffix.lower() in MASK_SUFFIXES:
                self._by_stem[stem].append(name)
            else:
                self._unread[stem] = name
        self._whole = {composed(name) for name in images}
        self._waiting: dict[str, list[str]] = defaultdict(list)  # images without a mask of their full name, by stem
        for name in images:
            if composed(name) not in self._by_stem:
                self._waiting[composed(Path(name).stem)].append(name)

    def of(self, image: str) -> str:
        """The path of the mask of `image`; raises RowError(MASK) where there is none or a choice.

        Of an image that is not read it is what it would be called, since a row fails for its image first.
        """
        if not is_read(image):
            return f"{self._folder}{os.sep}{image}.png"
        own = self._by_stem.get(composed(image))
        stem = composed(Path(image).stem)
        # Beside `a.jpg` the mask of `a.jpg.png` is not `a.jpg.png`.
        found = own or ([] if stem in self._whole else self._by_stem.get(stem, []))
        if not found and (drawn := self._unread.get(composed(image)) or self._unread.get(stem)):
            raise RowError(
                FailureCode.MASK,
                f"the mask {drawn} in {self._folder} is of a format that is not read; save it as a PNG",
            )
        if not found:
            raise RowError(
                FailureCode.MASK,
                f"no mask {image}.png or {stem}.png (or another image suffix) in {self._folder}; draw one, or take the "
                "image out of the folder",
            )
        if len(found) > 1:
            raise RowError(
                FailureCode.MASK, f"{' and '.join(found)} in {self._folder} could both be its mask; keep one of them"
            )
        if not own and len(self._waiting[stem]) > 1:
            raise RowError(
                FailureCode.MASK,
                f"{found[0]} could be the mask of {' or '.join(self._waiting[stem])}; "
                f"name the masks after the whole file names, such as {image}.png",
            )
        return f"{self._folder}{os.sep}{found[0]}"
