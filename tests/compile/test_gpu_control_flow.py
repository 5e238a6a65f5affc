"""Building, keeping, running and choosing TensorRT plans, on a machine that only pretends to have a GPU.

What TensorRT itself does with a graph is tested with TensorRT for RTX, in test_tensorrt_build.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fake_gpu import DRIVER, GPU, FakeContext, FakeEngine, FakeGpu, FakeRuntimeConfig, install
from onnx import helper
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail
from typer.testing import CliRunner

from inpaint_batch.cli import engines as engines_command
from inpaint_batch.cli.compile import app as compile_command
from inpaint_batch.compile import tensorrt_build
from inpaint_batch.compile.export import example_inputs
from inpaint_batch.compile.tensorrt_build import build_tensorrt
from inpaint_batch.compile.tiles import RealTile
from inpaint_batch.errors import EngineError, MissingDependencyError, RowError, UsageError, WorkerLostError
from inpaint_batch.execution.shortage import is_out_of_memory
from inpaint_batch.models.checkpoint import save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.runtime import gpu, onnx_cuda
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.plans import list_plans, write_plan
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.runtime.store import hash_file
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES, logger
from inpaint_batch.runtime.tensorrt_engine import NOT_JUDGED, import_torch_with_cuda
from inpaint_batch.tiling.fill import TileInput


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> FakeGpu:
    # As many tiles as can be computed here while one waits; what is tested does not depend on the number.
    for side in BATCH_SIZES:
        monkeypatch.setitem(BATCH_SIZES, side, 2)
    return install(monkeypatch, tmp_path)


def tile_batch(side: int, num: int, seed: int = 3) -> TileBatch:
    return TileBatch(*(each.numpy() for each in example_inputs(num, side, side, seed=seed)))


def noise_tile(side: int) -> RealTile:
    image, hole, prior, weight = (each.numpy()[0] for each in example_inputs(1, side, side, seed=side))
    return RealTile(side, TileInput(image, hole, prior, float(weight.item())), hole, image)


def build(fp32: Path, precision: str = "fp32", judged: tuple[int, ...] = (64,), **more: Any) -> Any:
    tiles = [noise_tile(side) for side in judged]
    given = {"learned": tiles, "judged": tiles, "accept_loss": True, **more}
    return build_tensorrt(fp32, hash_file(fp32), precision=precision, **given)


def test_a_plan_is_built_judged_timed_and_run(machine: FakeGpu, fp32: Path) -> None:
    plan, report = build(fp32)
    assert "the plan, run by TensorRT" in report
    assert plan.judged
    assert list(plan.card["latency_ms"]) == ["64x2"]
    assert plan.card["inspector"] == {"Layers": ["fused"]}
    assert plan.key.gpu == GPU
    assert plan.key.driver == DRIVER
    profiles = machine.configs[0].profiles
    assert [profile["image"] for profile in profiles] == [(2, 3, 64, 64), (2, 3, 128, 128), (2, 3, 256, 256)]
    assert [profile["prior_weight"] for profile in profiles] == [(2, 1, 1, 1)] * 3

    engine = select_engine("tensorrt", model=str(fp32), precision="fp32")
    reference = OnnxEngine(fp32, precision="fp32", threads=1)
    batch = tile_batch(64, 5)  # neither one batch nor a multiple of it
    filled = engine.fill(batch)
    np.testing.assert_allclose(filled, reference.fill(batch), atol=1e-6, rtol=0)
    alone = engine.fill(batch.only(4))
    assert alone.tobytes() == filled[4:].tobytes()
    np.testing.assert_allclose(engine.fill(tile_batch(128, 1)), reference.fill(tile_batch(128, 1)), atol=1e-6, rtol=0)
    assert dict(machine.engines[-1].runs) == {0: (2, 3, 64, 64), 1: (2, 3, 128, 128)}
    assert engine.notes == ()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.fill(batch)


def test_each_package_has_one_logger_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (install(monkeypatch, tmp_path, "tensorrt_rtx").trt for _ in range(2))
    assert isinstance(logger(first), first.Logger)
    assert logger(second) is not logger(first)
    monkeypatch.setattr(first, "Logger", None)  # is not called again
    assert logger(first) is logger(first)


def test_what_was_timed_is_not_timed_again(machine: FakeGpu, cache: Path, fp32: Path) -> None:
    build(fp32, judged=())
    assert machine.configs[0].timed > 10
    (file,) = cache.glob("timing-*.cache")
    learned = set(json.loads(file.read_bytes()))
    build(fp32, "fp16", judged=())
    assert machine.configs[1].timed == len({"Cast"} - learned)  # the one kind of node that FP16 adds
    assert set(json.loads(file.read_bytes())) == learned | {"Cast"}


def test_timings_of_another_machine_are_replaced(
    machine: FakeGpu, cache: Path, fp32: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build(fp32, judged=())
    (file,) = cache.glob("timing-*.cache")
    file.write_text('["foreign"]')
    build(fp32, "fp16", judged=())
    assert "does not fit this GPU" in caplog.text
    assert "Conv" in json.loads(file.read_bytes())


def test_damaged_timings_are_replaced(machine: FakeGpu, cache: Path, fp32: Path) -> None:
    build(fp32, judged=())
    (file,) = cache.glob("timing-*.cache")
    file.write_bytes(b"damaged")
    build(fp32, "fp16", judged=())
    assert "Conv" in json.loads(file.read_bytes())


def test_fp32_is_built_without_tf32(machine: FakeGpu, fp32: Path) -> None:
    build(fp32, judged=())
    assert machine.configs[0].flags == set()


def test_a_description_that_is_no_json_costs_no_plan(
    machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspector = SimpleNamespace(get_engine_information=lambda _: "cannot tell")
    monkeypatch.setattr(FakeEngine, "create_engine_inspector", lambda _: inspector)
    assert build(fp32, judged=())[0].card["inspector"] == "cannot tell"


@pytest.mark.parametrize("refusal", ["asked", "captured"])
def test_what_cannot_be_captured_is_run_without_a_graph(
    machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, refusal: str
) -> None:
    build(fp32, judged=())
    engine: Any = select_engine("tensorrt", model=str(fp32), precision="fp32")
    if refusal == "asked":
        machine.engines[-1].capturable = False
    else:

        @contextlib.contextmanager
        def capture(graph: object, stream: object) -> Any:
            yield
            raise RuntimeError("operation not permitted when stream is capturing")

        engine._torch.cuda.graph = capture
    batch = tile_batch(64, 3)
    expected = OnnxEngine(fp32, precision="fp32", threads=1).fill(batch)
    np.testing.assert_allclose(engine.fill(batch), expected, atol=1e-6, rtol=0)
    np.testing.assert_array_equal(engine.fill(batch.only(2)), engine.fill(batch)[2:])
    assert "every kernel is launched by itself" in caplog.text


def test_a_gpu_that_is_gone_is_told_from_a_batch_that_failed(
    machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(fp32, judged=())
    engine: Any = select_engine("tensorrt", model=str(fp32), precision="fp32")
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(RowError, match="the GPU failed on a batch of tiles of 64 px: TensorRT refused the batch"):
        engine.fill(tile_batch(64, 1))

    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with ...")

    engine._torch.cuda.synchronize = fail
    with pytest.raises(WorkerLostError, match=r"any more \(CUDA error: an illegal memory access was encountered\)"):
        engine.fill(tile_batch(64, 1))


def test_a_plan_without_room_to_run_is_said(machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(fp32, judged=())
    engine = select_engine("tensorrt", model=str(fp32), precision="fp32")
    monkeypatch.setattr(FakeEngine, "create_execution_context", lambda *_: None)
    with pytest.raises(RowError, match="TensorRT made no context") as caught:
        engine.fill(tile_batch(64, 1))
    assert is_out_of_memory(caught.value)


def test_a_plan_that_does_not_run_is_not_kept(
    machine: FakeGpu, cache: Path, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeContext, "execute_async_v3", lambda *_: False)
    with pytest.raises(EngineError, match=f"does not run on the {GPU}.*TensorRT refused the batch"):
        build(fp32)
    assert list_plans(cache) == []


def test_the_work_of_the_gpu_alone_can_be_timed(machine: FakeGpu, fp32: Path) -> None:
    build(fp32, judged=())
    engine: Any = select_engine("tensorrt", model=str(fp32), precision="fp32")
    engine.fill(tile_batch(64, 1))
    before = len(machine.engines[-1].runs)
    assert engine.compute_s(tile_batch(64, 3), times=4) > 0
    assert len(machine.engines[-1].runs) - before == 2 + 4 * 2  # two batches of two to fill three tiles


def test_what_another_build_learned_meanwhile_is_kept(
    machine: FakeGpu, cache: Path, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = machine.trt.Builder.build_serialized_network

    def build_beside_another(self: object, network: object, config: object) -> bytes:
        (cache / "timing.tmp").write_text("")
        plan: bytes = inner(self, network, config)
        (lock,) = cache.glob("timing-*.lock")
        lock.with_suffix(".cache").write_text('["Theirs"]')
        return plan

    monkeypatch.setattr(machine.trt.Builder, "build_serialized_network", build_beside_another)
    build(fp32, judged=())
    (file,) = cache.glob("timing-*.cache")
    assert {"Theirs", "Conv"} <= set(json.loads(file.read_bytes()))


def test_rtx_keeps_the_kernels_it_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, fp32: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = install(monkeypatch, tmp_path, "tensorrt_rtx")
    monkeypatch.setattr(type(machine.trt.Builder(None)), "build_serialized_network", lambda _, net, config: net.graph)
    plan, _ = build(fp32, judged=())
    assert list(cache.glob("timing-*")) == []  # it times nothing
    engine = select_engine("tensorrt", model=str(fp32), precision="fp32")
    engine.fill(tile_batch(64, 1))
    (kernels,) = cache.glob("*.kernels")
    assert kernels.read_bytes() == b"kernels"
    assert machine.loaded == []
    select_engine("tensorrt", model=str(fp32), precision="fp32").fill(tile_batch(64, 1))
    assert machine.loaded == [b"kernels"]
    kernels.write_bytes(b"of another GPU")
    select_engine("tensorrt", model=str(fp32), precision="fp32").fill(tile_batch(64, 1))
    assert "kernels are compiled anew" in caplog.text
    assert kernels.read_bytes() == b"kernels"
    assert plan.key.tensorrt == "tensorrt_rtx 11.0"


def test_kernels_that_cannot_be_kept_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path, fp32: Path
) -> None:
    machine = install(monkeypatch, tmp_path, "tensorrt_rtx")
    monkeypatch.setattr(type(machine.trt.Builder(None)), "build_serialized_network", lambda _, net, config: net.graph)
    monkeypatch.setattr(FakeRuntimeConfig, "kernels", None)
    build(fp32, judged=())
    select_engine("tensorrt", model=str(fp32), precision="fp32").fill(tile_batch(64, 1))
    assert not list(cache.glob("*.kernels"))


def test_a_gpu_that_cannot_be_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with pytest.raises(EngineError, match=r"cannot be used \(CUDA error: all CUDA-capable devices are busy or unavail"):
        import_torch_with_cuda()


def test_auto_takes_the_fastest_plan_that_was_judged(machine: FakeGpu, cache: Path, fp32: Path) -> None:
    slow, _ = build(fp32, "fp32")
    fast, _ = build(fp32, "fp16")
    for plan, latency in ((slow, 9.0), (fast, 3.0)):
        write_plan(cache, plan.key, plan.path.read_bytes(), {**plan.card, "latency_ms": {"64x2": latency}})
    assert select_engine("auto", model=str(fp32)).precision == "fp16"
    assert select_engine("tensorrt", model=str(fp32)).precision == "fp16"
    assert select_engine("auto", model=str(fp32), precision="fp32").precision == "fp32"
    write_plan(cache, fast.key, fast.path.read_bytes(), {**fast.card, "gate": None, "latency_ms": None})
    engine = select_engine("auto", model=str(fp32))
    assert (engine.name, engine.precision, engine.notes) == ("tensorrt", "fp32", ())
    assert select_engine("tensorrt", model=str(fp32), precision="fp16").notes == (NOT_JUDGED,)


def test_auto_says_why_it_fell_back(machine: FakeGpu, fp32: Path) -> None:
    engine = select_engine("auto", model=str(fp32), threads=1)
    assert (engine.name, engine.precision) == ("onnxruntime", "fp32")
    missing, cuda, fallback = engine.notes
    assert missing.startswith(f"tensorrt is not used on the {GPU}: there is no fp16 TensorRT plan of this model in ")
    command = f"inpaint-batch compile {fp32} --target tensorrt --precision fp16 --calibrate MANIFEST"
    assert missing.endswith(f"build it: {command}")  # auto takes only what was judged
    assert cuda == (
        f"onnxruntime-cuda is not used on the {GPU}: this ONNX Runtime has no CUDA provider: pip uninstall "
        "onnxruntime, then pip install onnxruntime-gpu; or use --engine onnxruntime"
    )
    assert fallback == f"tiles are filled on the CPU although there is a GPU, {GPU}"
    build(fp32, "fp16", judged=())
    note = select_engine("auto", model=str(fp32), threads=1).notes[0]
    assert "was not judged on this GPU; judge it: inpaint-batch compile" in note
    assert note.endswith("--precision fp16 --calibrate MANIFEST")


def test_a_plan_whose_bytes_depend_on_the_place_in_a_batch_is_refused(
    machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = FakeContext.execute_async_v3

    def other_at_the_second_place(context: FakeContext, stream: int) -> bool:
        run(context, stream)
        context._at(context.engine.output, (2, 3, 64, 64))[1] += 1e-6
        return True

    monkeypatch.setattr(FakeContext, "execute_async_v3", other_at_the_second_place)
    with pytest.raises(EngineError, match="fills a tile otherwise at other places of a batch, by up to 1e-06"):
        build(fp32, accept_loss=False)
    with pytest.raises(EngineError, match="there is no fp32 TensorRT plan"):  # it was not kept
        select_engine("tensorrt", model=str(fp32), precision="fp32")
    plan, report = build(fp32)
    assert plan.judged
    assert "by up to 1e-06, which was accepted" in report


def test_a_plan_that_could_not_be_judged_is_built_again_once_it_can(machine: FakeGpu, fp32: Path) -> None:
    assert not build(fp32, judged=())[0].judged
    assert "already built" in build(fp32, judged=())[1]
    plan, report = build(fp32)
    assert plan.judged
    assert "already built" not in report
    assert "already built" in build(fp32)[1]


def test_a_damaged_plan_is_built_again_or_pruned(machine: FakeGpu, cache: Path, fp32: Path) -> None:
    plan = build(fp32)[0]
    content = plan.path.read_bytes()
    plan.path.write_bytes(content[:-1])
    assert CliRunner().invoke(engines_command.app, ["list"]).stdout.endswith("damaged, build it again\n")
    with pytest.raises(EngineError, match="not the one its card describes; rebuild it: inpaint-batch compile"):
        select_engine("tensorrt", model=str(fp32)).fill(tile_batch(64, 1))
    assert "already built" not in build(fp32)[1]
    assert plan.path.read_bytes() == content
    assert "already built" in build(fp32)[1]
    plan.path.unlink()
    assert "already built" not in build(fp32)[1]
    plan.path.write_bytes(b"")
    assert CliRunner().invoke(engines_command.app, ["prune"]).stdout.startswith("removed 1 plan,")
    assert list_plans(cache) == []


def test_int8_of_another_calibration_is_another_plan(
    machine: FakeGpu, fp32: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_build, "typed_graph", lambda *_: fp32)  # what is in the plan does not matter here
    first, _ = build(fp32, "int8", card={"calibration_sha256": "a"})
    assert "already built" in build(fp32, "int8", card={"calibration_sha256": "a"})[1]
    second, report = build(fp32, "int8", card={"calibration_sha256": "b"})
    assert "already built" not in report
    assert (second.key, second.card["calibration_sha256"]) == (first.key, "b")
    third, report = build(fp32, "int8", judged=(64, 64), card={"calibration_sha256": "b"})  # of more of its tiles
    assert "already built" not in report
    assert (second.card["calibration_tiles"], third.card["calibration_tiles"]) == (1, 2)


@pytest.fixture
def cuda_provider(monkeypatch: pytest.MonkeyPatch) -> type[onnx_cuda.OnnxCudaEngine]:
    """The CUDA engine with the CPU's provider in the place of CUDA's."""
    monkeypatch.setattr(onnx_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnx_cuda.OnnxCudaEngine, "providers", (("CPUExecutionProvider", {}),))
    return onnx_cuda.OnnxCudaEngine


def test_without_a_plan_auto_takes_cuda_if_it_agrees(
    machine: FakeGpu, fp32: Path, cuda_provider: type[onnx_cuda.OnnxCudaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = select_engine("auto", model=str(fp32))
    assert (engine.name, engine.precision) == ("onnxruntime-cuda", "fp32")
    assert engine.batch_size(64) == 2
    assert len(engine.notes) == 1
    batch = tile_batch(64, 3)
    expected = OnnxEngine(fp32, precision="fp32", threads=1).fill(batch)
    np.testing.assert_allclose(engine.fill(batch), expected, atol=1e-5, rtol=0)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.fill(batch)
    inner = cuda_provider.fill
    monkeypatch.setattr(cuda_provider, "fill", lambda self, batch: inner(self, batch) + np.float32(0.01))
    wrong = select_engine("auto", model=str(fp32), threads=1)
    assert wrong.name == "onnxruntime"
    assert "differs from onnxruntime by 0.01 at 64 px" in wrong.notes[1]


class Session:
    """ONNX Runtime's own session within a Python one, with a provider that fails on `fails_from` tiles and more."""

    def __init__(self, inner: Any, message: str, fails_from: int) -> None:
        self._inner, self._message, self._fails_from = inner, message, fails_from

    def run(self, names: Any, feed: dict[str, np.ndarray], options: Any) -> Any:
        if len(feed["hole"]) >= self._fails_from:
            raise EPFail(self._message)
        return self._inner.run(names, feed, options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize(
    ("message", "fails_from", "error"),
    [
        ("CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED", 2, RowError),
        ("CUDA failure 2: out of memory", 1, RowError),
        ("CUDA failure 700: an illegal memory access was encountered", 1, WorkerLostError),
    ],
)
def test_a_provider_that_fails_leaves_no_work_to_the_cpu(
    machine: FakeGpu,
    fp32: Path,
    cuda_provider: type[onnx_cuda.OnnxCudaEngine],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    message: str,
    fails_from: int,
    error: type[Exception],
) -> None:
    engine: Any = select_engine("onnxruntime-cuda", model=str(fp32))
    session = Session(engine._session._sess, message, fails_from)
    monkeypatch.setattr(engine._session, "_sess", session)
    with pytest.raises(error, match=message):
        engine.fill(tile_batch(64, 1))
    assert engine._session._sess is session
    assert capfd.readouterr().out == ""


def test_a_provider_that_does_not_start_is_said(
    machine: FakeGpu, fp32: Path, cuda_provider: type[onnx_cuda.OnnxCudaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(cuda_provider, "providers", (("CUDAExecutionProvider", {}),))
    monkeypatch.setattr("inpaint_batch.runtime.onnx_engine._open", lambda *_: session)
    monkeypatch.setattr("inpaint_batch.runtime.onnx_engine._check", lambda *_: None)
    with pytest.raises(EngineError, match="did not start its CUDA provider and would use CPUExecutionProvider"):
        select_engine("onnxruntime-cuda", model=str(fp32))
    with pytest.raises(UsageError, match="fp32 only"):
        select_engine("onnxruntime-cuda", model=str(fp32), precision="int8")


def test_without_a_gpu_auto_says_nothing(fp32: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert select_engine("auto", model=str(fp32), threads=1).notes == ()
    assert gpu.fastest_on_gpu(None, "auto") == (None, ())  # type: ignore[arg-type]


# --- torch-tensorrt ---------------------------------------------------------------------------------------------------


def install_torch_tensorrt(monkeypatch: pytest.MonkeyPatch, fp32: Path, programs: list[Any]) -> None:
    """A torch-tensorrt that "converts" any program to the exported graph, which computes the same."""

    def convert(program: Any, *, arg_inputs: list[Any], **options: Any) -> bytes:
        assert [each.name for each in arg_inputs] == ["image", "hole", "prior", "prior_weight"]
        assert options["use_explicit_typing"]
        assert options["require_full_compilation"]
        programs.append((program, [each.shape for each in arg_inputs]))
        return fp32.read_bytes()

    module: Any = ModuleType("torch_tensorrt")
    module.__version__ = "2.13.0"
    module.Input = SimpleNamespace
    module.dynamo = SimpleNamespace(convert_exported_program_to_serialized_trt_engine=convert)
    monkeypatch.setitem(__import__("sys").modules, "torch_tensorrt", module)
    monkeypatch.setattr(torch.Tensor, "cuda", lambda self: self)
    monkeypatch.setattr(torch.nn.Module, "cuda", lambda self: self)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_tensorrt_gives_one_engine_for_each_side(
    machine: FakeGpu,
    cache: Path,
    fp32: Path,
    generator: DcfGenerator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
) -> None:
    programs: list[Any] = []
    install_torch_tensorrt(monkeypatch, fp32, programs)
    weights = tmp_path / "small.safetensors"
    save_generator(weights, generator, generator.state_dict())
    (tmp_path / "small.fp32.onnx").write_bytes(fp32.read_bytes())
    arguments = [str(weights), "--target", "torch-tensorrt", "--precision", precision]
    done = CliRunner().invoke(compile_command, [*arguments, "--output", str(tmp_path), "--name", "small"])
    assert done.exception is None, done.output
    assert [shapes[0] for _, shapes in programs] == [(2, 3, 64, 64), (2, 3, 128, 128), (2, 3, 256, 256)]
    inputs = example_inputs(2, 64, 64, seed=9)
    expected = generator(*inputs)
    tolerance = 1e-5 if precision == "fp32" else 1e-2
    torch.testing.assert_close(programs[0][0].module()(*inputs), expected, atol=tolerance, rtol=0)
    (plan,) = list_plans(cache)
    assert plan.key.builder == "torch_tensorrt 2.13.0"
    assert plan.key.model_hash == hash_file(fp32)  # the export that was there, not another one
    assert ("float16" in plan.card["network"]["types"]) == (precision == "fp16")
    assert sorted(plan.card["parts"], key=int) == ["64", "128", "256"]
    engine = select_engine("tensorrt", model=str(fp32), precision=precision)
    for side in (64, 128):
        np.testing.assert_allclose(
            engine.fill(tile_batch(side, 1)),
            OnnxEngine(fp32, precision="fp32", threads=1).fill(tile_batch(side, 1)),
            atol=1e-6,
            rtol=0,
        )
    assert [fake.runs[-1:] for fake in machine.engines[-3:]] == [[(0, (2, 3, 64, 64))], [(0, (2, 3, 128, 128))], []]


def test_what_torch_tensorrt_refuses_is_said(
    machine: FakeGpu, fp32: Path, generator: DcfGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_torch_tensorrt(monkeypatch, fp32, [])
    __import__("sys").modules["torch_tensorrt"].dynamo = SimpleNamespace()
    with pytest.raises(EngineError, match="torch-tensorrt does not take the model at 64 px"):
        build(fp32, judged=(), generator=generator)


def test_torch_tensorrt_that_cannot_be_loaded_is_said(fp32: Path, generator: DcfGenerator, cache: Path) -> None:
    """As it is where there is no CUDA: the package is not there, or its import fails in ways of its own."""
    try:
        with pytest.raises(MissingDependencyError, match="torch-tensorrt cannot be loaded"):
            build(fp32, judged=(), generator=generator)
    except MissingDependencyError as error:  # no TensorRT at all
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x.onnx", "--target", "torch-tensorrt"], "builds from weights"),
        (["x.safetensors", "--target", "torch-tensorrt", "--precision", "int8"], "no precision 'int8'"),
    ],
)
def test_contradictions_about_torch_tensorrt_are_refused(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(compile_command, arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_a_damaged_graph_is_told_as_that(machine: FakeGpu, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(b"no graph at all")
    done = CliRunner().invoke(compile_command, [str(tmp_path / "cut.onnx"), "--target", "tensorrt"])
    assert isinstance(done.exception, EngineError)
    assert "cut.onnx is not a model that ONNX Runtime can run" in str(done.exception)
    assert not list_plans(cache)


def test_no_plan_is_built_of_what_could_not_run_it(machine: FakeGpu, cache: Path, tmp_path: Path) -> None:
    node = helper.make_node("Mul", ["picture", "picture"], ["output"])
    values = [helper.make_tensor_value_info(name, 1, [None, 3, None, None]) for name in ("picture", "output")]
    graph = helper.make_graph([node], "other", values[:1], values[1:])
    model = tmp_path / "other.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), model)
    command = [str(model), "--target", "tensorrt", "--precision", "fp32"]
    refused = CliRunner().invoke(compile_command, command).exception
    assert isinstance(refused, EngineError)
    assert "other.onnx is a model for something else" in str(refused)
    model.with_suffix(".toml").write_text(
        'sides_px = [256]\n[[inputs]]\nname = "picture"\nparts = [{ of = "image" }]\n[output]\nname = "output"\n'
    )
    refused = CliRunner().invoke(compile_command, command).exception
    assert isinstance(refused, EngineError)
    assert "such a network runs on the CPU only" in str(refused)
    assert not list_plans(cache)


def test_prune_clears_what_belongs_to_nothing(machine: FakeGpu, cache: Path, fp32: Path) -> None:
    plan, _ = build(fp32, judged=())
    old = time.time() - 7200
    for name in ("dead.plan", "dead-0.kernels", ".x.plan.1.tmp", f"{plan.path.stem}-0.kernels", "new.plan"):
        (cache / name).write_bytes(b"12345")
        if name != "new.plan":
            os.utime(cache / name, (old, old))
    invoke = CliRunner().invoke
    assert "by onnx  model" in invoke(engines_command.app, ["list"]).stdout
    assert invoke(engines_command.app, ["prune"]).stdout.startswith("removed 0 plans")
    assert {path.name for path in cache.iterdir() if path.stat().st_size == 5} == {
        "new.plan",
        f"{plan.path.stem}-0.kernels",
    }
    assert list(cache.glob("timing-*.cache"))
    assert invoke(engines_command.app, ["prune", "--all"]).stdout.startswith("removed 1 plan,")
    assert {path.suffix for path in cache.iterdir()} == {".lock", ".plan"}  # the one that is too young
