"""Workers as the actors of a Ray cluster.

Ray is transport only: it places the actors, starts them again when they or their nodes die, and carries calls. It
never runs a row twice by itself.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

from inpaint_batch.errors import InpaintBatchError
from inpaint_batch.execution.ray_cluster import ray_cluster
from inpaint_batch.execution.tasks import never
from inpaint_batch.execution.transport import CHUNKS_IN_FLIGHT, WorkerGoneError
from inpaint_batch.execution.worker import RowWorker, WorkerSettings
from inpaint_batch.runtime.select import runs_on_cpus
from inpaint_batch.words import one_line

_GROUPS = {"do": "rows", "pulse": "control", "leave": "control", "where": "control"}
"""Which threads of an actor answer a call: whether it lives must be told while it works."""
_FOR_GPUS = ("tensorrt", "onnxruntime-cuda")
"""Engines that run on a GPU only."""
GPU_WORKER_THREADS = 4
"""Of an actor that was asked for before there was a machine with a GPU; it is counted as one CPU, which all have."""
MISFIT_S = 120.0
"""An actor for which no machine is large enough any more is made anew, for those that there are, after so long: one
that is lost is often replaced by its like."""
_PLACE_S = 5.0
"""An actor that has just told of its engine tells where it is in far less."""
_LOOK_S = 1.0
"""How often the nodes are looked at, at most, while it is asked how a worker was lost."""


class _Actor(RowWorker):
    """A worker that knows on which node it is."""

    def where(self) -> str:
        """Its name, as `ray.nodes()` has it."""
        node: str = importlib.import_module("ray").get_runtime_context().get_node_id()
        return node


@dataclass(slots=True, eq=False)
class _Hand:
    """A handle."""

    actor: Any
    num_cpus: int
    home: str = ""
    """The node on which it last had rows."""
    asked: Any = None
    """The call that asks where it is, from when it is asked for its engine until it gets rows."""
    misfit_since_s: float = 0.0
    """Since when there has been no machine that is large enough for it; 0 where there is one."""


class _Machine(NamedTuple):
    """A node of the cluster."""

    num_cpus: int
    num_gpus: int = 0
    """0 also where none is of use."""

    def num_places(self, share: int) -> int:
        """How many actors of so many CPUs it has room for."""
        return min(self.num_cpus // share, self.num_gpus or self.num_cpus)


def _share(machines: list[_Machine], number: int) -> int:
    """CPUs of one actor: the most with which so many have room, and every machine for one; 1 where nothing gives it."""
    number = min(number, sum(machine.num_gpus for machine in machines) or number)  # the others wait for a GPU
    for share in range(min((machine.num_cpus for machine in machines), default=1), 1, -1):
        if sum(machine.num_places(share) for machine in machines) >= number:
            return share
    return 1


class RayTransport:
    """See `transport.Transport`; a handle stands for a Ray actor, a token is a reference to the result of a call."""

    def __init__(self, settings: WorkerSettings, *, num_actors: int = 0, stopping: Callable[[], bool] = never) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one on this machine.

        `num_actors`: 0 for one per GPU where there are any, else one per node, also per node that joins later.

        Raises what `ray_cluster` does: MissingDependencyError without Ray, WorkerLostError where no cluster can be
        reached or started, StopRequestedError where `stopping()` is true before one answers.
        """
        self._num_actors = num_actors
        self._open_settings = settings
        self._on_gpus = False if runs_on_cpus(settings.engine) else None
        """None until the first actor is asked for; then for good, since all must run the same engine."""
        self._hands: list[_Hand] = []
        self._alive: tuple[float, frozenset[str]] = (0.0, frozenset())
        """When the nodes were looked at, and which were there."""
        self.rows_at_once = 1
        self._life = ExitStack()
        self._ray = self._life.enter_context(
            ray_cluster(
                "ray.exceptions",
                extra="ray",
                num_cpus=num_actors,
                instead="use --executor local",
                stopping=stopping,
            )
        )

    def _machines(self) -> list[_Machine]:
        """Those of the cluster that could have an actor: where GPUs are of use and there are any, those with one."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        machines = [_Machine(int(node["CPU"]), int(node.get("GPU", 0))) for node in nodes if node.get("CPU", 0) >= 1]
        with_gpus = [machine for machine in machines if machine.num_gpus]
        if self._on_gpus or (self._on_gpus is None and with_gpus):
            return with_gpus
        return [_Machine(machine.num_cpus) for machine in machines]

    def num_wanted(self) -> int:
        """See `transport.Transport`; none while the cluster has no machine that could do rows."""
        machines = self._machines()
        self._make_misfits_anew(machines)
        return self._num_actors or sum(machine.num_gpus for machine in machines) or len(machines)

    def hire(self) -> Any:
        """See `transport.Transport`. Where the cluster has no room yet the actor waits for it.

        What an actor gets is settled by the machines that are there now: a cluster may have begun with its head alone.
        It gets a GPU where there are any then, or where it can do nothing without one and so many actors were asked
        for: where GPUs come by demand, that is the demand.
        """
        machines = self._machines()
        if self._on_gpus is None:
            wants = self._num_actors > 0 and self._open_settings.engine in _FOR_GPUS
            self._on_gpus = wants or any(machine.num_gpus for machine in machines)
            machines = self._machines()
        self._hands.append(_Hand(*self._place(machines)))
        return self._hands[-1]

    def _place(self, machines: list[_Machine]) -> tuple[Any, int]:
        """An actor, and how many CPUs it is counted as."""
        number = self._num_actors or sum(machine.num_gpus for machine in machines) or len(machines)
        share = _share(machines, number)
        most = max((machine.num_places(share) for machine in machines), default=1)
        threads = share if machines or not self._on_gpus else GPU_WORKER_THREADS
        settings = self._open_settings.on(threads, min(number, most) or 1)
        self.rows_at_once = settings.workers
        worker = self._ray.remote(concurrency_groups={"control": 1, "rows": CHUNKS_IN_FLIGHT})(_Actor).options(
            num_cpus=share,
            num_gpus=1 if self._on_gpus else 0,
            max_restarts=-1,
            max_task_retries=0,  # Ray would run the row that kills its worker again and again
            scheduling_strategy="SPREAD",
        )
        return worker.remote(settings), share

    def _make_misfits_anew(self, machines: list[_Machine]) -> None:
        """Actors that were made for machines larger than those that are left would wait for good."""
        now_s = time.monotonic()
        largest = max((machine.num_cpus for machine in machines), default=0)
        for hand in self._hands:
            if not largest or hand.num_cpus <= largest:
                hand.misfit_since_s = 0.0
            elif not hand.misfit_since_s:
                hand.misfit_since_s = now_s
            elif now_s - hand.misfit_since_s >= MISFIT_S:
                self._ray.kill(hand.actor)
                hand.misfit_since_s = 0.0
                hand.actor, hand.num_cpus = self._place(machines)

    def was_its_machine(self, handle: Any) -> bool | None:
        """See `transport.Transport`. Ray takes a while to notice that a node is gone, and restarts what was there only
        then; what only lost its process is back before."""
        if not handle.home:
            return False
        is_back = self._place_of(handle) is not None
        if is_back or time.monotonic() - self._alive[0] >= _LOOK_S:
            nodes = frozenset(node["NodeID"] for node in self._ray.nodes() if node["Alive"])
            self._alive = (time.monotonic(), nodes)
        if handle.home not in self._alive[1]:
            return True
        return False if is_back else None

    def _place_of(self, hand: _Hand, timeout_s: float = 0.0) -> str | None:
        """What it answered when it was asked where it is; None where it has not."""
        if hand.asked is None or not self._ray.wait([hand.asked], timeout=timeout_s)[0]:
            return None
        try:
            node: str = self._ray.get(hand.asked)
        except self._ray.exceptions.RayError:
            return None
        return node

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        """See `transport.Transport`."""
        if method == "start":
            handle.asked = self._call(handle.actor, "where")
        elif method == "do" and handle.asked is not None:
            handle.home, handle.asked = self._place_of(handle, _PLACE_S) or "", None
        return self._call(handle.actor, method, *arguments)

    def _call(self, actor: Any, method: str, *arguments: Any) -> Any:
        bound = getattr(actor, method)
        if method in _GROUPS:
            bound = bound.options(concurrency_group=_GROUPS[method])
        return bound.remote(*arguments)

    def wait(self, tokens: Sequence[Any], timeout_s: float) -> set[Any]:
        """See `transport.Transport`."""
        arrived, rest = self._ray.wait(list(tokens), num_returns=1, timeout=timeout_s)
        if arrived and rest:
            arrived += self._ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return set(arrived)

    def answer(self, token: Any) -> Any:
        """See `transport.Transport`."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(token)
        except errors.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, InpaintBatchError):
                raise type(cause)(f"{cause}{_where(error)}") from None
            raise
        except errors.OutOfMemoryError as error:
            raise WorkerGoneError(one_line(error), of_memory=True) from error
        except errors.RayActorError as error:
            of_memory = "low on memory" in str(error)  # Ray's own guard, before the kernel's
            raise WorkerGoneError(
                _why_not_made(error), of_memory=of_memory, for_good=error.actor_init_failed
            ) from error
        except (errors.NodeDiedError, errors.ObjectLostError, errors.WorkerCrashedError) as error:
            raise WorkerGoneError(one_line(error)) from error
        except errors.ActorUnschedulableError as error:
            raise WorkerGoneError(one_line(error), for_good=True) from error

    def take_away(self, handle: Any) -> None:
        """See `transport.Transport`."""
        self._ray.kill(handle.actor, no_restart=False)

    def close(self) -> None:
        """See `transport.Transport`; leaves the cluster, or ends it if it was started here."""
        for hand in self._hands:
            self._ray.kill(hand.actor)
        self._hands = []
        self._life.close()


def _where(error: Exception) -> str:
    """On which node a call failed, as Ray's own text says it; empty where it does not."""
    found = re.search(r"\bip=([0-9a-fA-F.:]*[0-9a-fA-F])", str(error))
    return f" (on node {found[1]})" if found else ""


def _why_not_made(error: Exception) -> str:
    """The last line of a traceback that says what was missing, or the beginning of what Ray says."""
    lines = [line.strip() for line in str(error).splitlines()]
    found = [line for line in lines if line.startswith(("ModuleNotFoundError", "ImportError", "AttributeError"))]
    if found:
        return f"{found[-1]}; install the same inpaint-batch on all nodes"
    return one_line(error)
