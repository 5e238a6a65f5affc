"""Bytes by the hash of their key, as a dict would have them."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.execution.packed_map import MAX_VALUE_BYTES, PackedMap

KEYS = st.text(max_size=3) | st.tuples(st.text(max_size=2), st.integers(0, 9))


@given(st.lists(st.tuples(KEYS, st.binary(max_size=4))))
def test_the_last_value_under_a_key_is_kept(puts):
    packed, plain = PackedMap(), {}
    for key, value in puts:
        packed.put(key, value)
        plain[key] = value
        assert len(packed) == len(plain)
        assert packed.get(key) == value
    assert {key: packed.get(key) for key in plain} == plain
    assert packed.get("longer than any") is None


def test_it_grows_and_loses_nothing():
    packed = PackedMap()
    for number in range(200_000):  # it begins with room for 45,875
        packed.put(f"row {number}", number.to_bytes(3))
    for number in range(0, 200_000, 3):
        packed.put(f"row {number}", number.to_bytes(4))
    assert len(packed) == 200_000
    for number in range(200_000):
        assert packed.get(f"row {number}") == number.to_bytes(3 if number % 3 else 4)
    assert packed.get("row 200000") is None


def test_what_is_too_long_is_refused_and_nothing_lost():
    packed = PackedMap()
    packed.put("a", b"1")
    packed.put("b", bytes(MAX_VALUE_BYTES))
    for key in ("a", "b", "c"):
        with pytest.raises(OverflowError):
            packed.put(key, bytes(MAX_VALUE_BYTES + 1))
    assert (packed.get("a"), packed.get("b"), packed.get("c")) == (b"1", bytes(MAX_VALUE_BYTES), None)
    assert len(packed) == 2


def test_an_entry_takes_about_25_bytes_beside_its_value():
    tracemalloc.start()
    try:
        packed = PackedMap()
        for number in range(100_000):
            packed.put(number, b"0123456789")
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert taken < 100_000 * (10 + 30)
