"""Durations in words."""

import pytest

from inpaint_batch.report.durations import clock, roughly


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (360_000, "100.0 h")],
)
def test_what_is_long_is_told_in_fewer_digits(seconds: float, words: str) -> None:
    assert roughly(seconds) == words


@pytest.mark.parametrize(("seconds", "words"), [(59.6, "0:01:00"), (3723, "1:02:03"), (360_059, "100:00:59")])
def test_a_clock_has_hours_minutes_and_seconds(seconds: float, words: str) -> None:
    assert clock(seconds) == words
