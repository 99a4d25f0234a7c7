"""Calibration of a network's estimates on images that it was not trained on: bias, spread and 90 % interval."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from boneage_jax.errors import BoneAgeError

COVERAGE = 0.9  # share of the images whose reference age lies within the interval
MINIMUM = 100  # images: with fewer, the quantile is unreliable
REPEATS, SEED = 50, 0  # of the cross-fit
_KNOTS = tuple(range(0, 241, 12))  # months
_BANDWIDTH, _PRIOR = 12.0, 10.0  # months; weight of the mean over all ages, as a number of images

_APART = 0.99  # share of the images on which the disagreement of the parts counts as usual

Months = Float[np.ndarray, " n"]
Parts = Float[np.ndarray, "n R"]
"""Months of every part of the hand; NaN where a part is missing."""


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """The reported values of `n` estimates, in months."""

    months: Months
    std: Months
    low: Months
    high: Months


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Maps a network's estimate to the reported months, standard deviation and 90 % interval.

    The interval is split conformal (Lei et al., J Am Stat Assoc 2018; 113:1094-1111): the months plus and minus
    `quantile` times a spread. The spread is the network's own standard deviation if its head has one (for several
    networks, the mean over those heads), and otherwise the mean absolute error around that age.

    Attributes:
        slope: of the linear bias correction; 1 for none.
        intercept: of the linear bias correction, in months; 0 for none.
        spread: months at the ages of `_KNOTS`, interpolated linearly; None if the network predicts its own.
        std_scale: factor from the spread to the expected root mean square error.
        quantile: factor from the spread to half the width of the interval.
        images: number of images that it was fitted on.
        parts: the calibration of every part of the hand, for a network that reads them.
        apart: limit that `disagreement` does not exceed on 99 of 100 images; None without parts.
    """

    slope: float
    intercept: float
    spread: tuple[float, ...] | None
    std_scale: float
    quantile: float
    images: int
    parts: tuple["Calibration", ...] | None = None
    apart: float | None = None

    def apply(self, months: Months, std: Months | None) -> Calibrated:
        """Calibrates the estimates of a network; ages and intervals are clipped at 0 months."""
        corrected = np.maximum(self.slope * months.astype(np.float64) + self.intercept, 0)
        spread = _spread(self.spread, corrected, std)
        half = self.quantile * spread
        return Calibrated(corrected, self.std_scale * spread, np.maximum(corrected - half, 0), corrected + half)

    def apply_to_parts(self, parts: Parts) -> list[Calibrated]:
        """Calibrates the readings of every part of the hand, each [n]; NaN stays NaN.

        Raises:
            BoneAgeError: the calibration was fitted to another number of parts, or to none.
        """
        known = len(self.parts or ())
        if known != parts.shape[1]:
            raise BoneAgeError(f"the calibration has {known} parts of the hand, the network reads {parts.shape[1]}")
        return [part.apply(parts[:, place], None) for place, part in enumerate(self.parts or ())]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types; parts only where there are any."""
        own = {"spread": None if self.spread is None else list(self.spread)}
        fields: dict[str, Any] = {**dataclasses.asdict(self), **own}
        if self.parts is None:
            return {key: value for key, value in fields.items() if key not in ("parts", "apart")}
        return {**fields, "parts": [part.to_dict() for part in self.parts]}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_dict`.

        Raises:
            ValueError, TypeError, KeyError: fields that are missing, unknown, not numbers or not finite.
        """
        spread, parts = fields["spread"], fields.get("parts")
        read = {
            "spread": None if spread is None else tuple(spread),
            "parts": None if parts is None else tuple(cls.from_dict(part) for part in parts),
        }
        calibration = cls(**{**fields, **read})
        if spread is not None and len(spread) != len(_KNOTS):
            raise ValueError(f"the spread has {len(spread)} values, expected {len(_KNOTS)}")
        numbers = (
            calibration.slope,
            calibration.intercept,
            calibration.std_scale,
            calibration.quantile,
            *(spread or ()),
            *(() if calibration.apart is None else (calibration.apart,)),
        )
        if not all(map(math.isfinite, numbers)) or min(numbers[2:]) < 0:
            raise ValueError("its values are not finite, or measures of error are negative")
        return calibration


def disagreement(months: Months, parts: list[Calibrated]) -> Months:
    """Mean distance of the parts' estimates from that of the whole hand, in half widths of the parts' intervals.

    Args:
        months: estimates of the whole hands.
        parts: from `Calibration.apply_to_parts`.

    Returns:
        [n]; 0 where all parts are missing.
    """
    half = np.stack([np.maximum(part.high - part.low, 0.02) / 2 for part in parts])
    apart = np.abs(np.stack([part.months for part in parts]) - months) / half  # [R, n]
    there = ~np.isnan(apart)
    return np.where(there, apart, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1)


def balanced(hospitals: Sequence[str]) -> Months:
    """Weights of images [n] that give every hospital the same total: the hospital of future images is unknown."""
    counts = Counter(hospitals)
    return np.array([len(hospitals) / (len(counts) * counts[hospital]) for hospital in hospitals])


def fit(
    age: Months,
    months: Months,
    std: Months | None,
    parts: Parts | None = None,
    *,
    weight: Months | None = None,
) -> Calibration:
    """Fits to images that the network was not trained on; the bias is corrected only if that helps on held-out halves.

    Args:
        age: reference bone age.
        months: the network's estimates.
        std: the standard deviations that it predicts, if its head does so.
        parts: its estimates from every part of the hand, if it reads them.
        weight: weight of each image for the interval and the standard deviation; equal weights by default.

    Raises:
        BoneAgeError: fewer than `MINIMUM` images, or fewer that show one of the parts.
    """
    if len(age) < MINIMUM:
        raise BoneAgeError(
            f"calibrating the intervals needs at least {MINIMUM} images that the network was not trained on, but "
            f"there are {len(age)}; use a larger split, or export the weights with --no-calibration"
        )
    weight = np.ones(len(age)) if weight is None else weight
    plain, corrected = (_mean(_held_out(age, months, std, weight, correct=c), "mae") for c in (False, True))
    whole = _fit(age, months, std, weight, correct=corrected < plain)
    if parts is None:
        return whole
    there = ~np.isnan(parts)
    columns = zip(parts.T, there.T, strict=True)
    fitted = tuple(fit(age[seen], part[seen], None, weight=weight[seen]) for part, seen in columns)
    whole = dataclasses.replace(whole, parts=fitted)
    usual = disagreement(whole.apply(months, std).months, whole.apply_to_parts(parts))
    return dataclasses.replace(whole, apart=float(np.quantile(usual, _APART)))


def measure(age: Months, months: Months, std: Months | None, *, weight: Months | None = None) -> dict[str, Any]:
    """Evaluates `fit` on held-out images: means over random halves of the images, drawn `REPEATS` times.

    Returns:
        JSON types: the mean absolute error in months without and with the calibration, the share of reference ages
        within the interval, its mean width, and the root mean square of the error and of the reported standard
        deviation.
    """
    weight = np.ones(len(age)) if weight is None else weight
    plain = _held_out(age, months, std, weight, correct=False)
    chosen = _held_out(age, months, std, weight, correct=fit(age, months, std, weight=weight).slope != 1)
    figures = {key: _mean(chosen, key) for key in ("mae", "coverage", "width", "rmse", "std")}
    how = f"fitted on a random half, measured on the other; mean of {2 * REPEATS} halves, seed {SEED}"
    return {"images": len(age), "how": how, "mae_uncorrected": _mean(plain, "mae"), **figures}


def _held_out(
    age: Months, months: Months, std: Months | None, weight: Months, *, correct: bool
) -> list[dict[str, float]]:
    """Fits on each random half and evaluates on the other, `REPEATS` times."""
    rng = np.random.default_rng(SEED)
    found = []
    for _ in range(REPEATS):
        order = rng.permutation(len(age))
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for here, there in (halves, halves[::-1]):
            known = None if std is None else std[here]
            fitted = _fit(age[here], months[here], known, weight[here], correct=correct)
            found.append(_judge(age[there], fitted.apply(months[there], None if std is None else std[there])))
    return found


def _judge(age: Months, published: Calibrated) -> dict[str, float]:
    error = published.months - age
    return {
        "mae": float(np.abs(error).mean()),
        "coverage": float(((published.low <= age) & (age <= published.high)).mean()),
        "width": float((published.high - published.low).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "std": float(np.sqrt((published.std**2).mean())),
    }


def _fit(age: Months, months: Months, std: Months | None, weight: Months, *, correct: bool) -> Calibration:
    age, months = age.astype(np.float64), months.astype(np.float64)
    slope, intercept = 1.0, 0.0
    if correct and np.ptp(months) > 0:
        slope, intercept = (float(x) for x in np.polyfit(months, age, 1))
    corrected = np.maximum(slope * months + intercept, 0)
    absolute = np.abs(corrected - age)
    curve = _usual_error(corrected, absolute) if std is None else None
    spread = _spread(curve, corrected, std)
    return Calibration(
        slope=slope,
        intercept=intercept,
        spread=curve,
        std_scale=float(np.sqrt((weight * absolute**2).sum() / (weight * spread**2).sum())),
        quantile=_conformal_quantile(absolute / spread, weight),
        images=len(age),
    )


def _conformal_quantile(scores: Months, weight: Months) -> float:
    """The bound that a new score stays below with probability `COVERAGE`, whatever the distribution of the scores.

    The new score has the mean weight and counts as larger than all others (Tibshirani et al., NeurIPS 2019; here the
    weights express how often images like these will occur).
    """
    order = np.argsort(scores)
    below = np.cumsum(weight[order]) / weight.mean()
    rank = int(np.searchsorted(below, (len(scores) + 1) * COVERAGE * (1 - 1e-12)))
    return float(scores[order[min(rank, len(scores) - 1)]])


def _usual_error(months: Months, absolute: Months) -> tuple[float, ...]:
    """Mean absolute error around each knot, shrunk towards the mean over all ages where images are few."""
    weight = np.exp(-0.5 * ((np.array(_KNOTS)[:, None] - months[None]) / _BANDWIDTH) ** 2)  # [knots, n]
    near = (weight @ absolute + _PRIOR * absolute.mean()) / (weight.sum(axis=1) + _PRIOR)
    return tuple(float(x) for x in near)


def _spread(curve: tuple[float, ...] | None, months: Months, std: Months | None) -> Months:
    """The scale by which errors are divided: at least a hundredth of a month, to avoid a division by zero."""
    if curve is not None:
        spread = np.interp(months, _KNOTS, curve)
    elif std is not None:
        spread = std.astype(np.float64)
    else:
        raise BoneAgeError("this calibration is for a network that predicts a standard deviation; this one does not")
    return np.maximum(spread, 0.01)


def _mean(found: list[dict[str, float]], key: str) -> float:
    return float(np.mean([one[key] for one in found]))
