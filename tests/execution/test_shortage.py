"""Where memory runs out: smaller batches, then alone, then smaller tiles, and no other row is touched."""

from __future__ import annotations

import pytest
from execution_cases import row_task
from gallery import run, tree

from inpaint_batch.config import TilingConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution import write
from inpaint_batch.execution.shortage import Shortage, is_out_of_memory, smaller
from inpaint_batch.execution.tasks import Failure, RowOutcome
from inpaint_batch.imaging.write import write_filled


@pytest.fixture
def deep_rows(gallery):
    """Holes whose tiles are of 256, 128 and 64 px, three of each."""
    for number in range(3):
        gallery.add(f"wide/{number}.png", side=300, hole=(60, 50, 40, 170))
        gallery.add(f"middle/{number}.png", side=200, hole=(60, 50, 30, 70))
        gallery.add(f"small/{number}.png")
    return gallery


def test_batches_are_halved_until_they_fit(deep_rows, tmp_path):
    manifest = deep_rows.manifest()
    run(manifest, tmp_path / "whole")
    summary = run(manifest, tmp_path / "out", engine="faulty:b")
    assert (summary["exit_code"], summary["rows"]["warnings"]) == (0, 0)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_tiles_that_are_too_large_give_way_to_smaller_ones_and_the_row_says_so(deep_rows, tmp_path):
    manifest = deep_rows.manifest()
    run(manifest, tmp_path / "whole")
    summary = run(manifest, tmp_path / "out", engine="faulty:t")
    assert summary["exit_code"] == 0
    assert summary["rows"]["warnings"] == 6
    found, whole = tree(tmp_path / "out"), tree(tmp_path / "whole")
    assert {name for name in whole if name.startswith("small/")} <= {
        name for name in whole if found[name] == whole[name]
    }
    assert found.keys() == whole.keys()
    again = run(manifest, tmp_path / "again", engine="faulty:t", workers=1)
    assert again["exit_code"] == 0
    assert tree(tmp_path / "again") == found


def test_smaller_tiles_are_no_help_where_the_result_cannot_be_written(gallery, tmp_path, monkeypatch):
    gallery.add("wide.png", side=300, hole=(60, 50, 40, 170))
    attempts = []

    def lacking(*args, **kwargs):
        attempts.append(args)
        if len(attempts) <= 2:
            raise RowError(FailureCode.MEMORY, "there was no memory left to write", retryable=True)
        return write_filled(*args, **kwargs)

    monkeypatch.setattr(write, "write_filled", lacking)
    summary = run(gallery.manifest(), tmp_path / "out")
    assert summary["rows"]["failed_by_code"] == {"memory": 1}  # it got other pixels than with all tiles
    assert len(attempts) == 2


def test_where_there_is_no_memory_at_all_each_row_says_so(gallery, tmp_path):
    for number in range(3):
        gallery.add(f"{number}.png")
    summary = run(gallery.manifest(), tmp_path / "out", engine="faulty:m")
    assert summary["exit_code"] == 8
    assert summary["rows"]["failed_by_code"] == {"memory": 3}
    assert tree(tmp_path / "out") == {}


def test_smaller_tiles_until_there_are_none():
    tiling = TilingConfig()
    sides = []
    while tiling is not None:
        sides.append(tiling.buckets_px[-1])
        tiling = smaller(tiling)
    assert sides == [256, 128, 64]
    assert smaller(TilingConfig(buckets_px=(64, 256), margin_px=40)) is None  # 64 px does not hold the margin


def test_fewer_rows_at_a_time_after_a_shortage_and_slowly_more_again():
    shortage = Shortage(TilingConfig(), 64)
    lacking = Failure(FailureCode.MEMORY, "no memory", retryable=True)
    for number, expected in enumerate((32, 16, 8, 4, 2, 1, 1)):
        assert shortage.takes(RowOutcome(row_task(f"large {number}"), lacking))
        shortage.learn(RowOutcome(shortage.next()))
        assert shortage.max_rows == expected
    for number in range(15):
        shortage.learn(RowOutcome(row_task(f"{number}")))
        shortage.learn(RowOutcome(row_task(f"broken {number}"), Failure(FailureCode.READ, "no file")))
    assert shortage.max_rows == 1
    shortage.learn(RowOutcome(row_task("15")))
    assert shortage.max_rows == 2
    for number in range(16 * 62):
        shortage.learn(RowOutcome(row_task(f"{number}")))
    assert shortage.max_rows == 64
    for number in range(100):
        shortage.learn(RowOutcome(row_task(f"{number}")))
    assert shortage.max_rows == 64


def test_a_row_that_will_never_fit_is_not_tried_again():
    shortage = Shortage(TilingConfig(), 64)
    for failure in (Failure(FailureCode.MEMORY, "too large"), Failure(FailureCode.READ, "busy", retryable=True), None):
        assert not shortage.takes(RowOutcome(row_task("a"), failure))
    assert shortage.takes(RowOutcome(row_task("a"), Failure(FailureCode.MEMORY, "no memory", retryable=True)))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 8589934592"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (RowError(FailureCode.INFER, "the engine failed"), False),
    ],
)
def test_what_means_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected
    wrapped = RowError(FailureCode.INFER, "the engine failed on a tile")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped) is expected
