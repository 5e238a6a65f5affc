"""What broken files do to a run: nothing, but for a row error each.

Usage: python benchmarks/fuzz.py [--files N] [--seed N] [--at-once N] [--keep DIR]

Breaks sound files of every kind (fuzz_files.py) in every way (fuzz_mutations.py), three quarters of them images and
one quarter masks, and hands them to `inpaint-batch run` in a process of its own, with 4 GiB of address space, one
worker and the engine that computes nothing. Prints Markdown; what goes wrong is listed, its files are kept in DIR, and
the exit code is 1.

The rule. The process ends with 0 or 8, in time. Each row is refused or restored:

- Refused: its code is read, mask, size, memory or write, its message neither asks for a report nor promises that the
  same broken file might be read another time, and there is no output.
- Restored: of Pillow, OpenCV, imagecodecs and (for TIFF) tifffile, at least one reads the broken source; and each that
  does reads as many samples from the output, equal outside the hole, where JPEG streams hold them outside the blocks
  that a hole sample touches. With a broken mask, what was filled is what one of them sees as white in it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

import cv2
import fuzz_files
import imagecodecs
import numpy as np
import tifffile
from fuzz_mutations import ANY, OWN
from numpy.typing import NDArray
from PIL import Image

Reader = Callable[[Path], NDArray[np.generic]]

ADDRESS_SPACE_BYTES = 4 << 30
MAX_IMAGE_MEGABYTES = 64
ROW_LIMIT_S = 5.0
"""From the end of one row to the end of the next, with one worker."""
START_LIMIT_S = 120.0
MAX_RESTARTS = 20
SAFE_CODES = {"read", "mask", "size", "memory", "write"}
SUSPECT_WORDS = ("report", "unexpected", "read back wrong")
MASK_SHARE = 0.25
NO_MASKS = ("cmyk", "float", "pages", "baseline", "lossless-alpha", "jpeg", "pyramid")
"""Kinds that cannot be masks, or whose orientation would have to be reckoned with."""
NO_MASK_SUFFIXES = (".jp2",)
JPEG_REACH_PX = 40
"""A hole sample touches an MCU of at most 32 px, and the enlargement of colours reaches a little farther."""
BY_CHANCE = 0.01
"""Share of the pixels of a deep hole whose fill, which is guessed from what is around, may be what was there before."""
MASK_THRESHOLD = 128
"""Not the usual one: the masks that are broken here are photographs, which are refused where greys are not meant."""
GREY_TOLERANCE, LOSSY_GREY_TOLERANCE = 2, 24
"""How far from the threshold two readers of a mask may disagree: in rounding, and in how they enlarge colours."""


@dataclass(frozen=True)
class Case:
    """One row: a broken image with a sound mask, or the other way round."""

    number: int
    kind: str
    mutation: str
    data: bytes
    is_mask: bool

    @property
    def id(self) -> str:
        """Name of the row."""
        return f"{self.number:05d}-{self.mutation}-{'mask' if self.is_mask else 'image'}-{self.kind}"

    @property
    def suffix(self) -> str:
        """Of the broken file."""
        return Path(self.kind).suffix


@dataclass
class Verdict:
    """What became of all rows."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(kind of file, outcome) to number of rows."""
    findings: dict[str, str] = field(default_factory=dict)
    """Row to what is wrong."""
    peak_bytes: int = 0
    longest_row_s: float = 0.0
    seconds: float = 0.0


def cases(num_files: int, seed: int) -> Iterator[Case]:
    """All kinds and mutations in turn; the same seed gives the same bytes."""
    sound = fuzz_files.sound_files()
    masks = [name for name in sound if not name.startswith(NO_MASKS) and Path(name).suffix not in NO_MASK_SUFFIXES]
    turn: Counter[str] = Counter()
    for number in range(num_files):
        rng = Random(f"{seed} {number}")
        is_mask = rng.random() < MASK_SHARE
        names = masks if is_mask else list(sound)
        kind = names[number % len(names)]
        suffix = Path(kind).suffix
        ways = ANY + OWN[suffix] * 2  # those that know the format reach farther
        mutation = ways[turn[suffix] % len(ways)]
        turn[suffix] += 1
        yield Case(number, kind, mutation.__name__, mutation(sound[kind], rng), is_mask)


def check(folder: Path, chosen: list[Case], verdict: Verdict) -> None:
    """Run all rows in one process, started again where it dies, and judge them."""
    with _in_silence():
        files = {case.id: _write(folder, case) for case in chosen}
    manifest, output = folder / "manifest.csv", folder / "out"
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "mask", "output", "page", "mask_threshold"])
        for case in chosen:
            image, mask = files[case.id]
            page = 1 if case.kind == "pages.tif" and not case.is_mask else ""
            threshold = MASK_THRESHOLD if case.is_mask else ""
            writer.writerow([case.id, image.name, mask.name, f"{case.id}{image.suffix}", page, threshold])
    started = time.monotonic()
    for _ in range(MAX_RESTARTS):
        code, peak_bytes, last_words = _run(manifest, output, len(chosen))
        verdict.peak_bytes = max(verdict.peak_bytes, peak_bytes)
        if code >= 0:
            break
        verdict.findings[f"process {len(verdict.findings)}"] = f"it died of signal {-code}: {last_words}"
    if code not in (0, 8):
        verdict.findings[f"process {len(verdict.findings)}"] = f"it ended with {code}: {last_words}"
    verdict.seconds += time.monotonic() - started
    lines = _ledger(output)
    verdict.longest_row_s = max(verdict.longest_row_s, _longest_row_s(lines))
    ends = {line["id"]: line for line in lines if line["status"] != "started"}
    for case in chosen:
        with _in_silence():
            outcome, problem = _judge(case, *files[case.id], ends.get(case.id, {}), output)
        verdict.outcomes[("mask " if case.is_mask else "") + case.suffix, outcome] += 1
        if problem:
            verdict.findings[case.id] = problem


def _write(folder: Path, case: Case) -> tuple[Path, Path]:
    """Image and mask of a case."""
    broken = folder / f"{case.id}{case.suffix}"
    broken.write_bytes(case.data)
    if case.is_mask:
        image = folder / "sound.png"
        image.write_bytes(fuzz_files.sound_files()["rgb8.png"])
        return image, broken
    size = _size(case) or (fuzz_files.HEIGHT_PX, fuzz_files.WIDTH_PX)
    mask = folder / f"mask-{size[0]}-{size[1]}.png"
    if not mask.exists():
        Image.fromarray(_hole(size).astype(np.uint8) * 255).save(mask)
    return broken, mask


def _size(case: Case) -> tuple[int, int] | None:
    """(height, width) that the broken file claims, if that is not very large: lies shall get past the mask."""
    try:
        if case.suffix == ".tif":
            with tifffile.TiffFile(io.BytesIO(case.data)) as file:
                width, height = file.pages.first.imagewidth, file.pages.first.imagelength
        else:
            width, height = Image.open(io.BytesIO(case.data)).size
    except Exception:
        return None
    is_size = isinstance(width, int) and isinstance(height, int)
    return (height, width) if is_size and width > 0 and 0 < width * height <= 1 << 24 else None


def _hole(size: tuple[int, int]) -> NDArray[np.bool_]:
    """A box in the middle, which looks the same in every orientation."""
    hole = np.zeros(size, np.bool_)
    height, width = (max(1, side // 3) for side in size)
    hole[height : size[0] - height, width : size[1] - width] = True
    return hole


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run(manifest: Path, output: Path, num_rows: int) -> tuple[int, int, str]:
    """Exit code (negative for a signal), peak of resident memory in bytes, and the last line on stderr.

    The peak is what the run says of itself: `wait4` would tell that of this process, where that is larger. One that
    died tells none.
    """
    command = [sys.executable, "-m", "inpaint_batch", "run", str(manifest), "--output", str(output)]
    command += ["--engine", "identity", "--workers", "1", "--executor", "local", "--shard", "1/1"]
    command += ["--max-image-megabytes", str(MAX_IMAGE_MEGABYTES)]
    with (manifest.parent / "stderr.txt").open("w+b") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, preexec_fn=_limit)
        deadline = time.monotonic() + START_LIMIT_S + ROW_LIMIT_S * num_rows
        while True:
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
        stderr.seek(0)
        words = stderr.read().decode(errors="replace").strip().splitlines()
    summary = output / ".inpaint-batch" / "summary.json"
    peak_bytes = json.loads(summary.read_text())["peak_memory_bytes"] if summary.exists() else 0
    return process.returncode, peak_bytes, words[-1] if words else ""


def _ledger(output: Path) -> list[dict[str, object]]:
    parts = sorted((output / ".inpaint-batch" / "ledger").glob("*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_text().splitlines()]


def _longest_row_s(lines: list[dict[str, object]]) -> float:
    ends = sorted(float(str(line["at"])) for line in lines if line["status"] != "started")
    return max((after - before for before, after in pairwise(ends)), default=0.0)


def _judge(case: Case, image: Path, mask: Path, line: dict[str, object], output: Path) -> tuple[str, str]:
    """(outcome, what is wrong with it or nothing)."""
    result = output / f"{case.id}{image.suffix}"
    if not line:
        return "lost", "it has no line in the ledger"
    if line["status"] == "failed":
        code, message = str(line["code"]), str(line["message"])
        wrong = ""
        if code not in SAFE_CODES or any(word in message for word in SUSPECT_WORDS):
            wrong = f"{code}: {message}"
        elif line["retryable"] and code != "memory":
            wrong = f"it is to be tried again: {message}"
        elif result.exists():
            wrong = "it failed and has an output"
        return code, wrong
    if not result.exists():
        return "lost", "it is done and has no output"
    if case.is_mask:
        return "restored", _judge_hole(image, mask, result)
    return "restored", _judge_samples(image, mask, result)


def _judge_samples(image: Path, mask: Path, result: Path) -> str:
    readers = _readers(image.suffix)
    agreeing = 0
    reasons = []
    for name, reader in readers.items():
        before = _tried(reader, image)
        if isinstance(before, str):
            reasons.append(f"{name}: {before}")
            continue
        after = _tried(reader, result)
        if isinstance(after, str):
            return f"{name} reads the source, but not the output: {after}"
        if before.shape != after.shape or before.dtype != after.dtype:
            return f"{name} reads {before.shape} {before.dtype} and then {after.shape} {after.dtype}"
        hole = np.asarray(Image.open(mask)) > 127
        if hole.shape != before.shape[:2]:
            reasons.append(f"{name}: {before.shape}")
            continue
        if image.suffix == ".jpg" or "jpeg" in image.name:
            hole = cv2.dilate(hole.astype(np.uint8), np.ones((2 * JPEG_REACH_PX + 1,) * 2, np.uint8)) > 0
        if before[~hole].tobytes() != after[~hole].tobytes():
            return f"{name} sees known samples changed"
        agreeing += 1
    return "" if agreeing else f"nobody else reads the source: {'; '.join(reasons)}"


def _judge_hole(image: Path, mask: Path, result: Path) -> str:
    """What was filled must be what one of the others sees in the mask: broken data may be mended in several ways."""
    changed = (np.asarray(Image.open(image)) != np.asarray(Image.open(result))).any(axis=2)
    tolerance = LOSSY_GREY_TOLERANCE if mask.suffix in (".jpg", ".webp") else GREY_TOLERANCE
    reasons = []
    for name, reader in {"Pillow or tifffile": _grey, "OpenCV": _grey_by_opencv}.items():
        grey = _tried(reader, mask)
        if isinstance(grey, str):
            reasons.append(f"{name}: {grey}")
            continue
        white, is_clear = grey > MASK_THRESHOLD, np.abs(grey - MASK_THRESHOLD - 0.5) > tolerance
        wrong, missed = changed & ~white & is_clear, white & ~changed & is_clear
        if not wrong.any() and np.count_nonzero(missed) <= BY_CHANCE * np.count_nonzero(white):
            return ""
        reasons.append(f"{name} sees {np.count_nonzero(wrong | missed)} pixels otherwise")
    return "; ".join(reasons)


def _tried(reader: Reader, path: Path) -> NDArray[np.generic] | str:
    """Samples, or why there are none."""
    try:
        return reader(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def _in_silence() -> Iterator[None]:
    """Readers have much to say about broken files, the C libraries among them on file descriptor 2."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)
    kept = os.dup(2)
    try:
        with warnings.catch_warnings(), Path(os.devnull).open("w") as nowhere:
            warnings.simplefilter("ignore")
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _readers(suffix: str) -> dict[str, Reader]:
    if suffix == ".tif":
        return {"tifffile": _by_tifffile, "Pillow": _by_pillow, "OpenCV": _by_opencv}
    return {"Pillow": _by_pillow, "OpenCV": _by_opencv, "imagecodecs": _DECODERS[suffix]}


def _by_pillow(path: Path) -> NDArray[np.generic]:
    with Image.open(path) as image:
        return np.asarray(image)


def _by_opencv(path: Path) -> NDArray[np.generic]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("nothing")
    return image


_DECODERS: dict[str, Reader] = {
    ".png": lambda path: imagecodecs.png_decode(path.read_bytes()),
    ".jpg": lambda path: imagecodecs.jpeg8_decode(path.read_bytes()),
    ".webp": lambda path: imagecodecs.webp_decode(path.read_bytes(), hasalpha=True),
    ".jp2": lambda path: imagecodecs.jpeg2k_decode(path.read_bytes()),
}


def _by_tifffile(path: Path) -> NDArray[np.generic]:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        samples = page.asarray()
        if samples.ndim == 3 and int(page.planarconfig) == 2:
            samples = np.moveaxis(samples, 0, -1)
        return samples


def _grey(path: Path) -> NDArray[np.float64]:
    """Luma 0..255 by Pillow or tifffile."""
    if path.suffix == ".tif":
        with tifffile.TiffFile(path) as file:
            page, samples = file.pages.first, _by_tifffile(path).astype(np.float64)
            if page.colormap is not None:
                samples = (page.colormap[:, samples.astype(int)] >> 8).transpose(1, 2, 0).astype(np.float64)
            else:
                largest = (1 << page.bitspersample) - 1
                samples = samples * (255 / largest) if largest != 65535 else samples // 256
            if int(page.photometric) == 0:
                samples = 255 - samples
    else:
        with Image.open(path) as image:
            wide = image.mode.startswith("I")
            samples = np.asarray(image if wide else image.convert("RGB")).astype(np.float64)
            samples = samples // 256 if wide else samples
    if samples.ndim == 3 and samples.shape[2] >= 3:
        return samples[..., :3] @ np.array([0.299, 0.587, 0.114])
    return samples[..., 0] if samples.ndim == 3 else samples


def _grey_by_opencv(path: Path) -> NDArray[np.float64]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError("OpenCV reads nothing")
    return image.astype(np.float64)


def main() -> None:
    """Break, run, judge, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--files", type=int, default=2000, help="how many to break. Default: 2000")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations. Default: 1")
    parser.add_argument("--at-once", type=int, default=250, help="rows of one run. Default: 250")
    parser.add_argument("--keep", type=Path, help="folder for files that something is wrong with. Default: none")
    arguments = parser.parse_args()
    verdict = Verdict()
    every = list(cases(arguments.files, arguments.seed))
    for start in range(0, len(every), arguments.at_once):
        chosen = every[start : start + arguments.at_once]
        with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
            check(Path(name), chosen, verdict)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            for case in chosen:
                if case.id in verdict.findings:
                    (arguments.keep / f"{case.id}{case.suffix}").write_bytes(case.data)
    _print(verdict, len(every), arguments.seed)
    if verdict.findings:
        sys.exit(1)


def _print(verdict: Verdict, num_files: int, seed: int) -> None:
    print(f"Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} CPUs, seed {seed}\n")
    outcomes = sorted({outcome for _, outcome in verdict.outcomes})
    print(f"| broken | {' | '.join(outcomes)} |\n| --- |{' ---: |' * len(outcomes)}")
    for kind in sorted({kind for kind, _ in verdict.outcomes}):
        print(f"| {kind} | {' | '.join(str(verdict.outcomes[kind, outcome]) for outcome in outcomes)} |")
    print(
        f"\n{num_files} files in {verdict.seconds:.0f} s; longest row {verdict.longest_row_s:.2f} s; peak "
        f"{verdict.peak_bytes / 1e6:.0f} MB resident; {len(verdict.findings)} findings"
    )
    for row, problem in verdict.findings.items():
        print(f"- {row}: {problem}")


if __name__ == "__main__":
    main()
