"""What tests of several stations share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gallery import Gallery
from hypothesis import settings

# No deadline: how long an example takes says nothing on a busy machine. The same examples every time: what a search
# finds is for whoever searches (`pytest --hypothesis-profile search`), and not for whoever changes something else.
settings.register_profile("house", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile("house")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photographs, from INPAINT_BATCH_DATA or `../shared/data`; skips where there is none."""
    named = os.environ.get("INPAINT_BATCH_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no real photographs here: set INPAINT_BATCH_DATA to their folder")
    return folder


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    """An empty gallery in `tmp_path/in`."""
    (tmp_path / "in").mkdir()
    return Gallery(tmp_path / "in")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of TensorRT plans, which is not there yet."""
    monkeypatch.setenv("INPAINT_BATCH_ENGINES", str(tmp_path / "plans"))
    return tmp_path / "plans"


@pytest.fixture
def every_format(gallery: Gallery) -> Gallery:
    """A gallery with each format and kind of pixel that can be restored."""
    kinds = {"jpg": "L RGB", "png": "L LA RGB RGBA", "tif": "L RGB RGBA", "webp": "RGB RGBA"}
    for suffix, modes in kinds.items():
        for mode in modes.split():
            gallery.add(f"{suffix}/{mode}.{suffix}", mode=mode, side=72 + len(gallery.rows))
    return gallery
