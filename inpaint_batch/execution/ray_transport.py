"""Workers as the actors of a Ray cluster.

Ray is transport only: it places the actors, starts them again when they or their nodes die, and carries calls. It
never runs a row twice by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from inpaint_batch.errors import InpaintBatchError
from inpaint_batch.execution.ray_cluster import ray_cluster
from inpaint_batch.execution.tasks import never
from inpaint_batch.execution.transport import CHUNKS_IN_FLIGHT, WorkerGoneError
from inpaint_batch.execution.worker import RowWorker, WorkerSettings
from inpaint_batch.runtime.select import runs_on_cpus
from inpaint_batch.words import one_line

_GROUPS = {"do": "rows", "pulse": "control", "leave": "control"}
"""Which threads of an actor answer a call: whether it lives must be told while it works."""


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
    """See `transport.Transport`; a handle is a Ray actor, a token a reference to the result of a call."""

    def __init__(self, settings: WorkerSettings, *, num_actors: int = 0, stopping: Callable[[], bool] = never) -> None:
        """Join the cluster that RAY_ADDRESS names, or start one on this machine.

        `num_actors`: 0 for one per GPU where there are any, else one per node, also per node that joins later.

        Raises what `ray_cluster` does: MissingDependencyError without Ray, WorkerLostError where no cluster can be
        reached or started, StopRequestedError where `stopping()` is true before one answers.
        """
        self._num_actors = num_actors
        self._open_settings = settings
        self._for_cpus = runs_on_cpus(settings.engine)
        self._actors: list[Any] = []
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
        with_gpus = [] if self._for_cpus else [machine for machine in machines if machine.num_gpus]
        return with_gpus or [_Machine(machine.num_cpus) for machine in machines]

    def num_wanted(self) -> int:
        """See `transport.Transport`; none while the cluster has no machine that could do rows."""
        machines = self._machines()
        return self._num_actors or sum(machine.num_gpus for machine in machines) or len(machines)

    def hire(self) -> Any:
        """See `transport.Transport`. Where the cluster has no room yet the actor waits for it.

        What an actor gets is settled by the machines that are there now: a cluster may have begun with its head alone.
        """
        machines = self._machines()
        num_gpus = sum(machine.num_gpus for machine in machines)
        if not self._actors:
            self._for_cpus = not num_gpus  # for good, since all must run the same engine
        number = self._num_actors or num_gpus or len(machines)
        share = _share(machines, number)
        most = max((machine.num_places(share) for machine in machines), default=1)
        settings = self._open_settings.on(share, min(number, most) or 1)
        self.rows_at_once = settings.workers
        worker = self._ray.remote(concurrency_groups={"control": 1, "rows": CHUNKS_IN_FLIGHT})(RowWorker).options(
            num_cpus=share,
            num_gpus=1 if num_gpus else 0,
            max_restarts=-1,
            max_task_retries=0,  # Ray would run the row that kills its worker again and again
            scheduling_strategy="SPREAD",
        )
        self._actors.append(worker.remote(settings))
        return self._actors[-1]

    def call(self, handle: Any, method: str, *arguments: Any) -> Any:
        """See `transport.Transport`."""
        bound = getattr(handle, method)
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
        self._ray.kill(handle, no_restart=False)

    def close(self) -> None:
        """See `transport.Transport`; leaves the cluster, or ends it if it was started here."""
        for actor in self._actors:
            self._ray.kill(actor)
        self._actors = []
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
