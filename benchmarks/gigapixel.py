"""How much memory and time does an image of a gigapixel take? One TIFF, one mask, one run, measured from outside.

Usage: python benchmarks/gigapixel.py FOLDER [--side PX] [--bands 1|3] [--holes scratches|diagonal] [--mask tiff|png]
       [--json FILE] [-- RUN OPTIONS]

Makes in FOLDER a 16-bit tiled TIFF (Deflate with predictor) of SIDE x SIDE pixels, tile by tile, and a mask of 200
scratches or of one diagonal as long as the image, restores it with `inpaint-batch run`, and prints a Markdown row: size
of the file, peak resident memory of the run, its time by stage, and what copying and syncing the same file takes
(median of three times before and three times after). Before each of these the system forgets what it holds of the file
in memory, as it does with files of an archive. Files that are already there are used again. FOLDER needs room for three
times the file.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

TILE_PX = 256
NUM_PATTERNS = 64
"""Different tiles; each is packed once and laid many times."""
NUM_SCRATCHES = 200
COPY_BYTES = 1 << 22
NUM_COPIES = 3


def main() -> None:
    """Make the files, time a copy, run, time a copy again, print."""
    arguments = parse()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{arguments.side}-{arguments.bands}.tif"
    mask = folder / f"{arguments.side}-{arguments.holes}.{'tif' if arguments.mask == 'tiff' else 'png'}"
    if not image.exists():
        write_image(image, arguments.side, arguments.bands)
    if not mask.exists():
        write_mask(mask, arguments.side, arguments.holes)
    copy_s = [copy_and_sync(image, folder / "copy.tif") for _ in range(NUM_COPIES)]
    measured = restore(image, mask, folder / "out", arguments.run_options)
    copy_s += (copy_and_sync(image, folder / "copy.tif") for _ in range(NUM_COPIES))
    result = {
        "side_px": arguments.side,
        "bands": arguments.bands,
        "holes": arguments.holes,
        "mask": arguments.mask,
        "file_bytes": image.stat().st_size,
        "copy_and_sync_s": copy_s,
        **measured,
    }
    print(markdown(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--side", type=int, default=32_000, help="pixels (default: 32000)")
    parser.add_argument("--bands", type=int, choices=(1, 3), default=1, help="1 grey (default), 3 RGB")
    parser.add_argument("--holes", choices=("scratches", "diagonal"), default="scratches", help="default: scratches")
    parser.add_argument("--mask", choices=("tiff", "png"), default="tiff", help="kind of mask file (default: tiff)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.epilog = "What follows -- is for `inpaint-batch run`."
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return parser.parse_args(arguments[:at], argparse.Namespace(run_options=arguments[at + 1 :]))


def write_image(path: Path, side_px: int, num_bands: int) -> None:
    """Smooth shades with the grain of film, 12 bits of 16 in use."""
    rng = np.random.default_rng(7)
    packed = []
    for _ in range(NUM_PATTERNS):
        coarse = rng.uniform(8000, 50000, (6, 6, num_bands)).astype(np.float32)
        smooth = cv2.resize(coarse, (TILE_PX, TILE_PX), interpolation=cv2.INTER_CUBIC)
        smooth = smooth.reshape(TILE_PX, TILE_PX, num_bands)
        grainy = (smooth + rng.normal(0, 400, smooth.shape)).clip(0, 65535).astype(np.uint16) & 0xFFF0
        packed.append(imagecodecs.zlib_encode(horizontal(grainy), level=6))
    num_tiles = (-(-side_px // TILE_PX)) ** 2
    order = rng.integers(0, NUM_PATTERNS, num_tiles)
    shape = (side_px, side_px, num_bands) if num_bands > 1 else (side_px, side_px)
    temporary = path.with_suffix(".part")
    tifffile.imwrite(
        temporary,
        (packed[index] for index in order),
        shape=shape,
        dtype=np.uint16,
        tile=(TILE_PX, TILE_PX),
        compression="zlib",
        predictor=True,
        photometric="rgb" if num_bands == 3 else "minisblack",
        metadata=None,
        bigtiff=True,
    )
    temporary.rename(path)


def horizontal(samples: NDArray[np.uint16]) -> bytes:
    """Predictor 2: the difference to the pixel on the left."""
    stored = samples.copy()
    stored[:, 1:] -= samples[:, :-1]
    return stored.tobytes()


def write_mask(path: Path, side_px: int, holes: str) -> None:
    """White lines on black, as a tiled TIFF or a PNG of 8 bits."""
    drawn = np.zeros((side_px, side_px), np.uint8)
    if holes == "diagonal":
        cv2.line(drawn, (0, 0), (side_px - 1, side_px - 1), 255, 9)
    else:
        rng = np.random.default_rng(11)
        for _ in range(NUM_SCRATCHES):
            start = rng.integers(0, side_px, 2)
            end = start + rng.integers(-side_px // 16, side_px // 16, 2)
            cv2.line(drawn, tuple(start.tolist()), tuple(end.tolist()), 255, int(rng.integers(3, 12)))
    if path.suffix == ".png":
        cv2.imwrite(str(path), drawn, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    else:
        tifffile.imwrite(path, drawn, tile=(TILE_PX, TILE_PX), compression="zlib", metadata=None)


def copy_and_sync(source: Path, destination: Path) -> float:
    """Seconds for a copy that is on the disk."""
    forget(source)
    started = time.perf_counter()
    with source.open("rb") as old, destination.open("wb") as new:
        while chunk := old.read(COPY_BYTES):
            new.write(chunk)
        new.flush()
        os.fsync(new.fileno())
    elapsed_s = time.perf_counter() - started
    destination.unlink()
    return elapsed_s


def forget(path: Path) -> None:
    """Let the system drop what it holds of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def restore(image: Path, mask: Path, output: Path, options: list[str]) -> dict[str, Any]:
    """Run the command line in a process of its own; what the system and the summary say of it."""
    manifest = image.with_suffix(".csv")
    manifest.write_text(f"image,mask,output\n{image.name},{mask.name},{image.name}\n")
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output), "--fresh"]
    forget(image)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run([*command, "--on-conflict", "overwrite", *options], check=True)
    elapsed_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((output / ".inpaint-batch" / "summary.json").read_text())
    return {
        "elapsed_s": elapsed_s,
        "processor_s": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime,
        "peak_memory_bytes": summary["peak_memory_bytes"],
        "seconds_by_stage": summary["seconds_by_stage"],
        "tiles_by_side_px": summary["tiles_by_side_px"],
    }


def markdown(result: dict[str, Any]) -> str:
    """Head and one row."""
    stages = result["seconds_by_stage"]
    without_engine_s = result["elapsed_s"] - stages["infer"]
    copy_s = statistics.median(result["copy_and_sync_s"])
    tiles = sum(result["tiles_by_side_px"].values())
    head = "| image | holes | mask | file | peak memory | tiles | read | infer | write | all | copy + fsync | ratio |"
    return "\n".join(
        [
            head,
            "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
            f"| {result['side_px']}² × {result['bands']} | {result['holes']} | {result['mask']} "
            f"| {result['file_bytes'] / 1e9:.2f} GB | {result['peak_memory_bytes'] / 1e6:.0f} MB | {tiles} "
            f"| {stages['read']:.1f} s | {stages['infer']:.1f} s | {stages['write']:.1f} s "
            f"| {result['elapsed_s']:.1f} s | {copy_s:.1f} s | {without_engine_s / copy_s:.2f} |",
        ]
    )


if __name__ == "__main__":
    main()
