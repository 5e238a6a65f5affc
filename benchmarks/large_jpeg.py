"""What does one scratch in one large JPEG take? The whole command, its parts, and what it changed.

Usage: python benchmarks/large_jpeg.py [--image PHOTO] [--size WIDTHxHEIGHT] [--rounds N] [--json FILE]
       [-- RUN OPTIONS]

Saves a made-up picture (or PHOTO, scaled) as a progressive JPEG of quality 90 with halved chroma, draws one scratch of
200 px, restores it with `inpaint-batch run`, and prints a Markdown row: wall and processor time of the command, of the
same command for a JPEG of 64 px (start-up, engine, ledger), and of the stages. Medians over the rounds. Then it reads
both files with two other decoders: coefficients may differ only in MCUs that the scratch touches, pixels only there and
one chroma sample around.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import jpeglib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inpaint_batch.types import BoolArray

SCRATCH_PX = 200
SCRATCH_WIDTH_PX = 5
SMALL_PX = 64
CHROMA_PX = 2
"""What one chroma sample covers; decoders smooth over its neighbours."""


def main() -> None:
    """Make the files, run, compare, print."""
    arguments = parse()
    width_px, height_px = (int(side) for side in arguments.size.split("x"))
    with tempfile.TemporaryDirectory(prefix="large-jpeg-") as name:
        folder = Path(name)
        picture = made_up(width_px, height_px) if arguments.image is None else photo(arguments.image, arguments.size)
        save(picture, folder / "large.jpg")
        save(picture[:SMALL_PX, :SMALL_PX], folder / "small.jpg")
        hole = scratch(height_px, width_px)
        cv2.imwrite(str(folder / "large.png"), hole.astype(np.uint8) * 255)
        cv2.imwrite(str(folder / "small.png"), np.eye(SMALL_PX, dtype=np.uint8) * 255)
        restore(folder, "small", arguments.run_options)  # so that modules are compiled, as installed ones are
        rounds = [
            {kind: restore(folder, kind, arguments.run_options) for kind in ("small", "large")}
            for _ in range(arguments.rounds)
        ]
        result = {
            "megapixels": width_px * height_px / 1e6,
            "file_bytes": (folder / "large.jpg").stat().st_size,
            "large": median([each["large"] for each in rounds]),
            "small": median([each["small"] for each in rounds]),
            **differences(folder / "large.jpg", folder / "out" / "large.jpg", hole),
        }
    print(markdown(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--image", type=Path, metavar="PHOTO", help="instead of a made-up picture")
    parser.add_argument("--size", default="4724x3176", help="pixels (default: 4724x3176)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (default: 5)")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    parser.epilog = "What follows -- is for `inpaint-batch run`."
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return parser.parse_args(arguments[:at], argparse.Namespace(run_options=arguments[at + 1 :]))


def made_up(width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Shades of all sizes and some grain: packs like a photograph."""
    rng = np.random.default_rng(5)
    total = np.zeros((height_px, width_px, 3), np.float32)
    for side_px, strength in ((512, 70), (64, 30), (8, 14), (1, 4)):
        coarse = rng.normal(0, strength, (-(-height_px // side_px) + 1, -(-width_px // side_px) + 1, 3))
        total += cv2.resize(coarse.astype(np.float32), (width_px, height_px), interpolation=cv2.INTER_CUBIC)
    return (total + 120).clip(0, 255).astype(np.uint8)


def photo(path: Path, size: str) -> NDArray[np.uint8]:
    """A photograph, scaled."""
    width_px, height_px = (int(side) for side in size.split("x"))
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((width_px, height_px)))


def save(picture: NDArray[np.uint8], path: Path) -> None:
    """As a progressive JPEG."""
    Image.fromarray(picture).save(path, quality=90, progressive=True, subsampling="4:2:0")


def scratch(height_px: int, width_px: int) -> BoolArray:
    """(h, w): one line near the middle."""
    drawn = np.zeros((height_px, width_px), np.uint8)
    start = width_px // 2 + 3, height_px // 2 + 5
    end = start[0] + SCRATCH_PX * 9 // 10, start[1] + SCRATCH_PX * 9 // 20
    cv2.line(drawn, start, end, 1, SCRATCH_WIDTH_PX)
    return drawn > 0


def restore(folder: Path, kind: str, options: list[str]) -> dict[str, float]:
    """Run the command line in a process of its own; seconds in all, of the processor, and by stage."""
    manifest = folder / f"{kind}.csv"
    manifest.write_text(f"image,mask\n{kind}.jpg,{kind}.png\n")
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(folder / "out"), "--fresh"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command += ["--on-conflict", "overwrite", *options]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    elapsed_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((folder / "out" / ".inpaint-batch" / "summary.json").read_text())
    processor_s = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"wall": elapsed_s, "processor": processor_s, **summary["seconds_by_stage"]}


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each number."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def differences(before: Path, after: Path, hole: BoolArray) -> dict[str, Any]:
    """How much differs between two JPEGs, and how much of that where it may not."""
    old, new = jpeglib.read_dct(str(before)), jpeglib.read_dct(str(after))
    unit_px = 8 * CHROMA_PX
    rows, columns = (-(-side // unit_px) for side in hole.shape)
    padded = np.zeros((rows * unit_px, columns * unit_px), bool)
    padded[: hole.shape[0], : hole.shape[1]] = hole
    touched = padded.reshape(rows, unit_px, columns, unit_px).any(axis=(1, 3))
    outside = 0
    for was, became in ((old.Y, new.Y), (old.Cb, new.Cb), (old.Cr, new.Cr)):
        per_unit = -(-was.shape[0] // rows)
        allowed = touched.repeat(per_unit, axis=0).repeat(per_unit, axis=1)[: was.shape[0], : was.shape[1]]
        outside += int(((was != became).any(axis=(2, 3)) & ~allowed).sum())
    with Image.open(before) as one, Image.open(after) as other:
        assert one.info.get("progressive") == other.info.get("progressive")
        changed = (np.asarray(one) != np.asarray(other)).any(axis=2)
    allowed = touched.repeat(unit_px, axis=0).repeat(unit_px, axis=1)[: hole.shape[0], : hole.shape[1]]
    around = cv2.dilate(allowed.view(np.uint8), np.ones((2 * CHROMA_PX + 1, 2 * CHROMA_PX + 1), np.uint8)) > 0
    return {
        "num_mcus": touched.size,
        "num_touched_mcus": int(touched.sum()),
        "num_blocks_changed_outside": outside,
        "num_pixels_changed": int(changed.sum()),
        "num_pixels_changed_outside": int((changed & ~around).sum()),
    }


def markdown(result: dict[str, Any]) -> str:
    """Head and one row, then what differs."""
    large, small = result["large"], result["small"]
    names = ("read", "infer", "write", "verify")
    head = ("image", "file", "wall", "processor", "start-up: wall", "processor", *names)
    row = [f"{result['megapixels']:.1f} megapixels", f"{result['file_bytes'] / 1e6:.1f} MB"]
    row += [f"{each:.2f} s" for each in (large["wall"], large["processor"], small["wall"], small["processor"])]
    row += [f"{large[name]:.2f} s" for name in names]
    return "\n".join(
        [
            f"| {' | '.join(head)} |",
            f"|{'---|' * len(head)}",
            f"| {' | '.join(row)} |",
            "",
            f"{result['num_touched_mcus']} of {result['num_mcus']} MCUs touched; coefficients of "
            f"{result['num_blocks_changed_outside']} blocks elsewhere changed; {result['num_pixels_changed']} pixels "
            f"changed, {result['num_pixels_changed_outside']} of them farther than a chroma sample from those MCUs; "
            f"{os.cpu_count()} logical processors",
        ]
    )


if __name__ == "__main__":
    main()
