"""A machine with a GPU, a TensorRT and the part of torch.cuda that the engine uses, as far as control flow goes.

A "plan" is the ONNX graph itself, and running it is running ONNX Runtime on the memory whose addresses it was given. So
what the engine does around it (profiles, buffers, graphs, filling up) must be right for the numbers to be.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from inpaint_batch.runtime import tensorrt_engine

GPU, DRIVER = "NVIDIA H100 9.0", "580.1"


class FakeTimingCache:
    def __init__(self, content: bytes) -> None:
        self.kernels = set(json.loads(content)) if content else set()

    def combine(self, other: FakeTimingCache, ignore_mismatch: bool) -> bool:
        self.kernels |= other.kernels
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.kernels)).encode()


class FakeConfig:
    """A builder config; `timed` counts kernels that no cache knew."""

    def __init__(self) -> None:
        self.flags = {"TF32"}  # as TensorRT begins
        self.set_flag, self.clear_flag = self.flags.add, self.flags.discard
        self.profiles: list[dict[str, Any]] = []
        self.cache: FakeTimingCache | None = None
        self.timed = 0

    def add_optimization_profile(self, profile: Any) -> None:
        self.profiles.append(profile.shapes)

    def create_timing_cache(self, content: bytes) -> FakeTimingCache | None:
        return FakeTimingCache(content) if content != b"damaged" else None

    def set_timing_cache(self, cache: FakeTimingCache, ignore_mismatch: bool) -> bool:
        fits = cache.kernels != {"foreign"}
        self.cache = cache if fits else self.cache
        return fits

    def get_timing_cache(self) -> FakeTimingCache | None:
        return self.cache


class FakeBuilder:
    made: list[FakeConfig]

    def __init__(self, logger: object) -> None:
        pass

    def create_network(self, flags: int) -> Any:
        assert flags == 2
        return SimpleNamespace(graph=None, num_inputs=0, num_outputs=0, num_layers=0)

    def create_builder_config(self) -> FakeConfig:
        type(self).made.append(FakeConfig())
        return type(self).made[-1]

    def create_optimization_profile(self) -> Any:
        shapes: dict[str, Any] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.update({name: three[0]}))

    def build_serialized_network(self, network: Any, config: FakeConfig) -> bytes:
        kernels = {node.op_type for node in onnx.load_from_string(network.graph).graph.node}
        assert config.cache is not None
        config.timed = len(kernels - config.cache.kernels)
        config.cache.kernels |= kernels
        return network.graph


class FakeParser:
    num_errors = 0

    def __init__(self, network: Any, logger: object) -> None:
        self.network = network

    def parse(self, graph: bytes) -> bool:
        model = onnx.load_from_string(graph)
        sizes = {each.name: each.type.tensor_type.shape.dim[1].dim_value for each in model.graph.input}
        tensors = [SimpleNamespace(name=name, shape=(-1, size, -1, -1)) for name, size in sizes.items()]
        kinds = [SimpleNamespace(name=node.op_type.upper()) for node in model.graph.node]
        result = SimpleNamespace(dtype=SimpleNamespace(name="FLOAT"))
        layers = [SimpleNamespace(type=kind, num_outputs=1, get_output=lambda _: result) for kind in kinds]
        self.network.__dict__.update(
            graph=graph,
            num_inputs=len(tensors),
            num_outputs=1,
            num_layers=len(layers),
            get_input=tensors.__getitem__,
            get_layer=layers.__getitem__,
        )
        return True


class FakeContext:
    def __init__(self, engine: FakeEngine, config: object) -> None:
        self.engine, self.config = engine, config
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def _at(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape))
        memory = (ctypes.c_float * size).from_address(self.addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.capturable

    def execute_async_v3(self, stream: int) -> bool:
        self.engine.runs.append((self.profile, self.shapes["image"]))
        (result,) = self.engine.session.run(None, {name: self._at(name, self.shapes[name]) for name in self.shapes})
        self._at(self.engine.output, result.shape)[...] = result
        return True


class FakeEngine:
    """An opened plan. `runs`: profile and shape of every execution."""

    def __init__(self, content: bytes, kernels: list[bytes] | None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.output = self.session.get_outputs()[0].name
        self.names = [*(each.name for each in self.session.get_inputs()), self.output]
        self.num_io_tensors = len(self.names)
        self.get_tensor_name = self.names.__getitem__
        self.runs: list[tuple[int, tuple[int, ...]]] = []
        if kernels is not None:  # TensorRT for RTX
            self.create_runtime_config = lambda: FakeRuntimeConfig(kernels)
        self.capturable = True

    def create_execution_context(self, config: object = None) -> FakeContext:
        return FakeContext(self, config)

    def create_engine_inspector(self) -> Any:
        return SimpleNamespace(get_engine_information=lambda _: '{"Layers": ["fused"]}')


class FakeRuntimeConfig:
    dynamic_shapes_kernel_specialization_strategy = "lazy"
    kernels: bytes | None = b"kernels"

    def __init__(self, loaded: list[bytes]) -> None:
        self.loaded = loaded

    def create_runtime_cache(self) -> Any:
        def deserialize(content: bytes) -> bool:
            self.loaded.append(content)
            return content != b"of another GPU"

        return SimpleNamespace(deserialize=deserialize, serialize=lambda: self.kernels)

    def set_runtime_cache(self, cache: object) -> None:
        # By then nothing may still be compiled in the background.
        assert self.dynamic_shapes_kernel_specialization_strategy == "eager"


class FakeRuntime:
    def __init__(self, logger: object) -> None:
        pass

    def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
        return FakeEngine(content, None) if content else None


class FakeGpu:
    """What a test may look at."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.configs: list[FakeConfig] = []
        self.engines: list[FakeEngine] = []
        self.loaded: list[bytes] = []
        """Runtime caches that were read."""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str = "tensorrt") -> FakeGpu:
    """Put `package` (`tensorrt` or `tensorrt_rtx`) and a GPU in place for one test."""
    tool = folder / "nvidia-smi"
    tool.write_text(f'#!/bin/sh\necho "{GPU.rsplit(" ", 1)[0]}, {GPU.rsplit(" ", 1)[1]}, {DRIVER}"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trt: Any = ModuleType(package)
    trt.__spec__ = ModuleSpec(package, None)
    machine = FakeGpu(trt)

    class Runtime(FakeRuntime):
        def deserialize_cuda_engine(self, content: bytes) -> FakeEngine | None:
            if not content.startswith(b"\x08"):  # the first field of an ONNX file
                return None
            machine.engines.append(FakeEngine(content, machine.loaded if package == "tensorrt_rtx" else None))
            return machine.engines[-1]

    class Builder(FakeBuilder):
        made = machine.configs

    trt.__version__ = "11.0"
    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, FakeParser, Runtime
    trt.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    trt.BuilderFlag = SimpleNamespace(TF32="TF32")
    trt.ProfilingVerbosity = SimpleNamespace(DETAILED=2)
    trt.LayerInformationFormat = SimpleNamespace(JSON=1)
    trt.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, trt if name == package else None)
    monkeypatch.setattr(tensorrt_engine, "import_torch_with_cuda", fake_torch)
    return machine


class FakeGraph:
    """Replays what was called while it was captured."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def replay(self) -> None:
        for call in self.calls:
            call()


class OnGpu(torch.Tensor):
    """Coming back from a GPU means being copied."""

    def cpu(self, memory_format: Any = None) -> torch.Tensor:
        return self.as_subclass(torch.Tensor).clone()


def fake_torch() -> Any:
    """torch, with its memory and streams on the CPU."""
    stream = SimpleNamespace(cuda_stream=0, synchronize=lambda: None)

    @contextlib.contextmanager
    def capture(graph: FakeGraph, stream: object) -> Any:
        run = FakeContext.execute_async_v3

        def record(context: FakeContext, at: int) -> bool:
            graph.calls.append(lambda: run(context, at))
            return True

        FakeContext.execute_async_v3 = record  # type: ignore[method-assign]
        try:
            yield
        finally:
            FakeContext.execute_async_v3 = run  # type: ignore[method-assign]

    cuda = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        CUDAGraph=FakeGraph,
        graph=capture,
        stream=lambda _: contextlib.nullcontext(),
        synchronize=lambda: None,
    )
    return SimpleNamespace(
        cuda=cuda,
        float32=torch.float32,
        from_numpy=torch.from_numpy,
        zeros=lambda shape, dtype, device: torch.zeros(shape, dtype=dtype).as_subclass(OnGpu),
    )
