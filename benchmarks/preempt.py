"""What happens when a scheduler asks for its machine back: SIGTERM in the middle of a run, by each executor.

Usage: python benchmarks/preempt.py [--rows N] [--rounds N] [--grace S] [--executors NAME ...] [--folder DIR]

Each round starts a run of the same made-up pictures, sends SIGTERM at a random moment after the first row is done, and
takes the time until the process is gone; then the run is started again and must do the rest. `drained` is a run that
can end what it began; in `with a hanging row` one of them never ends, so that the time of grace must. The code must be
75, no row may be done twice, no temporary file be left, and the results be, byte for byte, those of a run that nobody
disturbed. Prints Markdown and ends with 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from chaos import Gallery, command, environment, faults_of, ledger_lines, make_gallery
from overhead import cluster

STOPPED = 75
HANGING = "hangs.png"
FLAGS = {
    "local": ("--executor", "local", "--workers", "2"),
    "process": ("--executor", "process", "--actors", "2", "--workers", "2"),
    "ray": ("--executor", "ray", "--actors", "2", "--workers", "2"),
}


def main() -> None:
    """Make, stop, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200, help="rows of a run. Default: 200")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each kind. Default: 5")
    parser.add_argument("--grace", type=int, default=5, help="seconds for rows in flight. Default: 5")
    parser.add_argument("--executors", nargs="+", choices=list(FLAGS), default=list(FLAGS), help="Default: all")
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    faults: list[str] = []
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="preempt-") as name:
        gallery = make_gallery(Path(name), arguments.rows)
        hanging = with_a_hanging_row(gallery)
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs; ", end="")
        print(f"{arguments.rows} rows, --grace {arguments.grace}\n")
        print("| executor | | rounds | gone after, median | at most | rows done before | faults |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for executor in arguments.executors:
            with cluster(Path(name)) if executor == "ray" else nullcontext(environment()) as env:
                for what, manifest, engine in (
                    ("drained", gallery.manifest, "faulty:s@0.1"),
                    ("with a hanging row", hanging, "faulty:p@3000"),
                ):
                    folder = Path(name) / f"{executor}-{engine[7]}"
                    rounds = [
                        stop(gallery, manifest, folder / str(number), executor, engine, arguments.grace, env)
                        for number in range(arguments.rounds)
                    ]
                    found = [fault for _, _, some in rounds for fault in some]
                    seconds = [gone_s for gone_s, _, _ in rounds]
                    done = [num_done for _, num_done, _ in rounds]
                    print(
                        f"| {executor} | {what} | {len(rounds)} | {statistics.median(seconds):.1f} s | "
                        f"{max(seconds):.1f} s | {min(done)} to {max(done)} | {len(found)} |",
                        flush=True,
                    )
                    faults += [f"{executor}, {what}: {fault}" for fault in found]
    if faults:
        raise SystemExit("\n".join(faults))


def with_a_hanging_row(gallery: Gallery) -> Path:
    """A manifest that begins with one."""
    folder = gallery.manifest.parent
    cv2.imwrite(str(folder / HANGING), np.zeros((72, 72, 3), np.uint8))
    mask = np.zeros((72, 72), np.uint8)
    mask[20:40, 24:36] = 255
    cv2.imwrite(str(folder / f"{HANGING}.mask.png"), mask)
    header, *rows = gallery.manifest.read_text().splitlines()
    path = folder / "hanging.csv"
    path.write_text("\n".join([header, f"{HANGING},{HANGING}.mask.png", *rows]) + "\n")
    return path


def stop(
    gallery: Gallery, manifest: Path, output: Path, executor: str, engine: str, grace_s: int, env: Mapping[str, str]
) -> tuple[float, int, list[str]]:
    """(seconds until it was gone, rows done by then, faults) of one run that is asked to stop, and gone on with."""
    flags = (*FLAGS[executor], "--grace", str(grace_s))
    chance = random.Random(str(output.name))
    with subprocess.Popen(command(manifest, output, *flags, engine=engine), env=env, stderr=subprocess.PIPE) as run:
        while run.poll() is None and not begun(output, engine, executor):
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 1))
        asked_s = time.monotonic()
        run.send_signal(signal.SIGTERM)
        told = run.communicate()[1].decode()
    gone_s = time.monotonic() - asked_s
    num_done = sum(line["status"] == "done" for line in ledger_lines(output))
    faults = [] if run.returncode == STOPPED else [f"the code was {run.returncode}: {told[-300:]}"]
    if gone_s > grace_s + 10:
        faults.append(f"it was there for {gone_s:.0f} s more")
    going_on = command(gallery.manifest, output, *flags, engine=engine)  # another engine would do all again
    rest = subprocess.run(going_on, env=env, capture_output=True, text=True)
    if rest.returncode:
        faults.append(f"going on ended with {rest.returncode}: {rest.stderr[-300:]}")
    return gone_s, num_done, faults + faults_of(gallery, output)


def begun(output: Path, engine: str, executor: str) -> bool:
    """Whether the run is in the middle: something is done; or in a run that cannot do anything, it has begun."""
    lines = [line["status"] for line in ledger_lines(output)]
    return "done" in lines or (executor == "local" and engine.startswith("faulty:p") and "started" in lines)


if __name__ == "__main__":
    main()
