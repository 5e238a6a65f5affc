"""The same input gives the same pixels as long as the algorithm has the same version.

A row that is done is never done again while its key stays; so pixels that move without `ALGORITHM_VERSION` mix two
kinds of results in one folder, and nobody is told. Where a test fails here: if the pixels were not meant to move, they
must not; if they were, raise the version and write the new sums down.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gallery import Gallery, run
from PIL import Image

from inpaint_batch.execution.identity import ALGORITHM_VERSION
from inpaint_batch.runtime.engine import TileBatch
from inpaint_batch.runtime.testing import IdentityEngine
from inpaint_batch.types import FloatArray

HEIGHT, WIDTH = 760, 620


def picture() -> np.ndarray:
    """A soft picture with a fixed noise of a few steps; no library's random numbers, which may move."""
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    noise = (row * 7919 + column * 104729 + row * column * 31) % 23
    return np.stack([40 + row // 4 + noise, 60 + column // 4 + noise, 220 - (row + column) // 8 - noise], -1).astype(
        np.uint8
    )


def holes() -> np.ndarray:
    """One that takes four levels, a scratch of several tiles that runs into it, specks alone, together, at the rims."""
    row, column = np.mgrid[0:HEIGHT, 0:WIDTH]
    deep = (row - 300) ** 2 + (column - 260) ** 2 < 130**2
    scratch = (abs(row - column * 5 // 4 - 10) < 2) & (column > 150)
    specks = np.zeros((HEIGHT, WIDTH), np.bool_)
    specks[[0, 3, 759, 0, 300, 759, 40, 52, 45], [0, 619, 0, 560, 0, 330, 520, 530, 541]] = True
    specks[300:312, 119] = True  # a window of its own, in what the tiles of the deep one see
    return np.where(deep | scratch | specks, 255, 0).astype(np.uint8)


def by_place(self: IdentityEngine, batch: TileBatch) -> FloatArray:
    """A fill that tells what a tile was given, and where a pixel lay in it: nothing about a plan can move unseen."""
    side = batch.side_px
    ramp = (np.arange(side)[:, None] * 3 + np.arange(side) * 2) % 256 / np.float32(1024)
    known = np.round(64 * batch.image.mean(axis=(2, 3), keepdims=True, dtype=np.float64)) / 256
    guess = batch.prior * batch.prior_weight * 0.5 + known + ramp
    return np.where(batch.hole > 0, guess, batch.image).astype(np.float32)


SUMS = {  # by version, and by what the options make of the hole: of 19 bands of 40 rows, from top to bottom
    7: {
        "plain": "9231420 9350126 9480095 9604131 9424664 8945047 8708595 8738974 9023801 9545445 "
        "10122823 10590388 10710083 10839026 10967127 11085788 11206571 11337998 11456433",
        "grown": "9192273 9284708 9480095 9604131 9283594 8850942 8599390 8649014 8970899 9470727 "
        "9983450 10504141 10623640 10772943 10896919 11019747 11135075 11248918 11377034",
    }
}
SLACK = 60
"""Another processor may round the last bit of some samples otherwise; whatever else moves pixels moves thousands."""


@pytest.mark.parametrize(("name", "options"), [("plain", {}), ("grown", {"dilate_px": 3, "feather_px": 5})])
def test_pixels_move_only_with_the_version_of_the_algorithm(
    gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, object]
) -> None:
    monkeypatch.setattr(IdentityEngine, "fill", by_place)
    Image.fromarray(picture()).save(gallery.folder / "a.png")
    gallery.add_row("a.png", gallery.mask("mask.png", holes()))
    run(gallery.manifest(), tmp_path / "out", row=options)
    with Image.open(tmp_path / "out" / "a.png") as restored:
        sums = np.asarray(restored, np.int64).reshape(19, -1).sum(axis=1)
    assert np.abs(sums - np.array(SUMS[ALGORITHM_VERSION][name].split(), np.int64)).max() <= SLACK, " ".join(
        map(str, sums)
    )
