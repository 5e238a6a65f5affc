import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from inpaint_batch.evaluation.metrics import FillMetrics, measure, psnr, rim, ssim_map


def image(seed: int, height: int = 40, width: int = 52) -> np.ndarray:
    """Smooth shapes plus noise, so that windows differ in mean, variance and structure."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.3 * np.sin(rows / rng.uniform(2, 9) + columns / rng.uniform(2, 9)) for _ in range(3)]
    return np.clip(np.stack(waves, axis=2) + rng.normal(0, 0.05, (height, width, 3)), 0, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(40, 52), (11, 11), (11, 64), (33, 12)])
def test_ssim_is_that_of_scikit_image(shape: tuple[int, int]) -> None:
    first, second = image(1, *shape), image(2, *shape)
    mean, whole_map = structural_similarity(
        first.astype(np.float64),
        second.astype(np.float64),
        data_range=1.0,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    np.testing.assert_allclose(ssim_map(first, second), whole_map.mean(axis=2), atol=1e-9)
    hole = np.zeros(shape, bool)
    hole[3:9, 2:7] = True
    metrics = measure(first, second, hole)
    assert metrics.ssim == pytest.approx(mean, abs=1e-9)
    assert metrics.hole_ssim == pytest.approx(whole_map.mean(axis=2)[hole].mean(), abs=1e-9)


def test_ssim_of_two_flat_images_by_hand() -> None:
    # No variance anywhere, so only the luminance term is left: (2·0.2·0.6 + C1) / (0.2² + 0.6² + C1).
    first, second = np.full((16, 16, 3), 0.2, np.float32), np.full((16, 16, 3), 0.6, np.float32)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4)
    np.testing.assert_allclose(ssim_map(first, second), expected, atol=1e-6)


def test_by_hand() -> None:
    truth = np.full((20, 20, 3), 0.5, np.float32)
    hole = np.zeros((20, 20), bool)
    hole[:, 10:] = True
    filled = truth.copy()
    filled[:, 10:15] += np.float32(0.1)  # the five columns next to the known half
    filled[:, 15:] += np.float32(0.2)
    metrics = measure(filled, truth, hole)
    # Mean squares: rim 0.01, hole (0.01 + 0.04) / 2, image a quarter of each.
    assert metrics.rim_psnr_db == pytest.approx(20.0, abs=1e-4)
    assert metrics.hole_psnr_db == pytest.approx(-10 * math.log10(0.025), abs=1e-4)
    assert metrics.psnr_db == pytest.approx(-10 * math.log10(0.0125), abs=1e-4)
    assert metrics.hole_l1 == pytest.approx(0.15, abs=1e-6)
    assert metrics.l1 == pytest.approx(0.075, abs=1e-6)


def test_the_truth_itself_is_perfect() -> None:
    truth = image(3)
    hole = np.zeros(truth.shape[:2], bool)
    hole[10:20, 10:20] = True
    perfect = FillMetrics(math.inf, math.inf, math.inf, 1.0, 1.0, 0.0, 0.0)
    metrics = measure(truth.copy(), truth, hole)
    for name in FillMetrics.__dataclass_fields__:
        assert getattr(metrics, name) == pytest.approx(getattr(perfect, name)), name


def test_samples_outside_the_hole_do_not_move_the_numbers_inside() -> None:
    truth, filled = image(4), image(5)
    hole = np.zeros(truth.shape[:2], bool)
    hole[12:30, 8:40] = True
    spoiled = np.where(hole[..., None], filled, 0).astype(np.float32)
    one, other = measure(filled, truth, hole), measure(spoiled, truth, hole)
    assert (one.hole_psnr_db, one.rim_psnr_db, one.hole_l1) == (other.hole_psnr_db, other.rim_psnr_db, other.hole_l1)
    assert one.psnr_db != other.psnr_db


def test_the_rim_is_five_pixels_deep_in_a_straight_edge_and_round_at_a_corner() -> None:
    hole = np.ones((30, 30), bool)
    hole[0, 0] = False  # one known pixel: the rim is a quarter of a disc around it
    rows, columns = np.nonzero(rim(hole))
    assert (np.hypot(rows, columns) <= 5).all()
    assert len(rows) == sum(r * r + c * c <= 25 for r in range(30) for c in range(30)) - 1
    hole[:, 0] = False
    assert rim(hole)[:, 1:6].all()
    assert not rim(hole)[:, 6:].any()


def test_without_a_known_pixel_there_is_no_rim() -> None:
    truth = image(6)
    metrics = measure(image(7), truth, np.ones(truth.shape[:2], bool))
    assert math.isnan(metrics.rim_psnr_db)
    assert metrics.hole_psnr_db == metrics.psnr_db


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.001, 0.3))
def test_more_noise_is_worse_by_every_number(seed: int, strength: float) -> None:
    truth = np.clip(image(seed % 97), 0.35, 0.65)
    noise = np.random.default_rng(seed).normal(0, strength, truth.shape).astype(np.float32)
    hole = np.zeros(truth.shape[:2], bool)
    hole[5:35, 6:44] = True
    less = measure(truth + 0.5 * noise * hole[..., None], truth, hole)
    more = measure(truth + noise * hole[..., None], truth, hole)
    assert less.psnr_db - more.psnr_db == pytest.approx(20 * math.log10(2), abs=1e-3)
    assert less.hole_psnr_db > more.hole_psnr_db
    assert less.rim_psnr_db > more.rim_psnr_db
    assert 1 >= less.ssim > more.ssim >= -1
    assert less.hole_ssim > more.hole_ssim
    assert less.l1 < more.l1


def test_what_cannot_be_measured_is_refused() -> None:
    truth = image(8)
    hole = np.ones(truth.shape[:2], bool)
    with pytest.raises(ValueError, match="empty"):
        measure(truth, truth, ~hole)
    with pytest.raises(ValueError, match="must both be"):
        measure(truth[:-1], truth, hole)
    with pytest.raises(ValueError, match="hole must be boolean"):
        measure(truth, truth, hole.astype(np.uint8))
    with pytest.raises(ValueError, match="at least 11 pixels"):
        measure(truth[:10], truth[:10], hole[:10])
    assert math.isnan(psnr(np.zeros(0)))
