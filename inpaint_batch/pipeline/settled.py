"""Whether anything has changed since every row of a manifest came to its end: a million finished rows in seconds.

A run that brought all of its rows to an end leaves `settled.bin` in the state folder (of a shard `settled-2-of-3.bin`):
which files it was made of and what they looked like. The next run over the same manifest, with the same settings and
model, then only looks at these files; it reads neither the ledger nor a row of the manifest.

It is a cache and never the truth: it counts only as long as the manifest has the same bytes, the ledger has no line
more about these rows, every file has its size and time, and every result is there. Otherwise, or where it is damaged,
the run goes row by row, as if there were none. It may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inpaint_batch import __version__
from inpaint_batch.config import RunConfig, Shard
from inpaint_batch.execution.identity import ALGORITHM_VERSION, Look, look
from inpaint_batch.execution.ledger_lines import LEDGER_FOLDER, LedgerEntry, parts_of
from inpaint_batch.execution.sidecar import companions
from inpaint_batch.report.summary import state_ending
from inpaint_batch.report.tally import FailedRow

BLOCK_ROWS = 4096
SLOW_LOOK_S = 100e-6
"""Where a look at a file waits for longer there is a network, and one may wait for others at the same time."""
NUM_LOOKS = 32
FORMAT = f"inpaint-batch settled 1, {__version__}, {ALGORITHM_VERSION}"
HEAD = struct.Struct("<IIII")  # rows, and bytes of three columns of text
END = struct.Struct("<Q16s16s")  # bytes of the last part, its digest, and that of all blocks
_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SettledFailure:
    """A row that failed, and shall not be tried again."""

    id: str
    failed: FailedRow
    files: tuple[tuple[str, Look | None], ...]
    """What its files looked like then; none where the manifest itself was at fault."""


def settled_path(state: Path, part: Shard | None) -> Path:
    """Where it is kept."""
    return state / f"settled{state_ending(part)}.bin"


def settings_digest(config: RunConfig, engine: str) -> str:
    """Of everything beside the manifest and the files that decides what is to be done with a row."""
    about = [asdict(config.row), asdict(config.tiling), engine, companions(config), config.on_conflict, config.shard]
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


class Settled:
    """What the last run over a manifest left, if it brought every row to an end."""

    def __init__(self, path: Path, about: dict[str, Any], blocks_bytes: int, digest: bytes) -> None:
        self._path = path
        self._about = about
        self._blocks_bytes = blocks_bytes
        self._digest = digest
        self.num_rows: int = about["rows"]
        self.failures = [
            SettledFailure(
                failed["id"],
                FailedRow(**failed["failed"]),
                tuple((path, tuple(seen) if seen else None) for path, seen in failed["files"]),
            )
            for failed in about["failed"]
        ]

    @classmethod
    def of(cls, state: Path, part: Shard | None, manifest: str) -> Settled | None:
        """What is kept about the manifest of that digest; None where there is nothing of use."""
        path = settled_path(state, part)
        if not manifest:
            return None
        try:
            with path.open("rb") as file:
                end = file.seek(-END.size, os.SEEK_END)
                num_bytes, digest, digest_of_blocks = END.unpack(file.read())
                start = file.seek(end - num_bytes)
                text = file.read(num_bytes)
            if hashlib.blake2b(text, digest_size=16).digest() != digest:
                return None
            about = json.loads(text)
            if about["format"] != FORMAT or about["manifest"] != manifest:
                return None
            return cls(path, about, start, digest_of_blocks)
        except (OSError, ValueError, struct.error):  # none, or damaged
            return None

    def holds(self, config: RunConfig, engine: str, stop: Callable[[], bool]) -> bool:
        """Whether every row still stands as it did. May also say no where `stop()` is true."""
        if self._about["settings"] != settings_digest(config, engine) or (self.failures and config.retry_failed):
            return False
        try:
            return (
                self._ledger_is_the_same(config.part)
                and all(look(path) == seen for failure in self.failures for path, seen in failure.files)
                and self._files_are_the_same(config, stop)
            )
        except (OSError, ValueError, struct.error):  # damaged, or deleted just now
            return False

    def _ledger_is_the_same(self, part: Shard | None) -> bool:
        """Whether no line has come about one of these rows; other shards may have written."""
        known: dict[str, list[Any]] = dict(self._about["parts"])
        for path in parts_of(self._path.parent / LEDGER_FOLDER):
            before = known.pop(path.name, [0, ""])
            if before[0] and tail_of(path, before[0]) != before:
                return False
            with path.open("rb") as file:
                file.seek(before[0])
                for text in file:
                    line = LedgerEntry.parse(text)
                    if line is not None and (part is None or part.has(line.id)):
                        return False
        return not known

    def _files_are_the_same(self, config: RunConfig, stop: Callable[[], bool]) -> bool:
        digest = hashlib.blake2b(digest_size=16)
        beside = companions(config)
        with ThreadPoolExecutor(NUM_LOOKS, thread_name_prefix="look") as pool:
            is_slow = False
            for block in self._blocks(digest):
                if stop():
                    return False
                if is_slow:
                    pieces = [block.piece(start, BLOCK_ROWS // NUM_LOOKS) for start in block.starts]
                    if not all(pool.map(lambda piece: piece.stands(config.output, beside), pieces)):
                        return False
                    continue
                waited_s = time.perf_counter() - time.thread_time()
                if not block.stands(config.output, beside):
                    return False
                waited_s = time.perf_counter() - time.thread_time() - waited_s
                is_slow = waited_s / (3 * len(block.images)) > SLOW_LOOK_S
        return digest.digest() == self._digest

    def _blocks(self, digest: Any) -> Iterator[_Block]:
        with self._path.open("rb") as file:
            while file.tell() < self._blocks_bytes:
                head = file.read(HEAD.size)
                num_rows, *sizes = HEAD.unpack(head)
                content = file.read(sum(sizes) + 32 * num_rows)
                digest.update(head)
                digest.update(content)
                ends = [sum(sizes[: number + 1]) for number in range(3)]
                images, masks, outputs = (
                    _unpacked(content[end - size : end]) for size, end in zip(sizes, ends, strict=True)
                )
                yield _Block(images, masks, outputs, array("q", content[ends[-1] :]))


@dataclass(slots=True)
class _Block:
    images: list[str]
    masks: list[str]
    outputs: list[str]
    looks: array[int]

    @property
    def starts(self) -> range:
        return range(0, len(self.images), BLOCK_ROWS // NUM_LOOKS)

    def piece(self, start: int, num_rows: int) -> _Block:
        end = start + num_rows
        return _Block(
            self.images[start:end], self.masks[start:end], self.outputs[start:end], self.looks[4 * start : 4 * end]
        )

    def stands(self, root: Path, beside: tuple[str, ...]) -> bool:
        """Whether all files look as they did, and all results are there, with all that is wanted beside them."""
        stat, exists, is_there = os.stat, os.access, os.F_OK
        now = array("q")
        last, size, modified = "", 0, 0
        try:
            for pair in zip(self.images, self.masks, strict=True):
                for path in pair:
                    if path != last:  # a mask may serve many rows
                        status = stat(path)
                        last, size, modified = path, status.st_size, status.st_mtime_ns
                    now.append(size)
                    now.append(modified)
        except (OSError, ValueError):
            return False
        place = f"{root}/"
        return (
            now == self.looks
            and all(exists(place + name, is_there) for name in self.outputs)
            and all(exists(place + name + suffix, is_there) for suffix in beside for name in self.outputs)
        )


def packed(column: tuple[str, ...]) -> bytes:
    """Texts without NUL, less what all of them begin with."""
    prefix = os.path.commonprefix(column)  # noqa: RUF071  (of characters, as it shall be)
    return "\0".join((prefix, *(text[len(prefix) :] for text in column))).encode("utf-8", "surrogatepass")


def _unpacked(content: bytes) -> list[str]:
    prefix, *texts = content.decode("utf-8", "surrogatepass").split("\0")
    return [prefix + text for text in texts]


def tail_of(part: Path, size: int | None = None) -> list[Any]:
    """Size and digest of the end of a part, or of what was its end when it had that size."""
    with part.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        size = end if size is None else size
        file.seek(max(0, size - _TAIL_BYTES))
        content = file.read(min(size, _TAIL_BYTES))
    return [min(size, end), hashlib.blake2b(content, digest_size=8).hexdigest()]
