"""Patches of a row: in the order of their windows, in memory or in a file."""

from __future__ import annotations

import numpy as np
import pytest

from inpaint_batch.errors import RowError
from inpaint_batch.imaging import patch_store
from inpaint_batch.imaging.patch_store import PatchStore
from inpaint_batch.types import Box, Patch


def patch(seed: int, dtype: str = "uint16") -> Patch:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 40, 2))
    samples = rng.integers(0, 200, (height, width, 3)).astype(dtype)
    return Patch(
        Box(seed, 2 * seed, height, width), samples, rng.random((height, width)) < 0.5, with_alpha=seed % 2 > 0
    )


@pytest.mark.parametrize("in_memory_bytes", [0, 3000, 1 << 20])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_went_in_comes_out_by_window(in_memory_bytes: int, dtype: str) -> None:
    store = PatchStore(in_memory_bytes)
    windows = [2, 0, 1, 0, 2, 1, 0]
    for number, window in enumerate(windows):
        store.add(window, patch(number, dtype))
    assert len(store) == 7
    order = [1, 3, 6, 2, 5, 0, 4]
    for _ in range(2):  # as often as one likes
        for got, want in zip(store, (patch(number, dtype) for number in order), strict=True):
            assert (got.box, got.with_alpha) == (want.box, want.with_alpha)
            assert got.samples.dtype == want.samples.dtype
            np.testing.assert_array_equal(got.samples, want.samples)
            np.testing.assert_array_equal(got.hole, want.hole)
    assert [each.box.top for each in store[1:3]] == [3, 6]
    store.close()
    assert len(store) == 0


def test_no_room_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(patch_store, "scratch_folder", lambda: tmp_path / "gone")
    with pytest.raises(RowError, match=r"no room.*TMPDIR") as caught:
        PatchStore(0).add(0, patch(1))
    assert (caught.value.code, caught.value.retryable) == ("write", True)
