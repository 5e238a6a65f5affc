"""The memory budget: never over, first come first served, an oversized row alone."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from inpaint_batch.config import PROCESS_BYTES, RowConfig, TilingConfig
from inpaint_batch.errors import RowError
from inpaint_batch.execution import row_memory
from inpaint_batch.execution.budget import MemoryBudget
from inpaint_batch.holes.components import find_holes
from inpaint_batch.holes.prepare import hole_map
from inpaint_batch.imaging.read import open_image
from inpaint_batch.imaging.tiff import TiffSource
from inpaint_batch.tiling.plan import plan_windows


def test_what_fits_gets_in_and_the_rest_waits():
    budget = MemoryBudget(100)
    assert budget.acquire(60)
    entered = threading.Event()
    thread = threading.Thread(target=lambda: (budget.acquire(60), entered.set()))
    thread.start()
    assert not entered.wait(0.05)
    budget.release(60)
    assert entered.wait(10)
    thread.join()
    assert budget.used_bytes == 60


def test_one_larger_than_the_budget_gets_in_alone():
    budget = MemoryBudget(100)
    assert budget.acquire(1000)
    assert not budget.acquire(1, cancelled=lambda: True)
    budget.release(1000)
    assert budget.acquire(1)
    assert not budget.acquire(1000, cancelled=lambda: True)
    assert budget.used_bytes == 1


def test_never_over_under_contention():
    budget = MemoryBudget(10)
    peak = 0
    lock = threading.Lock()

    def work(size: int) -> None:
        nonlocal peak
        for _ in range(30):
            assert budget.acquire(size)
            with lock:
                peak = max(peak, budget.used_bytes)
            budget.release(size)

    threads = [threading.Thread(target=work, args=(size,)) for size in (3, 4, 5, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < peak <= 10
    assert budget.used_bytes == 0


def test_a_quarter_of_the_machine_is_for_one_process(monkeypatch: pytest.MonkeyPatch):
    for machine, process in ((16 << 30, 4 << 30), (2 << 30, 1 << 30), (700 << 20, 700 << 20)):
        monkeypatch.setattr(row_memory, "memory_bytes", lambda machine=machine: machine)
        assert row_memory.row_limit_bytes() == process - PROCESS_BYTES
    assert row_memory.row_limit_bytes(500 << 20) == 200 << 20


@pytest.mark.parametrize(
    ("num_processes", "process"), [(1, 16 << 30), (3, 16 << 30), (7, 8 << 30), (63, 1 << 30), (128, 512 << 20)]
)
def test_processes_share_a_machine(monkeypatch: pytest.MonkeyPatch, num_processes: int, process: int):
    monkeypatch.setattr(row_memory, "memory_bytes", lambda: 64 << 30)
    assert row_memory.row_limit_bytes(0, num_processes) == process - PROCESS_BYTES
    assert row_memory.row_limit_bytes(2 << 30, num_processes) == (2 << 30) - PROCESS_BYTES


def tiff(path: Path, side: int, **options: Any) -> Path:
    tifffile.imwrite(path, np.zeros((side, side), np.uint16), metadata=None, **options)
    return path


@pytest.mark.parametrize(("subsampling", "coefficients"), [(0, 3 * 10 * 8 * 128), (2, (10 * 8 + 2 * 5 * 4) * 128)])
def test_jpegs_need_the_coefficients_that_are_compared(tmp_path: Path, subsampling: int, coefficients: int):
    """80 x 60 pixels are 10 x 8 blocks of 128 bytes; halved chroma has 5 x 4 of them."""
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "a.jpg", subsampling=subsampling)
    source = open_image(tmp_path / "a.jpg", max_bytes=1 << 30)
    samples, maps = 60 * 80 * 3, 60 * 80 * 8
    expected = max(3 * samples, samples + 2 * coefficients) + maps
    assert row_memory.needed_bytes(source, 1 << 40) == expected


def test_tiffs_need_their_segments_and_all_others_their_samples(tmp_path: Path):
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(tmp_path / "a.png")
    limit = 20_000_000
    with pytest.raises(RowError, match=r"a\.png \(2000 × 2000 px\).*0.0 GB.*tiled TIFF") as caught:
        row_memory.check_source("a.png", open_image(tmp_path / "a.png", max_bytes=1 << 30), 11_000_000)
    assert caught.value.code == "memory"
    row_memory.check_source("a.png", open_image(tmp_path / "a.png", max_bytes=1 << 30), limit)
    Image.fromarray(np.zeros((1000, 1000), np.uint8)).save(tmp_path / "a.jp2")
    assert row_memory.needed_bytes(open_image(tmp_path / "a.jp2", max_bytes=1 << 30), 1 << 40) >= 13_000_000
    tiled = open_image(tiff(tmp_path / "tiled.tif", 4000, tile=(256, 256), compression="zlib"), max_bytes=1 << 30)
    row_memory.check_source("tiled.tif", tiled, limit)
    strip = open_image(tiff(tmp_path / "strip.tif", 4000, compression="zlib", rowsperstrip=4000), max_bytes=1 << 30)
    with pytest.raises(RowError, match=r"segments of 4000 × 4000 px are decoded at once.*tiffsave"):
        row_memory.check_source("strip.tif", strip, limit)


def test_a_row_of_segments_is_kept_as_far_as_there_is_room(tmp_path: Path):
    """Of 200,000 px of 6 bytes and the height of a segment, 256: one line more is kept; at least 64 MiB, at most a
    quarter of what there is."""
    source = open_image(tiff(tmp_path / "a.tif", 300, tile=(256, 256)), max_bytes=1 << 30)
    assert isinstance(source, TiffSource)
    for width_px, limit, kept in (
        (200_000, 4_000_000_000, 257 * 200_000 * 6),
        (200_000, 400_000_000, 100_000_000),
        (1000, 4_000_000_000, 64 << 20),
    ):
        source.header = replace(source.header, width_px=width_px, num_bands=3, dtype="uint16")
        assert row_memory.cache_bytes(source, limit) == kept


def test_only_large_segments_are_said_to_be_in_the_way(tmp_path: Path):
    """A segment of 256 × 256 × 2 bytes, five times, is 655,360 bytes: more than half of the first limit."""
    tiled = open_image(tiff(tmp_path / "tiled.tif", 4000, tile=(256, 256)), max_bytes=1 << 30)
    with pytest.raises(RowError, match=r"whose segments of 256 × 256 px are decoded at once"):
        row_memory.check_source("tiled.tif", tiled, 1_310_719)
    with pytest.raises(RowError, match=r"the image tiled\.tif \(4000 × 4000 px\) would take .* rows; raise --max-mem"):
        row_memory.check_source("tiled.tif", tiled, 1_310_720)


def test_the_sparse_maps_and_the_largest_window_count_beside_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One tile of 64 px with a core of one pixel is filled with 20 + 40 × 64² bytes."""
    monkeypatch.setattr(row_memory, "needed_bytes", lambda *_: 1000)
    source = open_image(tiff(tmp_path / "a.tif", 3000, tile=(256, 256)), max_bytes=1 << 30)
    hole = np.zeros((3000, 3000), np.uint8)
    hole[1500, 1500] = 255
    holes = hole_map(hole, 1, source.header, RowConfig(), dense_px=0)
    windows = plan_windows(holes.hole, find_holes(holes.hole), TilingConfig())
    assert holes.num_bytes > 0
    just_enough = 1000 + holes.num_bytes + 20 + 40 * 64**2
    row_memory.check_plan(holes, windows, source, just_enough)
    with pytest.raises(RowError, match="the largest of its holes"):
        row_memory.check_plan(holes, windows, source, just_enough - 1)


def test_masks_that_are_decoded_at_once_and_deep_holes_need_room(tmp_path: Path):
    row_memory.check_mask("m.webp", 50, 40, 90)
    with pytest.raises(RowError, match=r"m\.webp, which is decoded at once.*piece by piece"):
        row_memory.check_mask("m.webp", 51, 40, 90)
    source = open_image(tiff(tmp_path / "a.tif", 3000, tile=(256, 256)), max_bytes=1 << 30)
    hole = np.zeros((3000, 3000), np.uint8)
    hole[500:2500, 500:2500] = 255
    holes = hole_map(hole, 1, source.header, RowConfig(), dense_px=0)
    windows = plan_windows(holes.hole, find_holes(holes.hole), TilingConfig())
    row_memory.check_plan(holes, windows, source, 400_000_000)
    with pytest.raises(RowError, match="the largest of its holes"):
        row_memory.check_plan(holes, windows, source, 100_000_000)
