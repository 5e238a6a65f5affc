"""Work in threads that is handed back in order; more of it in tests/imaging/test_side_by_side.py."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from inpaint_batch.threads import in_turn


def test_what_has_not_begun_is_not_done_once_nobody_takes_any_more() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            gate.wait(60)
        return number

    with ThreadPoolExecutor(2) as pool:
        results = in_turn(pool, work, range(1000), 10)
        assert next(results) == 0
        results.close()
        gate.set()
    assert sorted(begun) in ([0, 1], [0, 1, 2])
