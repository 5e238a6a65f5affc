"""Work that is done several at a time and comes back in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from inpaint_batch.imaging import side_by_side
from inpaint_batch.imaging.side_by_side import AT_ONCE_BYTES, in_order


@pytest.mark.parametrize("job_bytes", [1, AT_ONCE_BYTES // 3, AT_ONCE_BYTES, 10 * AT_ONCE_BYTES])
def test_results_come_in_order_and_jobs_are_drawn_late(job_bytes: int) -> None:
    drawn: list[int] = []
    taken = 0

    def jobs() -> Iterator[int]:
        for number in range(40):
            drawn.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.002 * (number % 3))  # later ones are done earlier
        return number * number

    for result in in_order(work, jobs(), job_bytes):
        assert result == taken * taken
        taken += 1
        assert len(drawn) - taken <= min(2 * side_by_side._num_threads(), AT_ONCE_BYTES // job_bytes)
    assert taken == 40


def test_large_jobs_stay_in_the_calling_thread() -> None:
    threads = in_order(lambda _: threading.current_thread(), range(3), AT_ONCE_BYTES)
    assert set(threads) == {threading.current_thread()}


def test_an_error_comes_in_its_turn_and_ends_it() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        return 1 // (number - 2)

    results = in_order(work, range(1000), 1)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert len(begun) < 100
    assert list(in_order(str, range(3), 1)) == ["0", "1", "2"]  # the threads are still there
