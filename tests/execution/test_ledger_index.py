"""The index of a ledger: millions of rows in few bytes, and not a word lost."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.execution.identity import KEY_DIGITS
from inpaint_batch.execution.ledger_index import Known, LedgerIndex
from inpaint_batch.execution.ledger_lines import LedgerEntry

KEYS = st.sampled_from(["", "k", "z" * KEY_DIGITS, "0a" * (KEY_DIGITS // 2), "1b" * (KEY_DIGITS // 2)])
NAMES = st.sampled_from(["a", "b/ü.png", 'quote".png', "back\\slash", "caf\udce9.png", "line\n.png"])
ENTRIES = st.builds(
    LedgerEntry,
    id=NAMES,
    key=KEYS,
    status=st.sampled_from(["started", "dropped", "done"]),
    output=NAMES | st.just(""),
    alone=st.booleans(),
    image=NAMES | st.just(""),
    at_s=st.floats(1e9, 2e9),
    num_tiles=st.dictionaries(st.sampled_from([64, 128, 256]), st.integers(1, 9)),
    seconds=st.dictionaries(st.sampled_from(["read", "write"]), st.floats(0, 1e4)),
    coverage=st.none() | st.floats(0, 1),
    num_pixels=st.integers(0, 5),
    warnings=st.lists(NAMES).map(tuple),
    why=st.sampled_from(["", "image"]),
    page=st.integers(0, 3),
) | st.builds(
    LedgerEntry,
    id=NAMES,
    key=KEYS,
    status=st.just("failed"),
    output=NAMES | st.just(""),
    code=st.sampled_from(["read", "crash"]),
    message=st.text(),
    retryable=st.booleans(),
)


@given(ENTRIES)
def test_a_line_says_what_was_entered(entry):
    assert LedgerEntry.parse(entry.to_line()) == entry


@given(ENTRIES, st.data())
def test_a_torn_line_is_damaged(entry, data):
    text = entry.to_line()
    assert LedgerEntry.parse(text[: data.draw(st.integers(0, len(text) - 2))]) is None
    half = len(text) // 2
    assert LedgerEntry.parse(text[:half] + b"\0" * (len(text) - half)) is None


@given(st.lists(ENTRIES, max_size=8))
def test_the_last_word_is_kept_in_whatever_form(entries):
    index, plain = LedgerIndex(), dict[str, Known]()
    for number, entry in enumerate(entries):
        place = number << 60  # as large as they come
        index.add(entry, place)
        before = plain.get(entry.id)
        deaths = (before.num_deaths if before else 0) + entry.alone if entry.status == "started" else 0
        output = entry.output or (before.output if before else "")
        plain[entry.id] = Known(
            entry.status,
            entry.key,
            output,
            entry.code,
            bool(entry.retryable),
            num_deaths=deaths,
            place=place if entry.status == "failed" else 0,
        )
    assert len(index) == len(plain)
    for row_id, known in plain.items():
        assert index.get(row_id) == known
    assert index.get("never") is None


@pytest.mark.parametrize("status", ["done", "failed"])
def test_a_row_takes_less_than_90_bytes(status):
    code = "read" if status == "failed" else ""
    tracemalloc.start()
    try:
        index = LedgerIndex()
        for number in range(20_000):
            name = f"folder/{number:08d}.png"
            key = f"{number:0{KEY_DIGITS}x}"
            message = f"the image /data/{name} does not exist; correct the manifest or bring the file"
            index.add(
                LedgerEntry(id=name, key=key, status=status, output=name, code=code, message=message), number << 10
            )
        assert tracemalloc.get_traced_memory()[0] < 90 * 20_000
    finally:
        tracemalloc.stop()
