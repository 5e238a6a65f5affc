"""What tests of several stations share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("house")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs, from INPAINT_BATCH_DATA or `../shared/data`; skips where there is none."""
    named = os.environ.get("INPAINT_BATCH_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real photographs here: set INPAINT_BATCH_DATA to their folder")
    return folder
