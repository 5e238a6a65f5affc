"""Marks are drawn where the truth says, and elements for tests are kept from training."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from inpaint_batch.errors import ConfigError
from inpaint_batch.evaluation.marks import MARK_KINDS, TEST_EVERY, MarkLibrary, count_marks, draw_marks, luma


@pytest.fixture
def elements(tmp_path: Path) -> Path:
    """Twelve elements of every sort: a bar whose length tells its number."""
    for sorts in MARK_KINDS.values():
        for sort in sorts:
            (tmp_path / sort).mkdir()
            for number in range(12):
                drawn = np.zeros((100, 100), np.uint8)
                drawn[40:60, 10 : 40 + 4 * number] = 255
                cv2.imwrite(str(tmp_path / sort / f"{number:02}.png"), drawn)
    return tmp_path


@pytest.mark.parametrize("bright", [True, False])
@pytest.mark.parametrize("kind", sorted(MARK_KINDS))
def test_truth_is_what_was_changed(elements, kind, bright):
    clean = np.full((90, 120, 3), 128 / 255, np.float32)
    damaged = draw_marks(clean, np.random.default_rng(3), MarkLibrary(elements, "test"), kind, 0.2, bright=bright)
    change = (luma(damaged.rgb) - luma(clean)) * (1 if bright else -1)
    assert damaged.truth.any()
    assert change.min() >= -1e-6
    assert change[damaged.truth].min() >= 0.049
    assert change[~damaged.truth].max() < 0.051
    assert change.max() == pytest.approx(0.2, abs=0.01)


def test_white_on_white_leaves_nothing(elements):
    white = np.ones((60, 60, 3), np.float32)
    damaged = draw_marks(white, np.random.default_rng(0), MarkLibrary(elements, "train"), "dust", 0.4, bright=True)
    assert not damaged.truth.any()
    assert (damaged.rgb == white).all()


def test_training_sees_no_element_of_the_tests(elements):
    lengths = {}
    for part in ("test", "train"):
        library = MarkLibrary(elements, part)
        rng = np.random.default_rng(1)
        lengths[part] = {max(library.element(rng, "dust").shape) for _ in range(200)}
    assert len(lengths["test"]) == 12 // TEST_EVERY
    assert len(lengths["train"]) == 12 - 12 // TEST_EVERY
    assert not lengths["test"] & lengths["train"]


def test_a_folder_without_elements_is_named(tmp_path):
    with pytest.raises(ConfigError, match="scratches"):
        MarkLibrary(tmp_path, "test")


def test_marks_are_counted_by_half_their_area():
    marks = np.zeros((20, 20), bool)
    marks[2:4, 2:8] = marks[10:12, 2:8] = True
    marks[18, 18] = True  # too small to count
    others = np.zeros_like(marks)
    others[2:4, 2:5] = others[10:12, 2:4] = True
    assert count_marks(marks, others) == (2, 1)
