"""Work counted by hand, and the roof that follows from it; the benchmark of engines with engines that sleep."""

import itertools
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from inpaint_batch.models.dcf import DcfGenerator

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import roofline  # noqa: E402
from roofline import Peaks, Work, count_work  # noqa: E402

import engines  # noqa: E402


def test_macs_and_numbers_of_two_convolutions() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 8, 1, stride=2, bias=False))
    inputs = torch.zeros(2, 3, 8, 8, device="meta")
    first = Work(
        macs=2 * 64 * 4 * (3 * 9),
        numbers=2 * 3 * 64 + 4 * 3 * 9 + 4 + 2 * 4 * 64,  # input, weights, biases, output
    )
    second = Work(macs=2 * 16 * 8 * 4, numbers=2 * 4 * 64 + 8 * 4 + 2 * 8 * 16)
    expected = Work(first.macs + second.macs, first.numbers + second.numbers)
    assert count_work(network.to("meta"), (inputs,)) == expected


def test_macs_of_a_matrix_product_in_a_batch() -> None:
    class Product(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x @ y

    x, y = torch.zeros(2, 5, 7), torch.zeros(2, 7, 3)
    assert count_work(Product(), (x, y)) == Work(2 * 5 * 7 * 3, 2 * (35 + 21 + 15))


def test_the_shipped_network_asks_for_what_its_card_says() -> None:
    folder = Path(__file__).parents[2] / "engines" / "default"
    weights, card = folder / "dcf-base.safetensors", tomllib.loads((folder / "card.toml").read_text())
    one, two = (roofline.work_of(weights, 256, batch) for batch in (1, 2))
    assert one.macs == pytest.approx(card["gmac_per_256_px_tile"] * 1e9, rel=0.01)
    assert two.macs == 2 * one.macs
    parameters = sum(each.numel() for each in _parameters(weights))
    assert parameters == card["parameters"]
    assert one.numbers > parameters
    assert 2 * one.numbers - two.numbers == pytest.approx(parameters, rel=0.02)  # weights are read once a batch


def _parameters(weights: Path) -> list[nn.Parameter]:
    from inpaint_batch.models.checkpoint import load_generator

    generator = load_generator(weights)
    assert isinstance(generator, DcfGenerator)
    return list(generator.parameters())


def test_the_roof_is_the_longer_of_the_two() -> None:
    peaks = Peaks("it", {"fp32": 1e9, "fp16": 4e9}, bytes_per_s=1e9)
    assert peaks.roof(Work(macs=2 * 10**9, numbers=10**8), "fp32") == (2.0, "fp32 products")
    assert peaks.roof(Work(macs=2 * 10**9, numbers=10**9), "fp16") == (2.0, "copies")
    assert peaks.roof(Work(macs=2 * 10**9, numbers=10**9), "int8") == (2.0, "fp32 products")  # its peak is not known


def test_peaks_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "CPU_SIDE", 64)
    monkeypatch.setattr(roofline, "CPU_COPY_BYTES", 4096)
    peaks = roofline.measure_peaks("cpu")
    assert list(peaks.macs_per_s) == ["fp32"]
    assert min(peaks.macs_per_s["fp32"], peaks.bytes_per_s) > 0
    assert all(peaks.to_dict().values())


def batch_of(num: int) -> engines.TileBatch:
    return engines.noise(64, num)


def test_engines_take_turns_and_their_company_is_looked_at() -> None:
    calls: list[tuple[str, int]] = []

    def fill(name: str, by_position: float) -> engines.Fill:
        def run(batch: engines.TileBatch) -> engines.FloatArray:
            calls.append((name, len(batch)))
            places = np.arange(len(batch), dtype=np.float32).reshape(-1, 1, 1, 1)
            filled: engines.FloatArray = batch.image + np.float32(by_position) * places
            return filled

        return run

    found = {
        engines.BASE: engines.Runner(fill("base", 0.0), "fp32", "cpu"),
        "other": engines.Runner(fill("other", 0.25), "fp16", "cuda"),
    }
    batch = batch_of(3)
    results = engines.measure(found, batch, rounds=2)
    in_turn = [name for name, _ in itertools.groupby(name for name, _ in calls)]
    assert in_turn[-4:] == ["base", "other"] * 2
    assert [row["engine"] for row in results] == [engines.BASE, "other"]
    # The third tile is the first one when it is alone.
    assert [row["company"] for row in results] == [0.0, pytest.approx(0.5)]
    assert results[1]["ratio"] > 0
    assert results[1]["ratio_after_another"] > 0
    peaks = {"cpu": Peaks("it", {"fp32": 1e9}, 1e12), "cuda": Peaks("a GPU", {"fp32": 1e9, "fp16": 1e10}, 1e12)}
    engines.put_below_roofs(results, found, peaks, Work(3 * 10**6, 10))
    assert (results[0]["roof_ms"], results[0]["roof_by"]) == (pytest.approx(1.0), "fp32 products")
    assert (results[1]["roof_ms"], results[1]["roof_by"]) == (pytest.approx(0.1), "fp16 products")
    assert results[1]["roof_share"] == pytest.approx(0.1 / results[1]["median_ms"])
    table = engines.markdown({"CPU": "it"}, results)
    assert "| 64 | 3 | other |" in table
    assert "0.5" in table


def test_an_engine_that_fails_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(batch: engines.TileBatch) -> engines.FloatArray:
        raise RuntimeError("no kernel image is available")

    found = {
        engines.BASE: engines.Runner(lambda batch: batch.image, "fp32", "cpu"),
        "broken": engines.Runner(fail, "fp16", "cuda"),
    }
    results = engines.measure(found, batch_of(2), rounds=1)
    assert [row["engine"] for row in results] == [engines.BASE]
    assert "broken" not in found
    assert "broken is left out: no kernel image is available" in capsys.readouterr().err
