"""What is to be done with each row of a manifest: a task, or an end at once (done before, failed before, refused)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.identity import (
    as_called_now,
    identify,
    is_by_content,
    names_same_output,
    row_key,
    what_changed,
)
from inpaint_batch.execution.ledger import Ledger
from inpaint_batch.execution.ledger_index import Known
from inpaint_batch.execution.sidecar import SUFFIXES, RunFacts, companions
from inpaint_batch.execution.tasks import EngineFacts, RowTask
from inpaint_batch.manifest.schema import RowProblem, row_config
from inpaint_batch.manifest.seen import Seen
from inpaint_batch.pipeline.entries import beside_earlier
from inpaint_batch.pipeline.settling import Settling
from inpaint_batch.storage.conflict import resolve_conflict
from inpaint_batch.storage.outputs import outputs_at
from inpaint_batch.storage.paths import MAX_NAME_BYTES, location
from inpaint_batch.types import FORMAT_SUFFIXES, Row

MAX_DEATHS = 2
"""A row that was alone in flight when the process died is given up after so many times."""


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing is to be done: an earlier run did it, and the row stands as long as nothing changes."""

    output: str


@dataclass(frozen=True, slots=True)
class Left:
    """Nothing is done: what lies at the place of the output is not this row's, and `--on-conflict skip` leaves it."""

    place: str
    """Where it lies, for people."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The row cannot be begun, or failed before and is not to be tried again."""

    error: RowError
    earlier: bool
    """Whether the ledger says the same already."""
    key: str = ""
    """Identity of the work that was given up; empty where the row could not be begun."""
    leaves_result: bool = False
    """Whether a result that an earlier run wrote is as good as it was, and the ledger shall go on saying so."""


def output_name(row: Row, config: RowConfig) -> str:
    """Where the result goes: the row's output, with the suffix `.png` where a JPEG is to be written losslessly."""
    if config.jpeg == "lossless":
        path = Path(row.output)
        if FORMAT_SUFFIXES.get(path.suffix.lower()) == "jpeg":
            return path.with_suffix(".png").as_posix()
    return row.output


class OutputNames:
    """Hands out names in the output folder, each one once."""

    def __init__(self, config: RunConfig, owns: Callable[[str, str], bool], *, read_only: bool = False) -> None:
        """`owns(output, image)` tells whether an existing output is ours, made of that image.

        `read_only`: nothing is written there meanwhile.
        """
        self._config = config
        self._owns = owns
        self._beside_bytes = max(map(len, companions(config)), default=0)
        self._outputs = outputs_at(config.store, config.output, read_only=read_only, beside_bytes=self._beside_bytes)
        self._taken = Seen()
        self._free_chars = (MAX_NAME_BYTES - self._beside_bytes) // 4  # a path of fewer cannot be too long

    def keep(self, name: str) -> bool:
        """Take a name that an earlier run gave, if the result is still there."""
        return self._outputs.exists(name) and self._take(name)

    def exists(self, name: str) -> bool:
        """Whether something of that name is in the output folder."""
        return self._outputs.exists(name)

    def reserve(self, name: str) -> None:
        """Take the name that a row of another shard will have, so that conflicts end as they do without shards."""
        if self._take(name) or self._config.on_conflict != "suffix":
            return
        path, number = Path(name), 1
        while not self._take(path.with_name(f"{path.stem}-{number}{path.suffix}").as_posix()):
            number += 1

    def claim(self, row: Row, name: str) -> tuple[str, str] | None:
        """The name and path for the row's result, conflicts settled; None where it shall be left out.

        Raises RowError(WRITE) where there is no way.
        """
        claimed = self._claimed(row, name)
        if claimed is not None:
            self._check_length(claimed[0])
        return claimed

    def _check_length(self, name: str) -> None:
        """A number that a conflict adds, or what is wanted beside the result, may be what makes a name too long."""
        if len(name) < self._free_chars:
            return
        last = name.rpartition("/")[2]
        num_bytes = len(last.encode("utf-8", "surrogateescape"))
        if num_bytes > MAX_NAME_BYTES:
            raise RowError(
                FailureCode.WRITE,
                f"output {name!r}, as --on-conflict suffix calls it, has a name of more than {MAX_NAME_BYTES} bytes; "
                "give it a shorter one in the output column",
            )
        if num_bytes + self._beside_bytes > MAX_NAME_BYTES:
            raise RowError(
                FailureCode.WRITE,
                f"output {name!r} has a name of {num_bytes} bytes, and with what is wanted beside it (--sidecar, "
                f"--premis) the most is {MAX_NAME_BYTES - self._beside_bytes}; give it a shorter one in the output "
                "column",
            )

    def _claimed(self, row: Row, name: str) -> tuple[str, str] | None:
        root = self._config.output
        destination, is_there = self._outputs.place(name, row)
        is_ours = not is_there or self._owns(name, location(row.image))
        if not self._take(name):
            if self._config.on_conflict != "suffix":
                folds = self._outputs.key("A") != "A"
                why = ", since names that differ in case alone are one file in this folder" if folds else ""
                raise RowError(
                    FailureCode.WRITE,
                    f"output {name!r} is already that of an earlier row{why}; give each row its own output, or say "
                    "--on-conflict suffix, which numbers them",
                )
        elif is_ours:
            return name, destination
        try:
            resolved = resolve_conflict(
                Path(destination), self._config.on_conflict, taken=lambda path: self._is_taken(path, name, row)
            )
        except RowError as error:
            raise self._outputs.shown(error) from None
        if resolved is None:
            return None
        return resolved.relative_to(root).as_posix(), str(resolved)

    def _take(self, name: str) -> bool:
        """Whether nobody had it before."""
        return self._taken.add(self._outputs.key(name))

    def _is_taken(self, path: Path, wanted: str, row: Row) -> bool:
        name = path.relative_to(self._config.output).as_posix()
        if name == wanted:
            return True
        # With --fresh no row is known by the name that a conflict gave it, so the first that asks for it has it.
        is_ours = self._config.fresh and self._owns(name, location(row.image))
        return (self._outputs.is_taken(name) and not is_ours) or not self._take(name)


class RowPlanner:
    """Decides about rows, one after the other, in the order of the manifest."""

    def __init__(self, config: RunConfig, ledger: Ledger, engine: EngineFacts, settling: Settling) -> None:
        """What is seen of the files of rows goes to `settling`."""
        self._config = config
        self._settling = settling
        self._ledger = ledger
        self._engine = engine.identity
        self._facts = RunFacts(engine.identity, engine.model, config.tiling, companions(config))
        self._names = OutputNames(config, ledger.owns)

    def plan(self, row: Row | RowProblem) -> RowTask | Skip | Left | Refused:
        """What is to be done. Looks at names, times and sizes of files, never into them."""
        known = self._ledger.known(row.id)
        if isinstance(row, RowProblem):
            return self._refused(row, row.error, known)
        try:
            return self._plan(row, known)
        except RowError as error:
            return self._refused(row, error, known)

    def pass_over(self, row: Row | RowProblem) -> None:
        """A row of another shard: only its name counts."""
        if isinstance(row, Row):
            with suppress(RowError):
                self._names.reserve(output_name(row, row_config(row, self._config.row)))

    def _plan(self, row: Row, known: Known | None) -> RowTask | Skip | Left | Refused:
        config = row_config(row, self._config.row)
        # A row stays what it was recorded as, by time or by content, until it is done again.
        by_content = is_by_content(known.key) if known is not None and known.key else self._config.content_hash
        try:
            identity = identify(row, config, self._config.tiling, self._engine, by_content=by_content)
        except RowError as untold:  # a store does not say whether anything has changed
            is_done = known is not None and known.status == "done"
            return replace(self._refused(row, untold, None if is_done else known), leaves_result=is_done)
        key = identity.key
        if known is not None and known.key != key:
            known = known._replace(key=as_called_now(known.key, identity, self._ledger.places.were))
        name = output_name(row, config)
        why: str = ""
        if known is not None and known.status in ("done", "failed"):
            why = what_changed(known.key, key) or "" if known.key else "failed"  # refused: no key was written
        if by_content:
            self._settling.spoil()
        else:
            self._settling.begin(row, identity)
        if known is not None and names_same_output(known.key, key) and is_variant(known.output, name):
            same = known.key == key
            if same and known.status == "done" and self._is_complete(known.output) and self._names.keep(known.output):
                return Skip(known.output)
            if same or self._ledger.owns(known.output, location(row.image)):
                name = known.output  # also where a conflict gave it another name then
        claimed = self._names.claim(row, name)
        if claimed is None:
            return Left(f"{self._config.place}/{name}")
        if known is not None and known.key == key:
            if known.status == "failed" and not self._config.retry_failed:
                error = RowError(FailureCode(known.code), self._ledger.message(row.id), retryable=known.retryable)
                return Refused(error, earlier=True, key=key)
            if known.num_deaths >= MAX_DEATHS:
                return Refused(_deadly(known.num_deaths), earlier=False, key=key)
            why = {"done": "missing", "failed": "failed"}.get(known.status, "")
        if by_content != self._config.content_hash:
            key = row_key(row, config, self._config.tiling, self._engine, by_content=self._config.content_hash)
        is_there = self._names.exists(claimed[0])
        # Also by another id than now, or before --fresh.
        had_one = known is not None or (is_there and self._ledger.owns(claimed[0], location(row.image)))
        facts = self._facts_for(claimed[0]) if had_one else self._facts
        is_there = is_there and had_one
        return RowTask(row, config, key, *claimed, facts, self._config.store, why=why, is_there=is_there)

    def _facts_for(self, output: str) -> RunFacts:
        """What an earlier run put beside the result is made anew with it, wanted or not: else it would lie."""
        unwanted = [suffix for suffix in SUFFIXES if suffix not in self._facts.suffixes]
        there = tuple(suffix for suffix in unwanted if self._names.exists(output + suffix))
        return replace(self._facts, suffixes=self._facts.suffixes + there) if there else self._facts

    def _refused(self, row: Row | RowProblem, error: RowError, known: Known | None) -> Refused:
        if known is not None and known.output and self._names.exists(known.output):
            error = beside_earlier(error, f"{self._config.place}/{known.output}")
        # A row that was refused has no key in the ledger, since no work was begun: it is looked at afresh every time.
        told = known is not None and known.status == "failed" and not known.key and not self._config.retry_failed
        return Refused(error, earlier=told and self._ledger.message(row.id) == error.message)

    def _is_complete(self, output: str) -> bool:
        """Whether a result that an earlier run wrote has all that is wanted beside it."""
        return all(self._names.exists(output + suffix) for suffix in self._facts.suffixes)


def _deadly(num_deaths: int) -> RowError:
    return RowError(
        FailureCode.CRASH,
        f"the process died {num_deaths} times while it worked on this row alone; look at the image and at the memory "
        "limit, then run with --retry-failed",
        retryable=True,
    )


def is_variant(output: str, name: str) -> bool:
    """Whether `output` is `name`, or what a conflict makes of it (`name-1`)."""
    if not output or output == name:
        return bool(output)
    earlier, wanted = Path(output), Path(name)
    number = earlier.stem.removeprefix(wanted.stem + "-")
    return earlier.with_name(wanted.name) == wanted and number != earlier.stem and number.isdigit()
