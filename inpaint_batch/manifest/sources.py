"""Where the text of a manifest comes from: a file, plain or packed, the standard input, or an object in a store."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Literal, cast

from inpaint_batch.errors import ManifestError, MissingDependencyError, StorageError
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import fetch
from inpaint_batch.storage.scratch import scratch_folder
from inpaint_batch.storage.uris import redacted, uri_problem

STDIN = Path("-")
Format = Literal["csv", "tsv", "jsonl", "parquet"]
Packing = Literal["none", "gzip", "zstd"]

_FORMATS: dict[str, Format] = {
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_FOREIGN = (".json", ".xlsx", ".xls", ".ods", ".bz2", ".xz", ".zip")
_PACKINGS: dict[str, Packing] = {".gz": "gzip", ".zst": "zstd"}
_MAGICS: dict[Packing, bytes] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
_OTHERS = {
    _MAGICS["gzip"]: "packed by gzip; let its name end in .gz",
    _MAGICS["zstd"]: "packed by zstd; let its name end in .zst",
    b"PAR1": "a Parquet file; let its name end in .parquet",
    b"PK\x03\x04": "a spreadsheet or a ZIP archive; save it as CSV (in a table program: 'CSV UTF-8')",
}
"""What no text begins with, and what a file is that does."""


@dataclass(frozen=True, slots=True)
class Source:
    """A manifest file. A name without a known suffix counts as CSV."""

    path: Path | str
    """As the user named it, for messages; text where it is a URI."""
    file: Path
    """What to open."""
    format: Format
    packing: Packing = "none"

    @classmethod
    def of(cls, path: Path | str) -> Source:
        """By the suffixes of the name; what comes from the standard input is known by its first bytes.

        Raises ManifestError for a kind of file that cannot be read, and StorageError where a store does not answer.
        """
        if path == STDIN:
            file = spooled_stdin()
            return cls(path, file, *_sniff(file))
        suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
        packing = _PACKINGS.get(suffixes[-1], "none") if suffixes else "none"
        suffix = (suffixes[:-1] if packing != "none" else suffixes)[-1:] or [""]
        found = _FORMATS.get(suffix[0], "csv")
        if suffix[0] in _FOREIGN or (found == "parquet" and packing != "none"):
            raise ManifestError(
                f"{path} is no kind of manifest; save it as CSV, TSV or JSON Lines (each also with .gz or .zst), or as "
                "Parquet"
            )
        return cls(path, fetched_manifest(path) if isinstance(path, str) else path, found, packing)

    @property
    def base(self) -> str:
        """What relative locations count from: the absolute folder, or the URI, up to its last slash."""
        if isinstance(self.path, str):
            return self.path[: self.path.rindex("/") + 1]
        return os.path.join(os.path.abspath(self.path.parent), "")  # noqa: PTH100, PTH118

    def digest(self) -> str:
        """Of the file as it lies there and of `base`. Raises ManifestError where it cannot be read."""
        try:
            with self.file.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
        except OSError as error:
            raise ManifestError(f"cannot read the manifest {self.path}: {error.strerror or error}") from error
        digest.update(f"\0{self.format}\0{self.base}".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @contextmanager
    def open_bytes(self) -> Iterator[IO[bytes]]:
        """The content, unpacked. Raises ManifestError where it cannot be read, also later, while it is.

        Raises MissingDependencyError for zstd where nothing reads it.
        """
        damage: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
        if self.packing == "zstd":
            damage = (EOFError, _zstd(self.path).ZstdError)
        try:
            with self.file.open("rb") as file:
                yield self._unpacked(file)
        except damage as error:
            told = f"{self.path} is not a whole {self.packing} file ({error}); compress it again"
            raise ManifestError(told) from error
        except OSError as error:
            raise ManifestError(f"cannot read the manifest {self.path}: {error.strerror or error}") from error

    def _unpacked(self, file: IO[bytes]) -> IO[bytes]:
        match self.packing:
            case "gzip":
                return cast(IO[bytes], gzip.GzipFile(fileobj=file))
            case "zstd":
                return cast(IO[bytes], _zstd(self.path).ZstdFile(file))
            case _:
                return file

    @contextmanager
    def open_text(self) -> Iterator[IO[str]]:
        """The content as UTF-8, line ends as they are. Raises ManifestError also where it ceases to be UTF-8."""
        try:
            with self.open_bytes() as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
                yield text
        except UnicodeDecodeError as error:
            raise ManifestError(self._explain_encoding()) from error

    def _explain_encoding(self) -> str:
        with self.open_bytes() as file:
            first = file.read(4)
            if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
                return f"{self.path} is UTF-16; save it as UTF-8 (in a table program: 'CSV UTF-8')"
            if (kind := next((kind for sign, kind in _OTHERS.items() if first.startswith(sign)), None)) is not None:
                return f"{self.path} is {kind}"
            file.seek(0)
            for number, line in enumerate(file, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    wrong = line[error.start]
                    return f"line {number} of {self.path} is not UTF-8 (byte 0x{wrong:02x}); save it as UTF-8"
        return f"{self.path} is not UTF-8; save it as UTF-8"


@cache
def spooled_stdin() -> Path:
    """The standard input as a file of its own, since a manifest is read twice; it goes when the process ends."""
    if sys.stdin is None:
        raise ManifestError("the manifest is -, the standard input, and that is closed; name a file, or pipe one in")
    with _told_of_room("-"):
        path = scratch_folder() / "manifest-stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
    return path


@cache
def fetched_manifest(uri: str) -> Path:
    """A manifest in a store as a file of this machine, for as long as the process lives: it is read twice."""
    if (problem := uri_problem(uri)) is not None:
        raise ManifestError(f"the manifest {redacted(uri)} {problem}")
    try:
        with _told_of_room(uri):
            file = scratch_folder() / f"manifest-{hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()}"
            fetch(uri, file)
    except ObjectError as error:
        if error.trouble == "missing":
            raise ManifestError(f"the manifest {uri} does not exist; a folder must be named by a manifest") from error
        raise error.for_run("read the manifest") from error
    return file


@contextmanager
def _told_of_room(manifest: str) -> Iterator[None]:
    """Turn an OSError about a copy of a manifest into the StorageError that ends a run."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot keep a copy of the manifest {manifest} in the folder for temporary files ({error.strerror}); free "
            "some room, or set TMPDIR to a folder with more"
        ) from error


def _sniff(file: Path) -> tuple[Format, Packing]:
    with file.open("rb") as raw:
        first = raw.read(4)
    packing: Packing = next((packing for packing, magic in _MAGICS.items() if first.startswith(magic)), "none")
    source = Source(STDIN, file, "csv", packing)
    with source.open_bytes() as content:
        head = content.read(1 << 16)
    if head[:4] == b"PAR1":
        return "parquet", packing
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = head.partition(b"\n")[0]
    if head[:1] in (b"{", b"["):
        return "jsonl", packing
    return ("tsv" if b"\t" in first_line and b"," not in first_line else "csv"), packing


def _zstd(path: object) -> ModuleType:
    """What reads zstd: of the standard library from Python 3.14 on, and its backport before."""
    for name in ("compression.zstd", "backports.zstd"):
        with suppress(ImportError):
            return import_module(name)
    raise MissingDependencyError(f"reading {path} needs backports.zstd: pip install 'inpaint-batch[zstd]'")
