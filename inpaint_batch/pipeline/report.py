"""`report`: a page to look at the results of the runs of an output folder, made from its ledger and the files alone."""

from __future__ import annotations

import csv
import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from inpaint_batch import __version__
from inpaint_batch.config import Shard
from inpaint_batch.errors import RowError, RowsFailedError, StorageError, UsageError
from inpaint_batch.execution.ledger_lines import LedgerEntry, read_lines
from inpaint_batch.execution.packed_map import PackedMap
from inpaint_batch.execution.places import Places
from inpaint_batch.imaging.read import open_image
from inpaint_batch.pipeline.status import ShardStatus, folder_status
from inpaint_batch.pipeline.store_copy import state_copy
from inpaint_batch.report.comparison import Comparison, compare
from inpaint_batch.report.page import Failed, Head, Shown, is_page, page
from inpaint_batch.report.pulse import Pulse
from inpaint_batch.report.summary import state_ending
from inpaint_batch.storage.atomic import atomic_write
from inpaint_batch.storage.nearby import on_this_machine
from inpaint_batch.storage.paths import STATE_FOLDER
from inpaint_batch.storage.uris import joined
from inpaint_batch.types import Box
from inpaint_batch.words import counted, writable

PAGE = "report.html"
"""Name of the page in the state folder, where no other is wanted."""
DOUBTFUL_SHARE = 1 / 3
"""Part of the rows on the page that are there for their doubt or a warning; the others are by chance."""
USUAL_DOUBT = 4.0
"""What stands for that of rows that were filled once."""
MAX_FAILED = 500
"""Failures that are listed."""
_OUTCOMES = {"done": b"d", "failed": b"f"}


@dataclass(slots=True)
class _First:
    """Of all rows that are added, the `limit` first by `rank`; memory for twice as many."""

    limit: int
    rank: Callable[[LedgerEntry], object]
    kept: dict[str, LedgerEntry] = field(default_factory=dict)

    def add(self, result: LedgerEntry) -> None:
        self.kept[result.id] = result
        if len(self.kept) > 2 * self.limit + 1000:
            self.kept = {each.id: each for each in self.ranked()}

    def ranked(self) -> list[LedgerEntry]:
        return sorted(self.kept.values(), key=self.rank)[: self.limit]  # type: ignore[arg-type]


def write_report(output: Path | str, html: Path | None, *, num_rows: int, max_image_bytes: int) -> Path:
    """Write the page for a folder or a store (URI); returns its path.

    `num_rows` is how many results are shown, 0 for all; a file of which more than `max_image_bytes` must be decoded at
    once is not. Raises StorageError where no run has begun there, or the page cannot be written, and UsageError where
    it has no place.
    """
    with ExitStack() as life:
        if isinstance(output, str):
            if html is None:
                raise UsageError("say with --html where the page is to go: a file on this machine")
            root = life.enter_context(state_copy(output))
        else:
            root = output
        target = html if html is not None else root / STATE_FOLDER / PAGE
        shards = folder_status(root, shown=str(output))
        _check_place(target)
        done, num_done, failed, num_failed = _chosen(root / STATE_FOLDER, num_rows)
        if (stand := _that_stand(root / STATE_FOLDER, shards)) is not None:
            failed, num_failed = stand, sum(shard.num_failed for shard in shards)
        made = f"{time.strftime('%Y-%m-%d at %H:%M', time.gmtime())} UTC by inpaint-batch {__version__}"
        head = Head(str(output), _sentence(shards), made, _choice(len(done), num_done))
        pulse = Pulse()
        places = Places(root / STATE_FOLDER, read_only=True)

        def compared() -> Iterator[Shown]:
            for number, each in enumerate(done):
                pulse.beat(f"{number} of {counted(len(done), 'result')} compared")
                yield _shown(each, places.now(each.image), output, target, max_image_bytes)

        with atomic_write(target) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as file:
            for piece in page(head, compared(), failed, num_failed):
                file.write(piece)
    return target


def _check_place(target: Path) -> None:
    """Raise StorageError where no page can be written, before minutes are spent on its pictures."""
    folder = target.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if target.is_dir():
        problem = "that is a folder"
    elif not folder.is_dir():
        problem = f"{folder} is not a folder"
    elif not os.access(folder, os.W_OK | os.X_OK):
        problem = f"nothing may be written in {folder}"
    elif target.exists() and not is_page(target):
        problem = "a file that is no such page is there"
    else:
        return
    raise StorageError(f"the page cannot be written to {target}: {problem}; name another place with --html FILE")


def _chosen(state: Path, num_rows: int) -> tuple[list[LedgerEntry], int, list[Failed], int]:
    """Results to show, how many there are, failures to list, and how many there are of these."""
    doubtful, by_chance = _First(num_rows or 1 << 60, _by_doubt), _First(num_rows or 1 << 60, _by_chance)
    outcomes = PackedMap()  # by id, of millions
    num_done = num_failed = 0
    for line in read_lines(state):
        if line.status not in _OUTCOMES:
            continue
        before = outcomes.get(line.id)
        num_done -= before == _OUTCOMES["done"]
        num_failed -= before == _OUTCOMES["failed"]
        outcomes.put(line.id, _OUTCOMES[line.status])
        if line.status == "failed":
            num_failed += 1
            for kept in (doubtful.kept, by_chance.kept):
                kept.pop(line.id, None)
        else:
            num_done += 1
            doubtful.add(line)
            by_chance.add(line)
    first = doubtful.ranked()[: round(num_rows * DOUBTFUL_SHARE) or None] if num_rows else doubtful.ranked()
    already = {each.id for each in first}
    others = [each for each in by_chance.ranked() if each.id not in already]
    chosen = [*first, *(others[: num_rows - len(first)] if num_rows else others)]
    return chosen, num_done, _listed(state, outcomes) if num_failed else [], num_failed


def _listed(state: Path, outcomes: PackedMap) -> list[Failed]:
    """The first failures. Read anew: before the end of the ledger nobody knows which rows those are."""
    listed: dict[str, Failed] = {}
    for line in read_lines(state):
        if line.status != "failed" or outcomes.get(line.id) != _OUTCOMES["failed"]:
            continue
        if line.id in listed or len(listed) < MAX_FAILED:
            listed[line.id] = Failed(line.id, line.code, line.message)
    return list(listed.values())


def _that_stand(state: Path, shards: list[ShardStatus]) -> list[Failed] | None:
    """The first failures that stand in the lists of runs that came to their end; None where the ledger knows better.

    The ledger also has failures of rows that no manifest names any more. It is asked where runs did not get through
    all rows, or where somebody has changed a list.
    """
    if any(shard.exit_code not in (0, RowsFailedError.exit_code) for shard in shards):
        return None
    listed: list[Failed] = []
    num_rows = 0
    try:
        for shard in shards:
            path = state / f"failures{state_ending(Shard.parse(shard.shard))}.csv"
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                for cells in csv.DictReader(file):
                    num_rows += 1
                    if len(listed) < MAX_FAILED:
                        name = cells["id"] or cells["output"] or cells["image"]  # a row that cannot be may have no id
                        words = (name, cells["code"], cells["message"])
                        listed.append(Failed(*(writable(each or "") for each in words)))
    except (OSError, KeyError, csv.Error):
        return None
    return listed if num_rows == sum(shard.num_failed for shard in shards) else None


def _by_doubt(result: LedgerEntry) -> tuple[bool, float, str]:
    """Those first whose error, seen over the whole image, is likely to be the largest."""
    doubt = USUAL_DOUBT if result.doubt is None else result.doubt
    return not result.warnings, -doubt * (result.coverage or 0.0) ** 0.5, result.id


def _by_chance(result: LedgerEntry) -> bytes:
    return hashlib.blake2b(result.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _sentence(shards: list[ShardStatus]) -> str:
    done = sum(shard.num_done for shard in shards)
    known = all(shard.num_rows is not None for shard in shards)
    rows = counted(sum(shard.num_rows or 0 for shard in shards), "row") if known else "an unknown number of rows"
    codes = sum((shard.by_code for shard in shards), Counter[str]())
    left = sum(shard.num_left for shard in shards)
    failed = (
        (f"{left} left as they were, " if left else "")
        + f"{codes.total()} failed"
        + (f" ({_counts(codes)})" if codes else "")
    )
    states = Counter(shard.state if shard.exit_code is None else f"exit code {shard.exit_code}" for shard in shards)
    of_runs = next(iter(states)) if len(shards) == 1 else f"{len(shards)} shards: {_counts(states)}"
    return f"{done} of {rows} done, {failed}; {of_runs}."


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def _choice(num_shown: int, num_done: int) -> str:
    if not num_shown:
        return ""
    if num_shown == num_done:
        return "All rows that are done are shown, those with a warning first, then those that are most in doubt."
    return (
        f"{num_shown} of the rows that are done are shown: first those with a warning, those that are most in doubt, "
        "then others by chance, the same at every call."
    )


def _shown(result: LedgerEntry, image: str, output: Path | str, target: Path, max_image_bytes: int) -> Shown:
    """`image` is where the source lies now."""
    if isinstance(output, str):
        place, link = joined(output, result.output), ""
    else:
        path = (output / result.output).absolute()
        place, link = str(path), quote(os.fsencode(Path(os.path.relpath(path, target.absolute().parent)).as_posix()))
    try:
        pictures: Comparison | str = _compared(result, image, place, max_image_bytes)
    except RowError as error:
        pictures = f"cannot be shown: {error.message}"
    return Shown(result.id, image, result.output, link, result.coverage, result.doubt, result.warnings, pictures)


def _compared(result: LedgerEntry, image: str, place: str, max_image_bytes: int) -> Comparison:
    page_number = result.page or None
    with on_this_machine(image, "image") as source, on_this_machine(place, "output") as written:
        before = open_image(source, max_bytes=max_image_bytes, page=page_number)
        try:
            after = open_image(written, max_bytes=max_image_bytes, page=page_number)
            try:
                return compare(before, after, Box(*result.doubtful) if result.doubtful is not None else None)
            finally:
                after.close()
        finally:
            before.close()
