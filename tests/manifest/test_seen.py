"""A set of hashes answers as a set of the things themselves would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inpaint_batch.manifest.seen import Seen

THINGS = st.text(max_size=2) | st.tuples(st.text(max_size=1), st.text(max_size=1)) | st.integers(2, 9)


@given(st.lists(THINGS))
def test_each_thing_is_new_once(things):
    seen, plain = Seen(), set()
    for thing in things:
        assert (thing in seen) == (hash(thing) in plain)
        assert seen.add(thing) == (hash(thing) not in plain)
        plain.add(hash(thing))
        assert thing in seen


def test_it_grows_and_forgets_nothing():
    seen = Seen()
    assert all(seen.add(f"scan {number}") for number in range(150_000))  # it begins with room for 45,875
    assert not any(seen.add(f"scan {number}") for number in range(150_000))
    assert "scan 150000" not in seen
