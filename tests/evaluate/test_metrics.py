"""Metrics in months: values computed by hand, bootstrap intervals, and cases without a defined value."""

import json
import math
import time

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import metrics


def simulated(count, seed=0):
    rng = np.random.default_rng(seed)
    age = rng.normal(127, 41, count).astype(np.float32)
    return age, (age + rng.normal(1, 9, count)).astype(np.float32)


def test_values_match_a_hand_calculation():
    age = np.array([100, 120, 140, 160], np.float32)
    predicted = np.array([106, 120, 128, 190], np.float32)  # errors +6, 0, -12, +30
    result = metrics.summarise(age, predicted)
    assert result.count == 4
    assert result.mae.value == 12
    assert result.median_absolute_error.value == 9
    assert result.mse.value == (36 + 144 + 900) / 4
    assert result.rmse.value == math.sqrt(270)
    assert result.r2.value == pytest.approx(1 - 270 / 500)
    assert result.bias.value == 6
    sd = math.sqrt((0 + 36 + 324 + 576) / 3)
    assert result.lower_limit.value == pytest.approx(6 - 1.96 * sd)
    assert result.upper_limit.value == pytest.approx(6 + 1.96 * sd)
    # A reading exactly 6 (12) months off is within 6 (12) months.
    shares = (result.within_6_months, result.within_12_months, result.within_24_months)
    assert [share.value for share in shares] == [0.5, 0.75, 0.75]


def test_concordance_follows_lins_definition():
    age, predicted = (column.astype(np.float64) for column in simulated(50))
    covariance = np.cov(age, predicted, ddof=0)
    expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (predicted.mean() - age.mean()) ** 2)
    assert metrics.summarise(age, predicted).concordance.value == pytest.approx(expected, rel=1e-9)


def test_errors_are_predicted_minus_age():
    age = np.array([100.0, 110.0])
    assert metrics.summarise(age, age + 5).bias.value == pytest.approx(5)


def test_a_perfect_prediction_has_no_error_and_full_agreement():
    age, _ = simulated(30)
    result = metrics.summarise(age, age)
    assert (result.mae.value, result.r2.value, result.concordance.value) == (0, 1, 1)
    assert result.mae.low == result.mae.high == 0


def test_intervals_contain_the_value_and_are_reproducible_by_seed():
    age, predicted = simulated(300)
    first, second = (metrics.summarise(age, predicted, seed=3) for _ in range(2))
    assert first == second
    assert first != metrics.summarise(age, predicted, seed=4)
    for name in ("mae", "median_absolute_error", "rmse", "r2", "bias", "upper_limit", "concordance"):
        interval = getattr(first, name)
        assert interval.low < interval.value < interval.high


def test_the_bias_interval_has_the_theoretical_width():
    age, predicted = simulated(1300)
    bias = metrics.summarise(age, predicted).bias
    standard_error = np.std(predicted - age) / math.sqrt(1300)
    assert (bias.high - bias.low) / (2 * 1.96 * standard_error) == pytest.approx(1, abs=0.08)


def test_resampling_in_blocks_does_not_change_the_intervals(monkeypatch):
    age, predicted = simulated(40)
    whole = metrics.summarise(age, predicted, resamples=500)
    monkeypatch.setattr(metrics, "_BLOCK", 40 * 7)
    assert metrics.summarise(age, predicted, resamples=500) == whole


def test_1300_images_take_less_than_a_second():
    age, predicted = simulated(1300)
    start = time.process_time()
    metrics.summarise(age, predicted)
    assert time.process_time() - start < 1


def test_the_loss_is_averaged_over_images():
    age, predicted = simulated(4)
    loss = np.array([0.1, 0.2, 0.3, 0.6])
    result = metrics.summarise(age, predicted, loss=loss)
    assert result.loss is not None
    assert result.loss.value == pytest.approx(0.3)
    assert 0.1 <= result.loss.low < 0.3 < result.loss.high <= 0.6
    assert metrics.summarise(age, predicted).loss is None


def test_one_image_has_values_but_no_intervals_limits_or_r2():
    result = metrics.summarise(np.array([100.0]), np.array([90.0]))
    assert (result.count, result.mae.value, result.bias.value) == (1, 10, -10)
    for interval in (result.r2, result.concordance, result.lower_limit, result.upper_limit):
        assert math.isnan(interval.value)
    assert math.isnan(result.mae.low)
    assert math.isnan(result.mae.high)


def test_equal_ages_leave_r2_and_concordance_undefined():
    # In floating point, the variance of three equal ages of 0.1 is about 1e-34, not 0.
    result = metrics.summarise(np.full(3, 0.1), np.array([0.1, 0.2, 0.4]))
    assert math.isnan(result.r2.value)
    assert math.isnan(result.concordance.value)
    assert result.mae.low < result.mae.high


def test_undefined_values_become_null_in_json():
    text = json.dumps(metrics.summarise(np.array([100.0]), np.array([90.0])).to_dict(), allow_nan=False)
    assert json.loads(text)["r2"] == {"value": None, "interval": [None, None]}
    assert json.loads(text)["mae"]["value"] == 10


def test_an_empty_set_of_images_is_refused():
    with pytest.raises(BoneAgeError, match="no image"):
        metrics.summarise(np.empty(0), np.empty(0))
