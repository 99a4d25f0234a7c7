"""Bias correction, standard deviations and intervals on simulated predictions."""

import dataclasses
import json

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.released import calibration
from boneage_jax.released.calibration import Calibration


def drawn(count, *, seed=0, slope=1.0, shift=0.0):
    """Ages, estimates whose error grows with age from 3 to 12 months, and that error's standard deviation."""
    rng = np.random.default_rng(seed)
    best = rng.uniform(20, 210, count)
    sigma = 3 + 9 * best / 210
    age = np.clip(best + rng.normal(0, sigma), 0, 240)
    return age, (best - shift) / slope, sigma


def coverage(age, published):
    return ((published.low <= age) & (age <= published.high)).mean()


@pytest.mark.parametrize("knows_std", [True, False])
def test_intervals_cover_90_percent_of_new_images(knows_std):
    age, months, sigma = drawn(1000)
    fitted = calibration.fit(age, months, 0.3 * sigma if knows_std else None)  # the network is overconfident
    age, months, sigma = drawn(20000, seed=1)
    published = fitted.apply(months, 0.3 * sigma if knows_std else None)
    assert coverage(age, published) == pytest.approx(0.9, abs=0.02)
    for low, high in ((20, 80), (80, 150), (150, 210)):
        inside = (low <= months) & (months < high)
        part = dataclasses.replace(published, **{k: v[inside] for k, v in vars(published).items()})
        assert coverage(age[inside], part) == pytest.approx(0.9, abs=0.04)
        error = np.sqrt(((part.months - age[inside]) ** 2).mean())
        assert np.sqrt((part.std**2).mean()) == pytest.approx(error, rel=0.12)


def test_a_linear_bias_is_corrected_and_the_interval_follows():
    age, months, sigma = drawn(1000, slope=1.2, shift=-10.0)
    fitted = calibration.fit(age, months, sigma)
    assert fitted.slope == pytest.approx(1.2, abs=0.05)
    assert fitted.intercept == pytest.approx(-10.0, abs=4)
    published = fitted.apply(months, sigma)
    assert abs((published.months - age).mean()) < 0.5
    np.testing.assert_allclose((published.low + published.high) / 2, published.months)


def test_a_correction_that_does_not_help_is_not_applied():
    age, months, sigma = drawn(1000)
    fitted = calibration.fit(age, months, sigma)
    assert (fitted.slope, fitted.intercept) == (1.0, 0.0)
    np.testing.assert_array_equal(fitted.apply(months, sigma).months, np.maximum(months, 0))


def test_balanced_weights_give_90_percent_mean_coverage_over_hospitals():
    def images(count, seed):
        rng = np.random.default_rng(seed)
        hospital = np.where(rng.uniform(size=count) < 0.1, "small", "large")
        age = rng.uniform(20, 220, count)
        return age, age + rng.normal(0, np.where(hospital == "small", 12.0, 6.0)), hospital

    age, months, hospital = images(2000, seed=0)
    fitted = calibration.fit(age, months, None, weight=calibration.balanced(hospital.tolist()))
    age, months, hospital = images(40000, seed=1)
    published = fitted.apply(months, None)
    inside = (published.low <= age) & (age <= published.high)
    shares = [inside[hospital == name].mean() for name in ("small", "large")]
    assert np.mean(shares) == pytest.approx(0.9, abs=0.02)
    assert inside.mean() > 0.95


def test_equal_weights_match_no_weights():
    age, months, sigma = drawn(207)
    weight = calibration.balanced(["a"] * 207)
    assert calibration.fit(age, months, sigma) == calibration.fit(age, months, sigma, weight=weight)
    assert calibration.balanced(["a", "b", "a", "a"]).tolist() == [2 / 3, 2, 2 / 3, 2 / 3]
    errors = np.arange(1.0, 100.0)
    assert calibration._conformal_quantile(errors, np.ones(99)) == 90.0  # of 100 including the new one


def test_ages_and_intervals_are_clipped_at_zero():
    fitted = Calibration(1.0, -5.0, None, std_scale=1.0, quantile=2.0, images=100)
    published = fitted.apply(np.array([2.0, 10.0]), np.array([3.0, 4.0]))
    assert published.months.tolist() == [0.0, 5.0]
    assert published.low.tolist() == [0.0, 0.0]
    assert published.high.tolist() == [6.0, 13.0]


def test_without_a_predicted_std_the_spread_depends_on_age():
    fitted = Calibration(1.0, 0.0, tuple(map(float, range(21))), std_scale=2.0, quantile=3.0, images=100)
    published = fitted.apply(np.array([18.0, 120.0, 999.0]), None)  # knots lie 12 months apart
    assert published.std.tolist() == [3.0, 20.0, 40.0]
    assert (published.high - published.months).tolist() == [4.5, 30.0, 60.0]


def test_the_quantile_is_the_split_conformal_one():
    scores = np.arange(1.0, 101.0)
    assert (
        calibration._conformal_quantile(np.random.default_rng(0).permutation(scores), np.ones(100)) == 91
    )  # 90 % of 101, rounded up


def test_measured_coverage_and_mae_are_plausible_and_reproducible():
    age, months, sigma = drawn(400)
    found = calibration.measure(age, months, sigma)
    assert found["images"] == 400
    assert found["coverage"] == pytest.approx(0.9, abs=0.02)
    assert found["mae"] == found["mae_uncorrected"] == pytest.approx(np.abs(months - age).mean(), rel=1e-3)
    assert found["std"] == pytest.approx(found["rmse"], rel=0.05)
    assert found == calibration.measure(age, months, sigma)
    biased = calibration.measure(*drawn(400, slope=1.2))
    assert biased["mae"] < biased["mae_uncorrected"]
    # The interval covers 46 of the 50 images that it was fitted on, and a new one with a probability of 46 / 51.
    assert calibration.measure(*drawn(100))["coverage"] == pytest.approx(46 / 51, abs=0.01)


def test_too_few_images_are_refused():
    with pytest.raises(BoneAgeError, match="at least 100 images that the network was not trained on, but there are 99"):
        calibration.fit(*drawn(99))


def test_a_calibration_with_std_refuses_a_network_without_std():
    fitted = Calibration(1.0, 0.0, None, std_scale=1.0, quantile=2.0, images=100)
    with pytest.raises(BoneAgeError, match="predicts a standard deviation; this one does not"):
        fitted.apply(np.ones(2), None)


@pytest.mark.parametrize("knows_std", [True, False])
def test_a_calibration_round_trips_through_a_dict(knows_std):
    age, months, sigma = drawn(200)
    fitted = calibration.fit(age, months, sigma if knows_std else None)
    assert Calibration.from_dict(fitted.to_dict()) == fitted


def test_constant_estimates_can_be_calibrated():
    fitted = calibration.fit(np.linspace(50, 150, 100), np.full(100, 100.0), None)
    assert fitted.slope == 1.0
    assert np.isfinite(fitted.apply(np.array([100.0]), None).high).all()


def test_parts_are_calibrated_separately_with_a_limit_of_disagreement():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 220, 1000)
    parts = age[:, None] + rng.normal(0, [4.0, 12.0, 25.0], (1000, 3))
    parts[::7, 1] = np.nan
    fitted = calibration.fit(age, age + rng.normal(0, 4, 1000), None, parts)
    assert fitted == Calibration.from_dict(json.loads(json.dumps(fitted.to_dict())))
    published = fitted.apply_to_parts(parts)
    for part, column in zip(published, parts.T, strict=True):
        there = ~np.isnan(column)
        assert (np.isnan(part.months) == ~there).all()
        covered = (part.low[there] <= age[there]) & (age[there] <= part.high[there])
        assert covered.mean() == pytest.approx(0.9, abs=0.02)
    widths = [np.nanmean(part.high - part.low) for part in published]
    assert widths == sorted(widths)
    apart = calibration.disagreement(fitted.apply(age, None).months, published)
    assert fitted.apart is not None
    assert (apart > fitted.apart).mean() <= 0.02
    far = calibration.disagreement(fitted.apply(age, None).months, fitted.apply_to_parts(parts + 60))
    assert (far > fitted.apart).mean() > 0.9


def test_a_calibration_without_parts_stores_no_part_keys():
    fitted = Calibration(1.0, 0.0, None, std_scale=1.0, quantile=2.0, images=100)
    assert not {"parts", "apart"} & set(fitted.to_dict())
