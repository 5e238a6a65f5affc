"""What does the package do on this machine's GPU? Builds, measures and runs all there is, within ten minutes.

Usage: python benchmarks/gpu_minutes.py OUT [--minutes N] [--only WORD...]

In a checkout, installed or not. Every step is a command of its own with a limit of its own; one that fails, hangs or
kills itself ends nothing. After each step OUT/report.md and OUT/results.json are written anew: a table with a line for
each step, then what every command printed. The steps that tell most come first; those for which no time is left are
named as that. Plans and results go to a folder that is removed at the end, so that nothing that was there before is
taken for something that works; of those that were measured OUT has tensorrt.json and others.json. Ends with 1 where a
step was not ok: without a GPU most are not, which rehearses it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "engines/default/dcf-base.fp32.onnx"
DEMO = "manifests/demo.csv"
LEAST_S = 5.0
"""A step is not begun with less time than this."""
FAREWELL_S = 5.0
"""What the steps that were asked to end have for it."""
LEAST_DB = 35.0
"""Of a plan and FP32, as in `inpaint_batch.compile.gate`."""
MAX_PRINTED = 8000
"""Characters of what a command printed that are kept: its end."""

PROBE = """
import importlib, subprocess
try:
    query = "--query-gpu=name,compute_cap,driver_version,memory.total,mig.mode.current"
    print(subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True).stdout.strip())
except OSError as error:
    print("no nvidia-smi:", error)
missing = []
for name in ("torch", "tensorrt", "tensorrt_rtx", "onnxruntime", "onnx", "onnxscript", "safetensors",
             "numpy", "cv2", "pyvips", "imagecodecs", "tifffile", "jpeglib", "msgspec", "typer", "rich"):
    try:
        module = importlib.import_module(name)
        print(name, getattr(module, "__version__", ""))
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        missing.append(name)
if "onnxruntime" not in missing:
    import onnxruntime
    print("ONNX Runtime's providers:", *onnxruntime.get_available_providers())
there = "torch" not in missing and importlib.import_module("torch").cuda.is_available()
if there:
    import torch
    print("torch:", torch.cuda.get_device_name(), "of", torch.cuda.device_count(), "CUDA", torch.version.cuda)
print("not there: " + (", ".join(missing) or "nothing") + "; torch sees", "a GPU" if there else "no GPU")
raise SystemExit(0 if there else 1)
"""


@dataclass(frozen=True)
class Step:
    """Something to do."""

    name: str
    command: list[str]
    """Arguments of Python, run in the checkout; empty where `tells` does it all."""
    limit_s: float
    tells: Callable[[str], tuple[bool, str]] | None = None
    """Of what it printed: whether that is as it should be, and what belongs into the table; None: its last line."""


@dataclass
class Result:
    """What became of it."""

    name: str
    outcome: str = ""
    """`ok`, `failed`, `too long`, `no time`, or `not as meant`: it ended well, but did something else."""
    seconds: float = 0.0
    says: str = ""
    command: str = ""
    printed: str = field(default="", repr=False)


def main() -> None:
    """Do it all, one after the other."""
    arguments = parse()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    until_s = time.monotonic() + 60 * arguments.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="gpu-minutes-", ignore_cleanup_errors=True) as scratch:
        for step in steps(out, Path(scratch)):
            if results and not any(word in step.name for word in arguments.only):
                continue
            result = do(step, Path(scratch), until_s)
            if results and results[0].outcome != "ok" and result.outcome == "ok" and "torch" in step.name:
                result.outcome = "not as meant"  # it fills on the CPU then
            results.append(result)
            write(out, results)
            print(line_of(result), flush=True)
    print(f"\n{out / 'report.md'}")
    sys.exit(any(result.outcome != "ok" for result in results))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--minutes", type=float, default=9.5, metavar="N", help="for all steps together (9.5)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="steps with one of these in the name")
    return parser.parse_args()


def steps(out: Path, scratch: Path) -> list[Step]:
    """All of them, the first of which says whether there is a GPU, then the most telling first."""
    program = ["-m", "inpaint_batch"]
    # Accepted whatever they lose, which is told all the same: one that is refused could not be measured.
    build = [*program, "compile", MODEL, "--target", "tensorrt", "--calibrate", DEMO, "--accept-loss", "--precision"]
    restored = scratch / "restored"

    def run(name: str, *flags: str) -> list[str]:
        return [*program, "run", DEMO, "--output", str(restored / name), *flags]

    def tensorrt(precision: str) -> list[str]:
        return ["--engine", "tensorrt", "--precision", precision]

    def same(other: str) -> Callable[[str], tuple[bool, str]]:
        return lambda _: compare(restored / "fp16", restored / other)

    engines = ["benchmarks/engines.py", "engines/default", "--json"]
    processes = ["--executor", "process", "--actors", "2"]
    return [
        Step("what is there", ["-c", PROBE], 90),
        Step("build fp16", [*build, "fp16"], 120, of_build),
        Step("run fp16", run("fp16", *tensorrt("fp16")), 60, of_run("tensorrt fp16")),
        Step("build int8", [*build, "int8"], 120, of_build),
        Step("build fp32", [*build, "fp32"], 120, of_build),
        Step("plans", [*program, "engines", "list"], 20, of_plans),
        Step("run auto", run("auto"), 60, of_run("tensorrt")),
        Step("run int8", run("int8", *tensorrt("int8")), 60, of_run("tensorrt int8")),
        Step("run shard 1/2", run("again", *tensorrt("fp16"), "--shard", "1/2"), 60),
        Step("run shard 2/2", run("again", *tensorrt("fp16"), "--shard", "2/2"), 60),
        Step("same bytes in other batches", [], 10, same("again")),
        Step("run two processes", run("two", *tensorrt("fp16"), *processes), 60, of_run("tensorrt fp16")),
        Step("same bytes by two processes", [], 10, same("two")),
        Step(
            "measure tensorrt",
            [*engines, str(out / "tensorrt.json"), "--only", "tensorrt", "--rounds", "5"],
            120,
            of_measure("tensorrt fp16", "tensorrt int8", "tensorrt fp32"),
        ),
        Step("run cuda", run("cuda", "--engine", "onnxruntime-cuda"), 60, of_run("onnxruntime-cuda")),
        Step("run torch", run("torch", "--engine", "torch"), 60, of_run("torch")),
        Step("tests", ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"], 120, of_tests),
        Step("run torch-compile", run("compiled", "--engine", "torch-compile"), 150, of_run("torch-compile")),
        Step(
            "measure the others",
            [*engines, str(out / "others.json"), "--only", "cuda", "torch", "--rounds", "3"],
            300,
            of_measure("onnxruntime-cuda fp32", "torch fp16", "torch-compile fp16"),
        ),
    ]


def do(step: Step, scratch: Path, until_s: float) -> Result:
    """Do one step, within its limit and what is left of the time of all."""
    result = Result(step.name, command=shlex.join(["python", *step.command]) if step.command else "")
    limit_s = min(step.limit_s, until_s - time.monotonic())
    if limit_s < LEAST_S:
        result.outcome = "no time"
        return result
    started_s = time.monotonic()
    code = 0
    if step.command:
        code, printed = call(step.command, scratch, limit_s)
        result.printed = printed[-MAX_PRINTED:]
    result.seconds = round(time.monotonic() - started_s, 1)
    result.says = last(result.printed)
    if code == TOO_LONG:
        result.outcome = "too long"
    elif code:
        result.outcome, result.says = "failed", f"exit code {code}: {result.says}"
    else:
        try:
            good, said = step.tells(result.printed) if step.tells else (True, result.says)
        except Exception as error:  # a format that has changed is no reason to lose the rest
            good, said = False, f"{type(error).__name__}: {error}"
        result.outcome, result.says = "ok" if good else "not as meant", said
    return result


TOO_LONG = 1000
"""In the place of an exit code."""


def call(command: list[str], scratch: Path, limit_s: float) -> tuple[int, str]:
    """Exit code and all that a command printed; all that it has started ends with it."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "INPAINT_BATCH_ENGINES": str(scratch / "plans"),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
    }
    file = scratch / "printed.txt"  # not a pipe: what a grandchild keeps open would be waited for
    with file.open("w+", encoding="utf-8", errors="replace") as printed:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = TOO_LONG
        finally:
            end(process)
    told = file.read_text(encoding="utf-8", errors="replace")
    file.unlink()
    return code, told


def end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(FAREWELL_S)


def last(printed: str) -> str:
    """The last line."""
    return next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "")


def of_build(printed: str) -> tuple[bool, str]:
    """How well the plan agrees with FP32 by side, and how long it takes for a batch."""
    _, found, plan = printed.partition("the plan, run by TensorRT (")
    if not found:
        return False, last(printed)
    latency, _, table = plan.partition(" ms a batch")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if re.match(r"\| \d", line)]
    says = f"{latency} ms; " + ", ".join(f"{cells[0]} px: {cells[2]} dB" for cells in rows)
    if "which was accepted" in plan:
        return False, f"{says}; other bytes at other places of a batch"
    return bool(rows) and all(float(cells[2]) >= LEAST_DB for cells in rows), says


def of_run(engine: str) -> Callable[[str], tuple[bool, str]]:
    """Whether a run was of that engine (and precision), and how fast it was."""

    def tell(printed: str) -> tuple[bool, str]:
        chosen = re.search(r"engine (\S+), model \S+, precision (\w+)", printed)
        name = f"{chosen[1]} {chosen[2]}" if chosen else "an unknown engine"
        notes = [line for line in printed.splitlines() if "torch sees no GPU" in line or " is not used" in line]
        ended = next((line for line in printed.splitlines() if " done in " in line), last(printed))
        good = (name == engine or name.startswith(f"{engine} ")) and "4 done" in ended
        return good, "; ".join([name, ended.removeprefix("inpaint-batch: "), *notes])

    return tell


def of_plans(printed: str) -> tuple[bool, str]:
    """Whether there are three that were judged."""
    num_judged = sum("  judged" in line for line in printed.splitlines())
    return num_judged == 3, f"{num_judged} judged"


def of_tests(printed: str) -> tuple[bool, str]:
    """Whether any test has run at all."""
    return " passed" in last(printed), last(printed)


def of_measure(*wanted: str) -> Callable[[str], tuple[bool, str]]:
    """Which engines were measured, how long their largest tiles took, and whether tiles are the same in any company."""

    def tell(printed: str) -> tuple[bool, str]:
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "| " in line]
        rows = [cells for cells in rows if cells[0].isdigit()]
        times = {cells[2]: cells[4] for cells in rows}  # the last row of each
        other = sorted({cells[2] for cells in rows if cells[-1] != "same bytes"})
        missing = [name for name in wanted if name not in times]
        says = ["ms a tile: " + ", ".join(f"{name} {each}" for name, each in times.items())]
        says += [f"missing: {', '.join(missing)}"] if missing else []
        says += [f"other bytes in company: {', '.join(other)}"] if other else []
        return not missing and not other, "; ".join(says)

    return tell


def compare(one: Path, other: Path) -> tuple[bool, str]:
    """Whether two folders have the same results."""

    def results(folder: Path) -> dict[str, bytes]:
        files = (path for path in folder.rglob("*") if path.is_file() and ".inpaint-batch" not in path.parts)
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    first, second = results(one), results(other)
    differing = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    if not first or not second:
        return False, "there is nothing to compare"
    return not differing, f"{', '.join(differing)} differ" if differing else f"{len(first)} files, all the same"


def line_of(result: Result) -> str:
    """One line of the table."""
    says = result.says.replace("|", "/")
    return f"| {result.name} | {result.outcome} | {result.seconds:.1f} | {says[:300]} |"


def write(out: Path, results: list[Result]) -> None:
    """The report and the numbers of all steps so far; whole at any time."""
    lines = [f"{datetime.now(UTC).isoformat(timespec='seconds')}, {sum(each.seconds for each in results):.0f} s", ""]
    lines += ["| step | outcome | s | |", "|---|---|---:|---|", *map(line_of, results)]
    for each in (each for each in results if each.printed):
        lines += ["", f"## {each.name}", "", f"`{each.command}`", "", "```", each.printed.rstrip(), "```"]
    for name, text in (
        ("report.md", "\n".join(lines) + "\n"),
        ("results.json", json.dumps([asdict(each) for each in results], indent=1) + "\n"),
    ):
        temporary = out / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(out / name)


if __name__ == "__main__":
    main()
