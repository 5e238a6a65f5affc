"""What `mask` saw in earlier calls: it makes a second call go on after the first, and spares masks that were edited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from inpaint_batch.errors import StorageError
from inpaint_batch.holes.detect import DetectConfig
from inpaint_batch.storage.atomic import storage_error
from inpaint_batch.storage.object_errors import ObjectError
from inpaint_batch.storage.objects import describe
from inpaint_batch.storage.uris import is_uri

STATE = "found.jsonl"
"""One line of settings, then one for each image that was looked at; of several for an image the last one counts."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen in one image."""

    version: str
    """Of the image file."""
    coverage: float
    """Part of the image that looks like damage, 0..1; 0 where a person made the mask."""
    shares: Mapping[str, float]
    """The same for each kind."""
    mask: str
    """Digest of the mask file; empty where there is none."""


UNSEEN = Seen("", 0.0, {}, "")


class StateFile:
    """The file as it is written; `add` may be called from several threads."""

    def __init__(self, output: Path, config: DetectConfig, *, anew: bool) -> None:
        """Begin it, or go on with that of an earlier call with the same settings."""
        self._path = output / STATE
        with self._told():
            self._file = self._path.open("w" if anew else "a", encoding="utf-8")
        self._lock = Lock()
        # A line that was cut short must not swallow the next one.
        self._file.write(json.dumps(_settings(config)) + "\n" if anew else "\n")

    def add(self, output_name: str, seen: Seen) -> None:
        """Remember one image. Raises StorageError."""
        with self._lock, self._told():
            self._file.write(json.dumps({"output": output_name, **asdict(seen)}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Write what is left. Raises StorageError."""
        with self._told():
            self._file.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            known = storage_error(error, self._path)
            raise known or StorageError(f"cannot write {self._path}: {error.strerror}") from error


def read_state(output: Path, config: DetectConfig | None, *, has_lists: bool) -> dict[str, Seen]:
    """What earlier calls saw, by output name; `has_lists` says whether one of them came to its end.

    Raises StorageError where they had other settings than `config`, or where it cannot be told.
    """
    try:
        lines = (output / STATE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if config is not None and has_lists:
            raise StorageError(
                f"{output} holds a manifest but no {STATE}; --relist makes a manifest of the masks that are there, "
                "--fresh finds all anew but what was edited"
            ) from None
        return {}
    known: dict[str, Seen] = {}
    settings: object = None if config is None else _settings(config)
    for number, line in enumerate(lines):
        try:
            told = json.loads(line)
        except json.JSONDecodeError:  # cut short with the call that wrote it
            continue
        if number == 0:
            settings = told
        elif isinstance(told, dict) and told.keys() == {"output", *asdict(UNSEEN)}:
            output_name = told.pop("output")
            known[output_name] = Seen(**told)
    if known or has_lists:  # not where a call was stopped before it had looked at anything
        _check_settings(settings, config, output)
    return known


def version_of(file: str) -> str:
    """Text that changes when the file or object is written anew; empty where there is none.

    Raises RowError(READ) where a store does not tell, and StorageError where it refuses to answer at all.
    """
    if is_uri(file):
        try:
            return describe(file)
        except ObjectError as error:
            raise error.for_row(file, "image") from error  # masks and previews lie on this machine
    try:
        about = Path(file).stat()
    except OSError:
        return ""
    return f"{about.st_size} {about.st_mtime_ns}"


def _settings(config: DetectConfig) -> dict[str, object]:
    return {**asdict(config), "kinds": list(config.kinds)}


def _check_settings(told: object, config: DetectConfig | None, output: Path) -> None:
    if config is None or told == _settings(config):
        return
    known = told if isinstance(told, dict) else {}
    other = sorted(name for name, value in _settings(config).items() if known.get(name) != value)
    raise StorageError(
        f"{output} holds masks that were found with other settings ({', '.join(other)}) and may have been edited; "
        "--fresh finds all anew but those that were, --relist makes a manifest of those that are there"
    )
