"""The memory budget: never over, first come first served, an oversized row alone."""

from __future__ import annotations

import threading

import pytest

from inpaint_batch.errors import RowError
from inpaint_batch.execution.budget import MemoryBudget, machine_memory_bytes
from inpaint_batch.execution.stages import check_memory
from inpaint_batch.types import Header


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


def test_an_image_that_the_machine_cannot_hold_is_refused_before_its_pixels_are_read():
    header = Header("png", 100_000, 20_000, 1, "uint8", False)
    with pytest.raises(RowError, match=r"22\.0 GB of memory, of which 16\.0 GB") as caught:
        check_memory("bomb.png", header, machine_bytes=16_000_000_000)
    assert caught.value.code == "memory"
    check_memory("bomb.png", header, machine_bytes=22_000_000_000)
    assert machine_memory_bytes() > 1 << 20
