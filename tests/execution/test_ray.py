"""The Ray executor with real Ray, on CPUs: the same bytes, and workers that die, hang and are told to go."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from execution_cases import worker_settings
from gallery import Gallery, ledger_lines, run, tree, wait_until_done
from PIL import Image
from ray_runs import cluster, finish, start

from inpaint_batch.config import RowConfig, RunConfig
from inpaint_batch.errors import (
    ConfigError,
    EngineError,
    FailureCode,
    StopRequestedError,
    UsageError,
    WorkerLostError,
)
from inpaint_batch.execution import ray_cluster, ray_transport, worker
from inpaint_batch.execution.ray_transport import RayTransport
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.worker import RowWorker, WorkerSettings
from inpaint_batch.manifest.read import read_manifest
from inpaint_batch.pipeline import executors
from inpaint_batch.pipeline.executors import choose_executor, num_processes
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.types import Row

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'inpaint-batch[ray]'"
)


@pytest.fixture(scope="module")
def ray_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with cluster(tmp_path_factory.mktemp("home")) as environment:
        yield environment


def add_plain(gallery: Gallery, name: str, grey: int) -> None:
    path = gallery.add(name)
    Image.fromarray(np.full((72, 72, 3), grey, np.uint8)).save(path)


@needs_ray
def test_rows_that_kill_and_hang_among_good_ones(every_format, tmp_path, ray_environment):
    """Also that all others have the bytes of a local run, and that stdout is ours alone."""
    gallery, output = every_format, tmp_path / "out"
    add_plain(gallery, "deadly.png", 255)
    for number in range(12):
        gallery.add(f"more/{number}.png")
    add_plain(gallery, "hangs.png", 0)
    manifest = gallery.manifest()
    flags = ("--log-format", "json", "--row-timeout", "6")
    with start(manifest, output, ray_environment, *flags, engine="faulty:p@3000") as process:
        summary, stdout, _ = finish(process, output)
    assert summary["exit_code"] == process.returncode == 8
    assert summary["rows"]["failed_by_code"] == {"crash": 1, "timeout": 1}
    assert summary["rows"]["done"] == len(gallery.rows) - 2
    run(manifest, tmp_path / "local")
    local = tree(tmp_path / "local")
    del local["deadly.png"], local["hangs.png"]
    assert tree(output) == local  # no temporary file of a dead worker either
    events = [json.loads(line) for line in stdout.splitlines()]  # nothing of Ray's among them
    assert [event["event"] for event in events][-2:] == ["end", "error"]
    assert {event["row"] for event in events if event.get("status") == "failed"} == {"deadly.png", "hangs.png"}
    (deadly,) = (event for event in events if event["row"] == "deadly.png" and event["event"] == "row")
    assert (deadly["attempt"], deadly["run"]) == (3, summary["run"])
    workers = {event["worker"] for event in events if event.get("status") == "done"}
    assert len(workers) >= 2  # two, and those that were started again
    done = Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")
    assert set(done.values()) == {1}
    log = (output / ".inpaint-batch" / "run.log").read_text()
    assert log.count("a worker died while it had") == 3


@needs_ray
def test_a_model_that_is_missing_there_is_told_with_the_node(gallery, tmp_path, ray_environment):
    gallery.add("a.png")
    flags = ("--model", str(tmp_path / "no.onnx"))
    with start(gallery.manifest(), tmp_path / "out", ray_environment, *flags, engine="onnxruntime") as process:
        summary, _, stderr = finish(process, tmp_path / "out")
    assert process.returncode == summary["exit_code"] == 6
    assert re.search(
        r"there is no model \S+/no\.onnx: check the path given with --model \(on node [\d.]+\)$", stderr, re.M
    )


@needs_ray
def test_a_signal_drains_the_workers(gallery, tmp_path, ray_environment):
    for number in range(40):
        gallery.add(f"slow/{number}.png", side=260, hole=(60, 50, 18, 150))
    manifest, output = gallery.manifest(), tmp_path / "out"
    with start(manifest, output, ray_environment, engine="faulty:s@0.5") as process:
        wait_until_done(process, output, 1)
        process.send_signal(signal.SIGTERM)
        summary, _, stderr = finish(process, output)
    assert process.returncode == summary["exit_code"] == 75
    assert "run again to go on" in stderr
    num_done = summary["rows"]["done"]
    assert 0 < num_done < len(gallery.rows)
    assert len(tree(output)) == num_done
    rest = run(manifest, output, engine="faulty:s@0")
    assert (rest["exit_code"], rest["rows"]["skipped"]) == (0, num_done)
    run(manifest, tmp_path / "whole")
    assert tree(output) == tree(tmp_path / "whole")


@needs_ray
def test_a_hanging_row_does_not_hold_up_the_end_for_longer_than_the_grace(gallery, tmp_path, ray_environment):
    add_plain(gallery, "hangs.png", 0)
    for number in range(12):
        gallery.add(f"{number}.png")
    manifest, output = gallery.manifest(), tmp_path / "out"
    with start(manifest, output, ray_environment, "--grace", "1", engine="faulty:p@3000") as process:
        wait_until_done(process, output, 13 - 2)  # all but the two chunks of the worker that hangs since long
        process.send_signal(signal.SIGTERM)
        summary, _, stderr = finish(process, output)
    assert process.returncode == summary["exit_code"] == 75
    assert "did not end within --grace 1 s" in stderr
    assert not [name for name in tree(output) if name.endswith(".tmp")]
    assert run(manifest, output)["exit_code"] == 0
    assert len(tree(output)) == len(gallery.rows)


def test_a_worker_counts_and_leaves_and_hands_its_log_over(gallery, tmp_path):
    """Without Ray: a worker is a plain object."""
    for number in range(3):
        gallery.add(f"{number}.png")
    add_plain(gallery, "broken.png", 9)
    rows = [row for row in read_manifest(gallery.manifest()) if isinstance(row, Row)]
    tasks = [RowTask(row, RowConfig(), "key", row.output, str(tmp_path / "out" / row.output)) for row in rows]
    worker = pickle.loads(pickle.dumps(RowWorker))(worker_settings(engine="faulty:e"))
    assert worker.start().identity == "faulty:e"
    result = pickle.loads(pickle.dumps(worker.do(1, tasks)))
    assert {outcome.failure.code for outcome in result.outcomes} == {FailureCode.INFER}
    assert len(result.log) == worker.pulse().num_rows == 4
    assert "RuntimeError: the faulty engine broke" in result.log[0][1]
    worker.leave(2)
    assert worker.do(2, tasks).outcomes == []
    assert len(worker.do(3, tasks).outcomes) == 4
    with pytest.raises(EngineError, match="there is no model"):
        RowWorker(worker_settings(engine="onnxruntime", model=str(tmp_path / "no.onnx"))).start()
    assert isinstance(pickle.loads(pickle.dumps(EngineError("gone"))), EngineError)


def test_a_worker_looks_for_plans_where_the_run_does(monkeypatch, tmp_path):
    """Its node knows nothing of the environment of the driver, but may have a folder of its own."""
    named: list[str | None] = []

    def select(*_: object, **__: object) -> IdentityEngine:
        named.append(os.environ.get("INPAINT_BATCH_ENGINES"))
        return IdentityEngine()

    monkeypatch.setattr(worker, "select_engine", select)
    for own, plans in ((None, ""), (None, "/shared/plans"), ("/own", "/shared/plans")):
        monkeypatch.setenv("INPAINT_BATCH_ENGINES", own or "")  # so that it is put back
        if own is None:
            monkeypatch.delenv("INPAINT_BATCH_ENGINES")
        RowWorker(worker_settings(plans=plans)).start()
    assert named == [None, "/shared/plans", "/own"]


def test_without_ray_it_says_what_to_install(gallery, tmp_path):
    gallery.add("a.png")
    script = (
        "import sys; sys.modules['ray'] = None\n"
        "from inpaint_batch.cli.main import main\n"
        f"sys.argv = ['inpaint-batch', 'run', {str(gallery.manifest())!r}, '--output', {str(tmp_path / 'out')!r},"
        " '--engine', 'identity', '--executor', 'ray']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 5
    assert "pip install 'inpaint-batch[ray]'" in done.stderr


@pytest.mark.parametrize("address", ["ray://head:10001", "http://head:8265"])
def test_an_address_for_work_from_outside_is_refused(monkeypatch, address):
    """Ray's client cannot do what the actors are asked for; that ended as a bug."""
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=r"submit it with `ray job submit`, .* or use --executor local"):
        RayTransport(worker_settings())


@needs_ray
def test_a_cluster_that_does_not_answer_is_told_soon(monkeypatch):
    monkeypatch.setattr(ray_cluster, "REACH_S", 0.0)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it listens to nobody
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(WorkerLostError, match=f"no Ray cluster answers at RAY_ADDRESS {address} .* or use --exec"):
            RayTransport(worker_settings())
        with pytest.raises(StopRequestedError, match="stopped before the cluster answered"):
            RayTransport(worker_settings(), stopping=lambda: True)


def test_nothing_of_ray_is_imported_by_a_local_run(gallery, tmp_path):
    gallery.add("a.png")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[3]); from gallery import run\n"
        "run(Path(sys.argv[1]), Path(sys.argv[2])); print('ray' in sys.modules, 'pyarrow' in sys.modules)"
    )
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", script, str(gallery.manifest()), str(tmp_path / "out"), tests]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False False\n"


def test_who_does_the_rows(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_executor(RunConfig(output=tmp_path)) == "local"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(executors, "find_spec", lambda name: object())
    assert choose_executor(RunConfig(output=tmp_path)) == "ray"
    assert num_processes(RunConfig(output=tmp_path)) == 2
    assert choose_executor(RunConfig(output=tmp_path, engine="onnxruntime")) == "local"
    assert choose_executor(RunConfig(output=tmp_path, executor="local")) == "local"
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    assert choose_executor(RunConfig(output=tmp_path)) == "local"
    assert num_processes(RunConfig(output=tmp_path)) == 1
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert choose_executor(RunConfig(output=tmp_path)) == "ray"
    assert num_processes(RunConfig(output=tmp_path, actors=2)) == 1  # who knows on how many machines
    monkeypatch.delenv("RAY_ADDRESS")
    assert choose_executor(RunConfig(output=tmp_path, row_timeout_s=3)) == "process"
    assert choose_executor(RunConfig(output=tmp_path, actors=2)) == "process"
    assert num_processes(RunConfig(output=tmp_path, actors=2)) == 2
    assert num_processes(RunConfig(output=tmp_path, executor="process")) == 2  # one for each GPU
    assert num_processes(RunConfig(output=tmp_path, executor="process", engine="onnxruntime")) == 1
    with pytest.raises(UsageError, match="--executor process, or --executor ray"):
        choose_executor(RunConfig(output=tmp_path, executor="local", row_timeout_s=3))


class Machines:
    """What of Ray the placing of actors needs; nodes come when the test lets them."""

    def __init__(self) -> None:
        self.resources: list[dict[str, float]] = [{"CPU": 0.0, "memory": 1e9}]  # a head that does no rows
        self.placed: list[tuple[dict[str, Any], WorkerSettings]] = []
        self.killed: list[int] = []
        self._options: dict[str, Any] = {}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": resources} for resources in self.resources]

    def remote(self, *arguments: Any, **options: Any) -> Any:
        if options:
            return lambda worker: self
        self.placed.append((self._options, *arguments))
        return len(self.placed)

    def wait(self, tokens: Any, timeout: float) -> Any:
        return [], tokens

    def options(self, **options: Any) -> Machines:
        self._options = options
        return self

    def kill(self, actor: Any) -> None:
        self.killed.append(actor)


@pytest.mark.parametrize("engine", ["auto", "onnxruntime"])
def test_actors_are_as_large_as_the_machines_that_join(monkeypatch, engine):
    machines = Machines()
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(machines))
    transport = RayTransport(worker_settings(engine=engine, threads=0, workers=0))
    assert transport.num_wanted() == 0  # it waits for machines, rather than to take what the head has not got
    for number in (1, 2):
        machines.resources.append({"CPU": 48.0, "GPU": 4.0})
        wanted = 4 * number if engine == "auto" else number
        assert transport.num_wanted() == wanted
        while len(machines.placed) < wanted:
            transport.hire()
    share = 12 if engine == "auto" else 48
    for options, told in machines.placed:
        assert (options["num_cpus"], options["num_gpus"]) == (share, 1 if engine == "auto" else 0)
        assert (told.threads, told.workers, told.num_processes) == (share, 4, 48 // share)
    assert transport.rows_at_once == 4
    transport.close()


@pytest.mark.parametrize(
    ("machines", "actors", "share"),
    [
        ([(8, 0), (8, 0)], 3, 4),  # a third of all, 5, would leave no room for the third
        ([(3, 0), (3, 0), (3, 0)], 4, 1),
        ([(32, 0), (4, 0)], 8, 4),
        ([(32, 0), (4, 0)], 0, 4),  # one for each
        ([(4, 0)], 9, 1),
        ([(2, 0), (64, 8)], 0, 8),  # what has no GPU does not count
        ([(64, 0), (16, 8)], 0, 2),
        ([(16, 2)], 4, 8),  # two of them wait for a GPU
    ],
)
def test_there_is_room_for_as_many_actors_as_are_asked_for(monkeypatch, machines, actors, share):
    cluster = Machines()
    cluster.resources = [{"CPU": float(num_cpus), "GPU": float(num_gpus)} for num_cpus, num_gpus in machines]
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(cluster))
    transport = RayTransport(worker_settings(engine="auto", threads=0), num_actors=actors)
    while len(cluster.placed) < transport.num_wanted():
        transport.hire()
    assert {(options["num_cpus"], told.threads) for options, told in cluster.placed} == {(share, share)}


def test_a_run_that_began_on_cpus_stays_there(monkeypatch):
    machines = Machines()
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(machines))
    transport = RayTransport(worker_settings(engine="auto", threads=0))
    machines.resources.append({"CPU": 4.0})
    transport.hire()
    machines.resources.append({"CPU": 4.0, "GPU": 8.0})  # another engine than that of the first would end the run
    assert transport.num_wanted() == 2
    transport.hire()
    assert [options["num_gpus"] for options, _ in machines.placed] == [0, 0]


@pytest.mark.parametrize(("engine", "num_gpus"), [("tensorrt", 1), ("onnxruntime-cuda", 1), ("torch", 0), ("auto", 0)])
def test_gpus_that_come_by_demand_are_asked_for(monkeypatch, engine, num_gpus):
    """By engines that can do nothing without, where so many actors are asked for; others may be content with CPUs."""
    machines = Machines()
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(machines))
    transport = RayTransport(worker_settings(engine=engine, threads=0, workers=0), num_actors=2)
    machines.resources.append({"CPU": 2.0})  # of no use to an engine for GPUs
    transport.hire()
    machines.resources.append({"CPU": 16.0, "GPU": 2.0})
    transport.hire()
    assert [options["num_gpus"] for options, _ in machines.placed] == [num_gpus] * 2
    if num_gpus:
        assert [(options["num_cpus"], told.workers) for options, told in machines.placed] == [(1, 4), (8, 4)]


def test_actors_for_large_machines_are_made_anew_for_smaller_ones(monkeypatch):
    """Those that no machine holds any more waited for good."""
    now_s = 1000.0
    monkeypatch.setattr(ray_transport.time, "monotonic", lambda: now_s)
    machines = Machines()
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(machines))
    transport = RayTransport(worker_settings(engine="onnxruntime", threads=0))
    machines.resources = [{"CPU": 48.0}]
    transport.hire()
    for resources, seconds, placed in (
        ([{"CPU": 8.0}], 0, [48]),
        ([{"CPU": 48.0}], 100, [48]),  # its like came in the meantime
        ([{"CPU": 8.0}], 100, [48]),
        ([], 100, [48]),
        ([{"CPU": 8.0}], 100, [48]),
        ([{"CPU": 8.0}], ray_transport.MISFIT_S, [48, 8]),
        ([{"CPU": 8.0}], 1000, [48, 8]),
    ):
        now_s += seconds
        machines.resources = resources
        assert transport.num_wanted() == len(resources)
        assert [options["num_cpus"] for options, _ in machines.placed] == placed
    assert machines.killed == [1]


def test_a_lost_node_is_told_from_a_lost_process(monkeypatch):
    """An actor is asked where it is along with its engine; it has rows from the first `do` on."""
    alive, answers = {"one", "two"}, {}
    machines: Any = Machines()
    machines.nodes = lambda: [{"Alive": name in alive, "NodeID": name, "Resources": {}} for name in ("one", "two")]
    machines.wait = lambda tokens, timeout: ([token for token in tokens if token in answers], [])
    machines.get = answers.__getitem__
    monkeypatch.setattr(ray_transport, "ray_cluster", lambda *_, **__: nullcontext(machines))
    monkeypatch.setattr(ray_transport, "_LOOK_S", 0.0)
    transport = RayTransport(worker_settings())
    calls: list[str] = []

    def call(_: object, method: str, *__: object) -> str:
        calls.append(method)
        return f"{method} {len(calls)}"

    monkeypatch.setattr(transport, "_call", call)
    hand = ray_transport._Hand(None, 1)
    transport.call(hand, "start")
    assert transport.was_its_machine(hand) is False  # it never had a row
    answers[hand.asked] = "one"
    transport.call(hand, "do")
    assert transport.was_its_machine(hand) is None
    transport.call(hand, "start")
    assert transport.was_its_machine(hand) is None
    answers[hand.asked] = "one"  # back, while its node is there
    assert transport.was_its_machine(hand) is False
    transport.call(hand, "do")
    transport.call(hand, "do")
    transport.call(hand, "start")
    alive.remove("one")
    assert transport.was_its_machine(hand) is True
    answers[hand.asked] = "two"
    assert transport.was_its_machine(hand) is True
    transport.call(hand, "do")
    assert transport.was_its_machine(hand) is None
    transport.close()
