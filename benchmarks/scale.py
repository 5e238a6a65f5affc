"""What a run costs that has nothing to do: a manifest of a million rows, all of them done before.

Usage: python benchmarks/scale.py [--rows N] [--read N] [--folder DIR]

Makes a folder (DIR, else a temporary one) with a manifest, a ledger that knows every row as done, and each result as
a hard link of one file; then times `inpaint-batch run` and a plain count of a manifest of `--read` rows, each in a
process of its own. The floor is what the system alone takes to look at image, mask and result of every row. All rows
name the same image and mask: with files of their own on a cold disk both floor and run take longer. Prints Markdown.
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
from inpaint_batch.execution.ledger import Ledger, LedgerEntry
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


def main() -> None:
    """Make, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows that are done. Default: 1000000")
    parser.add_argument("--read", type=int, default=5_000_000, help="rows to read only. Default: 5000000")
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="scale-") as name:
        folder = Path(name)
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs\n")
        print("| what | rows | seconds | CPU seconds | rows/s | peak memory, MB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        manifest = write_manifest(folder / "read.csv", arguments.read)
        report("manifest read", arguments.read, [sys.executable, "-c", COUNT, str(manifest)])
        manifest = everything_done(folder, arguments.rows)
        floor(folder, arguments.rows)
        command = [sys.executable, "-m", "inpaint_batch.cli.main", "run", str(manifest), "--engine", "identity"]
        report("run, all rows done", arguments.rows, [*command, "--output", str(folder / "out")])
        rows = json.loads((folder / "out" / ".inpaint-batch" / "summary.json").read_text())["rows"]
        if rows["skipped"] != arguments.rows:
            raise SystemExit(f"the rows were to be known as done, but the run says {rows}")


def row_names(num_rows: int) -> Iterator[str]:
    """Outputs of all rows."""
    return (f"{number // ROWS_PER_FOLDER:04d}/{number:08d}.png" for number in range(num_rows))


def write_manifest(path: Path, num_rows: int) -> Path:
    """All rows are of `image.png` with `mask.png`."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "mask", "output"])
        writer.writerows(["image.png", "mask.png", name] for name in row_names(num_rows))
    return path


def everything_done(folder: Path, num_rows: int) -> Path:
    """Image, mask, manifest, ledger and results."""
    image, mask, output = folder / "image.png", folder / "mask.png", folder / "out"
    cv2.imwrite(str(image), np.full((8, 8, 3), 128, np.uint8))
    cv2.imwrite(str(mask), np.diag([255] * 8).astype(np.uint8))
    engine = select_engine("identity").identity
    row_config, tiling = RowConfig(), TilingConfig()
    ledger = Ledger(output / ".inpaint-batch")
    source = image
    for number, name in enumerate(row_names(num_rows)):
        result = output / name
        if number % ROWS_PER_FOLDER == 0:
            result.parent.mkdir(parents=True)
        if number % LINKS_PER_FILE == 0:
            result.write_bytes(image.read_bytes())
            source = result
        else:
            result.hardlink_to(source)
        key = row_key(Row(name, number + 2, str(image), str(mask), name), row_config, tiling, engine)
        ledger.append(LedgerEntry(id=name, key=key, status="done", image=str(image), output=name, num_pixels=64))
    ledger.close()
    return write_manifest(folder / "manifest.csv", num_rows)


def floor(folder: Path, num_rows: int) -> None:
    """Time the system's own work: three looks a row."""
    started, used = time.perf_counter(), time.process_time()
    image, mask = str(folder / "image.png"), str(folder / "mask.png")
    for name in row_names(num_rows):
        os.stat(image)  # noqa: PTH116
        os.stat(mask)  # noqa: PTH116
        os.stat(f"{folder}/out/{name}")  # noqa: PTH116
    tell("three looks a row", num_rows, time.perf_counter() - started, time.process_time() - used, None)


def report(what: str, num_rows: int, command: list[str]) -> None:
    """Run a command and print its line."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.perf_counter() - started
    tell(what, num_rows, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def tell(what: str, num_rows: int, seconds: float, cpu_seconds: float, peak_bytes: int | None) -> None:
    """One line of the table."""
    peak = f"{peak_bytes / 1e6:.0f}" if peak_bytes else ""
    print(
        f"| {what} | {num_rows:,} | {seconds:.1f} | {cpu_seconds:.1f} | {num_rows / seconds:,.0f} | {peak} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
