"""Handlers of signals come and go; who was asked to leave hears nothing any more."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from inpaint_batch.signals import ASKING, told_of_signals


@pytest.fixture(autouse=True)
def handlers_as_they_were() -> Iterator[None]:
    before = [signal.getsignal(number) for number in ASKING]
    yield
    for number, handler in zip(ASKING, before, strict=True):
        signal.signal(number, handler)


def test_where_none_came_the_handlers_from_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in ASKING]
    told: list[int] = []
    with told_of_signals(told.append):
        assert all(callable(signal.getsignal(number)) for number in ASKING)
    assert [signal.getsignal(number) for number in ASKING] == before
    assert told == []


@pytest.mark.parametrize("number", ASKING)
def test_who_was_asked_hears_each_of_them_and_then_nothing(number: int) -> None:
    told: list[int] = []
    with told_of_signals(told.append):
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
    assert told == [number, signal.SIGTERM]
    for each in ASKING:
        signal.raise_signal(each)  # would end this process
    assert told == [number, signal.SIGTERM]
