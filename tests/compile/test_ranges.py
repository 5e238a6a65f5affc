"""Ranges for 8 bits, on a graph whose values are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from inpaint_batch.compile import ranges
from inpaint_batch.compile.ranges import activation_ranges


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x, -x and relu(x)."""
    nodes = [helper.make_node("Neg", ["x"], ["negative"]), helper.make_node("Relu", ["x"], ["positive"])]
    value = helper.make_tensor_value_info
    ends = ([value("x", 1, [None])], [value("negative", 1, [None])])
    path = tmp_path_factory.mktemp("graph") / "x.onnx"
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends), opset_imports=opsets, ir_version=9), path)
    return path


def test_about_half_of_a_long_tail_is_cut(graph: Path) -> None:
    """Values from -1 to 1 with one of 16 and one of -9: sixteen and nine times the tail; 16^0.43, 9^0.43 are left."""
    body = np.linspace(-1, 1, 40_000, dtype=np.float32)
    peaks = np.array([16, -9], np.float32)
    batches = np.split(np.random.default_rng(0).permutation(body), 20)
    feeds = [{"x": batch} for batch in (*batches, peaks)]
    found = activation_ranges(graph, ["x", "negative", "positive"], feeds)
    assert found["x"] == pytest.approx((-2.572, 3.294), rel=2e-3)
    assert found["negative"] == pytest.approx((-3.294, 2.572), rel=2e-3)
    assert found["positive"] == pytest.approx((0, 3.294), rel=2e-3)


def test_what_is_next_to_always_zero_keeps_its_extremes(graph: Path) -> None:
    values = np.zeros(60_001, np.float32)
    values[[17, 33]] = 5, -3
    assert activation_ranges(graph, ["x", "positive"], [{"x": values}]) == {"x": (-3, 5), "positive": (0, 5)}
    assert activation_ranges(graph, ["x"], [{"x": np.zeros(5, np.float32)}]) == {"x": (0, 0)}


def test_zero_lies_within_where_all_is_on_one_side_of_it(graph: Path) -> None:
    found = activation_ranges(graph, ["x", "negative"], [{"x": np.full(5, 3, np.float32)}])
    assert (found["x"], found["negative"]) == (pytest.approx((0, 3)), pytest.approx((-3, 0)))


def test_every_other_column_is_not_all_that_is_looked_at(graph: Path) -> None:
    """Ones and eights by turns, and one of 64: the tail begins at eight, and 8 * 8^0.43 is left."""
    values = np.tile(np.array([1, 8], np.float32), 4 * 2048)
    values[77] = 64
    assert activation_ranges(graph, ["x"], [{"x": values}])["x"] == pytest.approx((0, 8 * 8**0.43), rel=1e-4)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.floats(-3, 3))
def test_a_range_holds_zero_and_lies_within_the_extremes(seed: int, num: int, shift: float) -> None:
    random = np.random.default_rng(seed)
    samples = (random.standard_t(2, 500) + shift).astype(np.float32)
    extremes = min(0.0, float(samples.min()) * num), max(0.0, float(samples.max()) * num)
    low, high = ranges._range(extremes, samples)
    assert extremes[0] * (1 + 1e-6) <= low <= 0 <= high <= extremes[1] * (1 + 1e-6)
