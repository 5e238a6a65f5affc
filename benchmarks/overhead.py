"""What it costs to have rows done elsewhere: worker processes and Ray beside the local executor, with equal workers.

Usage: python benchmarks/overhead.py [--rows N] [--side PX] [--rounds N] [--engine NAME] [--executors NAME ...]

Every round runs all executors on the same made-up pictures, in turn forwards and backwards, so that a machine that is
busy with other things is busy for all of them. Each has one worker with as many threads as there are cores. *Working*
is the time from the first row begun to the last one done, *start-up* and end are the rest of the process's life. The
driver's cost of a row is its processor time for all rows less that for one row. The results must be the same bytes.
Prints Markdown: medians over the rounds. Ray's cluster is started once, outside the clock.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from chaos import command, digests, environment, ledger_lines, make_gallery

EXECUTORS = ("local", "process", "ray")
CLUSTER = """
import sys, ray
ray.init(address="local", num_cpus=int(sys.argv[1]), include_dashboard=False, object_store_memory=80 << 20)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    working_s: float
    around_s: float
    """Start-up and end."""
    driver_cpu_s: float
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
    print("| executor | working | of local | start-up and end | driver's CPU, µs a row |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for executor, measured in runs.items():
        print(line(executor, measured, bases[executor], runs.get("local", measured)))


def line(executor: str, runs: list[Measured], bases: list[Measured], local: list[Measured]) -> str:
    """One line of the table; the ratio is the median of those within a round."""
    ratios = [run.working_s / other.working_s for run, other in zip(runs, local, strict=True)]
    costs = [run.driver_cpu_s - base.driver_cpu_s for run, base in zip(runs, bases, strict=True)]
    cost = f"{statistics.median(costs) / len(runs[0].bytes) * 1e6:.0f}" if executor != "local" else ""
    working = statistics.median(run.working_s for run in runs)
    around = statistics.median(run.around_s for run in runs)
    return f"| {executor} | {working:.1f} s | {statistics.median(ratios):.3f} | {around:.1f} s | {cost} |"


def measure(manifest: Path, output: Path, executor: str, engine: str, env: Mapping[str, str]) -> Measured:
    """Run it once."""
    flags = ["--executor", executor, "--workers", "2", *(["--actors", "1"] if executor != "local" else [])]
    started = time.perf_counter()
    with subprocess.Popen(command(manifest, output, *flags, engine=engine), env=env, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall_s = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(told.decode())
    lines = list(ledger_lines(output))
    working_s = max(line["at"] for line in lines) - min(line["at"] for line in lines)
    return Measured(working_s, wall_s - working_s, usage.ru_utime + usage.ru_stime, digests(output))


@contextmanager
def cluster(home: Path) -> Iterator[dict[str, str]]:
    """Ray on this machine, as a process of its own; yields the environment that leads there."""
    variables = environment(HOME=str(home), RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
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
