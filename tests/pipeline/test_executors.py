"""Who is advised to use worker processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from inpaint_batch.config import RunConfig
from inpaint_batch.pipeline import executors
from inpaint_batch.pipeline.executors import MANY_ROWS, advice


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return RunConfig(output=tmp_path)


def test_many_cores_and_rows(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "num_cores", lambda: 64)
    tip = advice(config, MANY_ROWS)
    assert tip is not None
    assert "--executor process --actors 16" in tip
    assert advice(config, MANY_ROWS - 1) is None


@pytest.mark.parametrize(
    "told",
    [{"executor": "local"}, {"executor": "process"}, {"actors": 2}, {"workers": 8}, {"engine": "torch"}],
)
def test_not_where_something_was_chosen(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    monkeypatch.setattr(executors, "num_cores", lambda: 64)
    assert advice(dataclasses.replace(config, **told), MANY_ROWS) is None


def test_not_on_few_cores_nor_with_a_gpu(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "num_cores", lambda: 7)
    assert advice(config, MANY_ROWS) is None
    monkeypatch.setattr(executors, "num_cores", lambda: 8)
    assert advice(config, MANY_ROWS) is not None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert advice(config, MANY_ROWS) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(executors, "find_spec", lambda name: None)  # else auto is Ray
    tip = advice(config, MANY_ROWS)
    assert tip is not None
    assert tip.startswith("2 GPUs")
