"""Three hundred rows of which one segfaults its worker, one hangs and one finds no memory: the others are done.

Usage: python benchmarks/poison.py [--rows N] [--row-timeout S] [--executors NAME ...] [--folder DIR]

Runs the program on made-up pictures with the engine `faulty:p`, which is particular about three plain ones, in worker
processes and on a Ray cluster of this machine. The run must end with 8, the three must stand in the ledger as `crash`,
`timeout` and `memory`, all others must be there, byte for byte as from a run without the three, and no temporary file.
Prints Markdown and ends with 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
from chaos import command, digests, environment, make_gallery
from overhead import cluster

POISON = {"segfaults.png": (0, 0, 255), "hangs.png": (0, 0, 0), "hungry.png": (0, 255, 0)}
"""Blue, green and red, as OpenCV writes them."""
EXPECTED = {"crash": 1, "timeout": 1, "memory": 1}
ROWS_FAILED = 8


def main() -> None:
    """Make, run, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=300, help="rows, the three among them. Default: 300")
    parser.add_argument("--row-timeout", type=int, default=10, help="seconds that a row may take. Default: 10")
    parser.add_argument(
        "--executors", nargs="+", choices=["process", "ray"], default=["process", "ray"], help="Default: both"
    )
    parser.add_argument("--folder", type=Path, help="where to make it all. Default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="poison-") as name:
        folder = Path(name)
        gallery = make_gallery(folder, arguments.rows - len(POISON))
        add_poison(gallery.manifest)
        print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs\n")
        print("| executor | done | failed | exit | seconds | results as undisturbed |")
        print("| --- | ---: | --- | ---: | ---: | --- |", flush=True)
        verdicts = [
            measure(gallery.manifest, folder, kind, arguments, gallery.expected) for kind in arguments.executors
        ]
    if not all(verdicts):
        raise SystemExit(1)


def add_poison(manifest: Path) -> None:
    """Put the three in the middle of the manifest."""
    lines = manifest.read_text().splitlines()
    for name, colour in POISON.items():
        cv2.imwrite(str(manifest.parent / name), np.full((72, 72, 3), colour, np.uint8))
        mask = np.zeros((72, 72), np.uint8)
        mask[20:40, 24:36] = 255
        cv2.imwrite(str(manifest.parent / f"{name}.mask.png"), mask)
        lines.insert(len(lines) // 2, f"{name},{name}.mask.png")
    manifest.write_text("\n".join(lines) + "\n")


def measure(
    manifest: Path, folder: Path, executor: str, arguments: argparse.Namespace, expected: dict[str, str]
) -> bool:
    """Run it, print a line, and say whether all is as it should be."""
    output = folder / executor
    flags = ["--executor", executor, "--actors", "2", "--row-timeout", str(arguments.row_timeout), "--workers", "2"]
    with cluster(folder) if executor == "ray" else nullcontext(environment()) as env:
        started = time.monotonic()
        code = subprocess.run(
            command(manifest, output, *flags, engine="faulty:p@3000"), env=env, stderr=subprocess.DEVNULL
        ).returncode
        seconds = time.monotonic() - started
    rows = json.loads((output / ".inpaint-batch" / "summary.json").read_text())["rows"]
    same = digests(output) == expected
    failed = ", ".join(f"{count} {name}" for name, count in sorted(rows["failed_by_code"].items()))
    print(
        f"| {executor} | {rows['done']} | {failed} | {code} | {seconds:.0f} | {'yes' if same else 'NO'} |", flush=True
    )
    return same and (code, rows["failed_by_code"]) == (ROWS_FAILED, EXPECTED) and rows["done"] == len(expected)


if __name__ == "__main__":
    main()
