import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_graphs import inputs, network, pass_through, value, write_graph

from inpaint_batch.errors import EngineError, FailureCode, RowError
from inpaint_batch.runtime.engine import TileBatch, stack_tiles
from inpaint_batch.runtime.onnx_engine import OnnxEngine
from inpaint_batch.tiling.fill import TileInput


def tiles(count: int, side: int, seed: int = 0) -> TileBatch:
    rng = np.random.default_rng(seed)
    hole = (rng.random((count, 1, side, side)) < 0.3).astype(np.float32)
    weight = (np.arange(count) % 2).astype(np.float32).reshape(-1, 1, 1, 1)
    return TileBatch(
        image=rng.random((count, 3, side, side), dtype=np.float32) * (1 - hole),
        hole=hole,
        prior=rng.random((count, 3, side, side), dtype=np.float32) * weight,
        prior_weight=weight,
    )


def pick(batch: TileBatch, indices: list[int]) -> TileBatch:
    return TileBatch(batch.image[indices], batch.hole[indices], batch.prior[indices], batch.prior_weight[indices])


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("graphs") / "network.onnx")


@pytest.fixture(scope="module")
def alone(graph: Path) -> dict[int, np.ndarray]:
    """Eight tiles of each side, run one by one on one thread."""
    engine = OnnxEngine(graph, precision="fp32", threads=1)
    return {
        side: np.concatenate([engine.fill(pick(tiles(8, side), [index])) for index in range(8)]) for side in (32, 64)
    }


@pytest.mark.parametrize("threads", [1, 4])
def test_a_tile_gives_the_same_bytes_in_any_batch_at_any_place_on_any_number_of_threads(
    graph: Path, alone: dict[int, np.ndarray], threads: int
) -> None:
    engine = OnnxEngine(graph, precision="fp32", threads=threads)
    for side, expected in alone.items():
        batch = tiles(8, side)
        for size in (1, 2, 3, 5, 8):
            for start in (0, 3):
                order = [(start + offset) % 8 for offset in range(size)]
                np.testing.assert_array_equal(engine.fill(pick(batch, order)), expected[order])
                np.testing.assert_array_equal(engine.fill(pick(batch, order[::-1])), expected[order[::-1]])


def test_known_pixels_pass_and_the_prior_counts_only_with_its_weight(graph: Path) -> None:
    engine = OnnxEngine(graph, precision="fp32", threads=1)
    batch = tiles(4, 64)
    filled = engine.fill(batch)
    assert filled.dtype == np.float32
    known = np.broadcast_to(batch.hole == 0, filled.shape)
    np.testing.assert_array_equal(filled[known], batch.image[known])


def test_an_engine_says_what_it_is(tmp_path: Path) -> None:
    path = pass_through(tmp_path / "plain.onnx")
    engine = OnnxEngine(path, precision="fp32", threads=1)
    assert engine.model_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (engine.name, engine.precision, engine.model) == ("onnxruntime", "fp32", str(path))
    assert engine.model_hash in engine.identity
    assert engine.buckets_px == (64, 128, 256)
    assert [engine.batch_size(side) for side in engine.buckets_px] == [4, 4, 2]


def test_stacked_tiles_keep_their_order(tmp_path: Path) -> None:
    engine = OnnxEngine(pass_through(tmp_path / "plain.onnx"), precision="fp32", threads=1)
    batch = tiles(3, 64)
    loaded = [
        TileInput(batch.image[i], batch.hole[i], batch.prior[i], float(batch.prior_weight[i, 0, 0, 0]))
        for i in range(3)
    ]
    stacked = stack_tiles(loaded)
    assert (len(stacked), stacked.side_px) == (3, 64)
    assert stacked.prior_weight.dtype == np.float32
    np.testing.assert_array_equal(engine.fill(stacked), engine.fill(batch))


def test_values_that_are_not_finite_fail_the_row(tmp_path: Path) -> None:
    engine = OnnxEngine(pass_through(tmp_path / "zero.onnx", divisor=0.0), precision="fp32", threads=1)
    with pytest.raises(RowError, match="NaN or infinity") as caught:
        engine.fill(tiles(1, 64))
    assert caught.value.code is FailureCode.NONFINITE
    assert not caught.value.retryable


def test_a_failure_inside_the_runtime_fails_the_row(graph: Path) -> None:
    engine = OnnxEngine(graph, precision="fp32", threads=1)
    with pytest.raises(RowError, match="the engine failed on a tile of 66 px") as caught:
        engine.fill(tiles(1, 66))  # not a multiple of four: the skip does not fit
    assert caught.value.code is FailureCode.INFER
    assert caught.value.retryable
    np.testing.assert_array_equal(engine.fill(tiles(1, 64)).shape, (1, 3, 64, 64))  # and the engine goes on


def test_a_result_of_another_shape_fails_the_row(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sum", ["image", "hole", "prior", "prior_weight"], ["all"]),
        helper.make_node("AveragePool", ["all"], ["filled"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    path = write_graph(tmp_path / "half.onnx", nodes, {})
    with pytest.raises(RowError, match=r"returned \(1, 3, 32, 32\)"):
        OnnxEngine(path, precision="fp32", threads=1).fill(tiles(2, 64))


def test_a_closed_engine_refuses(tmp_path: Path) -> None:
    engine = OnnxEngine(pass_through(tmp_path / "plain.onnx"), precision="fp32", threads=1)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.fill(tiles(1, 64))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"cannot read the model .*no\.onnx.*check --model"):
        OnnxEngine(tmp_path / "no.onnx", precision="fp32")


@pytest.mark.parametrize("kind", ["empty", "text", "cut"])
def test_a_damaged_file_is_refused(tmp_path: Path, graph: Path, kind: str) -> None:
    content = {"empty": b"", "text": b"version https://git-lfs.github.com/spec/v1\n", "cut": graph.read_bytes()[:5000]}
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content[kind])
    with pytest.raises(EngineError, match="not a model that ONNX Runtime can run"):
        OnnxEngine(path, precision="fp32")


def test_weights_in_a_file_of_their_own_are_refused_also_in_their_folder(
    tmp_path: Path, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where ONNX Runtime would look for them
    onnx.save(onnx.load(graph), "two.onnx", save_as_external_data=True, location="weights.bin", size_threshold=100)
    for path in (Path("two.onnx"), tmp_path / "two.onnx"):
        with pytest.raises(EngineError, match="kept in several files"):
            OnnxEngine(path, precision="fp32")


def test_a_foreign_model_is_refused_and_all_differences_are_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["picture", "picture"], ["result"])]
    path = write_graph(
        tmp_path / "foreign.onnx", nodes, {}, graph_inputs=[value("picture", 3)], output=value("result", 3)
    )
    with pytest.raises(EngineError) as caught:
        OnnxEngine(path, precision="fp32")
    for fault in ("input `image` is missing", "input `picture` is unknown", "output `filled` is missing"):
        assert fault in str(caught.value)


def _sum_graph(path: Path, graph_inputs: list, output: object) -> Path:
    return write_graph(
        path,
        [helper.make_node("Sum", ["image", "hole", "prior", "prior_weight"], ["filled"])],
        {},
        graph_inputs=graph_inputs,
        output=output,
    )


def test_a_fixed_size_is_refused(tmp_path: Path) -> None:
    path = _sum_graph(tmp_path / "fixed.onnx", inputs((1, 64, 64)), value("filled", 3, sides=(1, 64, 64)))
    with pytest.raises(EngineError, match="must be free"):
        OnnxEngine(path, precision="fp32")


def test_another_type_or_number_of_channels_is_refused(tmp_path: Path) -> None:
    doubles = [
        helper.make_tensor_value_info(
            each.name, TensorProto.DOUBLE, [d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim]
        )
        for each in inputs()
    ]
    path = _sum_graph(tmp_path / "double.onnx", doubles, value("filled", 3, kind=TensorProto.DOUBLE))
    with pytest.raises(EngineError, match=r"`image` is tensor\(double\), not float32"):
        OnnxEngine(path, precision="fp32")
    four = [value("image", 4), *inputs()[1:]]
    nodes = [helper.make_node("Sum", ["prior", "hole", "prior_weight"], ["filled"])]
    path = write_graph(tmp_path / "four.onnx", nodes, {}, graph_inputs=four)
    with pytest.raises(EngineError, match=r"`image` has shape .*not \(batch, 3, height, width\)"):
        OnnxEngine(path, precision="fp32")


def test_the_runtime_tells_its_maker_nothing(tmp_path: Path, graph: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    load = f"from inpaint_batch.runtime.select import select_engine; select_engine(model={str(graph)!r})"
    done = subprocess.run([sys.executable, "-c", load], env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []  # where it would keep an identifier and what it has not sent yet


def test_nothing_is_printed(graph: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = OnnxEngine(graph, precision="fp32", threads=1)
    engine.fill(tiles(1, 64))
    with pytest.raises(RowError):
        engine.fill(tiles(1, 66))
    assert capfd.readouterr() == ("", "")
