import math

import pytest

from inpaint_batch.evaluation.metrics import FillMetrics
from inpaint_batch.evaluation.tables import best_other, gain, markdown, mean_metrics


def fill(hole_psnr_db: float, rim_psnr_db: float = 20.0) -> FillMetrics:
    return FillMetrics(30.0, hole_psnr_db, rim_psnr_db, 0.9, 0.8, 0.01, 0.05)


def test_means_leave_out_what_an_image_does_not_have() -> None:
    mean = mean_metrics([fill(20, 18), fill(24, math.nan)])
    assert mean.hole_psnr_db == 22
    assert mean.rim_psnr_db == 18
    assert math.isnan(mean_metrics([fill(20, math.nan)]).rim_psnr_db)
    with pytest.raises(ValueError, match="no images"):
        mean_metrics([])


def test_gain_is_paired() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1, standard error 1/√3, however much the images differ.
    advantage = gain([fill(11), fill(32), fill(23)], [fill(10), fill(30), fill(20)])
    assert advantage.mean_db == pytest.approx(2)
    assert advantage.standard_error_db == pytest.approx(1 / math.sqrt(3))
    assert math.isnan(gain([fill(2)], [fill(1)]).standard_error_db)
    with pytest.raises(ValueError, match="cannot be paired"):
        gain([fill(1)], [])


def test_a_fill_that_both_have_without_a_fault_gains_nothing() -> None:
    advantage = gain([fill(math.inf), fill(32)], [fill(math.inf), fill(30)])
    assert (advantage.mean_db, advantage.standard_error_db) == pytest.approx((1.0, 1.0))


def test_the_table_compares_with_the_best_of_the_others() -> None:
    results = {"boxes": {"weak": [fill(18), fill(18)], "strong": [fill(19), fill(21)], "ours": [fill(20), fill(23)]}}
    assert best_other(results["boxes"], "ours") == "strong"
    lines = markdown(results, "ours").splitlines()
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[4] == "| boxes | ours | 2 | 21.50 | 20.00 | 0.9000 | 0.0500 | +1.50 ± 0.50 over strong |"
    assert lines[3].endswith("|  |")
