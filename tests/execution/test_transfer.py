"""How copies of objects are spoken of."""

from __future__ import annotations

import pytest

from inpaint_batch.config import RowConfig
from inpaint_batch.errors import FailureCode, RowError
from inpaint_batch.execution.tasks import RowTask
from inpaint_batch.execution.transfer import RowFiles
from inpaint_batch.types import Row


def test_a_copy_whose_path_begins_as_another_one_does_is_told_by_its_own_object():
    """Copies have the suffixes of their objects; where one has none, `/1` is how `/18.png` begins."""
    row = Row("a", 2, "s3://bucket/scan", "s3://bucket/mask.png", "a.png", None, {})
    files = RowFiles(RowTask(row, RowConfig(), "", "a.png", "a.png"))
    files._names = {"/scratch/1": row.image, "/scratch/18.png": row.mask}
    with pytest.raises(RowError) as caught, files.by_name():
        raise RowError(FailureCode.MASK, "/scratch/18.png does not fit /scratch/1")
    assert caught.value.message == "s3://bucket/mask.png does not fit s3://bucket/scan"
