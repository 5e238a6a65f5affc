"""benchmarks/gpu_minutes.py: whatever a step does, the others are done, and all that is known stands in the report."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import gpu_minutes  # noqa: E402
from gpu_minutes import Step, of_build, of_measure, of_plans, of_run  # noqa: E402

BUILT = """/cache/1.plan: 10.6 MB, built in 41 s
the graph, run by ONNX Runtime:
| side px | tiles | agreement dB | reference dB | candidate dB | lost dB |
|---|---|---|---|---|---|
| 64 | 3 | 91.00 | - | - | - |
the plan, run by TensorRT ({'64x32': 1.234, '256x8': 2.5} ms a batch):
| side px | tiles | agreement dB | reference dB | candidate dB | lost dB |
|---|---|---|---|---|---|
| 64 | 3 | 90.12 | - | - | - |
| 256 | 5 | 89.50 | - | - | - |
"""
MEASURED = """GPU: none
| side px | batch | engine | best ms | median ms | tiles/s | other company |
|---|---|---|---|---|---|---|
| 64 | 1 | tensorrt fp16 | 1 | 2 | 3 | same bytes |
| 256 | 8 | tensorrt fp16 | 4 | 5 | 6 | {company} |
"""


def test_each_step_is_told_of_at_once_and_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    seen: list[int] = []

    def told(_: str) -> tuple[bool, str]:
        seen.append(len(json.loads((out / "results.json").read_text())))
        return True, "seen"

    def breaks(_: str) -> tuple[bool, str]:
        raise ValueError("another format")

    hangs = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(3000)']); "
    monkeypatch.setattr(gpu_minutes, "LEAST_S", 0.0)
    plan = [
        Step("first", ["-c", "print('a | b')"], 60),
        Step("fails", ["-c", "raise SystemExit(6)"], 60),
        Step("dies", ["-c", "import os; os.kill(os.getpid(), 11)"], 60),
        Step("hangs", ["-c", f"{hangs} print('before', flush=True); time.sleep(3000)"], 2),
        Step("told", [], 60, told),
        Step("breaks", [], 60, breaks),
        Step("other", [], 60, lambda _: (False, "something else")),
    ]
    monkeypatch.setattr(gpu_minutes, "steps", lambda *_: plan)
    monkeypatch.setattr(sys, "argv", ["gpu_minutes", str(out)])
    with pytest.raises(SystemExit) as ended:
        gpu_minutes.main()
    assert ended.value.code == 1
    assert seen == [4]
    results = json.loads((out / "results.json").read_text())
    assert [(each["name"], each["outcome"]) for each in results] == [
        ("first", "ok"),
        ("fails", "failed"),
        ("dies", "failed"),
        ("hangs", "too long"),
        ("told", "ok"),
        ("breaks", "not as meant"),
        ("other", "not as meant"),
    ]
    report = (out / "report.md").read_text()
    assert "| first | ok |" in report
    assert "a / b |" in report
    assert "before" in report
    assert "| other | not as meant | 0.0 | something else |" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["report.md", "results.json"]


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    result = gpu_minutes.do(Step("late", ["-c", "print(1)"], 60), tmp_path, time.monotonic() + 1)
    assert (result.outcome, result.printed) == ("no time", "")


def test_what_commands_print_is_understood() -> None:
    assert of_build(BUILT) == (True, "{'64x32': 1.234, '256x8': 2.5} ms; 64 px: 90.12 dB, 256 px: 89.50 dB")
    assert of_build(BUILT.replace("89.50", "34.99"))[0] is False
    assert of_build(BUILT + "the plan fills a tile otherwise at other places, which was accepted\n")[0] is False
    assert of_build("no GPU here: the plan itself has been neither run nor judged\n")[0] is False
    begun = "inpaint-batch: 4 rows; engine tensorrt, model default, precision fp16, output x\n"
    done = "inpaint-batch: 4 done in 1.0 s; 3.96 images/s, 0.816 megapixels/s; exit code 0\n"
    assert of_run("tensorrt fp16")(begun + done)[0]
    assert of_run("tensorrt")(begun + done)[0]
    assert not of_run("tensorrt int8")(begun + done)[0]
    assert not of_run("torch")(begun + done)[0]
    assert of_measure("tensorrt fp16")(MEASURED.format(company="same bytes")) == (True, "ms a tile: tensorrt fp16 5")
    assert not of_measure("tensorrt fp16")(MEASURED.format(company="1e-07"))[0]
    assert of_measure("tensorrt int8")(MEASURED.format(company="same bytes"))[1].endswith("missing: tensorrt int8")
    assert of_plans("a  judged, 1.50 ms\nb  judged, 2.00 ms\nc  not judged\n") == (False, "2 judged")


def test_the_steps_are_commands_of_this_checkout(tmp_path: Path) -> None:
    for step in gpu_minutes.steps(tmp_path, tmp_path):
        for word in step.command:
            if word.endswith((".py", ".onnx", ".csv")) and not Path(word).is_absolute():
                assert (gpu_minutes.ROOT / word).is_file()
