"""What it costs to have rows done elsewhere: worker processes and Ray beside the local executor, with equal workers.

Usage: python benchmarks/overhead.py [--rows N] [--side PX] [--rounds N] [--engine NAME] [--executors NAME ...]

Every round runs all executors on the same made-up pictures, in turn forwards and backwards, so that a machine that is
busy with other things is busy for all of them. Each has one worker with as many threads as there are cores. *Working*
is the time from the first row begun to the last one done, *start-up and end* the rest of the process's life. *CPU* is
what all processes took for all rows less what they took for one row; Ray's own processes are in it. The driver's part
of that is told for itself. The results must be the same bytes. Prints Markdown: medians over the rounds. Ray's cluster
is started once, outside the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from chaos import command, digests, environment, ledger_lines, make_gallery

EXECUTORS = ("local", "process", "ray")
LOOK_S = 0.2
CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, object_store_memory=80 << 20)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


DRIVER = """
import resource, sys
from inpaint_batch.cli.main import main
try:
    main()
finally:
    own, workers = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(own.ru_utime + own.ru_stime, workers.ru_utime + workers.ru_stime)
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    working_s: float
    around_s: float
    """Start-up and end."""
    driver_cpu_s: float
    cpu_s: float
    """Of all processes."""
    bytes: Mapping[str, str]
    """Digest by name of every result."""


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1000, help="rows of a run. Default: 1000")
    parser.add_argument("--side", type=int, default=512, help="side of the pictures in pixels. Default: 512")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each executor. Default: 5")
    parser.add_argument("--engine", default="onnxruntime", help="onnxruntime, or identity. Default: onnxruntime")
    parser.add_argument("--executors", nargs="+", choices=EXECUTORS, default=list(EXECUTORS), help="Default: all")
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="overhead-") as name, cluster(Path(name)) as env:
        folder = Path(name)
        (folder / "one").mkdir()
        one = make_gallery(folder / "one", 1, side=arguments.side).manifest
        many = make_gallery(folder, arguments.rows, side=arguments.side).manifest
        runs: dict[str, list[Measured]] = {executor: [] for executor in arguments.executors}
        bases: dict[str, list[Measured]] = {executor: [] for executor in arguments.executors}
        for number in range(arguments.rounds):
            for executor in list(runs)[:: 1 if number % 2 == 0 else -1]:
                output = folder / f"{executor}-{number}"
                bases[executor].append(measure(one, output.with_suffix(".one"), executor, arguments.engine, env))
                runs[executor].append(measure(many, output, executor, arguments.engine, env))
                print(f"round {number + 1}, {executor}: {runs[executor][-1].working_s:.1f} s", file=sys.stderr)
        if any(run.bytes != runs[arguments.executors[0]][0].bytes for kind in runs.values() for run in kind):
            raise SystemExit("the results are not the same bytes")
    print(
        f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs; {arguments.engine}, ", end=""
    )
    print(f"{arguments.rows} rows of {arguments.side} px, medians of {arguments.rounds} rounds\n")
    print("| executor | working | of local | CPU | of local | start-up and end | driver's CPU, µs a row |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for executor, measured in runs.items():
        reference = "local" if "local" in runs else executor
        print(line(measured, bases[executor], runs[reference], bases[reference], executor))


def line(
    runs: list[Measured], bases: list[Measured], local: list[Measured], local_bases: list[Measured], executor: str
) -> str:
    """One line of the table; ratios are medians of those within a round."""
    median = statistics.median
    working = median(run.working_s / other.working_s for run, other in zip(runs, local, strict=True))
    cpu = [run.cpu_s - base.cpu_s for run, base in zip(runs, bases, strict=True)]
    local_cpu = [run.cpu_s - base.cpu_s for run, base in zip(local, local_bases, strict=True)]
    of_local = median(mine / other for mine, other in zip(cpu, local_cpu, strict=True))
    driver = [run.driver_cpu_s - base.driver_cpu_s for run, base in zip(runs, bases, strict=True)]
    cost = f"{median(driver) / len(runs[0].bytes) * 1e6:.0f}" if executor != "local" else "all of it"
    return (
        f"| {executor} | {median(run.working_s for run in runs):.1f} s | {working:.3f} | {median(cpu):.1f} s | "
        f"{of_local:.3f} | {median(run.around_s for run in runs):.1f} s | {cost} |"
    )


def measure(manifest: Path, output: Path, executor: str, engine: str, env: Mapping[str, str]) -> Measured:
    """Run it once."""
    flags = ["--executor", executor, "--workers", "2", *(["--actors", "1"] if executor != "local" else [])]
    program = [sys.executable, "-c", DRIVER, *command(manifest, output, *flags, engine=engine)[3:]]
    started = time.perf_counter()
    with ClusterTime() if executor == "ray" else nullcontext() as cluster_time:
        done = subprocess.run(program, env=env, capture_output=True, text=True)
    wall_s = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(done.stderr)
    driver_s, children_s = (float(number) for number in done.stdout.splitlines()[-1].split())
    cluster_s = cluster_time.seconds if cluster_time else 0.0
    lines = list(ledger_lines(output))
    working_s = max(line["at"] for line in lines) - min(line["at"] for line in lines)
    return Measured(working_s, wall_s - working_s, driver_s, driver_s + children_s + cluster_s, digests(output))


class ClusterTime:
    """Processor time of all processes below this one, but for those of the run: looked up again and again, since Ray
    tells of none that has ended."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._first: dict[psutil.Process, float] = {}
        self._last: dict[psutil.Process, float] = {}
        self._thread = threading.Thread(target=self._look_on)
        self.seconds = 0.0

    def __enter__(self) -> ClusterTime:
        self._look(self._first)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._look(self._last)
        self.seconds = sum(cpu_s - self._first.get(process, 0.0) for process, cpu_s in self._last.items())

    def _look_on(self) -> None:
        while not self._ended.wait(LOOK_S):
            self._look(self._last)

    def _look(self, into: dict[psutil.Process, float]) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if DRIVER not in process.cmdline():  # it tells by itself
                    into[process] = sum(process.cpu_times()[:2])


@contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """Ray on this machine, as a process of its own; yields the environment that leads there."""
    variables = environment(HOME=str(home), RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    variables["RAY_worker_niceness"] = "0"  # Ray's 15 would let everything else on a busy machine go first
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CLUSTER, str(os.cpu_count() or 1)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    ) as process:
        assert process.stdout is not None
        yield {**variables, "RAY_ADDRESS": process.stdout.readline().strip()}
        process.communicate()


if __name__ == "__main__":
    main()
