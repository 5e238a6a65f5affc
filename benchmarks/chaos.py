"""What `kill -9` costs: no row, no byte, and no hanging run.

Usage: python benchmarks/chaos.py [--rows N] [--rounds N] [--kills N] [--only local|ray] [--patience S] [--seed N]

Each round restores the same made-up pictures into a fresh folder, is killed at random moments, and is started again
until it says that it is done. `local` kills the process of the local executor. `ray` drives three nodes of a Ray
cluster on this machine and kills workers, a node (a new one joins a little later) and the driver, in random order; half
of the rounds ask for three actors, half for as many as there are nodes. A row that was killed over and over is set
aside (exit 8), as it should be, and done at the next start by `--retry-failed`. Afterwards every row must stand in the
ledger as done exactly once, every file must be, byte for byte, that of a run that nobody disturbed, with no temporary
file among them, and no run may have been silent for longer than --patience allows. Prints Markdown and ends with 1
where anything is otherwise. Needs a POSIX system, psutil, and for `ray` the extra of that name.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

ENGINE = "faulty:s@0.1"
"""Fills nothing in, and takes 0.1 s for a batch, so that there is something to be killed."""
NUM_NODES = 3
ROWS_FAILED = 8
CLUSTER_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}


@dataclass(slots=True)
class Report:
    """What was done to the runs and what became of them."""

    kind: str
    num_rounds: int = 0
    num_rows: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    num_starts: int = 0
    num_set_aside: int = 0
    """Runs that gave up a row since it was killed over and over; the next start does it, with --retry-failed."""
    longest_silence_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    """Sentences; empty where all is well."""

    def line(self) -> str:
        """One line of the table."""
        kills = ", ".join(f"{count} {what}" for what, count in sorted(self.kills.items()))
        return (
            f"| {self.kind} | {self.num_rounds} × {self.num_rows:,} | {kills} | {self.num_starts} | "
            f"{self.num_set_aside} | {self.longest_silence_s:.0f} s | {len(self.faults)} |"
        )


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures to restore, and what comes out if nobody disturbs it."""

    manifest: Path
    ids: frozenset[str]
    expected: Mapping[str, str]
    """Digest by name of every result."""
    whole_s: float
    """How long the undisturbed run took."""
    patience_s: float = 60.0
    """A run that brings no row to its end for so long counts as hung."""


def main() -> None:
    """Make, kill, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=500, help="rows of a run. Default: 500")
    parser.add_argument("--rounds", type=int, default=20, help="rounds on the cluster. Default: 20")
    parser.add_argument("--kills", type=int, default=100, help="kills of the local executor. Default: 100")
    parser.add_argument("--only", choices=["local", "ray"], help="one of the two. Default: both")
    parser.add_argument(
        "--patience", type=float, default=60, help="seconds without a row after which a run counts as hung. Default: 60"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments and the victims. Default: 1")
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="chaos-") as name:
        gallery = dataclasses.replace(make_gallery(Path(name), arguments.rows), patience_s=arguments.patience)
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs; seed {arguments.seed}")
        print(f"undisturbed, local: {gallery.whole_s:.1f} s\n")
        print("| what | rounds × rows | kill -9 of | starts | set aside | longest silence | faults |")
        print("| --- | --- | --- | ---: | ---: | ---: | ---: |", flush=True)
        reports = []
        if arguments.only != "ray":
            reports.append(kill_local(gallery, Path(name), arguments.kills, arguments.seed, tell=progress))
            print(reports[-1].line(), flush=True)
        if arguments.only != "local":
            reports.append(kill_cluster(gallery, Path(name), arguments.rounds, arguments.seed, tell=progress))
            print(reports[-1].line(), flush=True)
    faults = [f"{report.kind}: {fault}" for report in reports for fault in report.faults]
    if faults:
        raise SystemExit("\n".join(faults))


def progress(text: str) -> None:
    """Tell how it goes, beside the table."""
    print(text, file=sys.stderr, flush=True)


def make_gallery(folder: Path, num_rows: int, side: int = 0) -> Gallery:
    """Pictures in four formats with one hole each, and a run of them that nobody disturbs.

    `side` in pixels; 0 for small ones of many sizes.
    """
    pictures = folder / "in"
    pictures.mkdir()
    chance = np.random.default_rng(0)
    lines = ["image,mask"]
    for number in range(num_rows):
        side_px = side or 72 + number % 40
        coarse = chance.integers(0, 256, (side_px // 4, side_px // 4, 3), np.uint8)
        name = f"{number:05d}.{('png', 'jpg', 'tif', 'webp')[number % 4]}"
        cv2.imwrite(str(pictures / name), coarse.repeat(4, axis=0).repeat(4, axis=1), _as_lossless(name))
        mask = np.zeros((side_px // 4 * 4,) * 2, np.uint8)
        mask[20:40, 24 : 24 + 8 + number % 16] = 255
        cv2.imwrite(str(pictures / f"{name}.mask.png"), mask)
        lines.append(f"{name},{name}.mask.png")
    manifest = pictures / "manifest.csv"
    manifest.write_text("\n".join(lines) + "\n")
    whole = folder / "whole"
    started = time.monotonic()
    subprocess.run(command(manifest, whole), env=environment(), check=True, stdout=subprocess.DEVNULL)
    ids = frozenset(line.split(",")[0] for line in lines[1:])
    return Gallery(manifest, ids, digests(whole), time.monotonic() - started)


def _as_lossless(name: str) -> list[int]:
    return [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []


def command(manifest: Path, output: Path, *flags: str, engine: str = ENGINE) -> list[str]:
    """The run, as a program."""
    program = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    return [*program, "--engine", engine, *(flags or ("--executor", "local", "--workers", "2"))]


def environment(**more: str) -> dict[str, str]:
    """Ours, less what would change the run."""
    hidden = ("INPAINT_BATCH_", "SLURM_", "JOB_", "RAY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(hidden)} | more


def digests(output: Path) -> dict[str, str]:
    """Of every file below, but for the state of the run."""
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and path.relative_to(output).parts[0] != ".inpaint-batch"
    }


def ledger_lines(output: Path) -> Iterator[dict[str, Any]]:
    """Every line that can be read; the torn ends of killed runs cannot."""
    for part in sorted((output / ".inpaint-batch" / "ledger").glob("*.jsonl")):
        for text in part.read_bytes().splitlines():
            with suppress(ValueError):
                yield json.loads(text)


def faults_of(gallery: Gallery, output: Path) -> list[str]:
    """What is not as it should be once a run has ended."""
    done = Counter(line["id"] for line in ledger_lines(output) if line["status"] == "done")
    found = digests(output)
    sentences = {
        "rows were never done": gallery.ids - set(done),
        "rows were done more than once": {row for row, count in done.items() if count > 1},
        "results are missing": gallery.expected.keys() - found.keys(),
        "files are left over": found.keys() - gallery.expected.keys(),
        "results differ": {name for name in found.keys() & gallery.expected if found[name] != gallery.expected[name]},
    }
    return [f"{len(names)} {what}: {', '.join(sorted(names)[:3])}" for what, names in sentences.items() if names]


class Watch:
    """A run as a process; knows how long it has brought no row to its end."""

    def __init__(self, arguments: list[str], output: Path, env: Mapping[str, str], patience_s: float) -> None:
        self._patience_s = patience_s
        self._ledger = output / ".inpaint-batch" / "ledger"
        self._size = self._num_bytes()
        self._heard_at_s = time.monotonic()
        self.longest_silence_s = 0.0
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed in `end`)
        self.process = subprocess.Popen(arguments, env=env, stdout=subprocess.DEVNULL, stderr=self._errors)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._errors.close()

    def running(self, wait_s: float = 0.02) -> bool:
        """Whether it still runs, after a moment."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(wait_s)
        if (size := self._num_bytes()) != self._size:
            self._size, self._heard_at_s = size, time.monotonic()
        self.longest_silence_s = max(self.longest_silence_s, time.monotonic() - self._heard_at_s)
        return self.process.poll() is None

    def is_hung(self) -> bool:
        """Whether it has been silent for too long."""
        return time.monotonic() - self._heard_at_s > self._patience_s

    def sleep(self, seconds: float) -> bool:
        """Whether it still runs after so long."""
        until = time.monotonic() + seconds
        while self.running() and time.monotonic() < until and not self.is_hung():
            pass
        return self.process.poll() is None

    def kill(self) -> None:
        """As the out-of-memory killer does."""
        self.process.kill()
        self.process.wait()

    def last_words(self) -> str:
        """The end of what it told."""
        self._errors.seek(0)
        return " ".join(self._errors.read()[-400:].split())

    def _num_bytes(self) -> int:
        return sum(part.stat().st_size for part in self._ledger.glob("*.jsonl"))


def kill_local(
    gallery: Gallery, folder: Path, num_kills: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Kill runs of the local executor at so many moments, all equally likely from the start of a run to its end."""
    report, chance = Report("local executor", num_rows=len(gallery.ids)), random.Random(seed)
    flags = ("--executor", "local", "--workers", "2", "--retry-failed")

    def disturb(run: Watch) -> None:
        if report.kills["process"] < num_kills and run.sleep(chance.uniform(0, gallery.whole_s)):
            run.kill()
            report.kills["process"] += 1

    while report.kills["process"] < num_kills and not report.faults:
        _round(gallery, folder / f"local-{report.num_rounds}", flags, environment(), report, disturb)
        tell(report.line())
    return report


def kill_cluster(
    gallery: Gallery, folder: Path, num_rounds: int, seed: int, tell: Callable[[str], None] = lambda _: None
) -> Report:
    """Kill workers, nodes and drivers of runs on a cluster: in each round two workers, one node and the driver."""
    report, chance = Report(f"Ray, {NUM_NODES} nodes", num_rows=len(gallery.ids)), random.Random(seed)
    with cluster(folder) as nodes:
        for number in range(num_rounds):
            actors = str(NUM_NODES if number % 2 == 0 else 0)
            flags = ("--executor", "ray", "--actors", actors, "--workers", "2", "--retry-failed")
            victims = chance.sample(["worker", "worker", "node", "driver"], 4)

            def disturb(run: Watch, victims: list[str] = victims) -> None:
                while victims and nodes.wait_for_worker(run) and run.sleep(chance.uniform(0, 1.5)):
                    nodes.kill(victim := victims.pop(), run, chance)
                    report.kills[victim] += 1

            _round(gallery, folder / f"ray-{number}", flags, nodes.environment, report, disturb)
            tell(f"{report.line()} not needed: {victims}")
    return report


def _round(
    gallery: Gallery,
    output: Path,
    flags: tuple[str, ...],
    env: Mapping[str, str],
    report: Report,
    disturb: Callable[[Watch], None],
) -> None:
    """Start a run, disturb it, and start it again until it says that all is done; then look."""
    while True:
        report.num_starts += 1
        with Watch(command(gallery.manifest, output, *flags), output, env, gallery.patience_s) as run:
            disturb(run)
            while run.running(0.1) and not run.is_hung():
                pass
            report.longest_silence_s = max(report.longest_silence_s, run.longest_silence_s)
            code = run.process.poll()
            if code == ROWS_FAILED:
                report.num_set_aside += 1
            elif code not in (0, -signal.SIGKILL):
                what = f"was silent for {gallery.patience_s:g} s" if code is None else f"ended with {code}"
                report.faults.append(f"a run {what}: {run.last_words()}")
        if code not in (ROWS_FAILED, -signal.SIGKILL):
            break
    report.num_rounds += 1
    report.faults += faults_of(gallery, output)


class Nodes:
    """A Ray cluster of several nodes on this machine, to be damaged."""

    def __init__(self, ray_cluster: Any, variables: Mapping[str, str]) -> None:
        self._cluster = ray_cluster
        self._nodes = [self._new_node() for _ in range(NUM_NODES - 1)]
        self.environment = environment(**variables, RAY_ADDRESS=ray_cluster.address)

    def _new_node(self) -> Any:
        return self._cluster.add_node(num_cpus=1, object_store_memory=80 << 20)

    def workers(self) -> list[psutil.Process]:
        """The processes that restore pictures."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::RowWorker"):
                    found.append(process)
        return found

    def wait_for_worker(self, run: Watch) -> bool:
        """Until there is one; false where the run ended before."""
        while run.running(0.1) and not run.is_hung():
            if self.workers():
                return True
        return False

    def kill(self, victim: str, run: Watch, chance: random.Random) -> None:
        """One of them, at once; a node that is lost is replaced."""
        if victim == "driver":
            run.kill()
        elif victim == "worker":
            if workers := self.workers():
                with suppress(psutil.Error):
                    chance.choice(workers).kill()
        else:
            self._cluster.remove_node(self._nodes.pop(chance.randrange(len(self._nodes))), allow_graceful=False)
            run.sleep(chance.uniform(0, 3))
            self._nodes.append(self._new_node())


@contextmanager
def cluster(home: Path) -> Iterator[Nodes]:
    """A cluster whose head is no victim: Ray has one, and does not survive it. Its token stays in `home`."""
    variables = {**CLUSTER_SETTINGS, "HOME": str(home)}
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.update(variables)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster
    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 80 << 20})
    try:
        yield Nodes(ray_cluster, variables)
    finally:
        ray_cluster.shutdown()


if __name__ == "__main__":
    main()
