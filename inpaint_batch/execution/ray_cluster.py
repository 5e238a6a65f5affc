"""The Ray cluster that a run works on: the one that RAY_ADDRESS names, or one made of this machine.

Ray is imported here alone, and only when a run wants it.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from inpaint_batch.errors import ConfigError, MissingDependencyError, StopRequestedError, WorkerLostError
from inpaint_batch.execution.tasks import never
from inpaint_batch.machine import num_cores
from inpaint_batch.signals import ASKING
from inpaint_batch.words import one_line

OBJECT_STORE_BYTES = 80 << 20
"""Nearly the least that Ray takes: no pixels travel."""
_NO_CLUSTER = ("ray://", "http://", "https://")
"""Addresses of Ray's client and of its jobs."""
REACH_S = 30.0
"""How long a head node may take to answer, as one that is just starting; Ray would ask for a quarter of an hour."""
_QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


@contextmanager
def ray_cluster(
    *modules: str, extra: str, num_cpus: int = 0, instead: str = "", stopping: Callable[[], bool] = never
) -> Iterator[Any]:
    """Ray, connected; yields its module, with the submodules `modules` (`ray.train`) imported.

    A cluster made here counts as having `num_cpus` cores where the machine has fewer. What Ray prints goes to stderr,
    and signal handlers stay as they were.

    Raises MissingDependencyError, which names `extra`, and WorkerLostError where no cluster can be reached or started;
    both end in what to do `instead`, if anything. Raises ConfigError for an address that is not one of a cluster,
    and StopRequestedError where `stopping()` becomes true while the head node is waited for.
    """
    instead = instead and f", or {instead}"
    if (address := os.environ.get("RAY_ADDRESS", "")).startswith(_NO_CLUSTER):
        raise ConfigError(
            f"RAY_ADDRESS is {address}, an address for work from outside, and this drives its workers from within the "
            f"cluster: submit it with `ray job submit`, or set RAY_ADDRESS to HEAD:6379 on one of its machines{instead}"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray, *_ = _imported("ray", *modules, advice=f"pip install 'inpaint-batch[{extra}]'{instead}")
    _wait_for_head(address, instead, stopping)
    with redirect_stdout(sys.stderr):  # "(raylet) a worker died" comes by print, whatever is asked
        in_main_thread = threading.current_thread() is threading.main_thread()  # no other may set handlers
        handlers = {number: signal.getsignal(number) for number in ASKING if in_main_thread}
        try:
            if os.environ.get("RAY_ADDRESS"):
                ray.init(address="auto", **_QUIET)
            else:
                # "local": Ray would rather join a cluster that somebody else has started on this machine.
                size = {"num_cpus": max(num_cores(), num_cpus), "object_store_memory": OBJECT_STORE_BYTES}
                ray.init(address="local", include_dashboard=False, **size, **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerLostError(f"{_why_no_cluster(error)}{instead}") from error
        finally:
            for number, handler in handlers.items():  # Ray's own would print a trace and abort
                signal.signal(number, handler)
        try:
            yield ray
        finally:
            ray.shutdown()


def _wait_for_head(address: str, instead: str, stopping: Callable[[], bool]) -> None:
    """Raise WorkerLostError where nobody answers at an address of host and port, StopRequestedError if asked to."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    until_s = time.monotonic() + REACH_S
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5.0).close()
            return
        except (OSError, OverflowError, UnicodeError) as error:
            if stopping():
                raise StopRequestedError("stopped before the cluster answered; run again to go on") from None
            if time.monotonic() >= until_s:
                raise WorkerLostError(
                    f"no Ray cluster answers at RAY_ADDRESS {address} ({error}); start it, or correct RAY_ADDRESS"
                    f"{instead}"
                ) from error
            time.sleep(1.0)


def _imported(*names: str, advice: str) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray's own imports
        try:
            return [importlib.import_module(name) for name in names]
        except ImportError as error:
            raise MissingDependencyError(f"Ray cannot be imported ({error}): {advice}") from error


def _why_no_cluster(error: Exception) -> str:
    if "Authentication" in f"{error} {error.__cause__}":
        return "the Ray cluster wants a token; set RAY_AUTH_MODE=token and bring the cluster's ~/.ray/auth_token here"
    return f"cannot reach or start Ray ({one_line(error)}); check RAY_ADDRESS and `ray status`"
