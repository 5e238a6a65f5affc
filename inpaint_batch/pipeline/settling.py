"""What a run leaves for the next one to find that nothing has changed: the writing side of `settled`."""

from __future__ import annotations

import hashlib
import json
from array import array
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

from inpaint_batch.config import RunConfig
from inpaint_batch.execution.identity import Identity, Look
from inpaint_batch.execution.ledger_lines import LEDGER_FOLDER, parts_of
from inpaint_batch.pipeline.settled import (
    BLOCK_ROWS,
    END,
    FORMAT,
    HEAD,
    SettledFailure,
    packed,
    settings_digest,
    settled_path,
    tail_of,
)
from inpaint_batch.report.tally import FailedRow
from inpaint_batch.storage.uris import is_uri
from inpaint_batch.types import Row

MAX_FAILED = 20_000
"""With more failed rows than this, nothing is kept."""


class _Standing(NamedTuple):
    """A row that is done."""

    image: str
    mask: str
    output: str
    looks: tuple[int, int, int, int]


class Settling:
    """Collects, during a run, what `Settled` will ask for. It never fails a run: what cannot be written is left out."""

    def __init__(self, state: Path, config: RunConfig, engine: str, manifest: str) -> None:
        """`manifest` is the digest of the manifest, empty where it has none; then nothing is kept."""
        self._state, self._config, self._engine, self._manifest = state, config, engine, manifest
        self._path = settled_path(state, config.part)
        self._new = self._path.with_suffix(".new")
        self._seen: dict[str, Identity] = {}  # rows on their way, by id
        self._rows: list[_Standing] = []
        self._num_done = 0
        self._failed: list[SettledFailure] = []
        self._digest = hashlib.blake2b(digest_size=16)
        self._file: BinaryIO | None = None
        self._spoilt = not manifest
        if not self._spoilt:
            try:
                self._file = self._new.open("wb")
            except OSError:
                self.spoil()

    def spoil(self) -> None:
        """Some row ended in a way that the next run must look at itself: keep nothing."""
        self._spoilt = True
        self._seen.clear()
        self._rows.clear()
        self._failed.clear()

    def begin(self, row: Row, identity: Identity) -> None:
        """What a row's files look like, before it is worked on."""
        if self._spoilt:
            return
        if is_uri(row.image) or is_uri(row.mask):
            self.spoil()
        else:
            self._seen[row.id] = identity

    def done(self, row_id: str, output: str) -> None:
        """A row stands as `output`."""
        if self._spoilt:
            return
        _, (image, image_look), (mask, mask_look) = self._seen.pop(row_id)
        if image_look is None or mask_look is None or "\0" in output:
            self.spoil()
            return
        self._rows.append(_Standing(image, mask, output, (*image_look, *mask_look)))
        if len(self._rows) >= BLOCK_ROWS:
            self._write_block()

    def failed(self, row_id: str, failed: FailedRow, *, of_manifest: bool = False) -> None:
        """A row failed; `of_manifest` where it does so as long as the manifest stays as it is."""
        if self._spoilt:
            return
        files: tuple[tuple[str, Look | None], ...] = ()
        if not of_manifest:
            if row_id not in self._seen:  # refused for something that is neither in the manifest nor in its files
                self.spoil()
                return
            _, *seen = self._seen.pop(row_id)
            files = tuple(seen)
        self._failed.append(SettledFailure(row_id, failed, files))
        if len(self._failed) > MAX_FAILED:
            self.spoil()

    def close(self, num_rows: int) -> None:
        """Keep it if all of `num_rows` came to an end. Call once the ledger is closed."""
        try:
            whole = self._num_done + len(self._rows) + len(self._failed) == num_rows
            if self._spoilt or self._file is None or not whole:
                self._path.unlink(missing_ok=True)
                return
            self._write_block()
            about = {
                "format": FORMAT,
                "manifest": self._manifest,
                "settings": settings_digest(self._config, self._engine),
                "rows": num_rows,
                "parts": {part.name: tail_of(part) for part in parts_of(self._state / LEDGER_FOLDER)},
                "failed": [asdict(failed) for failed in self._failed],
            }
            text = json.dumps(about, ensure_ascii=True).encode()
            digest = hashlib.blake2b(text, digest_size=16).digest()
            self._file.write(text + END.pack(len(text), digest, self._digest.digest()))
            self._file.close()
            self._new.replace(self._path)
        except OSError:
            self._spoilt = True
        finally:
            with suppress(OSError):
                if self._file is not None:
                    self._file.close()
                self._new.unlink(missing_ok=True)

    def _write_block(self) -> None:
        if not self._rows:
            return
        images, masks, outputs, looks = zip(*self._rows, strict=True)
        self._num_done += len(self._rows)
        self._rows.clear()
        columns = [packed(column) for column in (images, masks, outputs)]
        numbers = array("q", (number for four in looks for number in four))
        try:
            self._put(HEAD.pack(len(images), *map(len, columns)), *columns, numbers.tobytes())
        except OSError:  # a full disk is for others to tell
            self.spoil()

    def _put(self, *contents: bytes) -> None:
        assert self._file is not None
        for content in contents:
            self._file.write(content)
            self._digest.update(content)
