"""The cache of plans, and every way in which one is refused. No TensorRT is needed: a stand-in has its name."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_graphs import pass_through
from typer.testing import CliRunner

from inpaint_batch.cli.engines import app
from inpaint_batch.errors import EngineError, MissingDependencyError, StorageError, UsageError
from inpaint_batch.runtime import tensorrt_api
from inpaint_batch.runtime.plans import (
    PlanKey,
    building,
    find_plan,
    list_plans,
    plan_folder,
    read_plan,
    remove_leftovers,
    remove_plan,
    write_plan,
)
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.runtime.store import hash_file
from inpaint_batch.runtime.tensorrt_api import import_tensorrt, key_here, query_gpu

KEY = PlanKey(
    model_hash="a" * 64,
    precision="fp16",
    shapes="64x32 128x16 256x8",
    tensorrt="tensorrt 11.0",
    gpu="NVIDIA H100 9.0",
    driver="580.1",
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """TensorRT 11.0 on an H100, as far as keys are concerned."""
    trt = SimpleNamespace(__name__="tensorrt", __version__="11.0", Builder=None)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(tensorrt_api, "query_gpu", lambda: ("NVIDIA H100 9.0", "580.1"))
    return trt


def test_a_plan_is_found_by_its_key_alone(tmp_path: Path) -> None:
    write_plan(tmp_path, KEY, b"plan", {"gate": []})
    assert find_plan(tmp_path, KEY) is not None
    for name in ("model_hash", "precision", "shapes", "tensorrt", "gpu", "driver"):
        other = replace(KEY, **{name: "other"})
        assert find_plan(tmp_path, other) is None
        assert other.digest != KEY.digest
    plan = list_plans(tmp_path)[0]
    assert plan.key == KEY
    assert read_plan(plan, "command") == b"plan"


def test_a_portable_plan_serves_every_gpu_and_an_own_one_goes_first(tmp_path: Path) -> None:
    portable = replace(KEY, gpu="", driver="")
    write_plan(tmp_path, portable, b"portable", {})
    assert find_plan(tmp_path, KEY).key == portable  # type: ignore[union-attr]
    write_plan(tmp_path, KEY, b"own", {})
    assert find_plan(tmp_path, KEY).key == KEY  # type: ignore[union-attr]


def test_a_damaged_plan_is_refused_with_the_command(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, KEY, b"plan", {})
    plan.path.write_bytes(b"plan?")
    with pytest.raises(EngineError, match="not the one its card describes; rebuild it: make it"):
        read_plan(plan, "make it")
    plan.path.unlink()
    with pytest.raises(EngineError, match=r"cannot read the plan .* rebuild it: make it"):
        read_plan(plan, "make it")
    assert list_plans(tmp_path) == []  # a card alone is no plan


def test_what_is_not_a_card_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.plan").write_bytes(b"")
    for text in ("{", "{}", '{"key": {"gpu": "x"}}', '{"key": 3}', "[]"):
        (tmp_path / "x.json").write_text(text)
        assert list_plans(tmp_path) == []


def test_plans_are_listed_newest_first_and_say_how_long_a_batch_takes(tmp_path: Path) -> None:
    for age_s, driver in ((200, "b"), (300, "c"), (100, "a")):
        latency_ms = {"64x32": 1.5, "256x2": 2.5} if driver == "b" else None
        plan = write_plan(tmp_path, replace(KEY, driver=driver), b"plan", {"latency_ms": latency_ms})
        os.utime(plan.path, (1e9 - age_s, 1e9 - age_s))
    plans = list_plans(tmp_path)
    assert [(plan.key.driver, plan.latency_ms) for plan in plans] == [("a", math.inf), ("b", 2.5), ("c", math.inf)]


def test_only_what_belongs_to_no_plan_and_is_an_hour_old_is_left_over(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, KEY, b"plan", {}).path.stem
    names = {"none.plan": 1, "none-1.kernels": 2, ".half.tmp": 4, "new.plan": 8, f"{plan}-1.kernels": 16}
    for name, size in {**names, "timing-x.cache": 32}.items():
        (tmp_path / name).write_bytes(bytes(size))
    an_hour_ago = time.time() - 3601
    for path in tmp_path.iterdir():
        if path.name != "new.plan":
            os.utime(path, (an_hour_ago, an_hour_ago))
    assert remove_leftovers(tmp_path) == 1 + 2 + 4
    kept = {f"{plan}.plan", f"{plan}.json", f"{plan}-1.kernels", "new.plan", "timing-x.cache"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert remove_leftovers(tmp_path, timings=True) == 32


def test_where_plans_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("INPAINT_BATCH_ENGINES", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert plan_folder() == tmp_path / "inpaint-batch" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert plan_folder() == tmp_path / "me" / ".cache" / "inpaint-batch" / "engines"


def test_a_second_builder_waits_for_the_first(tmp_path: Path) -> None:
    order: list[str] = []
    started = threading.Event()

    def second() -> None:
        started.set()
        with building(tmp_path, KEY):
            order.append("second")

    waiting = threading.Thread(target=second)
    with building(tmp_path, KEY):
        waiting.start()
        started.wait()
        with building(tmp_path, replace(KEY, precision="int8")):  # another plan is nobody's concern
            order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="INPAINT_BATCH_ENGINES"), building(tmp_path / "file", KEY):
        pass
    with pytest.raises(StorageError, match="INPAINT_BATCH_ENGINES"):
        write_plan(tmp_path / "file", KEY, b"", {})


def test_a_missing_plan_is_refused_with_the_command(cache: Path, machine: SimpleNamespace, tmp_path: Path) -> None:
    model = pass_through(tmp_path / "m.fp32.onnx")
    command = f"build it: inpaint-batch compile {model} --target tensorrt --precision int8 --calibrate MANIFEST"
    with pytest.raises(EngineError) as refused:
        select_engine("tensorrt", model=str(model), precision="int8")
    assert str(refused.value).endswith(command)


def test_a_foreign_plan_is_refused_with_what_differs(cache: Path, machine: SimpleNamespace, tmp_path: Path) -> None:
    model = pass_through(tmp_path / "m.fp32.onnx")
    key = key_here(machine, hash_file(model), "fp16")  # type: ignore[arg-type]
    assert key == replace(KEY, model_hash=hash_file(model))
    write_plan(cache, replace(key, driver="570.0", tensorrt="tensorrt 10.15"), b"plan", {})
    write_plan(cache, replace(key, gpu="NVIDIA T4 7.5", driver="570.0", tensorrt="tensorrt 10.15"), b"plan", {})
    with pytest.raises(
        EngineError,
        match=r"built for something else \(tensorrt 10.15, here tensorrt 11.0; driver 570.0, here 580.1\); "
        "build it for this machine: inpaint-batch compile .*m.fp32.onnx --target tensorrt --precision fp16$",
    ):
        select_engine("tensorrt", model=str(model))


def test_without_tensorrt_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match="pip install tensorrt-rtx"):
        select_engine("tensorrt", model=str(pass_through(tmp_path / "m.onnx")))
    with pytest.raises(EngineError, match="FP32 file"):
        select_engine("tensorrt", model=str(pass_through(tmp_path / "m.int8.onnx")))
    with pytest.raises(UsageError, match="unknown precision"):
        select_engine("tensorrt", model=str(tmp_path / "m.onnx"), precision="fp8")


def test_the_gpu_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "NVIDIA H100, 9.0, 580.1"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert query_gpu() == ("NVIDIA H100 9.0", "580.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert query_gpu() == ("", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=1*) echo "NVIDIA T4, 7.5, 580.1";; esac\n')
    assert query_gpu() == ("NVIDIA T4 7.5", "580.1")
    tool.write_text('#!/bin/sh\ncase "$*" in *--id=*) exit 6;; esac\necho "NVIDIA H100, 9.0, 580.1"\n')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c2b1f80-0d7e-5f0a-8c1d-4ab0c1f3a0de")
    assert query_gpu() == ("NVIDIA H100 9.0", "580.1")
    (tmp_path / "other").mkdir()
    tool = tool.rename(tmp_path / "other" / "nvidia-smi")
    listed = "GPU 1: NVIDIA H100 (UUID: GPU-a)\\n  MIG 1g.10gb     Device  0: (UUID: MIG-5c2b1f80)"
    asked = f'case "$*" in *--id=1*) echo "NVIDIA H100, 9.0, 580.1";; -L) printf "{listed}";; esac'
    tool.write_text(f"#!/bin/sh\n{asked}\n")
    monkeypatch.setenv("PATH", f"{tool.parent}:/bin:/usr/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-5c2b1f80")  # a plan for the whole card is not one for a slice
    assert query_gpu() == ("NVIDIA H100 MIG 1g.10gb 9.0", "580.1")
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert query_gpu() == ("", "")


@pytest.mark.parametrize(("before", "after"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST", "FASTEST_FIRST")])
def test_gpus_have_the_numbers_that_keys_go_by(
    machine: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.setenv("CUDA_DEVICE_ORDER", before or "")
    if before is None:
        monkeypatch.delenv("CUDA_DEVICE_ORDER")
    import_tensorrt()
    assert os.environ["CUDA_DEVICE_ORDER"] == after


def test_the_commands(cache: Path, machine: SimpleNamespace) -> None:
    invoke = CliRunner().invoke
    assert "no plans in" in invoke(app, ["list"]).stdout
    write_plan(cache, KEY, b"plan" * 1000, {"gate": [{"side_px": 64}], "latency_ms": {"64x32": 1.5}})
    write_plan(cache, replace(KEY, driver="570.0"), b"old", {})
    listed = invoke(app, ["list"]).stdout.splitlines()
    assert len(listed) == 2
    assert any(
        "fp16  NVIDIA H100 9.0  tensorrt 11.0  by onnx  model aaaaaaaaaaaa  judged, 1.50 ms" in line for line in listed
    )
    card = json.loads(invoke(app, ["inspect", KEY.digest[:6]]).stdout)
    assert card["key"]["driver"] == "580.1"
    assert isinstance(invoke(app, ["inspect", "zz"]).exception, UsageError)
    assert invoke(app, ["prune"]).stdout.startswith("removed 1 plan,")
    assert [plan.key for plan in list_plans(cache)] == [KEY]
    assert invoke(app, ["prune", "--all"]).stdout.startswith("removed 1 plan,")
    assert list_plans(cache) == []
    assert remove_plan(write_plan(cache, KEY, b"1234", {})) > 4
