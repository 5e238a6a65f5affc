"""Workers in other processes: who is there, what each one has, who has died, and who hangs.

How a worker is reached is the affair of a `Transport`; what becomes of the rows of a lost one is that of `requeue`. A
worker that was lost must answer a call that carries no rows before it gets any again, with growing pauses between the
calls: a node that is gone would otherwise fail every row that it is sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from inpaint_batch import __version__
from inpaint_batch.errors import EngineError, WorkerLostError
from inpaint_batch.execution.member import Member
from inpaint_batch.execution.requeue import Chunk
from inpaint_batch.execution.tasks import EngineFacts, RowOutcome
from inpaint_batch.execution.transport import CHUNKS_IN_FLIGHT, Transport, WorkerGoneError
from inpaint_batch.execution.worker import ChunkResult, Pulse
from inpaint_batch.logids import about
from inpaint_batch.report.row_tiles import RowTiles
from inpaint_batch.words import one_line

log = logging.getLogger(__name__)

SILENCE_S = 30.0
"""How long a worker may take to say that it lives, at least; long, since a busy machine is no hung row."""
GIVE_UP_S = 300.0
"""With no worker at all for so long, the run ends."""
ASK_S = 5.0
"""A worker that has brought nothing to its end for so long is asked how far it is, and again every so often."""
UNFIT_S = 60.0
"""A worker that cannot do rows where it is, is asked again after so long."""
VERDICT_S = 60.0
"""So long it may take until it is known whether a worker was lost with its machine; then it counts as lost alone."""
CENSUS_S = 10.0
"""How often it is looked whether there is room for more workers."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker that was lost with what it had, or that hangs."""

    member: Member
    chunks: list[Chunk]
    hung: bool = False
    """It is there, but brings no row to its end."""
    of_memory: bool = False
    with_machine: bool = False
    """Its machine was lost: no fault of the rows."""


class Pool:
    """All workers of a run."""

    def __init__(self, transport: Transport, *, row_timeout_s: float = 0.0) -> None:
        """`row_timeout_s`: a worker that brings no row to its end for so long hangs; 0 for never."""
        self.transport = transport
        self.members: list[Member] = []
        self.facts: EngineFacts | None = None
        """What the first worker said of its engine; all others must say the same."""
        self.num_batches = 0
        self.num_lost = 0
        self._row_timeout_s = row_timeout_s
        self._num_broken = 0
        self._has_results = False
        self._last_reason = ""
        """Why the last worker that was lost, or never came, was."""
        self._alive_at_s = time.monotonic()
        self._census_at_s = 0.0
        self._in_doubt: list[tuple[Loss, float]] = []
        """Losses of which it is not known yet whether machines were lost, and until when that is waited for."""
        self._leaving = False

    def begin(self) -> None:
        """A run begins: count anew how long nobody has been there."""
        self._alive_at_s = time.monotonic()
        self._leaving = False

    def wait_for_first(self, stopping: Callable[[], bool], wait_s: float) -> EngineFacts | None:
        """The engine's facts once a worker is there; None where it is asked to stop before."""
        while self.facts is None:
            if stopping():
                return None
            try:
                self.look([], wait_s)
            except WorkerLostError:
                if not stopping():  # else it died of the same Ctrl-C
                    raise
        return self.facts

    def least_busy(self) -> Iterator[Member]:
        """Whoever has room for a chunk, the idlest first, until nobody has."""
        for num_in_flight in range(CHUNKS_IN_FLIGHT):
            for member in self.members:
                if member.has_room(num_in_flight) and not any(loss.member is member for loss, _ in self._in_doubt):
                    yield member

    def send(self, member: Member, chunk: Chunk, round_number: int) -> None:
        """Give a chunk to a worker."""
        member.sent(self.transport.call(member.handle, "do", round_number, chunk.tasks), chunk)

    def leave(self, round_number: int) -> None:
        """Have nobody begin a row of that round any more."""
        self._leaving = True
        for member in self.members:
            if member.ready:
                self.transport.call(member.handle, "leave", round_number)

    @property
    def busy(self) -> bool:
        """Whether anything is in flight, or was lost and is not told of yet."""
        return bool(self._in_doubt) or any(member.chunks for member in self.members)

    def filling(self) -> list[RowTiles]:
        """How far large rows were when their workers were last asked; may be called from any thread."""
        return [row for member in list(self.members) for row in member.filling]

    @property
    def num_rows_in_flight(self) -> int:
        """Rows that are with the workers; may be asked from any thread."""
        return sum(len(chunk.tasks) for member in list(self.members) for chunk in list(member.chunks.values()))

    def look(self, outcomes: list[RowOutcome], wait_s: float) -> list[Loss]:
        """Wait for something to happen, for so long at most; collect outcomes; return what was lost, once it is known
        how."""
        if any(member.ready for member in self.members):
            # However long the driver was away, passing over a million rows maybe: it was not they who were missing.
            self._alive_at_s = time.monotonic()
        self._hire()
        self._ask()
        tokens = [member.question for member in self.members if member.question is not None]
        tokens += [token for member in self.members for token in member.chunks]
        if tokens:
            arrived = self.transport.wait(tokens, wait_s)
        else:
            arrived = set()
            time.sleep(wait_s)
        losses = []
        for member in list(self.members):
            if member.question in arrived:
                self._answered(member)
            if (loss := self._collect(member, arrived, outcomes)) is not None:
                losses.append(loss)
        if any(member.ready for member in self.members):
            self._alive_at_s = time.monotonic()
        elif time.monotonic() - self._alive_at_s > GIVE_UP_S:
            told = f"; the last one: {self._last_reason}" if self._last_reason else ""
            raise WorkerLostError(
                f"there was no worker for {GIVE_UP_S:.0f} s (asked for {len(self.members)}{told}); look at the "
                "machines (with Ray: `ray status`), then run again to go on"
            )
        return self._understood([*losses, *self._silent()])

    def _understood(self, losses: list[Loss]) -> list[Loss]:
        """Of these and earlier losses those that can be told of."""
        now_s = time.monotonic()
        told = [loss for loss in losses if loss.hung or loss.of_memory]
        self._in_doubt += [(loss, now_s + VERDICT_S) for loss in losses if loss not in told]
        for doubt in list(self._in_doubt):
            loss, until_s = doubt
            with_machine = self.transport.was_its_machine(loss.member.handle)
            if with_machine is not None or now_s >= until_s or self._leaving:
                self._in_doubt.remove(doubt)
                told.append(replace(loss, with_machine=bool(with_machine)))
        return told

    def _hire(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._census_at_s:
            self._census_at_s = now_s + CENSUS_S
            for _ in range(self.transport.num_wanted() - self._num_broken - len(self.members)):
                self.members.append(Member(self.transport.hire()))

    def _ask(self) -> None:
        now_s = time.monotonic()
        for member in self.members:
            if not member.ready and member.question is None and now_s >= member.ask_at_s:
                member.question = self.transport.call(member.handle, "start", __version__)

    def _answered(self, member: Member) -> None:
        """Take the answer of a worker that was asked whether it is there."""
        question, member.question = member.question, None
        try:
            facts = self.transport.answer(question)
        except WorkerGoneError as gone:
            self._last_reason = gone.reason
            if gone.for_good:
                self._strike_off(member, gone.reason)
            else:
                member.went()
            return
        except Exception as error:  # such as a model that is not on its machine
            if self.facts is None or not self._do_without(member, error):
                raise
            return
        if self.facts is None:
            self.facts = facts
        elif facts.identity != self.facts.identity:
            another = EngineError(_not_the_same(facts, self.facts))
            # Before the first row it is better told: nobody knows which of them is the one that is wanted.
            if not self._has_results or not self._do_without(member, another):
                raise another
            return
        member.came()

    def _strike_off(self, member: Member, reason: str) -> None:
        self.members.remove(member)
        self._num_broken += 1
        if not self.members:
            raise WorkerLostError(f"no worker can be started: {reason}")
        log.warning("a worker cannot be started, the run goes on with %d others: %s", len(self.members), reason)

    def _do_without(self, member: Member, error: Exception) -> bool:
        """Go on without a worker that cannot do rows where it is; false where there is nobody else.

        It keeps its place there, so that no other is put into it, and is asked again now and then: its node may be
        replaced, or mended.
        """
        others = [other for other in self.members if other is not member and not other.unfit]
        if not others:
            return False
        reason = one_line(error, 300)
        if member.unfit != reason:
            log.warning("a worker cannot be used, the run goes on with %d others: %s", len(others), reason)
        member.unfit = reason
        member.ask_at_s = time.monotonic() + UNFIT_S
        return True

    def _collect(self, member: Member, arrived: set[Any], outcomes: list[RowOutcome]) -> Loss | None:
        """Take the results of a worker; what it had if it was lost."""
        lost: WorkerGoneError | None = None
        num_rows = 0
        for token in [token for token in member.chunks if token in arrived]:
            try:
                result: ChunkResult = self.transport.answer(token)
            except WorkerGoneError as gone:
                lost = gone
                continue
            del member.chunks[token]
            num_rows += len(result.outcomes)
            outcomes += result.outcomes
            self.num_batches += result.num_batches
            for line in result.log:
                with about(line.subject):
                    log.log(line.level, "%s", line.text)
        if num_rows:
            self._has_results = True
            member.handed_over(num_rows)
        return None if lost is None else self._lost(member, of_memory=lost.of_memory)

    def _silent(self) -> Iterator[Loss]:
        """Ask workers that have been silent for a while how far they are; yield those that hang.

        A silent worker may be busy with a chunk of many rows, with one large row, or be dead without our having been
        told. It hangs where it brings no row to its end within the limit, or does not even answer.
        """
        for member in [member for member in self.members if member.chunks]:
            now_s = time.monotonic()
            silent_s = now_s - member.since_s
            too_long = bool(self._row_timeout_s) and silent_s >= self._row_timeout_s
            if member.pulse is None:
                if too_long or now_s - max(member.since_s, member.pulse_at_s) >= ASK_S:
                    member.pulse = self.transport.call(member.handle, "pulse")
                    member.pulse_at_s = now_s
            elif self.transport.wait([member.pulse], 0.0):
                question, member.pulse = member.pulse, None
                try:
                    pulse: Pulse = self.transport.answer(question)
                except WorkerGoneError as gone:
                    yield self._lost(member, of_memory=gone.of_memory)
                    continue
                member.filling = pulse.filling
                if pulse.num_rows > member.num_rows:
                    member.num_rows, member.since_s = pulse.num_rows, now_s
                elif too_long and member.pulse_at_s - member.since_s >= self._row_timeout_s:
                    yield self._take_away(member)
            elif too_long and silent_s > self._row_timeout_s + max(self._row_timeout_s, SILENCE_S):
                yield self._take_away(member)

    def _take_away(self, member: Member) -> Loss:
        self.transport.take_away(member.handle)
        loss = self._lost(member, hung=True)
        member.ask_at_s = 0.0
        return loss

    def _lost(self, member: Member, *, hung: bool = False, of_memory: bool = False) -> Loss:
        self.num_lost += 1
        return Loss(member, member.went(), hung=hung, of_memory=of_memory)

    def close(self) -> None:
        """Dismiss everybody; what is in flight counts as lost."""
        self.num_lost += any(member.chunks for member in self.members)
        self.members = []
        self.transport.close()


def _not_the_same(one: EngineFacts, other: EngineFacts) -> str:
    chosen = [f"{facts.name} {facts.precision}" for facts in (one, other)]
    if chosen[0] != chosen[1]:  # left to each machine
        return (
            f"workers chose different engines, since their machines differ: {chosen[0]} here, {chosen[1]} there; say "
            "which with --engine and --precision"
        )
    if one.name == "tensorrt":  # a build of its own may compute with other kernels
        advice = (
            "they have plans of their own: give all nodes one cache of plans (INPAINT_BATCH_ENGINES), and equal GPUs"
        )
    else:
        advice = "install the same package and model on all nodes"
    return f"workers do not run the same engine: {one.identity} here, {other.identity} there; {advice}"
