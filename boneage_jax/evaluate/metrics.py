"""The field's standard measures of agreement between predicted and reference bone age, in months, with intervals.

An error is predicted minus reference age: positive means that the hand was read as too old.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from boneage_jax.errors import BoneAgeError

# Elements per block of resamples: about 8 MiB for each float64 temporary, whatever the number of images.
_BLOCK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Interval:
    """A measured value and the bounds of its 95 % bootstrap interval; nan where undefined."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Metrics:
    """Agreement over `count` images; months, except shares and coefficients.

    Undefined values are nan: `r2` and `concordance` where all ages are equal; the limits of agreement and
    every interval for a single image.
    """

    count: int
    mae: Interval
    median_absolute_error: Interval
    mse: Interval  # months squared
    rmse: Interval
    r2: Interval  # 1 - residual / total sum of squares
    bias: Interval  # mean signed error
    within_6_months: Interval  # share, 0 to 1
    within_12_months: Interval
    within_24_months: Interval
    lower_limit: Interval  # Bland-Altman limits of agreement: bias -+ 1.96 sd of the errors
    upper_limit: Interval
    concordance: Interval  # Lin's concordance correlation coefficient
    loss: Interval | None = None  # mean training loss; None where it was not measured
    coverage: Interval | None = None  # share of ages within the predictions' own intervals; None without intervals

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON: `{"count": n, "mae": {"value": v, "interval": [low, high]}, ...}`, nan as None."""
        result: dict[str, Any] = {"count": self.count}
        for field in dataclasses.fields(self)[1:]:
            interval = getattr(self, field.name)
            if interval is not None:
                value, low, high = (None if math.isnan(x) else x for x in dataclasses.astuple(interval))
                result[field.name] = {"value": value, "interval": [low, high]}
        return result


def summarise(
    age: Float[np.ndarray, " n"],
    predicted: Float[np.ndarray, " n"],
    *,
    loss: Float[np.ndarray, " n"] | None = None,
    covered: Bool[np.ndarray, " n"] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Metrics:
    """All metrics of `n` images, each with a 95 % percentile bootstrap interval over images.

    Args:
        age: reference bone age in months.
        predicted: predicted bone age in months.
        loss: the training loss of each image, if it is to be reported too.
        covered: whether the age lies within the predicted interval, if there is one.
        resamples: bootstrap resamples of the images, drawn with replacement.
        seed: of the resampling; the same seed gives the same intervals.

    Raises:
        BoneAgeError: if there is no image.
    """
    count = len(age)
    if count == 0:
        raise BoneAgeError("there is no image to evaluate: a split with at least one image was expected")
    given = {"age": age, "predicted": predicted, "loss": loss, "covered": covered}
    columns = {name: column.astype(np.float64) for name, column in given.items() if column is not None}
    values = _statistics(**{name: column[None] for name, column in columns.items()})
    draws: list[dict[str, np.ndarray]] = []
    if count > 1:
        rng = np.random.default_rng(seed)
        block = max(1, _BLOCK // count)
        for start in range(0, resamples, block):
            chosen = rng.integers(0, count, (min(block, resamples - start), count))
            draws.append(_statistics(**{name: column[chosen] for name, column in columns.items()}))
    intervals = {
        name: Interval(float(value[0]), *_bounds([draw[name] for draw in draws])) for name, value in values.items()
    }
    return Metrics(count=count, **intervals)


def _statistics(
    age: np.ndarray, predicted: np.ndarray, loss: np.ndarray | None = None, covered: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Every metric of each row of [resamples, n]: the data and the resamples go through the same formulas."""
    error = predicted - age
    absolute = np.abs(error)
    count = age.shape[-1]
    mse = np.mean(np.square(error), axis=-1)
    bias = np.mean(error, axis=-1)
    # When all ages are equal, their variance may be rounding noise instead of zero: compare the ages themselves.
    varied = np.max(age, axis=-1) > np.min(age, axis=-1)
    age_variance = np.var(age, axis=-1)
    # var(predicted - age) = var(predicted) + var(age) - 2 cov gives 2 cov without another pass.
    predicted_variance, error_variance = np.var(predicted, axis=-1), np.var(error, axis=-1)
    twice_covariance = predicted_variance + age_variance - error_variance
    margin = 1.96 * np.sqrt(error_variance * count / (count - 1)) if count > 1 else np.full_like(bias, np.nan)
    result = {
        "mae": np.mean(absolute, axis=-1),
        "median_absolute_error": np.median(absolute, axis=-1),
        "mse": mse,
        "rmse": np.sqrt(mse),
        "r2": 1 - _ratio(mse, age_variance, varied),
        "bias": bias,
        **{f"within_{months}_months": np.mean(absolute <= months, axis=-1) for months in (6, 12, 24)},
        "lower_limit": bias - margin,
        "upper_limit": bias + margin,
        "concordance": _ratio(twice_covariance, predicted_variance + age_variance + np.square(bias), varied),
    }
    if loss is not None:
        result["loss"] = np.mean(loss, axis=-1)
    if covered is not None:
        result["coverage"] = np.mean(covered, axis=-1)
    return result


def _ratio(numerator: np.ndarray, denominator: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """`numerator / denominator` where defined, nan elsewhere."""
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _bounds(draws: list[np.ndarray]) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile of the resamples in which the metric is defined."""
    values = np.concatenate(draws) if draws else np.empty(0)
    values = values[np.isfinite(values)]
    if not len(values):
        return math.nan, math.nan
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)
