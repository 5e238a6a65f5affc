"""Whom the loss of a worker is blamed on: any mixture of deadly, hanging and harmless rows comes to its right end."""

from __future__ import annotations

import random

import pytest
from execution_cases import row_task
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.errors import FailureCode
from inpaint_batch.execution.requeue import MAX_DEATHS, Chunk, Requeue


@given(
    st.lists(st.sampled_from(["good", "deadly", "hungry", "hanging"]), max_size=40), st.randoms(use_true_random=False)
)
def test_every_row_ends_once_and_the_innocent_are_done(kinds: list[str], chance: random.Random) -> None:
    """One worker that is given two chunks at a time, as the pool does, and loses both."""
    requeue = Requeue(9)
    kind_of = {str(number): kind for number, kind in enumerate(kinds)}
    fresh = [Chunk([row_task(name) for name in list(kind_of)[at : at + 4]]) for at in range(0, len(kind_of), 4)]
    ends: dict[str, str] = {}
    deaths: dict[str, int] = {}
    while True:
        chunks = []
        while len(chunks) < 2 and not any(chunk.alone for chunk in chunks):
            chunk = requeue.next() or (fresh.pop(0) if fresh else None)
            if chunk is None or (chunk.alone and chunks):
                requeue.unblamed([chunk] if chunk else [])
                break
            chunks.append(chunk)
        if not chunks:
            break
        tasks = [one for chunk in chunks for one in chunk.tasks]
        harmful = [one for one in tasks if kind_of[one.row.id] != "good"]
        if not harmful:
            outcomes = []
            ends_now = {one.row.id: "done" for one in tasks}
        else:
            culprit = kind_of[chance.choice(harmful).row.id]
            if culprit == "hanging":
                outcomes = requeue.hung(chunks)
            else:
                outcomes = requeue.died(chunks, of_memory=culprit == "hungry")
                for one in tasks:
                    deaths[one.row.id] = deaths.get(one.row.id, 0) + 1
            ends_now = {one.task.row.id: one.failure.code.value for one in outcomes}
        assert not ends.keys() & ends_now.keys()
        ends |= ends_now
    expected = {"good": "done", "deadly": "crash", "hungry": "memory", "hanging": "timeout"}
    assert ends == {name: expected[kind] for name, kind in kind_of.items()}
    assert all(deaths[name] == MAX_DEATHS for name, kind in kind_of.items() if kind in ("deadly", "hungry"))
    assert not len(requeue)


@pytest.mark.parametrize(("of_memory", "code"), [(False, FailureCode.CRASH), (True, FailureCode.MEMORY)])
def test_the_last_death_names_the_code(of_memory, code):
    requeue = Requeue()
    assert requeue.died([Chunk([row_task("a"), row_task("b")])]) == []
    first = requeue.next()
    assert [one.row.id for one in first.tasks] == ["a"]
    assert (first.alone, first.tasks[0].attempt) == (True, 2)
    assert requeue.died([first]) == []
    assert requeue.next().tasks[0].row.id == "b"
    (outcome,) = requeue.died([requeue.next()], of_memory=of_memory)
    assert (outcome.failure.code, outcome.failure.retryable) == (code, True)
    requeue.unblamed([first])
    requeue.clear()
    assert requeue.next() is None
