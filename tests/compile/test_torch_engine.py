"""The generator in torch as an engine: the same numbers, the same bytes in any company, and what it refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inpaint_batch.compile.export import PARITY_TOLERANCE, example_inputs
from inpaint_batch.errors import EngineError, FailureCode, RowError, UsageError
from inpaint_batch.models.checkpoint import save_generator
from inpaint_batch.models.dcf import DcfGenerator
from inpaint_batch.models.half import HalfInside
from inpaint_batch.runtime import tensorrt_engine, torch_engine
from inpaint_batch.runtime.engine import TileBatch, filled_up
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.runtime.select import select_engine
from inpaint_batch.runtime.store import find_weights, hash_file
from inpaint_batch.runtime.tensorrt_api import BATCH_SIZES
from inpaint_batch.runtime.torch_engine import TorchEngine


def tile_batch(side: int, num: int, seed: int = 4) -> TileBatch:
    return TileBatch(*(each.numpy() for each in example_inputs(num, side, side, seed=seed)))


@pytest.fixture(scope="module")
def weights(generator: DcfGenerator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_generator(path, generator, generator.state_dict())
    return path


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_torch_agrees_with_the_export_in_any_company(on_cpu: None, weights: Path, fp32: Path) -> None:
    engine = select_engine("torch", model=str(weights), threads=2)
    assert (engine.name, engine.precision, engine.model) == ("torch", "fp32", str(weights))
    assert engine.model_hash == hash_file(weights)
    assert engine.identity == f"torch-cpu:fp32:{hash_file(weights)}"
    batch = tile_batch(64, 5)
    filled = engine.fill(batch)
    expected = OnnxEngine(fp32, precision="fp32", threads=1).fill(batch)
    np.testing.assert_allclose(filled, expected, atol=PARITY_TOLERANCE, rtol=0)
    for index in (0, 3):
        assert engine.fill(batch.only(index)).tobytes() == filled[index : index + 1].tobytes()
    assert select_engine("torch", model=str(weights), threads=1).fill(batch).tobytes() == filled.tobytes()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.fill(batch)


def test_compiled_means_without_graph_breaks_and_one_tile_at_a_time(
    on_cpu: None, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def compile_nothing(network: Any, **options: Any) -> Any:
        asked.update(options)
        return network

    monkeypatch.setattr(torch, "compile", compile_nothing)
    engine = select_engine("torch-compile", model=str(weights), threads=4)
    assert asked == {"mode": "default", "fullgraph": True, "dynamic": False}
    assert engine.identity.startswith("torch-compile-cpu:fp32:")
    plain = TorchEngine(weights, model="x", threads=1)
    assert engine.fill(tile_batch(64, 2)).tobytes() == plain.fill(tile_batch(64, 2)).tobytes()
    assert engine.batch_size(64) == plain.batch_size(64)  # one thread


def test_one_thread_talks_to_the_gpu(on_cpu: None, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread asks: torch before 2.13 asserts where another one than the first runs its CUDA graphs."""
    engine: Any = TorchEngine(weights, model="x", threads=1)
    monkeypatch.setattr(engine, "_device", "cuda")
    monkeypatch.setattr(engine, "_on_device", torch.from_numpy)
    monkeypatch.setitem(BATCH_SIZES, 64, 2)
    inner, seen = engine._network, []

    def network(*inputs: torch.Tensor) -> Any:
        seen.append((threading.get_ident(), len(inputs[0])))
        return inner(*inputs)

    engine._network = network
    batch = tile_batch(64, 3)
    filled = engine.fill(batch)
    with ThreadPoolExecutor(1) as other:
        again = other.submit(engine.fill, batch).result()
    assert len(filled) == 3
    assert again.tobytes() == filled.tobytes()
    assert [size for _, size in seen] == [2] * 4
    assert len({thread for thread, _ in seen}) == 1


def test_the_computing_alone_can_be_timed(on_cpu: None, weights: Path) -> None:
    engine = TorchEngine(weights, model="x", threads=1)
    assert engine.compute_s(tile_batch(64, 2), times=2) > 0


@torch.no_grad()
def test_half_is_the_same_with_channels_last(generator: DcfGenerator) -> None:
    inputs = example_inputs(2, 64, 64, seed=2)
    plain = HalfInside(generator)
    turned = HalfInside(generator).to(memory_format=torch.channels_last)
    torch.testing.assert_close(turned(*inputs), plain(*inputs), atol=5e-3, rtol=0)


@pytest.mark.parametrize("half", [False, True])
def test_the_compiler_takes_the_network_whole_and_once_for_each_side(generator: DcfGenerator, half: bool) -> None:
    graphs: list[torch.Size] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        graphs.append(next(each.shape for each in inputs if each.dim() == 4 and each.shape[1] == 3))
        return graph.forward

    network = HalfInside(generator).to(memory_format=torch.channels_last) if half else generator
    torch._dynamo.reset()
    compiled = torch.compile(network, backend=backend, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        for side in (64, 128, 96, 64, 128):
            inputs = example_inputs(2, side, side)
            torch.testing.assert_close(compiled(*inputs), network(*inputs), atol=1e-3, rtol=0)
    torch._dynamo.reset()
    assert len(graphs) == 3


def test_a_failure_in_torch_fails_the_row(on_cpu: None, weights: Path) -> None:
    engine = TorchEngine(weights, model="x", threads=1)
    with pytest.raises(RowError, match="torch failed on tiles of 48 px") as caught:
        engine.fill(tile_batch(48, 1))  # not a multiple of 32
    assert caught.value.code is FailureCode.INFER
    assert caught.value.retryable


def test_a_compiler_that_fails_ends_the_run(on_cpu: None, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where there is no C++ compiler: every row would fail, each after a while."""
    engine = TorchEngine(weights, model="x", compiled=True)

    def fails(message: str) -> None:
        def run(*_: torch.Tensor) -> torch.Tensor:
            raise torch._dynamo.exc.BackendCompilerFailed(None, RuntimeError(message), None)

        monkeypatch.setattr(engine, "_network", run)

    fails("No working C++ compiler found")
    with pytest.raises(EngineError, match=r"cannot compile the network here .*No working C\+\+ .*--engine torch"):
        engine.fill(tile_batch(64, 1))
    fails("CUDA out of memory")  # a smaller tile may do
    with pytest.raises(RowError, match="out of memory"):
        engine.fill(tile_batch(64, 1))
    engine.close()


def test_a_gpu_that_torch_does_not_see_is_told_of(on_cpu: None, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert TorchEngine(weights, model="x").notes == ()
    monkeypatch.setattr(torch_engine, "query_gpu", lambda: ("NVIDIA H100 9.0", "580.1"))
    monkeypatch.setattr(torch.version, "cuda", None)
    (note,) = TorchEngine(weights, model="x").notes
    assert "although there is a GPU, NVIDIA H100 9.0: torch" in note
    assert "built without CUDA" in note
    monkeypatch.setattr(tensorrt_engine, "query_gpu", lambda: ("NVIDIA H100 9.0", "580.1"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EngineError, match=r"cannot use the NVIDIA H100 9.0: .* driver may be too old for CUDA 13.0"):
        tensorrt_engine.import_torch_with_cuda()


def test_what_torch_cannot_do_is_refused(on_cpu: None, weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="FP16 in torch wants an NVIDIA GPU"):
        select_engine("torch", model=str(weights), precision="fp16")
    with pytest.raises(UsageError, match="INT8 is for"):
        select_engine("torch", model=str(weights), precision="int8")
    with pytest.raises(EngineError, match=r"torch runs `default` or a \.safetensors file"):
        select_engine("torch", model="model.onnx")
    with pytest.raises(EngineError, match="there are no weights"):
        select_engine("torch", model=str(tmp_path / "no.safetensors"))
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(EngineError, match="cannot read weights"):
        select_engine("torch", model=str(tmp_path / "pickle.safetensors"))


def test_the_default_model_has_weights_in_a_checkout_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_weights("default").name == "dcf-base.safetensors"
    monkeypatch.setattr("inpaint_batch.runtime.store.default_folder", lambda: tmp_path)
    with pytest.raises(EngineError, match="not in the wheel"):
        find_weights("default")


@torch.no_grad()
def test_half_inside_is_close_and_leaves_the_original_alone(generator: DcfGenerator) -> None:
    inputs = example_inputs(2, 64, 64, seed=2)
    expected = generator(*inputs)
    half = HalfInside(generator)
    filled = half(*inputs)
    assert filled.dtype == torch.float32
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}
    difference = (filled - expected).abs().max().item()
    assert 0 < difference < 5e-3
    known = (inputs[1] == 0).expand_as(filled)
    assert torch.equal(filled[known], inputs[0][known])
    assert torch.equal(generator(*inputs), expected)


def test_batches_are_filled_up_with_nothing() -> None:
    batch = tile_batch(64, 5)
    parts = list(filled_up(batch, 2))
    assert [used for _, used in parts] == [2, 2, 1]
    assert all(part.image.shape == (2, 3, 64, 64) for part, _ in parts)
    assert np.array_equal(np.concatenate([part.image[:used] for part, used in parts]), batch.image)
    assert not parts[-1][0].hole[1:].any()


@pytest.mark.gpu
@pytest.mark.filterwarnings("default")  # the compiler's own
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["torch", "torch-compile"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torch_on_a_gpu(weights: Path, fp32: Path, name: str, precision: str) -> None:
    engine = select_engine(name, model=str(weights), precision=precision)
    batch = tile_batch(64, 35)
    filled = engine.fill(batch)
    expected = OnnxEngine(fp32, precision="fp32").fill(batch)
    np.testing.assert_allclose(filled, expected, atol=1e-3 if precision == "fp32" else 1e-2, rtol=0)
    assert engine.fill(batch.only(34)).tobytes() == filled[34:].tobytes()
