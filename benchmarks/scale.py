"""What a run costs beside the pixels: reading a manifest, finding that all is done, driving rows.

Usage: python benchmarks/scale.py [--rows N] [--read N] [--drive N] [--folder DIR]

Makes a folder (DIR, else a temporary one) with a manifest of `--rows` rows, image, mask and result of each as a hard
link of its own, and a ledger that knows every row as begun and done; then times, each in a process of its own:

- a plain count of a manifest of `--read` rows;
- `inpaint-batch run` where all rows are done: the first time, out of the ledger alone, and once more;
- `inpaint-batch check` of these rows: of the manifest alone, without and with a look at the output folder;
- `--drive` rows done by an executor that does nothing: what planning, ledger and reports cost;
- `inpaint-batch check` of as many rows up to the headers of their images;
- as many rows that all fail, as where a share is not mounted, and the same run once more.

The floor is what the system alone takes to look at image, mask and result of every row. The files are in the system's
cache: on a cold disk floor and runs take longer. Prints Markdown.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from inpaint_batch.config import RowConfig, TilingConfig
from inpaint_batch.execution.identity import row_key
from inpaint_batch.execution.ledger_lines import LedgerEntry
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.types import Row

LINKS_PER_FILE = 30_000
"""File systems allow so many names for one file, and more."""
ROWS_PER_FOLDER = 10_000

COUNT = """
import sys
from pathlib import Path
from inpaint_batch.manifest.read import read_manifest
print(sum(1 for _ in read_manifest(Path(sys.argv[1]))))
"""

DRIVE = """
import sys
from contextlib import contextmanager
from inpaint_batch.cli.main import main
from inpaint_batch.errors import FailureCode
from inpaint_batch.execution.tasks import EngineFacts, Failure, RowOutcome
from inpaint_batch.pipeline import work

class Nothing:
    num_batches, isolates_rows, abandoned = 0, False, False
    def queues(self):
        return {}
    def filling(self):
        return []
    def run(self, tasks, *_):
        for task in tasks:
            seconds = {"read": 0.01, "infer": 0.02, "write": 0.01}
            if task.row.image.endswith("missing.png"):
                message = f"the image {task.row.image} does not exist; correct the manifest or bring the file"
                yield RowOutcome(task, Failure(FailureCode.READ, message), seconds=seconds)
            else:
                yield RowOutcome(task, seconds=seconds, num_tiles={64: 3}, coverage=0.1)

@contextmanager
def open_nothing(config, **_):
    yield EngineFacts("nothing", "none", "fp32", "nothing", (64, 128, 256), ()), Nothing()

work.open_executor = open_nothing
sys.exit(main())
"""


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that are done. Default: 1000000")
    parser.add_argument("--read", type=int, default=5_000_000, help="rows to read only. Default: 5000000")
    parser.add_argument("--drive", type=int, default=100_000, help="rows to drive, at most --rows. Default: 100000")
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="scale-") as name:
        folder = Path(name)
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs\n")
        print("| what | rows | seconds | CPU seconds | µs/row | peak memory, MB | target |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
        manifest = write_manifest(folder / "read.csv", arguments.read)
        report(
            "manifest read", arguments.read, [sys.executable, "-c", COUNT, str(manifest)], target="600 MB for 5 million"
        )
        manifest = everything_done(folder, arguments.rows)
        floor(folder, arguments.rows)
        out = folder / "out"
        command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--engine", "identity"]
        command += ["--output", str(out)]
        report("run, all done, by the ledger", arguments.rows, command, target="400 MB")
        check_all(out, "skipped", arguments.rows)
        report("run, all done, once more", arguments.rows, command, target="10 s and 400 MB for a million")
        check_all(out, "skipped", arguments.rows)
        command = [sys.executable, "-m", "inpaint_batch", "check", str(manifest), "--depth", "rows"]
        report("check, rows alone", arguments.rows, command, target="20 µs/row")
        report("check, rows and output", arguments.rows, [*command, "--output", str(out)], target="")
        num_driven = min(arguments.drive, arguments.rows)
        manifest = write_manifest(folder / "drive.csv", num_driven)
        for name in {name.partition("/")[0] for name in row_names(num_driven)}:
            (folder / "driven" / name).mkdir(parents=True)  # as the first result of a folder would have made it
        command = [sys.executable, "-c", DRIVE, "run", str(manifest), "--output", str(folder / "driven")]
        report("rows driven, nothing done to them", num_driven, command, target="100 µs/row")
        check_all(folder / "driven", "done", num_driven)
        command = [sys.executable, "-m", "inpaint_batch", "check", str(manifest), "--depth", "headers"]
        report("check, headers", num_driven, command, target="")
        manifest = write_manifest(folder / "fail.csv", num_driven, ending=".missing.png")
        command = [sys.executable, "-c", DRIVE, "run", str(manifest), "--output", str(folder / "failed")]
        report("rows driven, all of them fail", num_driven, command, target="", exit_code=8)
        report("run, all failed before", num_driven, command, target="", exit_code=8)


def check_all(out: Path, what: str, num_rows: int) -> None:
    """Whether the run did what it was measured for."""
    rows = json.loads((out / ".inpaint-batch" / "summary.json").read_text())["rows"]
    if rows[what] != num_rows:
        raise SystemExit(f"all rows were to be {what}, but the run says {rows}")


def row_names(num_rows: int) -> Iterator[str]:
    """Outputs of all rows."""
    return (f"{number // ROWS_PER_FOLDER:04d}/{number:08d}.png" for number in range(num_rows))


def write_manifest(path: Path, num_rows: int, ending: str = "") -> Path:
    """Each row has an image and a mask of its own; `ending` is put behind the names of the images."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "output"])
        writer.writerows([f"images/{name}{ending}", f"masks/{name}", name] for name in row_names(num_rows))
    return path


def everything_done(folder: Path, num_rows: int) -> Path:
    """Images, masks, manifest, ledger and results."""
    engine = select_engine("identity").identity
    row_config, tiling = RowConfig(), TilingConfig()
    images, masks, out = link_all(folder, num_rows)
    (out / ".inpaint-batch" / "ledger").mkdir(parents=True)
    with (out / ".inpaint-batch" / "ledger" / "000001.jsonl").open("wb") as ledger:
        for number, name in enumerate(row_names(num_rows)):
            image, mask = f"{images}/{name}", f"{masks}/{name}"
            key = row_key(Row(name, number + 2, image, mask, name), row_config, tiling, engine)
            at_s = 1.7e9 + number
            started = LedgerEntry(id=name, at_s=at_s, key=key, status="started", image=image, output=name, run="bench")
            done = LedgerEntry(
                id=name,
                key=key,
                status="done",
                at_s=at_s,
                image=image,
                output=name,
                num_tiles={64: 3},
                seconds={"read": 0.0123, "infer": 0.0234, "write": 0.0345},
                coverage=0.1234,
                num_pixels=64,
                run="bench",
                worker="node7:4711",
            )
            ledger.write(started.to_line())
            ledger.write(done.to_line())
    return write_manifest(folder / "manifest.csv", num_rows)


def link_all(folder: Path, num_rows: int) -> tuple[Path, Path, Path]:
    """The folders of images, masks and results, each with a file for every row."""
    roots = folder / "images", folder / "masks", folder / "out"
    picture = np.full((8, 8, 3), 128, np.uint8), np.diag([255] * 8).astype(np.uint8), np.zeros((8, 8, 3), np.uint8)
    for root, samples in zip(roots, picture, strict=True):
        content = cv2.imencode(".png", samples)[1].tobytes()
        for number, name in enumerate(row_names(num_rows)):
            path = f"{root}/{name}"
            if number % ROWS_PER_FOLDER == 0:
                Path(path).parent.mkdir(parents=True)
            if number % LINKS_PER_FILE == 0:
                Path(path).write_bytes(content)
                source = path
            else:
                os.link(source, path)
    return roots


def floor(folder: Path, num_rows: int) -> None:
    """Time the system's own work: three looks a row."""
    started, used = time.perf_counter(), time.process_time()
    for name in row_names(num_rows):
        os.stat(f"{folder}/images/{name}")  # noqa: PTH116
        os.stat(f"{folder}/masks/{name}")  # noqa: PTH116
        os.stat(f"{folder}/out/{name}")  # noqa: PTH116
    tell("three looks a row", num_rows, time.perf_counter() - started, time.process_time() - used, None, "")


def report(what: str, num_rows: int, command: list[str], *, target: str, exit_code: int = 0) -> None:
    """Run a command that ends with that exit code, and print its line."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        told = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != exit_code:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {told}")
    seconds = time.perf_counter() - started
    tell(what, num_rows, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, target)


def tell(what: str, num_rows: int, seconds: float, cpu_seconds: float, peak_bytes: int | None, target: str) -> None:
    """One line of the table."""
    peak = f"{peak_bytes / 1e6:.0f}" if peak_bytes else ""
    each_us = seconds / num_rows * 1e6
    print(
        f"| {what} | {num_rows:,} | {seconds:.1f} | {cpu_seconds:.1f} | {each_us:.1f} | {peak} | {target} |", flush=True
    )


if __name__ == "__main__":
    main()
