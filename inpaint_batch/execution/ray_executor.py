"""The Ray executor: the local executor in every actor of a cluster, fed from here.

Ray is transport only. Rows travel as paths in small chunks, two of them in flight for each actor, so that one waits
while the other is done. Results are awaited here, in the driver, which alone knows the ledger. An actor works through
its chunks in order; when it dies, the oldest one is what it died of, as far as anybody can tell:

- the rows of that chunk are tried again one by one; a row whose worker died MAX_ATTEMPTS times is given up (`crash`);
- the other chunk goes back to the queue without blame;
- Ray starts the actor again. Before it gets rows it must answer a call that carries none, with growing pauses between
  the calls: a node that is gone would otherwise fail every row that it is sent.

This module is the only one that imports Ray, and only when an executor is made.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from inpaint_batch.errors import EngineError, FailureCode, InpaintBatchError, MissingDependencyError, WorkerLostError
from inpaint_batch.execution.ray_worker import ChunkResult, RayWorker, WorkerSettings
from inpaint_batch.execution.tasks import EngineFacts, Failure, RowOutcome, RowTask
from inpaint_batch.logids import about

log = logging.getLogger(__name__)

CHUNK_ROWS = 8
"""Rows that travel together: enough that a call costs nothing beside them, few enough to share the last ones out."""
CHUNKS_IN_FLIGHT = 2
MAX_ATTEMPTS = 3
"""Deaths of a worker after which a row is given up: once with its chunk, then alone."""
SILENCE_S = 30.0
"""How long a worker may take to say that it lives, at least; long, since a busy machine is no hung row."""
BACK_OFF_S = (0.5, 15.0)
"""First and longest pause before an actor that was lost is asked again."""
GIVE_UP_S = 300.0
"""With no worker at all for so long, the run ends."""
POLL_S = 0.2
OBJECT_STORE_BYTES = 80 << 20
"""Nearly the least that Ray takes: no pixels travel."""


@dataclass(slots=True, eq=False)
class _Chunk:
    tasks: list[RowTask]
    ref: Any = None


@dataclass(slots=True, eq=False)
class _Actor:
    handle: Any
    ready: bool = False
    question: Any = None
    """The call that an actor must answer before it gets rows."""
    ask_at_s: float = 0.0
    pause_s: float = BACK_OFF_S[0]
    chunks: deque[_Chunk] = field(default_factory=deque)
    """In flight, the one it works on first."""
    since_s: float = 0.0
    """When it was last known to bring a row to its end, or began with the first chunk."""
    num_rows: int = 0
    """How many rows it had brought to their end then, since it was started."""
    num_collected: int = 0
    """How many of these have come here."""
    pulse: Any = None
    """The call that asks for that number, where it has been silent for too long."""
    pulse_at_s: float = 0.0


class RayExecutor:
    """Does rows on the actors of a Ray cluster. One `run` at a time; `close` it."""

    def __init__(self, settings: WorkerSettings, *, num_actors: int = 0, row_timeout_s: float = 0.0) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one on this machine, and wait for a first worker.

        `num_actors`: 0 for one per GPU where there are any, else one per node. `row_timeout_s`: a row that takes longer
        fails with `timeout`; 0 for never. The threads of `settings` are for one machine; they are cut down to what an
        actor gets of it.

        Raises MissingDependencyError without Ray, WorkerLostError where no worker comes up, and what loading the engine
        raises in a worker.
        """
        self._life = ExitStack()
        self._row_timeout_s = row_timeout_s
        self._actors: list[_Actor] = []
        self._round = 0
        self._alive_at_s = time.monotonic()
        self._facts: EngineFacts | None = None
        self.num_batches = 0
        """Batches that the engines have run."""
        self.num_lost = 0
        """How often a worker was lost, or taken away from a row that took too long."""
        self.isolates_rows = True
        try:
            self._ray = self._life.enter_context(_cluster(num_actors))
            self._hire(settings, num_actors)
            while self._facts is None:
                self._look([], POLL_S)
        except BaseException:
            self.close()
            raise

    @property
    def engine(self) -> EngineFacts:
        """What every worker runs."""
        assert self._facts is not None
        return self._facts

    def close(self) -> None:
        """Dismiss the workers, and leave the cluster, or end it if it was started here."""
        self.num_lost += any(actor.chunks for actor in self._actors)
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors = []
        self._life.close()

    def queues(self) -> Mapping[str, int]:
        """Rows that are with the workers (see `tasks.Executor`)."""
        return {"workers": sum(len(chunk.tasks) for actor in self._actors for chunk in list(actor.chunks))}

    def run(self, tasks: Iterable[RowTask], stopping: Callable[[], bool]) -> Generator[RowOutcome]:
        """Yield outcomes as they come (see `tasks.Executor`)."""
        self._round += 1
        self._alive_at_s = time.monotonic()
        source = iter(tasks)
        again: deque[list[RowTask]] = deque()
        attempts: Counter[str] = Counter()
        outcomes: list[RowOutcome] = []
        exhausted = leaving = False
        while True:
            if not leaving and stopping():
                leaving = exhausted = True
                for actor in self._actors:
                    actor.handle.leave.options(concurrency_group="control").remote(self._round)
            if leaving:
                again.clear()  # begun, but not done: the next run does them
            for actor in self._least_busy():
                chunk = again.popleft() if again else [] if exhausted else list(islice(source, CHUNK_ROWS))
                if not chunk:
                    exhausted = True
                    break
                self._send(actor, chunk)
            if exhausted and not again and not any(actor.chunks for actor in self._actors):
                return
            for actor, died in self._look(outcomes, POLL_S):
                self._take_back(actor, again, attempts, outcomes, blame=died)
            for actor, died in self._hung():
                if not died:
                    self._end_hung_rows(actor, again, outcomes)
                self._take_back(actor, again, attempts, outcomes, blame=died)
            yield from outcomes
            outcomes.clear()

    # ── workers ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _hire(self, settings: WorkerSettings, num_actors: int) -> None:
        ray = self._ray
        num_gpus = 0 if _is_for_cpus(settings.engine) else int(ray.cluster_resources().get("GPU", 0))
        cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cpus = [count for count in cpus if count] or [1]
        number = num_actors or num_gpus or len(cpus)
        share = max(1, min(sum(cpus) // number, min(cpus)))
        settings = dataclasses.replace(
            settings, threads=min(settings.threads or share, share), workers=min(settings.workers, max(2, share))
        )
        worker = ray.remote(concurrency_groups={"control": 1})(RayWorker).options(
            num_cpus=share,
            num_gpus=1 if num_gpus else 0,
            max_restarts=-1,
            max_task_retries=0,  # Ray would run the row that kills its worker again and again
            scheduling_strategy="SPREAD",
        )
        self._actors = [_Actor(worker.remote(settings)) for _ in range(number)]

    def _look(self, outcomes: list[RowOutcome], wait_s: float) -> list[tuple[_Actor, bool]]:
        """Wait for something to happen; collect outcomes; return the actors that were lost."""
        now_s = time.monotonic()
        for actor in self._actors:
            if not actor.ready and actor.question is None and now_s >= actor.ask_at_s:
                actor.question = actor.handle.start.remote()
        refs = [actor.question for actor in self._actors if actor.question is not None]
        refs += [chunk.ref for actor in self._actors for chunk in actor.chunks]
        if not refs:
            time.sleep(wait_s)
        else:
            self._ray.wait(refs, num_returns=1, timeout=wait_s)
        arrived = set(self._ray.wait(refs, num_returns=len(refs), timeout=0)[0]) if refs else set()
        lost = []
        for actor in self._actors:
            if actor.question in arrived:
                self._answered(actor)
            while actor.chunks and actor.chunks[0].ref in arrived and self._collect(actor, outcomes):
                pass
            if any(chunk.ref in arrived and self._has_failed(chunk.ref) for chunk in actor.chunks):
                lost.append((actor, True))
        if any(actor.ready for actor in self._actors):
            self._alive_at_s = time.monotonic()
        elif time.monotonic() - self._alive_at_s > GIVE_UP_S:
            raise WorkerLostError(
                f"there was no Ray worker for {GIVE_UP_S:.0f} s (asked for {len(self._actors)}); look at the cluster "
                "(`ray status`), then run again to go on"
            )
        return lost

    def _answered(self, actor: _Actor) -> None:
        """Take the answer of an actor that was asked whether it is there."""
        question, actor.question = actor.question, None
        try:
            facts = self._get(question)
        except self._ray.exceptions.RayActorError:
            self._pause(actor)
            return
        if self._facts is None:
            self._facts = facts
        elif facts.identity != self._facts.identity:
            raise EngineError(
                f"workers do not run the same engine: {facts.identity} here, {self._facts.identity} there; install the "
                "same package and model on all nodes"
            )
        actor.ready = True
        actor.num_rows = actor.num_collected = 0

    def _collect(self, actor: _Actor, outcomes: list[RowOutcome]) -> bool:
        """Take the result of an actor's first chunk; false where the actor was lost."""
        try:
            result: ChunkResult = self._get(actor.chunks[0].ref)
        except self._ray.exceptions.RayActorError:
            return False
        actor.chunks.popleft()
        actor.since_s, actor.pause_s = time.monotonic(), BACK_OFF_S[0]
        actor.num_collected += len(result.outcomes)
        actor.num_rows = actor.num_collected
        outcomes += result.outcomes
        self.num_batches += result.num_batches
        for line in result.log:
            with about(line.subject):
                log.log(line.level, "%s", line.text)
        return True

    def _has_failed(self, ref: Any) -> bool:
        try:
            self._get(ref)
        except self._ray.exceptions.RayActorError:
            return True
        return False

    def _get(self, ref: Any) -> Any:
        """A result; raises RayActorError, or what the worker raised, as it was raised there."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, InpaintBatchError):
                raise cause from None
            raise

    def _hung(self) -> Iterator[tuple[_Actor, bool]]:
        """Workers that brought no row to its end within the limit, and whether they turned out to be dead.

        A worker that is silent is asked how many rows it has done: it may be busy with a chunk of many rows, or be dead
        without our having been told. One that does not even answer is hung as well.
        """
        for actor in self._actors if self._row_timeout_s else ():
            now_s = time.monotonic()
            if not actor.chunks or now_s - actor.since_s < self._row_timeout_s:
                continue
            if actor.pulse is None:
                actor.pulse = actor.handle.pulse.options(concurrency_group="control").remote()
                actor.pulse_at_s = now_s
            elif self._ray.wait([actor.pulse], timeout=0)[0]:
                question, actor.pulse = actor.pulse, None
                if self._has_failed(question):
                    yield actor, True
                elif (num_rows := self._get(question)) > actor.num_rows:
                    actor.num_rows, actor.since_s = num_rows, now_s
                else:
                    yield actor, False
            elif now_s - actor.pulse_at_s > max(self._row_timeout_s, SILENCE_S):
                yield actor, False

    def _pause(self, actor: _Actor) -> None:
        actor.ready = False
        actor.ask_at_s = time.monotonic() + actor.pause_s
        actor.pause_s = min(2 * actor.pause_s, BACK_OFF_S[1])

    # ── rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _least_busy(self) -> Iterator[_Actor]:
        """Whoever has room for a chunk, the idlest first, until nobody has."""
        for num_in_flight in range(CHUNKS_IN_FLIGHT):
            for actor in self._actors:
                if actor.ready and len(actor.chunks) <= num_in_flight:
                    yield actor

    def _send(self, actor: _Actor, tasks: list[RowTask]) -> None:
        if not actor.chunks:
            actor.since_s = time.monotonic()
        # Absolute, since a worker has a working folder of its own.
        tasks = [dataclasses.replace(task, destination=task.destination.absolute()) for task in tasks]
        actor.chunks.append(_Chunk(tasks, actor.handle.do.remote(self._round, tasks)))

    def _take_back(
        self,
        actor: _Actor,
        again: deque[list[RowTask]],
        attempts: Counter[str],
        outcomes: list[RowOutcome],
        *,
        blame: bool,
    ) -> None:
        """Queue again what a lost actor had; give up the row that it died of too often."""
        self.num_lost += 1
        self._pause(actor)
        actor.pulse = None
        if not blame:
            actor.ask_at_s = 0.0
        for chunk in actor.chunks:
            if blame:
                for task in chunk.tasks:
                    attempts[task.row.id] += 1
                    if attempts[task.row.id] < MAX_ATTEMPTS:
                        again.append([_next_attempt(task)])
                    else:
                        outcomes.append(RowOutcome(task, _CRASHED))
                log.warning("a worker died while it worked on %s", ", ".join(task.row.id for task in chunk.tasks))
            else:
                again.append(chunk.tasks)
            blame = False
        actor.chunks.clear()

    def _end_hung_rows(self, actor: _Actor, again: deque[list[RowTask]], outcomes: list[RowOutcome]) -> None:
        """Take the worker away from a row that takes too long; of a chunk, find out which one it is."""
        self._ray.kill(actor.handle, no_restart=False)
        tasks = actor.chunks.popleft().tasks
        if len(tasks) == 1:
            outcomes.append(RowOutcome(tasks[0], _timed_out(self._row_timeout_s)))
        else:
            again.extend([_next_attempt(task)] for task in tasks)


_CRASHED = Failure(
    FailureCode.CRASH,
    f"the worker died {MAX_ATTEMPTS} times with this row, at last alone; look at the image and at the memory of the "
    "workers, then run with --retry-failed",
    retryable=True,
)


def _next_attempt(task: RowTask) -> RowTask:
    return dataclasses.replace(task, attempt=task.attempt + 1)


def _timed_out(limit_s: float) -> Failure:
    return Failure(
        FailureCode.TIMEOUT,
        f"the row took longer than {limit_s:g} s; look at it, or raise --row-timeout and run with --retry-failed",
        retryable=True,
    )


def _is_for_cpus(engine: str) -> bool:
    return engine in ("onnxruntime", "identity") or engine.startswith("faulty:")


@contextmanager
def _cluster(num_actors: int) -> Iterator[Any]:
    """Ray, connected; yields the module. Its remarks go to stderr, and our signal handlers stay in force."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        try:
            import ray
            import ray.exceptions
        except ImportError as error:
            raise MissingDependencyError(
                f"the Ray executor needs Ray ({error}): pip install 'inpaint-batch[ray]', or use --executor local"
            ) from error
    quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    with redirect_stdout(sys.stderr):  # "(raylet) a worker died" comes by print, whatever is asked
        handlers = {number: signal.getsignal(number) for number in _our_signals()}
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(address="auto", logging_level=logging.ERROR, log_to_driver=False)
            else:
                cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
                ray.init(num_cpus=max(cores, num_actors), object_store_memory=OBJECT_STORE_BYTES, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerLostError(_why_no_ray(error)) from error
        finally:
            for number, handler in handlers.items():  # Ray's own would print a trace and abort
                signal.signal(number, handler)
        try:
            yield ray
        finally:
            ray.shutdown()


def _why_no_ray(error: Exception) -> str:
    if "Authentication" in f"{error} {error.__cause__}":
        return (
            "the Ray cluster wants a token; set RAY_AUTH_MODE=token and bring the cluster's ~/.ray/auth_token here, or "
            "use --executor local"
        )
    reason = " ".join(str(error).split())[:200]
    return f"cannot reach or start Ray ({reason}); check RAY_ADDRESS and `ray status`, or use --executor local"


def _our_signals() -> list[int]:
    if threading.current_thread() is not threading.main_thread():
        return []
    return [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]
